"""Prompts from a JSON Lines file, and ranked completions in a file that survives a kill.

Rows are appended to `OUT.partial` window by window, after a header line with the settings that
determine them; the file is renamed when it is complete. So a restarted run continues, and gives
the bytes of an uninterrupted run. Rows that finish in another order than the prompts', those of a
server, are appended with their numbers, each as soon as it is finished (`Journal`).
"""

import os
import time
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
    "sampled_with": "has `sampled_with`, which a sampling run writes",
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


def output_items(completions: list[Completion], model: str) -> list[dict[str, Any]]:
    """Return a prompt's completions as the output has them."""
    return [
        {
            "text": completion.text,
            "model": model,
            "logp": round(completion.logp, 4),
            "num_tokens": len(completion.ids),
            "ended": completion.ended,
        }
        for completion in completions
    ]


def output_row(
    row: PromptRow, items: list[dict[str, Any]], scores: Sequence[float] | None
) -> dict[str, Any]:
    """Return one line of the output; with scores, the best completion comes first."""
    if scores is not None:
        ranks = {score: rank for rank, score in enumerate(sorted(set(scores), reverse=True), 1)}
        scored = zip(items, scores, strict=True)
        items = [item | {"score": score, "rank": ranks[score]} for item, score in scored]
        items.sort(key=lambda item: item["rank"])
    form = {FORM_COLUMN: "text"} if isinstance(row.prompt, str) else {}
    return {"prompt": row.prompt, **form, **row.rest, "completions": items}


def partial_of(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def check_out(out: Path, reads: Sequence[Read], command: str = "dpo-sample") -> None:
    """Raise a coded error if the output exists (T137) or would overwrite an input (E170)."""
    if not out.name:
        raise UsageError("T137", str(out), "is a directory", "name a file")
    partial = partial_of(out)
    require_writable_name(partial)
    require_apart([out, partial], reads)
    if os.path.lexists(out):
        raise UsageError("T137", str(out), "exists already", "name another file")
    if os.path.lexists(partial) and (partial.is_symlink() or not partial.is_file()):
        raise UsageError("T137", str(partial), f"is not a file of {command}", "name another file")
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


class Journal:
    """Finished rows in the order in which they finish, as lines `{"at": number, "row": {…}}`."""

    def __init__(self, file: IO[bytes], start: int) -> None:
        self._file, self._synced = file, time.monotonic()
        self._places: dict[int, tuple[int, int]] = {}
        """Offset and length of each row."""
        file.seek(start)
        end = start
        for line in file:
            at = _number_of(line)
            if at is None:  # a kill may cut the last line
                break
            self._add(at, end, line)
            end += len(line)
        file.truncate(end)

    @property
    def done(self) -> set[int]:
        """Return the numbers of the finished rows."""
        return set(self._places)

    def keep(self, at: int, row: bytes) -> None:
        """Append a row; it survives a kill of the process, and after a second a power cut."""
        line = b'{"at":%d,"row":%b}\n' % (at, row)
        self._add(at, self._file.seek(0, os.SEEK_END), line)
        self._file.write(line)
        self._file.flush()
        if time.monotonic() - self._synced > 1:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def rows(self) -> Iterator[bytes]:
        """Yield all rows by number."""
        for at in sorted(self._places):
            offset, length = self._places[at]
            self._file.seek(offset)
            yield self._file.read(length)

    def _add(self, at: int, offset: int, line: bytes) -> None:
        head = len(b'{"at":%d,"row":' % at)
        self._places[at] = (offset + head, len(line) - head - 2)


def _number_of(line: bytes) -> int | None:
    """Return the number of a line's row; None if the line is not whole."""
    with suppress(orjson.JSONDecodeError, TypeError, KeyError):
        if line.endswith(b"\n"):
            return int(orjson.loads(line)["at"])
    return None


@contextmanager
def journal(out: Path, decides: dict[str, Any], num_rows: int) -> Iterator[Journal]:
    """Open the journal next to `out`; on a clean exit its rows become `out`, in their order."""
    partial = partial_of(out)
    header = orjson.dumps({"format": FORMAT, **decides}, option=orjson.OPT_SORT_KEYS) + b"\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a+b") as file, lock_folder(partial):
        file.seek(0)
        first = file.readline()
        theirs = _header_of(first, header, partial)
        found = Journal(file, len(first))
        if found.done:
            _require_same(theirs, header, partial)
        else:
            file.truncate(0)
            append(file, header)
        yield found
        assert found.done == set(range(num_rows))
        commit_file(out, lambda path: path.write_bytes(b"".join(r + b"\n" for r in found.rows())))
    partial.unlink()


def _resume(file: IO[bytes], partial: Path, header: bytes, window: int) -> int:
    """Cut what follows the last whole window; return the number of rows kept.

    Raises T137 if the file was begun by another program, or has rows of other settings.
    """
    file.seek(0)
    first, *lines = file.read().splitlines(keepends=True) or [b""]
    theirs = _header_of(first, header, partial)
    num_rows = sum(line.endswith(b"\n") for line in lines) // window * window
    if num_rows == 0:
        file.truncate(0)
        append(file, header)
    else:
        _require_same(theirs, header, partial)
        file.truncate(len(header) + sum(map(len, lines[:num_rows])))
    return num_rows


def _header_of(first: bytes, header: bytes, partial: Path) -> Any:
    """Return the header of a file that the same command began; None if it is not whole."""
    ours, theirs = orjson.loads(header), None
    with suppress(orjson.JSONDecodeError):
        theirs = orjson.loads(first)
    if theirs is None and header.startswith(first):  # a kill may cut the first line
        return None
    command = ours.get("command")  # none in files of a model in this process
    found = theirs if isinstance(theirs, dict) and theirs.get("format") == FORMAT else {}
    if found.get("command") != command or not {"command", "weights"} & found.keys():
        problem = f"was not begun by {command or 'dpo-sample'}"
        raise UsageError("T137", str(partial), problem, "name another file")
    return theirs


def _require_same(theirs: Any, header: bytes, partial: Path) -> None:
    """Raise T137 if a file was begun with other settings."""
    ours = orjson.loads(header)
    names = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
    if names:
        problem = f"was begun with another {', '.join(names)}"
        remedy = "use the same as before, or name another file"
        raise UsageError("T137", str(partial), problem, remedy)
