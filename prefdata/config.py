"""Config of a build: one frozen model, read from YAML, strict about every name."""

import re
from collections.abc import Sequence
from datetime import date
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from prefdata.check.catalog import is_of_tokens
from prefdata.check.limits import CheckLimits
from prefdata.dedup.near import NearDuplicates
from prefdata.engine import EngineName
from prefdata.errors import UsageError
from prefdata.read.adapt.named import Columns
from prefdata.read.limits import Limits, Pairing
from prefdata.read.texts import TextMode
from prefdata.records.sources import Inputs, Source, list_sources
from prefdata.records.split_names import ROWS, TRAIN, Leaks, require_split_names
from prefdata.settings import (
    StrictModel,
    describe_key,
    load_model,
    nearest_key,
    read_settings,
    settings_table,
    settle_words,
)
from prefdata.tokens.options import FIXED_CODES, ControlTokens, LengthPolicy, TokenOptions

_FILE_URL = re.compile(r"file:/+(?P<drive>[A-Za-z]:/)?(?P<rest>.*)", re.IGNORECASE)


def path_of_file_url(path: Path) -> Path:
    """Return the path that a file URL names; any other path as it is.

    >>> path_of_file_url(Path("file:///big/out")).as_posix(), path_of_file_url(Path("a")).as_posix()
    ('/big/out', 'a')
    """
    found = _FILE_URL.fullmatch(path.as_posix())  # pathlib writes file:///big as file:/big
    return Path(found["drive"] or "/", found["rest"]) if found else path


AnyPath = Annotated[Path, Field(strict=False), AfterValidator(path_of_file_url)]
if TYPE_CHECKING:
    AnyInputs = Inputs | str | Source
else:
    AnyInputs = Annotated[
        list[Source],
        BeforeValidator(
            list_sources,
            json_schema_input_type=str | list[str | Source] | dict[str, str | list[str]],
        ),
    ]
    """Inputs as the user writes them; always a list of sources once they are read."""


def _as_list(value: Any) -> Any:
    """Return a single name as a list of one, and paths as strings."""
    value = [value] if isinstance(value, str | Path) else value
    if isinstance(value, list | tuple):
        return [str(one) if isinstance(one, Path) else one for one in value]
    return value


Names = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]

DEFAULT_FRACTION = 0.05
# Keys that set only where and how fast: two builds that differ only here have the same bytes.
EXECUTION = frozenset({"out", "workers", "engine"})


