"""What the trainer does with every causal LM type of transformers, on tiny random models.

    python bench/architectures.py                       # all types; writes docs/architectures.md
    python bench/architectures.py --only llama mamba    # some types; prints the table

For each type and variant (both tyings of the embeddings, kinds of rotary embeddings) a checkpoint
is saved and loaded, the self-check decides how packs run, and log-probs and gradients of packs of
three completions are compared with plain forward passes. Each type runs in a process of its own
with a time limit. Finished types are kept in `--records`, so that a sweep continues where it
stopped.
"""

import argparse
import json
import os
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import accelerate
import peft
import torch
import transformers
from architecture_checks import Record, check_case
from tiny_models import TYPES, cases_of
from transformers.utils import logging

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "architectures.md"
VERSIONS = {
    package.__name__: package.__version__ for package in (transformers, torch, accelerate, peft)
}
SECONDS = 180
"""Limit of a type with all of its variants, in seconds of a core; five times that of the clock."""
LONGEST = 110
"""Characters of a reason in the table."""
MEMORY = 8 * 2**30
"""Limit of a type's address space."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="TYPE", help="types to run, printed only")
    parser.add_argument("--records", type=Path, default=ROOT / "runs" / "architectures.jsonl")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="types at a time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = options.only or TYPES
    if unknown := sorted(set(wanted) - set(TYPES)):
        parser.error(f"no causal LM type of transformers {transformers.__version__}: {unknown}")
    done = {} if options.only else read_records(options.records)
    started = time.monotonic()
    found = done | run_types([t for t in wanted if t not in done], options)
    text = table([record for kind in sorted(found) for record in found[kind]])
    if not options.only:
        TABLE.write_text(text)
    print(text)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


def read_records(path: Path) -> dict[str, list[Record]]:
    """Return the finished types of an earlier sweep with the same versions."""
    if not path.is_file():
        return {}
    lines = map(json.loads, path.read_text().splitlines())
    return {line["type"]: line["cases"] for line in lines if line["versions"] == VERSIONS}


def run_types(types: Sequence[str], options: argparse.Namespace) -> dict[str, list[Record]]:
    """Run each type in a process of its own, a few at a time."""
    found: dict[str, list[Record]] = {}
    with TemporaryDirectory() as folder:
        running: dict[int, str] = {}
        waiting = list(types)
        while waiting or running:
            while waiting and len(running) < options.jobs:
                kind = waiting.pop(0)
                running[_start(kind, Path(folder))] = kind
            pid, status = os.wait()
            kind = running.pop(pid)
            found[kind] = _read_result(kind, Path(folder), status)
            print(f"{len(found)}/{len(types)} {kind}", file=sys.stderr, flush=True)
            if not options.only:
                _keep(options.records, kind, found[kind])
    return found


def _start(kind: str, folder: Path) -> int:
    """Fork a process that writes the records of a type to a file; return its id."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        signal.alarm(5 * SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        warnings.simplefilter("ignore")
        logging.set_verbosity(40)  # logging.ERROR
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        with (folder / f"{kind}.jsonl").open("w", buffering=1) as file:
            for case in cases_of(kind):
                with TemporaryDirectory() as checkpoint:
                    file.write(json.dumps(check_case(case, Path(checkpoint))) + "\n")
        status = 0
    finally:
        os._exit(status)


def _read_result(kind: str, folder: Path, status: int) -> list[Record]:
    """Return the records of a type, with one more if its process died."""
    path = folder / f"{kind}.jsonl"
    records: list[Record] = (
        [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    )
    if status != 0:
        how = os.waitstatus_to_exitcode(status)
        why = f"its process ended with {signal.Signals(-how).name if how < 0 else how}"
        records.append({"type": kind, "variant": "", "packs": "traceback", "packs why": why})
    return records


def _keep(path: Path, kind: str, cases: list[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"type": kind, "versions": VERSIONS, "cases": cases}) + "\n")


def table(records: Sequence[Record]) -> str:
    """Return the page: totals, then a line per case."""
    lines = [
        "# Architectures",
        "",
        "Generated by `python bench/architectures.py`; do not edit. Versions: "
        + ", ".join(f"{name} {version}" for name, version in VERSIONS.items())
        + ".",
        "",
        _HEAD,
        "",
        "| | types | cases |",
        "|---|---:|---:|",
        *(f"| {name} | {types} | {cases} |" for name, types, cases in totals(records)),
        "",
        "| type | case | packs | worst gap, nats | LoRA | sampling | why |",
        "|---|---|---|---:|---|---|---|",
        *map(_line, records),
    ]
    return "\n".join(lines) + "\n"


_HEAD = """\
Tiny random models of all causal LM types of transformers: windows, chunks, top-k and original
rotary lengths at 16, texts of up to 42 tokens, three completions a prompt, soft caps and
multipliers set, rates of dropout at 0.2 in the config. *Packs*: what the self-check decided;
"shared" runs each prompt once, "unshared" runs completions in rows of their own, and in both
log-probs (1e-4 nats a token, float32) and gradients (1e-3 of their norm) are those of plain passes,
in evaluation, in training without dropout and with checkpointed layers. "Refused" has its code.
*LoRA*: the default adapter trains. *Sampling*: greedy completions of a padded batch are those of a
loop without a cache, with the model's cache or with texts that are run whole."""


def totals(records: Sequence[Record]) -> list[tuple[str, int, int]]:
    """Return how many types and cases came to what; a type counts once, by its worst case."""
    cases = Counter(map(_verdict, records))
    worst: dict[str, str] = {}
    for record in records:
        verdict = _verdict(record)
        before = worst.setdefault(record["type"], verdict)
        worst[record["type"]] = max(before, verdict, key=_ORDER.index)
    types = Counter(worst.values())
    return [(name, types[name], cases[name]) for name in _ORDER] + [
        ("all", len(worst), len(records))
    ]


_ORDER = (
    "transformers cannot build it", "shared", "unshared", "refused with a code", "wrong",
    "traceback",
)  # fmt: skip


def _verdict(record: Record) -> str:
    steps = [record.get(name, "") for name in ("packs", "lora", "sampling")]
    if "built" in record:
        return "transformers cannot build it"
    for bad in ("traceback", "wrong"):
        if any(step.startswith(bad) for step in steps):
            return bad
    return "refused with a code" if steps[0].startswith("refused") else steps[0].split(",")[0]


def _line(record: Record) -> str:
    """Return a row of the table; reasons that repeat that of packs are left out."""
    decided = record.get("packs", "not built")
    reasons = {"built": record.get("built"), "packs": record.get("packs why")}
    for step in ("lora", "sampling"):
        if record.get(step) != decided:
            reasons[step] = record.get(f"{step} why")
    said = "; ".join(f"{step}: {why[:LONGEST]}" for step, why in reasons.items() if why)
    results = (record.get(step, "") for step in ("gap", "lora", "sampling"))
    cells = (record["type"], record["variant"], decided, *results, said.replace("|", "\\|"))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
