"""Lines at which a file's rows begin to have a column, or cease to (PD105)."""

from collections.abc import Collection
from dataclasses import dataclass, field

MOST_COLUMNS = 1000


@dataclass
class Drift:
    """Where the columns that a layout does not name change, in one chunk of a file or in all."""

    first: int = 0
    """Line of the first row; 0 if there is none."""
    at_first: tuple[str, ...] = ()
    """Columns of the first row."""
    lines: dict[str, int] = field(default_factory=dict)
    """The first line that differs from the rows before it, by column."""

    def see(self, line: int, columns: Collection[str], known: Collection[str]) -> None:
        """Note a row; `known` are the columns of the rows before it."""
        if not self.first:
            self.first, self.at_first = line, tuple(sorted(columns))
            return
        for name in set(columns) ^ set(known):
            if len(self.lines) < MOST_COLUMNS:
                self.lines.setdefault(name, line)

    def plus(self, other: "Drift", own: Collection[str], others: Collection[str]) -> "Drift":
        """Return the drift over this chunk and a later one; `own`, `others` are their columns."""
        if not self.first or not other.first:
            return self if self.first else other
        lines = dict(self.lines)
        for name in {*own, *others} - lines.keys():
            if (name in own) != (name in other.at_first):
                lines[name] = other.first
            elif name in other.lines:
                lines[name] = other.lines[name]
        return Drift(self.first, self.at_first, lines)