class BuildConfig(StrictModel):
    """Config of a build: inputs, checks, splits, tokenizer and output directory."""

    inputs: AnyInputs
    """Files, globs, directories, URLs or sets of the Hub (docs/inputs.md). In a list, splits are
    found by the names of files and directories and by a `split` column. Or lists by split: `{train:
    […], test: […]}`; files under `auto` are split by their names, those under `rows` by their
    `split` column. Or sources with keys of their own: `[{path: a.jsonl, weight: 2}, …]`."""
    tokenizer: str
    """A directory with a tokenizer, or the name of a model on the Hub."""
    out: AnyPath
    """The directory that the build is written to, or a URL, such as s3://bucket/out, to which it
    is copied when it is done."""
    revision: str | None = None
    """Branch, tag or commit of a tokenizer on the Hub."""
    layout: str | None = None
    """A layout's name (`prefdata layouts`) or the path of your own; absent: detected."""
    text: TextMode = "auto"
    """Plain text (`prompt`, `chosen`, `rejected` as strings) as one turn each of a `chat`, or
    `verbatim`; `auto` decides by the characters where prompt and completion meet, or is an
    error."""
    columns: Columns = Columns()
    """Names of the columns of prompt, chosen and rejected, if they differ: `{prompt: task}`."""
    pairing: Pairing = Pairing()
    """Pairing strategy: which completions of one prompt become pairs."""
    limits: Limits = Limits()
    """Bounds against damaged or hostile inputs."""
    exclude: Names = []
    """Files with ids of pairs to exclude, such as `suspects.jsonl` of dpo-score (PD409)."""
    evaluations: Names = []
    """Files of evaluation sets, or globs; rows that overlap their texts are refused (PD503)."""
    checks: CheckLimits = CheckLimits()
    """Thresholds of the checks."""
    severity: dict[str, Literal["E", "W", "I", "off"]] = {}
    """Changes to checks by code: E refuses the row, W reports it, I counts it, off skips it."""
    near_duplicates: NearDuplicates = NearDuplicates()
    """Options of near-duplicates: which texts count as the same except for a few words (PD402)."""
    resplit: bool = False
    """Mix all inputs and draw splits anew, without regard to their own splits."""
    leaks: Leaks = "drop_from_train"
    """Pairs and prompts that two given splits share (PD505, PD501, PD502): `drop_from_train` drops
    them from the split of lower precedence, `refuse` builds nothing, `report` keeps them.
    Precedence, from low to high: train, splits with other names, validation, eval, test."""
    test_fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the prompts that is drawn for the test split, near-duplicates together; 0: none.
    Absent: 0.05 if the inputs are one set, and none if they came in splits. If they did, a test
    split is drawn from train only if this is set and none of them is test or eval."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Random seed of the split, and of the pairs that a source's weight draws."""
    max_length: PositiveInt | None = None
    """Maximum number of tokens in prompt and completion together; absent: no limit."""
    length_policy: LengthPolicy = "reject"
    """Policy for longer pairs: `reject` (PD710), `cut_prompt_start` or `cut_completion_end`."""
    control_tokens: ControlTokens = "encode"
    """Policy if a row's text contains a control token of the tokenizer: `encode` it as plain text
    (PD210 reports it), `reject` the row, or `allow` it as a control token."""
    chat_template: AnyPath | None = None
    """A Jinja file to use instead of the tokenizer's own chat template. A model that is trained on
    the build needs it too, as chat_template.jinja in its directory."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables for the template, such as `enable_thinking: false`."""
    template_date: Annotated[date, Field(strict=False)] | None = None
    """Date returned by `strftime_now` in chat templates."""
    shard_rows: PositiveInt = 65_536
    """Maximum number of pairs in a shard, unless one prompt has more."""
    engine: EngineName = "local"
    """Engine of the stages: this machine, or a Ray cluster with shared directories."""
    workers: PositiveInt | None = None
    """Number of processes; absent: chosen by the size of the inputs and the cores. Output is
    byte-identical."""

    @model_validator(mode="before")
    @classmethod
    def _words(cls, values: Any) -> Any:
        return settle_words(values, cls)

    @field_validator("inputs")
    @classmethod
    def _splits_have_names(cls, value: list[Source]) -> list[Source]:
        require_split_names(list(dict.fromkeys(one.given for one in value if one.given)))
        for one in value:
            if one.weight != 1 and one.given not in (None, TRAIN, ROWS):
                message = (
                    f"weight {one.weight:g} of {one.path} has no effect: it repeats pairs of train,"
                    f" and the source is given as {one.given}"
                )
                raise ValueError(message)
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
        """Return the keys that decide the bytes of a build, as JSON."""
        return self.model_dump(mode="json", exclude=set(EXECUTION))

    @property
    def fraction(self) -> float:
        """Return the share of the test split, for inputs that are one set."""
        return DEFAULT_FRACTION if self.test_fraction is None else self.test_fraction

    @property
    def row_severity(self) -> dict[str, str]:
        """Return the severity changes of checks of rows and of the dataset."""
        changes = {c: level for c, level in self.severity.items() if not is_of_tokens(c)}
        return {**changes, "PD210": "E" if self.control_tokens == "reject" else "W"}

    @property
    def near(self) -> NearDuplicates | None:
        """Return the options of near-duplicates; None if PD402 is off."""
        return None if self.severity.get("PD402") == "off" else self.near_duplicates

    @property
    def token_options(self) -> TokenOptions:
        own = {name: getattr(self, name) for name in TokenOptions.model_fields}
        severity = {c: level for c, level in self.severity.items() if is_of_tokens(c)}
        return TokenOptions(**{**own, "severity": severity})


