"""Report, manifest and other files of a build, made from the results of all stages."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from prefdata.arrow import empty_table
from prefdata.config import BuildConfig
from prefdata.errors import EmptyError
from prefdata.records.findings import EXAMPLES
from prefdata.records.schema import RECORDS
from prefdata.report.card import write_card
from prefdata.report.explain import describe_code
from prefdata.report.form import FORMS
from prefdata.report.lengths import PARTS
from prefdata.report.model import Report
from prefdata.stages.chunk import gather
from prefdata.stages.counts import NOTHING_MADE, BuiltShards, codes_met, leak_messages
from prefdata.stages.dropped import write_duplicates, write_rejected
from prefdata.stages.filter import CONTRADICTION, EXCLUDED, NOT_DRAWN, stage
from prefdata.stages.plan import LIBRARIES, TOOL_VERSION, BuildSeal
from prefdata.stages.scan import ScanResult
from prefdata.stages.statistics import (
    class_of_lines,
    count_groups,
    example_pairs,
    hide_contents,
    list_findings,
    measure_biases,
    measure_characters,
    measure_languages,
    measure_sources,
    measure_tokens,
    prove_splits,
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
from prefdata.tokens.template.render import Refusal
from prefdata.tokens.tokenizer import TokenizerSpec

REJECTED_FILE = "rejected/rejected-00000-of-00001.parquet"
_EXAMPLE_PAIRS = 3
_MOST_REASONS = 3  # listed in an error


def make_report(
    found: ScanResult,
    made: BuiltShards,
    tokens: list[pa.Table],
    target: TokenizerSpec | None = None,
    *,
    examples: int = EXAMPLES,
    is_build: bool = True,
) -> Report:
    """Return the report of a build or, without shards, of a validation; `examples` per code."""
    is_drawn = is_build and bool(made.tasks)
    refusals = made.refusals()
    classes = class_of_lines(found, list(refusals), made.not_drawn)
    total = total_lines(classes)
    kept_mask = pl.Series(found.stays([*refusals, *made.not_drawn]))
    kept, profile = found.keys.filter(kept_mask), found.profile.filter(kept_mask)
    met = codes_met(found, made, refusals, examples)
    measured = measure_tokens(tokens) if tokens else measure_characters(profile)
    return Report(
        tool_version=TOOL_VERSION,
        inputs=seal_inputs(
            found,
            classes,
            _seen_pairs(found, made, tokens, target),
            drawn=is_drawn,
        ),
        lines=total,
        funnel=[*found.funnel, *_late_stages(made, refusals)],
        findings=list_findings(met, total, found.num_pairs),
        splits=_splits(made) if is_drawn else None,
        lengths=measured.lengths if measured else None,
        chosen_longer=measured.chosen_longer if measured else None,
        notes=found.notes + made.notes,
        length_unit="tokens" if tokens else "characters",
        histograms=measured.histograms if measured else None,
        biases=measure_biases(profile),
        sources=measure_sources(
            profile, kept["source_index"], {f.file.index: f.file for f in found.files}
        ),
        mixture=list(made.mixture),
        languages=measure_languages(profile),
        groups=count_groups(kept),
        example_pairs=example_pairs(_first_kept(made if is_drawn else NOTHING_MADE), found.files),
    )


def _late_stages(made: BuiltShards, refusals: Mapping[int, Refusal]) -> Iterator[FunnelStage]:
    """Yield the stages of the funnel in which shards are made."""
    num, undrawn = made.num_tokenized, len(made.not_drawn)
    if made.tasks:
        counts = Counter(refusal.code for refusal in refusals.values())
        yield stage("tokens", num + len(refusals), num, counts)
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
    report: Report, found: ScanResult, made: BuiltShards, config: BuildConfig, seal: BuildSeal
) -> Report:
    """Return the report with config, tokenizer, fingerprint and the check of the splits."""
    changes = {
        **seal._asdict(),
        "inputs": [without_examples(one) for one in report.inputs],
        "severity_changes": severity_changes(config.severity),
    }
    if config.near is not None:
        rows: dict[str, list[int]] = {}
        for task in made.tasks:
            rows.setdefault(task.split, []).extend(task.places["at"].to_list())
        changes["split_proof"] = prove_splits(
            found.keys,
            found.decision.split_key,
            rows,
            words=config.near.words,
            threshold=config.near.threshold,
        )
    return report.model_copy(update=changes)


def _first_kept(made: BuiltShards) -> pa.Table:
    """Return the first records of the first shard that has any; none for a validation."""
    for number, (task, shard) in enumerate(zip(made.tasks, made.shards, strict=True)):
        if shard.facts.rows:
            first = list(dict.fromkeys(made.pairs_of(number)))[:_EXAMPLE_PAIRS]
            rows = pl.DataFrame({"at": first}, schema={"at": task.places.schema["at"]})
            places = rows.join(task.places, on="at", how="left", maintain_order="left")
            return gather(task.root, task.parts, places)
    return empty_table(RECORDS)


def _seen_pairs(
    found: ScanResult, made: BuiltShards, tokens: list[pa.Table], target: TokenizerSpec | None
) -> dict[int, SeenPair]:
    """Return the first tokenized pair of each input, by the input's index."""
    seen: dict[int, SeenPair] = {}
    if target is None:
        return _plain_pairs(found)
    sources, lines = found.keys["source_index"], found.keys["line"]
    for number, table in enumerate(tokens):
        places = made.pairs_of(number)
        of_rows = sources.gather(places).to_numpy()
        for source, row in zip(*np.unique(of_rows, return_index=True), strict=True):
            line = int(lines[int(places[row])])
            if int(source) not in seen or line < seen[int(source)].line:
                parts = (table[f"{part}_ids"][int(row)].as_py() for part in PARTS)
                texts = (show_ids(target, ids) for ids in parts)
                seen[int(source)] = SeenPair.model_validate(
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
    root: Path, found: ScanResult, made: BuiltShards, report: Report, config: BuildConfig
) -> tuple[list[OtherFile], dict[str, FileDigest]]:
    """Write all files except the shards; return those of the manifest, and all digests.

    The manifest omits the card, because people edit it, and the page, because it has text of
    refused rows: a push writes it without them.
    """
    seals: dict[str, FileDigest] = {}
    rows: dict[str, int] = {}
    for name, some in (
        (DUPLICATES_FILE, found.decision.duplicates),
        (NEAR_FILE, found.decision.near_kept),
    ):
        if len(some) or name == DUPLICATES_FILE:
            seals[name], rows[name] = write_duplicates(root, root / name, found, some)
    seals[REJECTED_FILE], rows[REJECTED_FILE] = write_rejected(
        root, root / REJECTED_FILE, found, _refused(found, made), config.limits
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


def _refused(found: ScanResult, made: BuiltShards) -> dict[int, Refusal]:
    """Return records that were refused after the row checks, by index in the keys."""
    contradictory = Refusal("PD403", CONTRADICTION)
    leaks = found.decision.leaks.filter("dropped")
    leaked = zip(leaks["code"], leak_messages(found, leaks) if len(leaks) else [], strict=True)
    return {
        **{at: Refusal(code, message) for code, (at, message) in leaked},
        **dict.fromkeys(found.decision.excluded.to_list(), Refusal("PD409", EXCLUDED)),
        **dict.fromkeys(made.not_drawn, Refusal("PD410", NOT_DRAWN)),
        **dict.fromkeys(found.decision.contradictory.to_list(), contradictory),
        **made.refusals(),
    }


def _write_bytes(path: Path, data: bytes) -> FileDigest:
    return write_staged(path, lambda path: path.write_bytes(data))


def make_manifest(
    report: Report,
    made: BuiltShards,
    tokens: Sequence[pa.Table],
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
            ((task.split, table) for task, table in zip(made.tasks, tokens, strict=True)),
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
