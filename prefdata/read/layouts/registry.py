"""Layouts by name or path: shipped ones, those of installed packages, and a user's own files."""

import difflib
from collections.abc import Iterator
from functools import cache, partial
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from importlib.resources.abc import Traversable
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from pydantic import ValidationError

from prefdata.errors import UsageError
from prefdata.read.layouts.model import Layout
from prefdata.settings import read_settings, settle_words

GROUP = "prefdata.layouts"
"""Entry points of packages with layouts: each a package of YAML files, or a function of paths."""
_MOST_FAULTS = 10  # in one message
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if it was compiled


@cache
def shipped_layouts() -> dict[str, Layout]:
    """Return every layout of the package by name, sorted."""
    return {name: _shipped(name) for name in _shipped_names()}


@cache
def installed_layouts() -> dict[str, Layout]:
    """Return the layouts of installed packages by name; raise C154 for a broken package."""
    found: dict[str, Layout] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda one: (_package(one), one.name)):
        for layout in _layouts_of(point):
            if layout.name in found or layout.name in _shipped_names():
                other = found[layout.name].package if layout.name in found else "prefdata"
                raise _broken(point, f"its layout {layout.name!r} has the name of one of {other}")
            found[layout.name] = layout
    return dict(sorted(found.items()))


def known_layouts() -> dict[str, Layout]:
    """Return the layouts of prefdata, then those of installed packages."""
    return {**shipped_layouts(), **installed_layouts()}


def load_layout(name: str) -> Layout:
    """Load a layout: a shipped or installed one by its name, or a user's own by its file's path.

    `NAME:DIMENSION` chooses one of the layout's `dimensions`.
    """
    layout, dimension = find_layout(name)
    return in_force(layout, dimension, name)


def in_force(layout: Layout, dimension: str | None, place: str) -> Layout:
    """Return the layout with a dimension selected; raise PD102 if it needs one and has none."""
    known = " or ".join(f"{layout.name}:{one}" for one in layout.dimensions)
    if dimension is not None and dimension not in layout.dimensions:
        problem = f"{layout.name} has no dimension {dimension!r}"
        raise UsageError("C153", place, problem, f"name {known}" if known else "remove it")
    dimension = dimension or layout.dimension
    if layout.refuse:
        raise UsageError("PD102", place, f"{layout.name}: {layout.refuse}", "convert it first")
    if dimension is None and layout.dimensions:
        problem = f"rows of {layout.name} have preferences in several dimensions"
        raise UsageError("PD102", place, problem, f"choose one: --layout {known}")
    return layout.by(dimension) if dimension else layout


def find_layout(name: str) -> tuple[Layout, str | None]:
    """Find a layout; return it as written, and the dimension that was named with it."""
    head, _, tail = name.rpartition(":")
    for candidate, dimension in ((name, None), (head, tail)):
        if candidate in _shipped_names():
            return _shipped(candidate), dimension
        if candidate and Path(candidate).is_file():
            refuse = partial(UsageError, "C151", candidate)
            layout = _layout(read_settings(Path(candidate), refuse), candidate)
            stem = Path(candidate).stem
            return layout if layout.name else layout.model_copy(update={"name": stem}), dimension
        if candidate in installed_layouts():
            return installed_layouts()[candidate], dimension
    names = (*_shipped_names(), *installed_layouts())
    near = difflib.get_close_matches(head or name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    remedy = f"{hint}`prefdata layouts` lists them; or pass the path of a file"
    raise UsageError("C150", name, "no such layout", remedy)


def is_shipped(layout: Layout) -> bool:
    """Return whether a layout is a shipped one, with or without a dimension."""
    name = layout.name.partition(":")[0]
    return name in _shipped_names() and _shipped(name).about == layout.about


def _layouts_of(point: EntryPoint) -> Iterator[Layout]:
    """Yield the layouts of an entry point, each with its package."""
    try:
        files = list(_files_of(point.load()))
    except (Exception, SystemExit) as error:  # a package's code may raise anything
        raise _broken(point, f"cannot be loaded ({type(error).__name__}: {error})") from error
    if not files:
        raise _broken(point, "names no YAML file")
    for file in files:
        place = f"{_package(point)}, {file.name}"
        refuse = partial(UsageError, "C151", place)
        yield _layout(read_settings(file, refuse), place).of_package(_package(point))


def _files_of(given: Any) -> Iterator[Path]:
    """Yield the YAML files of a package of such files, of a path, or of a function of paths."""
    paths = (
        given.__path__ if isinstance(given, ModuleType) else given() if callable(given) else given
    )
    for path in map(Path, [paths] if isinstance(paths, str | PathLike) else paths):
        yield from sorted(path.glob("*.yaml")) if path.is_dir() else [path]


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _broken(point: EntryPoint, problem: str) -> UsageError:
    remedy = "update or remove the package"
    place = f"the package {_package(point)}"
    return UsageError("C154", place, f"{GROUP} {point.name!r}: {problem}", remedy)


def _folder() -> Traversable:
    return resources.files("prefdata.read.layouts") / "shipped"


@cache
def _shipped_names() -> tuple[str, ...]:
    names = (file.name for file in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


@cache
def _shipped(name: str) -> Layout:
    file = _folder() / f"{name}.yaml"
    return _layout(Loader(file.read_text(encoding="utf-8")).get_single_data(), file.name)


def _layout(content: Any, place: str) -> Layout:
    try:
        return Layout.model_validate(settle_words(content, Layout))
    except ValidationError as error:
        said = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'layout'}: {fault['msg']}"
            for fault in error.errors()
        ]
        problem = "; ".join(dict.fromkeys(said[:_MOST_FAULTS]))
        raise UsageError("C152", place, problem, "see docs/layouts.md for the schema") from error
