"""Sources of a build: what `inputs` names, and how often each of them is trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr

from prefdata.records.split_names import AUTO
from prefdata.settings import StrictModel

MOST_EPOCHS = 1000
STDIN = "-"
_ENDINGS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".tab", ".parquet", ".arrow", ".feather")
_PACKED = ("", ".gz", ".zst")
DATA_ENDINGS = tuple(ending + packed for ending in _ENDINGS for packed in _PACKED)
_ABOUT_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


class Source(StrictModel):
    """One source of a build, such as a part of a mixture."""

    path: str
    """A file, glob, directory, URL or set of the Hub; `-` is standard input."""
    layout: str | None = None
    """Layout of its rows, by name or file; absent: that of the build, or detected."""
    split: str | None = None
    """Split of all its rows; `rows`: its `split` column names them; absent: found by file names."""
    name: str | None = None
    """Name in the report and in the counts of the mixture; absent: the files' names."""
    weight: Annotated[float, Field(gt=0, le=MOST_EPOCHS, allow_inf_nan=False)] = 1.0
    """How often each of its pairs is in train: 2.5 is twice, and a third time for a seeded half of
    them; 0.5 is a seeded half. Other splits have each pair once."""
    license: str | None = None
    """Licence of its rows, such as `cc-by-4.0`; absent: what the rows say."""
    _named: str = PrivateAttr("")

    @property
    def key(self) -> str:
        """The name that its files share: its own, or the path as the user wrote it."""
        return self.name or self._named or self.path

    @property
    def given(self) -> str | None:
        """The split that the user gives it; None if file names decide."""
        return None if self.split in (None, AUTO) else self.split

    def at(self, path: str, split: str | None = None) -> "Source":
        """Return the source with another path, and with a split if it has none."""
        found = self.model_copy(update={"path": path, "split": self.given or split})
        found._named = self._named or self.path
        return found


Inputs = Sequence[str | Source] | Mapping[str, Sequence[str]]
"""Names or sources, or names by split; `auto` and `rows` mean: by file name, by split column."""


def list_sources(inputs: Any) -> list[Any]:
    """Return what a config or a caller gives as inputs as a list of sources, or of their fields.

    Raises ValueError if it is neither a name, a list of names and sources, nor names by split.

    >>> list_sources({"train": "a.jsonl", "test": ["b.jsonl"]})
    [{'path': 'a.jsonl', 'split': 'train'}, {'path': 'b.jsonl', 'split': 'test'}]
    """
    if _is_source(inputs):
        return [inputs]
    if isinstance(inputs, str | Path):
        return [{"path": str(inputs)}]
    if isinstance(inputs, Mapping):
        return [one for split, names in inputs.items() for one in _of_split(split, names)]
    if not isinstance(inputs, list | tuple) or not inputs:
        raise ValueError("give at least one file, as a list or as lists by split")
    return [{"path": str(one)} if isinstance(one, str | Path) else _checked(one) for one in inputs]


def as_sources(inputs: Inputs | str | Source) -> list[Source]:
    """Return inputs as sources."""
    found = list_sources(inputs)
    return [one if isinstance(one, Source) else Source(**one) for one in found]


def is_list_of_sources(data: Any) -> bool:
    """Return whether a list holds names and sources only, and at least one source."""
    named = isinstance(data, list | tuple) and all(
        isinstance(one, str | Path) or _is_source(one) for one in data
    )
    return named and any(map(_is_source, data))


def _is_source(value: Any) -> bool:
    if isinstance(value, Source):
        return True
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("path"), str)
        and value.keys() <= Source.model_fields.keys()
    )


def _of_split(split: Any, names: Any) -> list[dict[str, Any]]:
    names = [names] if isinstance(names, str | Path) else names
    if not isinstance(names, list | tuple) or not names:
        raise ValueError("give at least one file, as a list or as lists by split")
    if not all(isinstance(name, str | Path) for name in names):
        raise ValueError("each file must be a string; a source has a `split` of its own")
    return [{"path": str(name), "split": split} for name in names]


def _checked(value: Any) -> Any:
    if not isinstance(value, Source | Mapping):
        raise ValueError("each file must be a string, or a source with `path`")  # noqa: TRY004
    return dict(value) if isinstance(value, Mapping) else value


def is_data_name(name: str) -> bool:
    """Return whether a file in a directory is read, by its name: hidden ones are not.

    >>> is_data_name("data/a.jsonl.gz"), is_data_name("README.md"), is_data_name("a/.x.jsonl")
    (True, False, False)
    """
    last = name.rpartition("/")[2]
    return (
        last.lower().endswith(DATA_ENDINGS) and last not in _ABOUT_DATA and not last.startswith(".")
    )
