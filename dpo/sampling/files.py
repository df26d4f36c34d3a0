"""Prompts from a JSON Lines file, and ranked completions in a file that survives a kill.

Rows are appended to `OUT.partial` window by window, after a header line with the settings that
determine them; the file is renamed when it is complete. So a restarted run continues, and gives
the bytes of an uninterrupted run.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from dpo.errors import UsageError
from dpo.model.tokenizer import Messages
from dpo.sampling.sample import Completion
from prefdata.read.faults import RowError
from prefdata.read.files.parse_json import parse_line
from prefdata.read.limits import Limits
from prefdata.records.text import FORM_COLUMN
from prefdata.store.commit import commit_file, lock_folder
from prefdata.store.ownership import Read, require_apart, require_folder_for, require_writable_name

FORMAT = 1


_TAKEN = {
    "completions": "has `completions` already",
    "tools": "has `tools`, which would not be shown to the model",
}


class PromptRow(NamedTuple):
    """One line of the prompts; `rest` is every other key, copied to the output unchanged."""

    line: int
    prompt: str | Messages
    rest: dict[str, Any]


def read_prompts(path: Path) -> list[PromptRow]:
    if not path.is_file():
        remedy = 'name a file of lines like {"prompt": "Tell me a story."}'
        raise UsageError("T133", str(path), "there is no such file", remedy)
    lines = path.read_bytes().split(b"\n")
    rows = [_prompt_row(path, at, line) for at, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise UsageError("T133", str(path), "the file has no row", "give it at least one prompt")
    return rows


def _prompt_row(path: Path, line: int, raw: bytes) -> PromptRow:
    def refuse(problem: str) -> UsageError:
        remedy = 'a row is {"prompt": text} or {"prompt": [{"role": …, "content": …}, …]}'
        return UsageError("T132", f"{path}:{line}", problem, remedy)

    try:
        row = parse_line(raw, Limits())
    except RowError as fault:
        raise refuse(f"is not a row: {fault.message} ({fault.code})") from fault
    if "prompt" not in row:
        raise refuse("has no `prompt`")
    if taken := _TAKEN.get(next((name for name in _TAKEN if row.get(name) is not None), "")):
        raise refuse(taken)
    prompt = row.pop("prompt")
    if isinstance(prompt, list):
        if not prompt or not all(_is_message(message) for message in prompt):
            raise refuse("`prompt` is a list, but not of messages with role and content")
    elif not isinstance(prompt, str):
        raise refuse(f"`prompt` is a {type(prompt).__name__}")
    return PromptRow(line, prompt, row)


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(
        isinstance(message.get(key), str) for key in ("role", "content")
    )


def output_row(
    row: PromptRow, completions: list[Completion], model: str, scores: Sequence[float] | None
) -> dict[str, Any]:
    """Return one line of the output; with scores, the best completion comes first."""
    items: list[dict[str, Any]] = [
        {
            "text": completion.text,
            "model": model,
            "logp": round(completion.logp, 4),
            "num_tokens": len(completion.ids),
            "ended": completion.ended,
        }
        for completion in completions
    ]
    if scores is not None:
        ranks = {score: rank for rank, score in enumerate(sorted(set(scores), reverse=True), 1)}
        scored = zip(items, scores, strict=True)
        items = [item | {"score": score, "rank": ranks[score]} for item, score in scored]
        items.sort(key=lambda item: item["rank"])
    form = {FORM_COLUMN: "text"} if isinstance(row.prompt, str) else {}
    return {"prompt": row.prompt, **form, **row.rest, "completions": items}


def partial_of(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def check_out(out: Path, reads: Sequence[Read]) -> None:
    """Raise a coded error if the output exists (T137) or would overwrite an input (E170)."""
    partial = partial_of(out)
    require_writable_name(partial)
    require_apart([out, partial], reads)
    if os.path.lexists(out):
        raise UsageError("T137", str(out), "exists already", "name another file")
    if os.path.lexists(partial) and (partial.is_symlink() or not partial.is_file()):
        raise UsageError("T137", str(partial), "is not a file of dpo-sample", "name another file")
    require_folder_for(out)


@contextmanager
def partial_file(
    out: Path, decides: dict[str, Any], window: int
) -> Iterator[tuple[IO[bytes], int]]:
    """Open the partial file, and count its rows; on a clean exit it becomes `out`."""
    partial = partial_of(out)
    header = orjson.dumps({"format": FORMAT, **decides}, option=orjson.OPT_SORT_KEYS) + b"\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a+b") as file, lock_folder(partial):
        num_rows = _resume(file, partial, header, window)
        yield file, num_rows
        file.seek(len(header))
        rows = file.read()
        commit_file(out, lambda temporary: temporary.write_bytes(rows))
    partial.unlink()


def append(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _resume(file: IO[bytes], partial: Path, header: bytes, window: int) -> int:
    """Cut what follows the last whole window; return the number of rows kept.

    Raises T137 if the file was begun by another program, or has rows of other settings.
    """
    file.seek(0)
    first, *lines = file.read().splitlines(keepends=True) or [b""]
    theirs = None
    if not header.startswith(first):  # a kill may cut the first line
        with suppress(orjson.JSONDecodeError):
            theirs = orjson.loads(first)
        if not (
            isinstance(theirs, dict) and theirs.get("format") == FORMAT and "weights" in theirs
        ):
            problem = "was not begun by dpo-sample"
            raise UsageError("T137", str(partial), problem, "name another file")
    num_rows = sum(line.endswith(b"\n") for line in lines) // window * window
    if num_rows == 0:
        file.truncate(0)
        append(file, header)
    elif theirs is not None:
        ours = orjson.loads(header)
        names = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
        problem = f"was begun with another {', '.join(names)}"
        remedy = "use the same as before, or name another file"
        raise UsageError("T137", str(partial), problem, remedy)
    else:
        file.truncate(len(header) + sum(map(len, lines[:num_rows])))
    return num_rows
