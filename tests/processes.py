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


def _title_of(number: int) -> str:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""
