"""Options of a build that concern tokens."""

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from prefdata.check.catalog import Severity, catalog

LengthPolicy = Literal["reject", "cut_prompt_start", "cut_completion_end"]
# Findings that no config can allow: such a pair cannot be trained on.
FIXED_CODES = frozenset({"PD210", "PD702", "PD706", "PD710", "PD711", "PD712", "PD718"})

ControlTokens = Literal["encode", "reject", "allow"]


class TokenOptions(BaseModel):
    """Options that, together with the tokenizer, decide the ids of a pair."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    max_length: PositiveInt | None = None
    length_policy: LengthPolicy = "reject"
    control_tokens: ControlTokens = "encode"
    chat_template_kwargs: dict[str, Any] = {}
    template_date: date | None = None
    severity: dict[str, Severity] = {}

    def refuses(self, code: str) -> bool:
        """Return whether a row with this finding is rejected."""
        return self.severity.get(code, catalog()[code].severity) == "E"

    def reports(self, code: str) -> bool:
        """Return whether a pair with this finding is counted."""
        return self.severity.get(code) != "off"
