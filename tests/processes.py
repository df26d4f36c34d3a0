"""Processes of a command on Linux, found in /proc."""

from pathlib import Path


def processes_of(root: int, title: str = "") -> list[int]:
    """Return a process and all its descendants, those with a word in their title."""
    found = [root]
    for number in found:
        try:
            found += map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split())
        except OSError:
            continue
    return [number for number in found if title in _title_of(number)]


def processes_naming(text: str) -> list[int]:
    """Return the processes with a text in their arguments, orphans too."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [number for number in numbers if text in " ".join(_arguments_of(number))]


def _title_of(number: int) -> str:
    return _arguments_of(number)[0]


def _arguments_of(number: int) -> list[str]:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return [""]
