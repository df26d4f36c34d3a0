"""What a build is asked to do: one frozen model, read from YAML, strict about every name."""

import difflib
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
)

from prefdata.check.codes.tokens import TOKEN_CHECKS
from prefdata.check.limits import CheckLimits
from prefdata.dedup.near import NearDuplicates
from prefdata.engine import EngineName
from prefdata.errors import UsageError
from prefdata.read.adapt.named import Columns
from prefdata.read.limits import Limits, Pairing
from prefdata.read.texts import TextMode
from prefdata.records.split_names import AUTO, Leaks, SplitOptions, require_split_names
from prefdata.settings import read_settings, settle_words
from prefdata.tokens.options import FIXED_CODES, ControlTokens, LengthPolicy, TokenOptions

AnyPath = Annotated[Path, Field(strict=False)]

DEFAULT_FRACTION = 0.05
# What says where and how fast, never what: two builds that differ only here have the same bytes.
EXECUTION = frozenset({"out", "workers", "engine"})


class BuildConfig(BaseModel):
    """A build: inputs, what becomes of their rows, the tokenizer, and where it all goes."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )

    inputs: list[str] | dict[str, list[str]]
    """Files or globs: JSON Lines, JSON arrays, Parquet, Arrow, CSV; .gz and .zst too. A list, whose
    splits are found by the names of files and folders and by a `split` column; or lists by split:
    `{train: […], test: […]}`, where `auto` has files that tell it themselves, and `rows` those
    whose rows do."""
    tokenizer: str
    """A folder with a tokenizer, or the name of a model on the Hub."""
    out: AnyPath
    """The folder that the build is written to."""
    revision: str | None = None
    """Branch, tag or commit of a tokenizer on the Hub."""
    layout: str | None = None
    """A layout's name (`prefdata layouts`) or the path of your own; absent: detected."""
    text: TextMode = "auto"
    """Plain text (`prompt`, `chosen`, `rejected` as strings) as one turn each of a `chat`, or
    `verbatim`; `auto` decides by what stands where prompt and completion meet, or is an error."""
    columns: Columns = Columns()
    """Columns of prompt, chosen and rejected that have other names: `{prompt: task}`."""
    pairing: Pairing = Pairing()
    """How the completions of one prompt become pairs."""
    limits: Limits = Limits()
    """Bounds against damaged or hostile inputs."""
    exclude: list[str] = []
    """Files with ids of pairs to leave out, such as `suspects.jsonl` of dpo-score (PD409)."""
    evaluations: list[str] = []
    """Files of evaluation sets, or globs; rows that overlap their texts are refused (PD503)."""
    checks: CheckLimits = CheckLimits()
    """Thresholds of the checks."""
    severity: dict[str, Literal["E", "W", "I", "off"]] = {}
    """Changes to checks by code: E refuses the row, W reports it, I counts it, off skips it."""
    near_duplicates: NearDuplicates = NearDuplicates()
    """Which texts count as the same but for some words (PD402)."""
    resplit: bool = False
    """Mix all inputs and draw splits anew, whatever splits they are."""
    leaks: Leaks = "drop_from_train"
    """Pairs and prompts that two given splits share (PD505, PD501, PD502): `drop_from_train` drops
    them from the split that gives way, `refuse` builds nothing, `report` keeps them. Train gives
    way to all others, then splits with names of their own, validation, eval; test to none."""
    test_fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the prompts that is drawn for the test split, near-duplicates together; 0: none.
    Absent: 0.05 if the inputs are one set, and none if they came in splits. If they did, a test
    split is drawn from train only if this is set and none of them is test or eval."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the split."""
    max_length: PositiveInt | None = None
    """Most tokens of prompt and completion together; absent: no limit."""
    length_policy: LengthPolicy = "reject"
    """For longer pairs: `reject` them (PD710), `cut_prompt_start` or `cut_completion_end`."""
    control_tokens: ControlTokens = "encode"
    """Where a row spells a control token of the tokenizer: `encode` it as the plain text that it
    is (PD210 tells), `reject` the row, or `allow` it to steer the model."""
    chat_template: AnyPath | None = None
    """A Jinja file to use instead of the tokenizer's own chat template."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables for the template, such as `enable_thinking: false`."""
    template_date: Annotated[date, Field(strict=False)] | None = None
    """What templates that write today's date take for today."""
    shard_rows: PositiveInt = 65_536
    """Pairs in a shard, at most, unless one prompt has more."""
    engine: EngineName = "local"
    """Where the stages run: on this machine, or on a Ray cluster that shares the folders."""
    workers: PositiveInt | None = None
    """Processes; absent: chosen by the size of the inputs and the cores. Changes no byte."""

    @field_validator("inputs", mode="before")
    @classmethod
    def _names_files(cls, value: Any) -> Any:
        """A single name stands for a list of one."""
        if isinstance(value, str):
            return [value]
        if isinstance(value, dict):
            value = {k: [v] if isinstance(v, str) else v for k, v in value.items()}
        lists = value.values() if isinstance(value, dict) else [value]
        if not all(isinstance(files, list) and files for files in lists) or not value:
            raise ValueError("give at least one file, as a list or as lists by split")
        if not all(isinstance(file, str) for files in lists for file in files):
            raise ValueError("each file is a text")
        return value

    @field_validator("inputs")
    @classmethod
    def _splits_have_names(cls, value: Any) -> Any:
        names = list(value) if isinstance(value, dict) else []
        require_split_names(names)
        return value

    @field_validator("chat_template_kwargs")
    @classmethod
    def _has_no_own_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(value.keys() & {"messages", "tools", "documents", "add_generation_prompt"})
        if taken:
            message = f"{taken[0]!r} is set by the build itself"
            raise ValueError(message)
        _require_plain(value)
        return value

    @field_validator("severity")
    @classmethod
    def _can_be_lowered(cls, value: dict[str, str]) -> dict[str, str]:
        if "PD210" in value:
            raise ValueError("PD210 is set by control_tokens: encode, reject or allow")
        for code, level in value.items():
            if code in FIXED_CODES and level != "E":
                message = f"{code} cannot be lowered: such a pair cannot be trained on"
                raise ValueError(message)
        return value

    @property
    def identity(self) -> dict[str, Any]:
        """The part of the config that decides bytes, as JSON."""
        return self.model_dump(mode="json", exclude=set(EXECUTION))

    @property
    def fraction(self) -> float:
        """The share of a test split that is drawn from inputs that are one set."""
        return DEFAULT_FRACTION if self.test_fraction is None else self.test_fraction

    def split_options(self, given: Mapping[str, str]) -> SplitOptions:
        return SplitOptions(given, self.resplit, self.leaks)

    @property
    def row_severity(self) -> dict[str, str]:
        """Changes to checks of rows and sets."""
        changes = {c: level for c, level in self.severity.items() if c not in TOKEN_CHECKS}
        return {**changes, "PD210": "E" if self.control_tokens == "reject" else "W"}

    @property
    def near(self) -> NearDuplicates | None:
        """What of near-duplicates is looked for, if anything."""
        return None if self.severity.get("PD402") == "off" else self.near_duplicates

    @property
    def token_options(self) -> TokenOptions:
        return TokenOptions(
            max_length=self.max_length,
            length_policy=self.length_policy,
            control_tokens=self.control_tokens,
            chat_template_kwargs=self.chat_template_kwargs,
            template_date=self.template_date,
            severity={c: level for c, level in self.severity.items() if c in TOKEN_CHECKS},
        )