def checks_with(own: Sequence[str]) -> CheckLimits:
    """Return the settings of checks for the command line, which names checks of your own."""
    values: dict[str, Any] = {"own": {name: {} for name in own}}
    return load_model(CheckLimits, values, partial(_config_error, "command line"))


def inputs_by_split(files: Sequence[str], given: Sequence[str]) -> list[Source]:
    """Return the command line's inputs: files, and `SPLIT=FILE` for those given a split."""
    if not files and not given:
        raise UsageError(
            "C103", "command line", "no file is named", "name one, or --split test=FILE"
        )
    found = [Source(path=file) for file in files]
    for one in given:
        split, _, file = one.partition("=")
        if not file:
            raise UsageError("C102", f"--split {one}", "is not SPLIT=FILE", "write test=FILE")
        found.append(Source(path=file, split=split))
    return found


def _with_given(inputs: Any, given: Sequence[str]) -> Any:
    """Return a config's inputs plus those that the command line gives a split."""
    more = inputs_by_split((), given)
    try:
        return [*(list_sources(inputs) if inputs else []), *more]
    except ValueError:
        return inputs  # the model refuses them


def read_config(
    path: Path, changes: dict[str, Any] | None = None, given: Sequence[str] = ()
) -> BuildConfig:
    """Return a config from a YAML file, with the command line's `changes`.

    `given` adds inputs as `SPLIT=FILE`.
    """
    content = read_settings(path, partial(UsageError, "C100", str(path)))
    if given:
        content = {**content, "inputs": _with_given(content.get("inputs"), given)}
    return make_config({**content, **(changes or {})}, place=str(path))


def make_config(values: dict[str, Any], *, place: str) -> BuildConfig:
    """Return a config from plain values. Raises a coded error that names the first wrong key."""
    return load_model(BuildConfig, values, partial(_config_error, place))


def explain_key(key: str) -> list[str]:
    """Return the lines on one key of a config; raise C101 with the nearest one if there is none."""
    try:
        return list(describe_key(BuildConfig, key))
    except KeyError as error:
        remedy = f"{error.args[0]} (keys of a run: docs/config-train.md)"
        raise UsageError("C101", key, "no such key of a build's config", remedy) from error


def list_keys(model: type[BaseModel] = BuildConfig) -> list[str]:
    """Return each key of a config with the first sentence on it."""
    found = []
    for row in list(settings_table(model))[2:]:
        key, _, text = (cell.strip() for cell in row.strip("|").split(" | "))
        found.append(f"{key.strip('`'):36} {text.partition('. ')[0].rstrip('.')}")
    return found


def _config_error(place: str, where: str, fault: ErrorDetails) -> UsageError:
    where = where or "config"
    if fault["type"] == "extra_forbidden":
        remedy = nearest_key(BuildConfig, fault["loc"])
        return UsageError("C101", place, f"{where}: no such key", remedy)
    if fault["type"] == "missing":
        remedy = f"add `{where}: …` to the config, or --{where}"
        return UsageError("C103", place, f"{where} is missing", remedy)
    shown = repr(fault["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    reason = fault["msg"].removeprefix("Value error, ")
    remedy = f"it is {shown} now; see schemas/prefdata-config.json"
    if not reason[1:2].isupper():  # a code keeps its capitals
        reason = reason[:1].lower() + reason[1:]
    return UsageError("C102", place, f"{where}: {reason}", remedy)


def _require_plain(value: Any) -> None:
    """Raise ValueError for values that JSON cannot represent: sets, bytes, infinity."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("its keys, at every level, must be strings")
        value = list(value.values())
    if isinstance(value, list):
        for child in value:
            _require_plain(child)
    elif isinstance(value, set | bytes) or (isinstance(value, float) and not isfinite(value)):
        message = f"{type(value).__name__} {value!r:.40} cannot be written as JSON"
        raise ValueError(message)
