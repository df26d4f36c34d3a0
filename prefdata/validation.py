"""The same road as a build's, as far as the report: nothing is written."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import NamedTuple

from prefdata.account import make_report
from prefdata.check import CheckLimits, RowChecks
from prefdata.dedup.near import NearDuplicates
from prefdata.engine.local import Workers, choose_workers
from prefdata.findings import EXAMPLES
from prefdata.progress import Progress, Silent
from prefdata.read import (
    Columns,
    InputFile,
    Limits,
    Pairing,
    TextMode,
    TextRule,
    expand_inputs,
    load_layout,
)
from prefdata.report.model import Report
from prefdata.report.numbers import severity_changes
from prefdata.split import Inputs, Leaks, SplitOptions, expand_splits, splits_of_files
from prefdata.store.ownership import Read
from prefdata.store.staging import Staging
from prefdata.survey import Survey, SurveyOptions, survey
from prefdata.tally import NOTHING_MADE
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.preview import text_rule
from prefdata.tokens.target import load_target

_NO_CHANGES: Mapping[str, str] = MappingProxyType({})


class ValidateOptions(NamedTuple):
    """How inputs are read and checked; the fields are those of a build's config."""

    layout: str | None = None
    columns: Columns = Columns()
    """Columns of prompt, chosen and rejected that have other names."""
    tokenizer: str | None = None
    """Its control tokens (PD210) and its chat template are used."""
    text: TextMode = "auto"
    pairing: Pairing = Pairing()
    limits: Limits = Limits()
    severity: Mapping[str, str] = _NO_CHANGES
    evaluations: Sequence[str] = ()
    checks: CheckLimits = CheckLimits()
    workers: int | None = None
    examples: int = EXAMPLES
    """How many places of each code the report names."""
    near: NearDuplicates | None = None
    """What near-duplicates are looked for (PD402); they take a temporary folder meanwhile. Those
    that two splits share (PD502) are looked for in any case."""
    resplit: bool = False
    leaks: Leaks = "drop_from_train"


def reads_of(inputs: Inputs, options: ValidateOptions) -> list[Read]:
    """Return everything on disk that a validation reads."""
    files = [*expand_splits(inputs)[0], *expand_inputs(options.evaluations)]
    others = {"the tokenizer": options.tokenizer, "the layout": options.layout}
    return [Read("an input", file.path) for file in files] + [
        Read(role, Path(name)) for role, name in others.items() if name and os.path.lexists(name)
    ]


def validate(
    inputs: Inputs,
    options: ValidateOptions = ValidateOptions(),  # noqa: B008 - immutable
    *,
    progress: Progress | None = None,
) -> Report:
    """Read and check files, and report what a build would keep before it tokenizes."""
    files, given = expand_splits(inputs)
    splits = SplitOptions(given, options.resplit, options.leaks)
    target = load_target(options.tokenizer) if options.tokenizer else None
    control_tokens = target.control_tokens if target else ()
    how = SurveyOptions(
        load_layout(options.layout) if options.layout else None,
        options.pairing,
        options.limits,
        RowChecks(
            dict(options.severity),  # a plain one, which goes to other processes
            control_tokens,
            options.checks,
            tuple(options.evaluations),
            options.examples,
        ),
        near=options.near,
        text=text_rule(options.text, target, TokenOptions()) if target else TextRule(options.text),
        splits=splits,
        columns=options.columns,
    )
    if not options.resplit and any(f.told_by != "none" for f in splits_of_files(files, given)):
        how = _with_leaks(how)
    found = _survey(files, how, options, progress or Silent())
    if found.splits.is_divided and _with_leaks(how) != how:  # told by rows, and so known only now
        found = _survey(files, _with_leaks(how), options, progress or Silent())
    report = make_report(found, NOTHING_MADE, [], examples=options.examples)
    return report.model_copy(update={"severity_changes": severity_changes(options.severity)})


def _with_leaks(how: SurveyOptions) -> SurveyOptions:
    """The options with near-duplicate prompts looked for, which two splits may share (PD502)."""
    severity = how.checks.severity
    if how.near is not None or "off" in (severity.get("PD402"), severity.get("PD502")):
        return how
    return how._replace(near=NearDuplicates(), near_for_leaks=True)


def _survey(
    files: list[InputFile], how: SurveyOptions, options: ValidateOptions, progress: Progress
) -> Survey:
    number = choose_workers(options.workers, sum(file.path.stat().st_size for file in files))
    with Workers(number) as workers, _staging(how) as staging:
        return survey(files, how, workers=workers, staging=staging, progress=progress)


@contextmanager
def _staging(how: SurveyOptions) -> Iterator[Staging | None]:
    """A place for what near-duplicates are found by; nothing where nobody looks for them."""
    if how.near is None:
        yield None
        return
    with TemporaryDirectory(prefix="prefdata-") as folder:
        yield Staging(Path(folder), "validate")
