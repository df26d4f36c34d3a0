"""Files behind URLs: fetched once to the cache directory, continued after a break.

    https://host/data/rows.jsonl      by ranges, if the server offers them
    s3://bucket/data/*.jsonl          any scheme that fsspec knows; globs and directories too

A file is at `inputs/PLACE/` in the cache, under its own path, so that names of files and
directories still name splits. The version that the server states (size and ETag or date) is next to
it: a file whose version is unchanged is not fetched again, and one whose fetch broke off is
continued. A file without a version is fetched each time. The manifest has the sha256 of its bytes.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import orjson

from prefdata.errors import PrefdataError, UsageError
from prefdata.hub.errors import HubError
from prefdata.records.sources import is_data_name
from prefdata.store.commit import fsync_path
from prefdata.store.verify import cache_folder

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z][A-Za-z0-9+.-]+)*://")
_BLOCK = 1 << 20
_PATIENCE = 60.0  # seconds without a byte
_VERSION_KEYS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "md5Hash", "created")
_TRIES = 3
_REFUSED = (ImportError, ValueError, PermissionError)
"""Errors that another try does not help."""
_OF_INPUTS = "inputs"


class Version(NamedTuple):
    """Size and mark of a remote file; a mark changes with the content."""

    size: int | None
    mark: str

    @property
    def is_known(self) -> bool:
        """Return whether the same version is surely the same bytes."""
        return self.size is not None and bool(self.mark)


def is_url(name: str) -> bool:
    """Return whether a name is a URL.

    >>> is_url("s3://bucket/a.jsonl"), is_url("a:b.jsonl"), is_url("C://x")
    (True, False, False)
    """
    return _URL.match(name) is not None


def shown_url(url: str) -> str:
    """Return a URL without user, password, query and fragment, as labels have it.

    >>> shown_url("https://me:key@host:80/a.jsonl?sig=1#x")
    'https://host:80/a.jsonl'
    """
    scheme, host, path = _split(url)
    return urlunsplit((scheme, host.rpartition("@")[2], path, "", ""))


def _is_http(url: str) -> bool:
    """Return whether a URL is of HTTP, behind other steps of fsspec too (simplecache::https://)."""
    return re.search(r"(^|::)https?://", url.lower()) is not None


def _split(url: str) -> tuple[str, str, str]:
    """Return scheme, host and path. Only HTTP has queries: elsewhere `?` and `#` are in names."""
    if _is_http(url):
        parts = urlsplit(url)
        return parts.scheme, parts.netloc, parts.path
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return scheme, host, slash + path


def url_of(path: Path) -> str | None:
    """Return the URL of a file that was fetched to the cache, as labels have it; None for others.

    It is read from the note next to the file.
    """
    if _OF_INPUTS not in path.parts or not _note_of(path).is_file():
        return None
    return str(_read_note(path).get("url", "")) or None


def fetch_url(url: str) -> list[str]:
    """Fetch the files of a URL, which may be a glob or a directory; return their local paths.

    Raises UsageError (E215) for a scheme or an address that cannot be used, and HubError (E216) if
    the transfer fails.
    """
    with _faults(url):
        if url.lower().startswith(("http://", "https://")):
            return [_fetch_http(url)]
        return _fetch_other(url)


@contextmanager
def _faults(url: str) -> Iterator[None]:
    """Turn errors of clients into coded ones, which name the URL without its secrets."""
    try:
        yield
    except PrefdataError:
        raise
    except FileNotFoundError as error:
        raise UsageError("E215", shown_url(url), "does not exist", "check the address") from error
    except Exception as error:  # clients of file systems have errors of their own
        if not isinstance(error, _REFUSED) and "Credentials" not in type(error).__name__:
            problem = f"was not fetched ({type(error).__name__})"
            remedy = "run the same command again: what was fetched is kept"
            raise HubError("E216", shown_url(url), problem, remedy) from error
        problem = f"cannot be read: {' '.join(str(error).split())[:200]}"
        remedy = "install what it needs, log in, or fetch the file yourself"
        raise UsageError("E215", shown_url(url), problem, remedy) from error


def _fetch_http(url: str) -> str:
    import httpx2

    target = _place(url)
    with httpx2.Client(follow_redirects=True, timeout=_PATIENCE) as client:
        for tries in range(1, _TRIES + 1):
            try:
                return _get(client, url, target)
            except httpx2.TransportError:
                if tries == _TRIES:
                    raise
    raise AssertionError(url)


def _get(client: Any, url: str, target: Path) -> str:
    """Fetch a file by GET; ask for the rest of one that an earlier try left."""
    part = _part_of(target)
    held = part.stat().st_size if part.is_file() else 0
    note = _read_note(target)
    asked = {}
    if held and note.get("mark"):
        asked = {"Range": f"bytes={held}-", "If-Range": note["mark"]}
    if target.is_file() and str(note.get("mark", "")).startswith('"'):
        asked = {"If-None-Match": note["mark"]}  # dates have whole seconds, too coarse for this
    with client.stream("GET", url, headers={"Accept-Encoding": "identity", **asked}) as answer:
        if answer.status_code == 304:
            return str(target)
        _require_answer(url, answer)
        held = held if answer.status_code == 206 else 0
        version = _version_of_answer(answer, held)
        _begin(url, target, version)
        with part.open("ab" if held else "wb") as file:
            for block in answer.iter_raw():
                file.write(block)
    return _finish(url, target, version)


def _require_answer(url: str, answer: Any) -> None:
    """Raise E215 if the server refuses, or E216 if it fails."""
    if answer.status_code in (200, 206):
        return
    problem = f"was refused (HTTP {answer.status_code} {answer.reason_phrase})".rstrip()
    if answer.status_code >= 500 or answer.status_code == 429:
        raise HubError("E216", shown_url(url), problem, "wait, then run the same command again")
    remedy = "check the address, and that it needs no login"
    raise UsageError("E215", shown_url(url), problem, remedy)


def _version_of_answer(answer: Any, held: int) -> Version:
    """Return the version that an answer states; weak ETags do not prove equal bytes."""
    length = answer.headers.get("Content-Length")
    mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    return Version(held + int(length) if length else None, "" if mark.startswith("W/") else mark)


def _fetch_other(url: str) -> list[str]:
    """Fetch by fsspec: a file, a glob, or the data files of a directory."""
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    if any(mark in path for mark in "*?[") and not system.isfile(path):
        names = sorted(system.glob(path))
    else:
        below = sorted(filter(is_data_name, system.find(path))) if system.isdir(path) else []
        names = below or [path]
    if not names:
        raise FileNotFoundError(url)
    return [_copy(system, str(system.unstrip_protocol(name)), name) for name in names]


def _copy(system: Any, url: str, name: str) -> str:
    """Copy a file of a file system; continue at the end of what is there."""
    target = _place(url)
    about = system.info(name)
    marks = [f"{key}={about[key]}" for key in _VERSION_KEYS if about.get(key) is not None]
    version = Version(about.get("size"), " ".join(marks))
    part, note = _part_of(target), _read_note(target)
    is_same = version.is_known and note == _note(url, version)
    if is_same and target.is_file() and target.stat().st_size == version.size:
        return str(target)
    held = part.stat().st_size if is_same and part.is_file() else 0
    _begin(url, target, version)
    with system.open(name, "rb") as source, part.open("ab" if held else "wb") as file:
        if held:
            source.seek(held)
        _copy_all(source, file)
    return _finish(url, target, version)


def _copy_all(source: IO[bytes], file: IO[bytes]) -> None:
    while block := source.read(_BLOCK):
        file.write(block)


def _begin(url: str, target: Path, version: Version) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _note_of(target).write_bytes(orjson.dumps(_note(url, version)))


def _finish(url: str, target: Path, version: Version) -> str:
    """Give a fetched file its name; raise E216 if bytes are missing."""
    part = _part_of(target)
    size = part.stat().st_size
    if version.size is not None and size != version.size:
        problem = f"was not fetched whole: {size:,} of {version.size:,} bytes"
        if size > version.size:
            part.unlink()
        raise HubError("E216", shown_url(url), problem, "run the same command again")
    fsync_path(part)
    part.replace(target)
    return str(target)


def _place(url: str) -> Path:
    """Return the place of a URL in the cache: its own path, below a name made from the rest."""
    path = _split(url)[2]
    steps = [step for step in path.split("/") if step not in ("", ".", "..")]
    if _is_http(url):
        steps = [unquote(step) for step in steps]
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    below = [quote(step, safe=" ()+,;=@'#")[:200] for step in steps] or ["rows"]
    return cache_folder() / _OF_INPUTS / digest / Path(*below)


def _note(url: str, version: Version) -> dict[str, Any]:
    return {"url": shown_url(url), "size": version.size, "mark": version.mark}


def _read_note(target: Path) -> Mapping[str, Any]:
    try:
        note = orjson.loads(_note_of(target).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return note if isinstance(note, dict) else {}


def _note_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.note")


def _part_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")
