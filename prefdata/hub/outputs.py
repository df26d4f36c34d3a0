"""Builds at URLs: made in the cache directory, then copied to where they belong, manifest last.

    s3://bucket/sets/hh     any scheme that fsspec can write

The directory in the cache has the URL's last name, so the files are those of a build on disk. It is
kept: a killed build resumes there, and a copy that broke off is made again from it.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from prefdata.errors import PrefdataError, UsageError
from prefdata.hub.errors import HubError
from prefdata.hub.urls import shown_url
from prefdata.store.manifest import NAME, Manifest, read_manifest
from prefdata.store.verify import cache_folder

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/+(?P<rest>[^/].*)")
_NOT_SEALED = ("README.md", "report.html")
"""Files of a build that its manifest does not list."""
_COPYING = ".prefdata-copying.json"
"""List of the files that a copy writes or removes, until it is whole: if it breaks off, the next
one knows what to remove."""
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "r2")
"""Schemes without directories: making one would make a bucket."""


def url_of_out(out: Path) -> str | None:
    """Return the URL that an output directory is; None for a path.

    >>> url_of_out(Path("s3://bucket/out")), url_of_out(Path("s3/out")), url_of_out(Path("/a:/b"))
    ('s3://bucket/out', None, None)
    """
    found = _URL.fullmatch(out.as_posix())  # pathlib writes s3://bucket as s3:/bucket
    return f"{found['scheme']}://{found['rest']}" if found else None


def place_of(url: str) -> Path:
    """Return the directory in which the build of a URL is made."""
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    return cache_folder() / "builds" / digest / url.rpartition("/")[2]


def is_free(url: str, place: Path, *, replace: bool) -> bool:
    """Return whether a build may be made anew for a URL; False if the one at `place` is there.

    Raises E142 if there is another build, unless `replace`.
    """
    with _faults(url):
        system, root = _open(url)
        there = _read(system, f"{root}/{NAME}")
    if there is None or replace:
        return True
    own = place / NAME
    if own.is_file() and own.read_bytes() == there:
        return False
    remedy = "name another output, or replace that build with --replace"
    raise UsageError("E142", shown_url(url), "contains another build", remedy)


def copy_build(place: Path, url: str) -> None:
    """Copy a finished build to a URL, its manifest last; remove the files of older copies."""
    own = read_manifest(place)
    names = [*_names(own), *(name for name in _NOT_SEALED if (place / name).is_file())]
    with _faults(url):
        system, root = _open(url)
        data, begun = _read(system, f"{root}/{NAME}"), _read(system, f"{root}/{_COPYING}")
        before = _names(Manifest.model_validate_json(data)) if data else []
        stale = {*before, *_names_begun(begun)} - {*names}
        _make_directory(system, root)
        system.pipe_file(f"{root}/{_COPYING}", orjson.dumps(sorted({*names, *stale})))
        if data:
            system.rm_file(f"{root}/{NAME}")  # half a build has none
        for name in names:
            _put(system, place / name, f"{root}/{name}")
        for name in sorted(stale):
            with suppress(FileNotFoundError):  # the copy broke off before it
                system.rm_file(f"{root}/{name}")
        _put(system, place / NAME, f"{root}/{NAME}")
        system.rm_file(f"{root}/{_COPYING}")


def _names_begun(data: bytes | None) -> list[str]:
    """Return the names in a list of files that were being copied, of those below the URL."""
    try:
        found = orjson.loads(data or b"[]")
    except orjson.JSONDecodeError:  # written in part
        return []
    names = [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
    return [name for name in names if name and not {"", ".", ".."} & {*name.split("/")}]


def _names(manifest: Manifest) -> list[str]:
    return [*(one.path for one in manifest.shards), *(one.path for one in manifest.files)]


def _open(url: str) -> tuple[Any, str]:
    import fsspec

    system, root = fsspec.core.url_to_fs(url)
    return system, str(root).rstrip("/")


def _read(system: Any, path: str) -> bytes | None:
    try:
        return bytes(system.cat_file(path))
    except FileNotFoundError:
        return None


def _make_directory(system: Any, path: str) -> None:
    """Make a directory, unless the file system is an object store."""
    schemes = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    if not {*schemes} & {*_OBJECT_STORES}:
        system.makedirs(path, exist_ok=True)


def _put(system: Any, source: Path, target: str) -> None:
    """Copy a file, and compare the size that the other side states."""
    _make_directory(system, target.rpartition("/")[0])
    system.put_file(str(source), target)
    system.invalidate_cache()
    size, there = source.stat().st_size, system.info(target)["size"]
    if there != size:
        message = f"{target} has {there:,} of {size:,} bytes"
        raise OSError(message)


@contextmanager
def _faults(url: str) -> Iterator[None]:
    """Turn errors of clients into coded ones, which name the URL without its secrets."""
    try:
        yield
    except PrefdataError:
        raise
    except Exception as error:  # clients of file systems have errors of their own
        said = " ".join(str(error).split())[:200]
        problem = f"cannot be written ({type(error).__name__}: {said})"
        remedy = "log in, install what it needs, and run again: what is done is kept"
        raise HubError("E217", shown_url(url), problem, remedy) from error
