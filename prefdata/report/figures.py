"""Numbers and readings in words, the same in the terminal, the card and the pages."""

from collections.abc import Iterator, Sequence

from prefdata.report.model import Report, SplitProof
from prefdata.store.manifest import ColumnNotRead, InputSeal

_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def percent(share: float) -> str:
    """Return a share as a percentage that never rounds to 0 % or 100 %.

    >>> [percent(share) for share in (0, 0.00002, 0.0173, 0.5, 0.9999, 1)]
    ['0%', '<0.01%', '1.73%', '50.0%', '>99.9%', '100%']
    """
    if share in (0, 1):
        return f"{share:.0%}"
    if share < 0.0001:
        return "<0.01%"
    if share > 0.999:
        return ">99.9%"
    return f"{share:.2%}" if share < 0.095 else f"{share:.1%}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "pair"), count(1200, "pair"), count(2, "copy")
    ('1 pair', '1,200 pairs', '2 copies')
    """
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else many}"


def listed(names: Sequence[str], most: int) -> str:
    """Return the first names, and the number of the others.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def size(num_bytes: int) -> str:
    """Return bytes in the unit that needs few digits.

    >>> size(812), size(48_200), size(2_500_000)
    ('812 B', '48.2 kB', '2.5 MB')
    """
    unit, scale = next(((u, s) for u, s in _SIZES if num_bytes >= s), ("B", 1))
    return f"{num_bytes} B" if unit == "B" else f"{num_bytes / scale:.1f} {unit}"


def split_statement(proof: SplitProof | None) -> str:
    """Return a sentence on near-duplicates across splits, and the measure behind it."""
    if proof is None:
        return "All pairs of one prompt are in one split, next to each other."
    rests = (
        f"With a Jaccard similarity of {proof.threshold:g} or more in {proof.unit} counted as a "
        f"near-duplicate, prompts form {count(proof.clusters, 'cluster')}, the largest of "
        f"{proof.largest:,}."
    )
    if proof.leaked:
        lie = "is" if proof.leaked == 1 else "are"
        return f"{count(proof.leaked, 'cluster')} of near-duplicates {lie} in two splits. {rests}"
    return f"No prompt has a near-duplicate in another split. {rests}"


CHOSEN_BY = {
    "columns": "detected by its columns",
    "name": "named",
    "options": "by the named columns",
    "nothing": "no rows",
}
SPLIT_FROM = {
    "given": "as given",
    "name": "by its name",
    "folder": "by its directory's name",
    "rest": "as no name gives a split",
    "rows": "by the rows' column",
    "drawn": "drawn by prompt",
    "none": "one set",
}


def columns_not_read(report: Report) -> Iterator[tuple[str, float, ColumnNotRead]]:
    """Yield each column that was not read: its file, its share of the rows, its description."""
    for item in report.inputs:
        rows = max(item.lines.lines - item.lines.blank, 1)
        for column in item.reading.not_read:
            yield item.name, min(column.rows / rows, 1.0), column


def split_read(item: InputSeal) -> str:
    """Return the split of a file, and its source."""
    said = SPLIT_FROM[item.split_from]
    return f"{item.split}, {said}" if item.split else said


def splits_said(report: Report) -> str:
    """Return where the splits come from, in one sentence; empty for a validation of one set."""
    said = {item.split_from for item in report.inputs}
    if said == {"drawn"}:
        return "The inputs are one set, and splits are drawn from it by prompt."
    return "" if said == {"none"} else "The inputs came in splits, which are kept."


def chosen_longer_said(report: Report) -> str:
    """Return how often the chosen side is the longer one, with the unit; empty without pairs."""
    if report.chosen_longer is None:
        return ""
    share = percent(report.chosen_longer)
    return f"Chosen has more {report.length_unit} in {share} of the pairs, equal ones counted half."


def how_read(chosen_by: str, said: list[str]) -> str:
    """Return one line on how a file was read."""
    return "; ".join([CHOSEN_BY[chosen_by], *said])
