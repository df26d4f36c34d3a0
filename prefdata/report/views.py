"""Options of `prefdata show`: one view at a time, and no option without effect."""

from pathlib import Path
from typing import Literal, NamedTuple

from prefdata.errors import UsageError

_MOST_ROWS = 20  # of a list

Sort = Literal["spread", "length-gap", "margin"]
"""Pairs evenly spaced; those whose sides differ most in tokens; those of the smallest margin."""


class ShowOptions(NamedTuple):
    """Options of `prefdata show`."""

    row: int | None = None
    pair_id: str | None = None
    code: str | None = None
    rejected: bool = False
    duplicates: bool = False
    near: bool = False
    html: Path | None = None
    rows: int | None = None
    tokenizer: str | None = None
    sort: Sort | None = None
    suspects: Path | None = None

    @property
    def most(self) -> int:
        """Return the number of rows in a list."""
        return self.rows or _MOST_ROWS

    def require_apart(self) -> None:
        """Raise C121 for two views at once, and for an option without the view that it is for."""
        views = {
            "--row": self.row is not None,
            "--id": self.pair_id is not None,
            "--code": self.code is not None,
            "--rejected": self.rejected,
            "--duplicates": self.duplicates,
            "--near": self.near,
            "--html": self.html is not None,
        }
        given = [name for name, is_given in views.items() if is_given]
        if len(given) > 1:
            problem = f"{given[0]} and {given[1]} are two views"
            raise UsageError("C121", "prefdata show", problem, "give one of them")
        if self.sort is not None and self.suspects is not None:
            problem = "--sort and --suspects both order the pairs"
            raise UsageError("C121", "prefdata show", problem, "give one of them")
        not_pages = tuple(view for view in views if view != "--html")
        for name, value, unused in (
            ("--rows", self.rows, ("--row", "--id")),
            ("--tokenizer", self.tokenizer, ("--rejected", "--duplicates", "--near")),
            ("--sort", self.sort, not_pages),
            ("--suspects", self.suspects, not_pages),
        ):
            if value is not None and (not given or given[0] in unused):
                fitting = ", ".join(view for view in views if view not in unused)
                problem = f"{name} has no effect {f'with {given[0]}' if given else 'by itself'}"
                raise UsageError("C121", "prefdata show", problem, f"give one of {fitting} with it")
