"""Settings of checks, as a config may set them."""

from math import isfinite
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, field_validator

from prefdata.check.rows.own import require_own

Plain = bool | int | float | str


def _plain(value: Any) -> Any:
    """Raise ValueError for what is not a value of a setting, in one line for all of its types."""
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, Plain) or (isinstance(one, float) and not isfinite(one)):
            raise ValueError("it should be a text, a finite number, true, false or a list of these")
    return value


Setting = Annotated[Plain | list[Plain], BeforeValidator(_plain)]
"""Value of a setting of your own check."""


class CheckLimits(BaseModel):
    """Thresholds for texts that are too long, too similar, too frequent or too one-sided."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    min_similarity: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Lowest similarity of nearly equal sides (PD302): 2 × common characters / all characters."""
    score_range: Annotated[tuple[float, float] | None, Field(strict=False)] = None
    """Lowest and highest valid score (PD305); absent: any."""
    min_margin: float | None = None
    """Smallest difference of the scores of a pair (PD308); absent: any."""
    max_chars: PositiveInt = 100_000
    """Maximum number of characters of a prompt or side (PD310)."""
    max_length_ratio: Annotated[float, Field(gt=1)] = 20.0
    """Maximum ratio of the longer side's characters to the shorter side's (PD310)."""
    max_pairs_per_prompt: PositiveInt = 24
    """Maximum number of pairs of one prompt (PD405); 7 ranked completions give 21."""
    max_prompts_per_completion: PositiveInt = 10
    """Maximum number of different prompts that one completion may answer (PD407)."""
    max_bias: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Maximum distance from one half of the share of pairs whose longer side is chosen (PD601), or
    whose side with more of a format is (PD604)."""
    own: Annotated[dict[str, dict[str, Setting]], Field(exclude_if=lambda own: not own)] = {}
    """Checks of your own, each with its settings: `{my_checks:no_links: {most: 2}}`. A name is
    `module:function` or an entry point of the group `prefdata.checks`, and the code in reports and
    in `severity`; W by default."""

    @field_validator("own")
    @classmethod
    def _can_be_called(cls, value: dict[str, dict[str, Setting]]) -> dict[str, dict[str, Setting]]:
        for name, settings in value.items():
            require_own(name, settings)
        return value
