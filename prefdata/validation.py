"""Validation: the stages of a build as far as the report; nothing is written."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import NamedTuple

from prefdata.check import CheckLimits, RowChecks
from prefdata.check.catalog import is_of_tokens
from prefdata.check.severity import LEVELS
from prefdata.dedup.near import NearDuplicates
from prefdata.engine.exchange import read_parts
from prefdata.engine.local import Workers, choose_workers
from prefdata.errors import EmptyError, UsageError
from prefdata.hub.inputs import fetch_inputs
from prefdata.progress import Progress, Silent
from prefdata.read import (
    Columns,
    InputFile,
    Limits,
    Pairing,
    RowOptions,
    TextMode,
    TextRule,
    expand_inputs,
    load_layout,
)
from prefdata.read.memory import Data, named_inputs
from prefdata.records.findings import EXAMPLES
from prefdata.records.sources import Inputs
from prefdata.records.split_names import Leaks, SplitOptions
from prefdata.report.model import Report
from prefdata.stages.counts import NOTHING_MADE, BuiltShards
from prefdata.stages.excerpts import add_excerpts, chunks_named
from prefdata.stages.plan import check_tasks, require_sound_splits
from prefdata.stages.scan import ScanOptions, scan, stage_chunks
from prefdata.stages.shard import make_shards
from prefdata.stages.split import expand_splits, splits_of_files
from prefdata.stages.statistics import severity_changes
from prefdata.stages.summarize import make_report
from prefdata.store.ownership import Read
from prefdata.store.staging import Staging
from prefdata.tokens.options import FIXED_CODES, TokenOptions
from prefdata.tokens.preview import text_rule, trial_of
from prefdata.tokens.tokenizer import TokenizerSpec, load_tokenizer_spec

_WEIGHTS = "sources have weights, which a build applies; here each pair counts once"
_NO_CHANGES: Mapping[str, str] = MappingProxyType({})


class ValidateOptions(NamedTuple):
    """Options for reading and checking inputs; the fields are those of a build's config."""

    layout: str | None = None
    columns: Columns = Columns()
    """Names of the columns of prompt, chosen and rejected, if they are not the usual ones."""
    tokenizer: str | None = None
    """Tokenizer whose control tokens (PD210) and chat template are used."""
    text: TextMode = "auto"
    pairing: Pairing = Pairing()
    limits: Limits = Limits()
    severity: Mapping[str, str] = _NO_CHANGES
    evaluations: Sequence[str] = ()
    checks: CheckLimits = CheckLimits()
    workers: int | None = None
    examples: int = EXAMPLES
    """Number of locations of each code in the report."""
    near: NearDuplicates | None = None
    """Options of near-duplicates (PD402), which need a temporary directory. Those that two splits
    share (PD502) are searched for in any case."""
    excerpts: bool = False
    """True if the report has text of the first rows of each finding."""
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
    source: Data,
    options: ValidateOptions = ValidateOptions(),  # noqa: B008 - immutable
    *,
    progress: Progress | None = None,
) -> Report:
    """Read and check inputs, and report what a build would keep; with a tokenizer, tokens too.

    `source` names files, or contains rows. Raises a `PrefdataError` with its code.
    """
    with named_inputs(source) as inputs:
        files, given = expand_splits(fetch_inputs(inputs))
        target = load_tokenizer_spec(options.tokenizer) if options.tokenizer else None
        how = _scan_options(options, target, given)
        if not options.resplit and any(f.said_by != "none" for f in splits_of_files(files, given)):
            how = _with_leaks(how)
        run = partial(_run, files, options=options, target=target, progress=progress or Silent())
        report = run(how)
        if report is None:  # its rows name splits, which is known only now
            report = run(_with_leaks(how))
        assert report is not None
        notes = [_WEIGHTS] if any(file.of.weight != 1 for file in files) else []
        changes = severity_changes(options.severity)
        return report.model_copy(
            update={"severity_changes": changes, "notes": [*report.notes, *notes]}
        )


def _scan_options(
    options: ValidateOptions, target: TokenizerSpec | None, given: Mapping[str, str]
) -> ScanOptions:
    tokens = _token_options(options) if target else TokenOptions()
    layout = load_layout(options.layout) if options.layout else None
    return ScanOptions(
        RowOptions(layout, options.pairing, options.limits),
        RowChecks.of(
            {c: level for c, level in options.severity.items() if c not in tokens.severity},
            target.control_tokens if target else (),
            options.checks,
            options.evaluations,
            options.examples,
        ),
        near=options.near,
        text=text_rule(options.text, target, tokens) if target else TextRule(options.text),
        splits=SplitOptions(given, options.resplit, options.leaks),
        columns=options.columns,
    )


def _token_options(options: ValidateOptions) -> TokenOptions:
    """Return the token options with their severities; any date will do, as no text is kept."""
    changes = {c: level for c, level in options.severity.items() if is_of_tokens(c)}
    for code, level in changes.items():
        if level not in LEVELS:
            problem = f"{level!r} is not a severity"
            raise UsageError("C131", f"severity.{code}", problem, "write E, W, I or off")
        if code in FIXED_CODES and level != "E":
            problem = "cannot be lowered: such a pair cannot be trained on"
            raise UsageError("C132", f"severity.{code}", problem, "keep it at E")
    return TokenOptions.model_validate({"severity": changes, "template_date": date(2000, 1, 1)})


def _run(
    files: list[InputFile],
    how: ScanOptions,
    *,
    options: ValidateOptions,
    target: TokenizerSpec | None,
    progress: Progress,
) -> Report | None:
    """Return the report, or None if leaks between splits must be searched for and were not."""
    number = choose_workers(options.workers, sum(file.path.stat().st_size for file in files))
    tokens = _token_options(options) if target else TokenOptions()
    with ExitStack() as stack:
        workers = stack.enter_context(Workers(number))
        staging = Staging(_temporary(stack), "validate")
        how = how._replace(has_texts=how.near is not None or target is not None)
        trial = stack.enter_context(trial_of(target, tokens)) if target else None
        found = scan(files, how, workers=workers, staging=staging, progress=progress)
        if found.splits.is_divided and _with_leaks(how) != how:
            return None
        try:
            require_sound_splits(found, options.leaks)
        except EmptyError as error:
            found = found._replace(notes=[*found.notes, f"a build stops here: {error}"])
        made = NOTHING_MADE
        if target is not None:
            if trial is not None:
                trial.finish()
            tasks = check_tasks(found, target, tokens)
            made = BuiltShards(tasks, make_shards(tasks, workers, progress, staging))
        examples = options.examples
        report = make_report(found, made, workers, examples=examples, is_build=False)
        if not options.excerpts:
            return report
        texts = read_parts(found.root)
        if not how.has_texts:
            texts = texts._replace(root=_temporary(stack))
            stage_chunks(files, how, chunks_named(report, found), texts.root)
        return add_excerpts(report, found, texts, how.checks.reading)


def _temporary(stack: ExitStack) -> Path:
    return Path(stack.enter_context(TemporaryDirectory(prefix="prefdata-")))


def _with_leaks(how: ScanOptions) -> ScanOptions:
    """Return the options with the search for near-duplicate prompts across splits (PD502)."""
    severity = how.checks.severity
    if how.near is not None or "off" in (severity["PD402"], severity["PD502"]):
        return how
    return how._replace(near=NearDuplicates(), near_for_leaks=True)
