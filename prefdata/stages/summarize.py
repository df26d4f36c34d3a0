"""Report, manifest and other files of a build, made from the results of all stages."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import parquet

from prefdata.arrow import empty_table
from prefdata.config import BuildConfig
from prefdata.engine import Engine
from prefdata.engine.exchange import read_parts
from prefdata.errors import EmptyError
from prefdata.records.findings import EXAMPLES
from prefdata.records.schema import RECORDS
from prefdata.report.card import write_card
from prefdata.report.explain import describe_code
from prefdata.report.form import FORMS
from prefdata.report.lengths import PARTS
from prefdata.report.model import Groups, Report, SplitProof
from prefdata.stages.chunk import gather
from prefdata.stages.counts import NOTHING_MADE, BuiltShards, codes_met
from prefdata.stages.dropped import write_duplicates, write_rejected
from prefdata.stages.events import NEAR
from prefdata.stages.filter import stage
from prefdata.stages.plan import LIBRARIES, TOOL_VERSION, BuildSeal
from prefdata.stages.scan import ScanResult
from prefdata.stages.set_checks import count_all_groups
from prefdata.stages.settle import count_all_lines
from prefdata.stages.statistics import (
    class_of_lines,
    example_pairs,
    hide_contents,
    list_findings,
    measure_biases,
    measure_characters,
    measure_languages,
    measure_sources,
    measure_tokens,
    seal_inputs,
    severity_changes,
    total_lines,
    without_examples,
)
from prefdata.store.commit import FileDigest
from prefdata.store.content import hash_content
from prefdata.store.manifest import (
    FunnelStage,
    Manifest,
    OtherFile,
    SeenPair,
    ShardSeal,
    SplitStats,
)
from prefdata.store.staging import DUPLICATES_FILE, NEAR_FILE, PAGE, write_staged
from prefdata.tokens.preview import show_ids
from prefdata.tokens.tokenizer import TokenizerSpec

REJECTED_FILE = "rejected/rejected-00000-of-00001.parquet"
_EXAMPLE_PAIRS = 3
_MOST_REASONS = 3  # listed in an error


def make_report(
    found: ScanResult,
    made: BuiltShards,
    workers: Engine,
    target: TokenizerSpec | None = None,
    *,
    examples: int = EXAMPLES,
    is_build: bool = True,
) -> Report:
    """Return the report of a build or, without shards, of a validation; `examples` per code."""
    is_drawn = is_build and bool(made.tasks)
    refused, not_drawn = made.refused_paths, made.not_drawn_paths
    sums = count_all_lines(found.root, found.decisions, refused, not_drawn, workers)
    classes, tally = class_of_lines(found, sums.classes), sums.tally or found.settled.tally
    total = total_lines(classes)
    met = codes_met(found, made, examples)
    measured = measure_tokens(made.tokens) if made.tokens else measure_characters(tally)
    return Report(
        tool_version=TOOL_VERSION,
        inputs=seal_inputs(
            found,
            classes,
            _seen_pairs(found, made, target),
            drawn=is_drawn,
        ),
        lines=total,
        funnel=[*found.funnel, *_late_stages(found, made)],
        findings=list_findings(met, total, found.num_pairs),
        splits=_splits(made) if is_drawn else None,
        lengths=measured.lengths if measured else None,
        chosen_longer=measured.chosen_longer if measured else None,
        notes=found.notes + made.notes,
        length_unit="tokens" if made.tokens else "characters",
        histograms=measured.histograms if measured else None,
        biases=measure_biases(tally),
        sources=measure_sources(tally, {f.file.index: f.file for f in found.files}),
        mixture=list(made.mixture),
        languages=measure_languages(tally),
        groups=_groups(found, [*refused, *not_drawn], workers),
        example_pairs=example_pairs(_first_kept(made if is_drawn else NOTHING_MADE), found.files),
    )


def _groups(found: ScanResult, late: Sequence[Path], workers: Engine) -> Groups | None:
    """Return the numbers of the pairs that are written: without those in runs of late ones."""
    if not late:
        return found.checked.groups
    return count_all_groups(found.root, found.decisions, late, workers)


def _late_stages(found: ScanResult, made: BuiltShards) -> Iterator[FunnelStage]:
    """Yield the stages of the funnel in which shards are made."""
    refused, undrawn = made.num_refused, len(made.not_drawn)
    num = found.decisions.num_kept - refused.total()
    if made.tasks:
        yield stage("tokens", found.decisions.num_kept, num, refused)
    if made.mixture:
        yield stage("mixture", num, num - undrawn, {"PD410": undrawn})


def nothing_left(report: Report) -> EmptyError:
    """Return E120 with the reasons: the codes that dropped most rows, with their first messages."""
    dropped: Counter[str] = Counter()
    for part in report.funnel:
        dropped.update(part.dropped)
    first = {f.code: f.examples[0] for f in reversed(report.findings) if f.examples}
    reasons = []
    for code, count in dropped.most_common(_MOST_REASONS):
        place = first.get(code)
        said = f" ({place.place}: {place.message})" if place else ""
        reasons.append(f"{code} {describe_code(code).name} {count:,}{said}")
    problem = "no pair is left to build from: " + ("; ".join(reasons) or "the inputs have no row")
    remedy = "name other inputs"
    for code, _ in dropped.most_common(1):
        check = describe_code(code)
        advice = check.advice.rstrip(".")
        remedy = f"{advice} (prefdata explain {code})"
    error = EmptyError("E120", "inputs", problem, remedy)
    error.report = report
    return error


def describe_build(
    report: Report, found: ScanResult, config: BuildConfig, seal: BuildSeal
) -> Report:
    """Return the report with config, tokenizer, fingerprint and the check of the splits."""
    changes = {
        **seal._asdict(),
        "inputs": [without_examples(one) for one in report.inputs],
        "severity_changes": severity_changes(config.severity),
    }
    if config.near is not None:
        changes["split_proof"] = SplitProof(
            threshold=config.near.threshold,
            unit=f"word {config.near.words}-grams",
            leaked=found.checked.leaked,
            clusters=found.checked.clusters,
            largest=found.checked.largest,
        )
    return report.model_copy(update=changes)


def _first_kept(made: BuiltShards) -> pa.Table:
    """Return the first records of the first shard that has any; none for a validation."""
    for number, (task, shard) in enumerate(zip(made.tasks, made.shards, strict=True)):
        if shard.facts.rows:
            first = made.order_of(number)["at"].unique(maintain_order=True).head(_EXAMPLE_PAIRS)
            return gather(read_parts(task.root), first.to_numpy())
    return empty_table(RECORDS)


def _seen_pairs(
    found: ScanResult, made: BuiltShards, target: TokenizerSpec | None
) -> dict[int, SeenPair]:
    """Return the first tokenized pair of each input, by the input's index."""
    seen: dict[int, SeenPair] = {}
    if target is None:
        return _plain_pairs(found)
    for number, table in enumerate(made.tokens):
        rows = made.order_of(number).with_row_index("row")
        first = rows.unique("source_index", keep="first").select("row", "source_index", "line")
        for row, source, line in first.iter_rows():
            if source not in seen or line < seen[source].line:
                parts = (table[f"{part}_ids"][row].as_py() for part in PARTS)
                texts = (show_ids(target, ids) for ids in parts)
                seen[source] = SeenPair.model_validate(
                    {"line": line, **dict(zip(PARTS, texts, strict=True))}
                )
    return seen