def inputs_by_split(files: Sequence[str], given: Sequence[str]) -> list[str] | dict[str, list[str]]:
    """Inputs as the command line names them: files, and `SPLIT=FILE` for those given a split."""
    if not files and not given:
        raise UsageError(
            "C103", "command line", "no file is named", "name one, or --split test=FILE"
        )
    if not given:
        return list(files)
    found: dict[str, list[str]] = {AUTO: list(files)} if files else {}
    for one in given:
        split, _, file = one.partition("=")
        if not file:
            raise UsageError("C102", f"--split {one}", "is not SPLIT=FILE", "write test=FILE")
        found.setdefault(split, []).append(file)
    return found


def _with_given(inputs: Any, given: Sequence[str]) -> Any:
    """Return a config's inputs and those that the command line gives a split."""
    more = inputs_by_split((), given)
    if inputs is None or not isinstance(more, dict):
        return more
    found = dict(inputs) if isinstance(inputs, dict) else {AUTO: inputs}
    found = {split: [files] if isinstance(files, str) else files for split, files in found.items()}
    return found | {split: [*found.get(split, []), *files] for split, files in more.items()}


def read_config(
    path: Path, changes: dict[str, Any] | None = None, given: Sequence[str] = ()
) -> BuildConfig:
    """Return a config from a YAML file, with what the command line changes.

    `given` adds inputs as `SPLIT=FILE`.
    """
    content = read_settings(path, partial(UsageError, "C100", str(path)))
    if given:
        content = {**content, "inputs": _with_given(content.get("inputs"), given)}
    return make_config({**content, **(changes or {})}, place=str(path))


def make_config(values: dict[str, Any], *, place: str) -> BuildConfig:
    """A config from plain values; a coded error names the first key that is wrong."""
    try:
        return BuildConfig.model_validate(settle_words(values, BuildConfig))
    except ValidationError as error:
        raise config_error(error, place) from error


def _require_plain(value: Any) -> None:
    """Refuse what the manifest could not state: its JSON knows no set, no bytes, no infinity."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("its keys, at every level, are texts")
        value = list(value.values())
    if isinstance(value, list):
        for child in value:
            _require_plain(child)
    elif isinstance(value, set | bytes) or (isinstance(value, float) and not isfinite(value)):
        message = f"{type(value).__name__} {value!r:.40} is nothing that JSON knows"
        raise ValueError(message)


def config_error(error: ValidationError, place: str) -> UsageError:
    """The first fault of a config as one line; a wrong name outranks a missing one."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    where = ".".join(str(part) for part in fault["loc"]) or "config"
    if fault["type"] == "extra_forbidden":
        return UsageError("C101", place, f"{where}: no such key", _nearest_key(fault["loc"]))
    if fault["type"] == "missing":
        return UsageError(
            "C103", place, f"{where} is missing", f"add `{where}: …` to the config, or --{where}"
        )
    shown = repr(fault["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    reason = fault["msg"].removeprefix("Value error, ")
    remedy = f"it is {shown} now; see schemas/prefdata-config.json"
    return UsageError("C102", place, f"{where}: {reason[0].lower()}{reason[1:]}", remedy)


def _nearest_key(location: tuple[int | str, ...]) -> str:
    owners: dict[str, type[BaseModel]] = {
        "pairing": Pairing,
        "limits": Limits,
        "near_duplicates": NearDuplicates,
        "checks": CheckLimits,
    }
    owner = owners.get(str(location[0]), BuildConfig) if len(location) > 1 else BuildConfig
    known = list(owner.model_fields)
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
