"""Formatting of numbers, the same in the terminal, the card and the pages."""

from prefdata.report.model import SplitProof

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