def _plain_pairs(found: ScanResult) -> dict[int, SeenPair]:
    """Return the first pair of each input as plain text, if the chunks kept it."""
    seen: dict[int, SeenPair] = {}
    for part in found.parts:
        if part.facts.first is not None and part.source_index not in seen:
            first = part.facts.first._asdict()
            seen[part.source_index] = SeenPair.model_validate({**first, "is_plain": True})
    return seen


def write_others(
    found: ScanResult, made: BuiltShards, report: Report, config: BuildConfig
) -> tuple[list[OtherFile], dict[str, FileDigest]]:
    """Write all files except the shards; return those of the manifest, and all digests.

    The manifest omits the card, because people edit it, and the page, because it has text of
    refused rows: a push writes it without them.
    """
    root = found.root
    seals: dict[str, FileDigest] = {}
    rows: dict[str, int] = {}
    for name, dropped in ((DUPLICATES_FILE, True), (NEAR_FILE, False)):
        if dropped or found.settled.count(pl.col("kind") == NEAR, ~pl.col("dropped")):
            seals[name], rows[name] = write_duplicates(root / name, found, dropped=dropped)
    seals[REJECTED_FILE], rows[REJECTED_FILE] = write_rejected(
        root / REJECTED_FILE, found, made, config.limits
    )
    with parquet.ParquetFile(
        (root / REJECTED_FILE).absolute()
    ) as file:  # `read_table` imports pandas
        places = file.read(columns=["source", "line"])
    page = FORMS[".html"](report, root)
    report = hide_contents(report, places)
    seals["report.json"] = _write_bytes(root / "report.json", FORMS[".json"](report, root))
    listed = [
        OtherFile(path=name, rows=rows.get(name), bytes=seal.bytes, sha256=seal.sha256)
        for name, seal in sorted(seals.items())
    ]
    seals[PAGE] = _write_bytes(root / PAGE, page)
    card = write_card(report, name=config.out.name).encode()
    seals["README.md"] = _write_bytes(root / "README.md", card)
    return listed, seals


def _write_bytes(path: Path, data: bytes) -> FileDigest:
    return write_staged(path, lambda path: path.write_bytes(data))


def make_manifest(
    report: Report,
    made: BuiltShards,
    seal: BuildSeal,
    *,
    others: Sequence[OtherFile],
) -> Manifest:
    """Return the sealed manifest; `others` are the files that are not of shards."""
    shards, texts = [], []
    for task, shard in zip(made.tasks, made.shards, strict=True):
        path, rows = task.tokens_path, shard.facts.rows
        seal_of = {name: digest._asdict() for name, digest in shard.files.items()}
        shards.append(
            ShardSeal(
                path=path, split=task.split, rows=rows, tokens=shard.facts.tokens, **seal_of[path]
            )
        )
        texts.append(OtherFile(path=task.text_path, rows=rows, **seal_of[task.text_path]))
    return Manifest(
        tool_version=TOOL_VERSION,
        libraries=LIBRARIES,
        fingerprint=seal.fingerprint,
        content_hash=hash_content(
            ((task.split, table) for task, table in zip(made.tasks, made.tokens, strict=True)),
            tokenizer_sha256=seal.tokenizer.tokenizer_sha256,
        ),
        config=seal.config,
        inputs=report.inputs,
        tokenizer=seal.tokenizer,
        lines=report.lines,
        funnel=report.funnel,
        splits=report.splits or {},
        mixture=report.mixture,
        shards=shards,
        files=[*texts, *others],
    ).sealed()


def _splits(made: BuiltShards) -> dict[str, SplitStats]:
    totals: dict[str, Counter[str]] = {}
    for task, shard in zip(made.tasks, made.shards, strict=True):
        numbers = {name: getattr(shard.facts, name) for name in SplitStats.model_fields}
        totals.setdefault(task.split, Counter()).update(numbers)
    return {
        split: SplitStats(**{name: total[name] for name in SplitStats.model_fields})
        for split, total in totals.items()
    }
