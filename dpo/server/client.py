"""Requests to a server: at a rate, retried, and with errors that never contain the key.

Retried are time-outs, cut connections, 408, 425, 429 and 5xx, and replies that are not of the
protocol; `Retry-After` is honored. Any other status is an error at once, since it would repeat.
"""

import asyncio
import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import httpx2
import orjson

from dpo.errors import TrainingError, UsageError

T = TypeVar("T")
_LONGEST_WAIT = 60.0  # seconds between two tries
_LONGEST_ASKED = 600.0  # seconds that a server may ask for
_MOST_BYTES = 256 << 20  # of a reply
_SHOWN = 300  # characters of a server's message
_SCRUBBED = 8  # letters of a key that are removed from replies too, not only from messages
_RETRIED = {408, 425, 429}
_NEVER_WORKS = {501, 505}


class Server(NamedTuple):
    """Address of a server, and how it is asked."""

    url: str
    """Address that `/chat/completions` is appended to; `/v1` is added to one without a path."""
    model: str | None = None
    """None: the only model that the server lists."""
    key: str | None = None
    concurrency: int = 16
    """Requests in flight at once."""
    rate: float | None = None
    """Requests per minute; None: as many as `concurrency` allows."""
    retries: int = 8
    timeout: float = 300.0
    """Seconds for one request, from the connection to the last byte."""
    first_wait: float = 1.0
    """Seconds before the first retry; twice as many before each further one, at most 60."""

    def __repr__(self) -> str:
        """Return a text without the key."""
        return f"Server({self.url})"


class BadReply(Exception):  # noqa: N818 - not for the user
    """A reply that is not of the protocol."""


class RefusedError(UsageError):
    """A request that the server refuses as it is (400)."""


class _Fault(Exception):  # noqa: N818 - not for the user
    """A fault that may be gone at the next try."""

    def __init__(self, said: str, wait: float = 0.0, *, is_reply: bool = False) -> None:
        self.said, self.wait, self.is_reply = said, wait, is_reply
        super().__init__(said)


class _Pace:
    """The moment of the next request, shared by all: by the rate, or as the server asked."""

    def __init__(self, rate: float | None) -> None:
        self._gap = 60 / rate if rate else 0.0
        self._next = 0.0

    async def turn(self) -> None:
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + self._gap if self._gap else self._next
        if start > now:
            await asyncio.sleep(start - now)

    def hold(self, seconds: float) -> None:
        self._next = max(self._next, time.monotonic() + seconds)


class Client:
    """An open session with a server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = base_url(server.url)
        self._key = _plain_key(server.key)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=server.concurrency)
        self._http = httpx2.AsyncClient(headers=headers, timeout=None, limits=limits)
        self._slots = asyncio.Semaphore(server.concurrency)
        self._pace = _Pace(server.rate)
        self._random = random.Random()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(
        self, path: str, body: dict[str, Any] | None, read: Callable[[Any], T], place: str
    ) -> T:
        """Return what `read` makes of the reply; POST a body, GET without one.

        Raises T320 or T321 if every try fails, T154 to T156 if the server refuses; `place` is
        that of the row.
        """
        attempt = 0
        while True:
            try:
                async with self._slots:
                    await self._pace.turn()
                    return read(await self._try(path, body, place))
            except BadReply as error:
                fault = _Fault(str(error), is_reply=True)
            except _Fault as error:
                fault = error
            if attempt >= self.server.retries or fault.wait > _LONGEST_ASKED:
                raise self._failed(fault, attempt + 1)
            wait = min(_LONGEST_WAIT, self.server.first_wait * 2**attempt)
            await asyncio.sleep(max(fault.wait, wait * self._random.uniform(0.5, 1)))
            attempt += 1

    async def _try(self, path: str, body: dict[str, Any] | None, place: str) -> Any:
        """Return the JSON of one reply; raise a fault, or the error of a refusal."""
        try:
            async with asyncio.timeout(self.server.timeout):
                status, headers, data = await self._send(path, body)
        except TimeoutError:
            raise _Fault(f"no reply within {self.server.timeout:g} s") from None
        except httpx2.HTTPError as error:
            raise _Fault(self._hide(f"{type(error).__name__}: {error}")) from None
        if 200 <= status < 300:
            return _parse(data)
        said = f"{status}: {self._hide(_message_of(data))}"
        if status in _RETRIED or (status >= 500 and status not in _NEVER_WORKS):
            wait = seconds_of(headers.get("retry-after"))
            self._pace.hold(min(wait, _LONGEST_ASKED))
            raise _Fault(said, wait)
        raise self._refused(status, said, path, place)

    async def _send(
        self, path: str, body: dict[str, Any] | None
    ) -> tuple[int, httpx2.Headers, bytes]:
        content = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        method = "GET" if body is None else "POST"
        found, size = [], 0
        async with self._http.stream(
            method, f"{self.url}/{path}", content=content, headers=headers
        ) as reply:
            async for part in reply.aiter_bytes():
                found.append(part)
                if (size := size + len(part)) > _MOST_BYTES:
                    raise _Fault(f"the reply has more than {_MOST_BYTES >> 20} MiB", is_reply=True)
        data = b"".join(found)
        if self._key and len(self._key) >= _SCRUBBED:
            data = data.replace(self._key.encode(), b"***")
        return reply.status_code, reply.headers, data

    def _hide(self, text: str) -> str:
        """Return a server's message in one short line, without the key."""
        text = text.replace(self._key, "***") if self._key else text
        text = " ".join(text.split())
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

    def _refused(self, status: int, said: str, path: str, place: str) -> UsageError:
        if status in (401, 403):
            remedy = "put a key that it accepts into the variable that --api-key-env names"
            given = "the key" if self._key else "a request without a key"
            return UsageError("T154", self.url, f"refuses {given} ({said})", remedy)
        if status in (404, 405) or 300 <= status < 400:
            problem = f"has no {path}, or not this model ({said})"
            remedy = "name the address before /chat/completions, such as http://localhost:8000/v1"
            remedy += ", and a model that it lists; verbatim prompts need /completions"
            return UsageError("T155", self.url, problem, remedy)
        remedy = "change what its message names, or leave the row out"
        return RefusedError("T156", place, f"{self.url} refuses the request ({said})", remedy)

    def _failed(self, fault: _Fault, tries: int) -> TrainingError:
        kept = "run the same command again: finished rows are kept"
        if fault.is_reply:
            problem = f"gives no usable reply in {tries} tries, at last: {fault.said}"
            return TrainingError("T321", self.url, problem, f"look at the server's log; {kept}")
        problem = f"does not answer in {tries} tries, at last: {fault.said}"
        if fault.wait > _LONGEST_ASKED:
            problem = f"asks to wait for {fault.wait:,.0f} s ({fault.said})"
        return TrainingError("T320", self.url, problem, f"wait for it or raise --retries; {kept}")


def base_url(url: str) -> str:
    """Return the address that paths are appended to; raise T153 unless it is http or https.

    >>> base_url("http://localhost:8000"), base_url("https://host/openai/v1/")
    ('http://localhost:8000/v1', 'https://host/openai/v1')
    """
    remedy = "name it as http://host:port or https://host/path"
    try:
        parts = urlsplit(url)
        httpx2.URL(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable()
        sound = sound and (parts.port is None or parts.port > 0) and " " not in url
    except (ValueError, httpx2.InvalidURL):
        sound = False
    if not sound:
        raise UsageError("T153", "--server", "is not an address of http or https", remedy)
    if parts.username or parts.password or parts.query or parts.fragment:
        problem = "has a user, a password, a query or a fragment, which may be secret"
        remedy = "put the key into the environment variable that --api-key-env names"
        raise UsageError("T153", "--server", problem, remedy)
    path = parts.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/completions")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def seconds_of(retry_after: str | None) -> float:
    """Return the seconds of a Retry-After header, a number or a date; 0 if it is neither.

    >>> seconds_of("2.5"), seconds_of(None), seconds_of("soon")
    (2.5, 0.0, 0.0)
    """
    if retry_after is None:
        return 0.0
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return seconds if 0 <= seconds < float("inf") else 0.0


def _plain_key(key: str | None) -> str | None:
    """Return the key without spaces around it; raise T153 if a header cannot hold it."""
    key = (key or "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable() and " " not in key):
        remedy = "store only the key in the variable that --api-key-env names"
        raise UsageError("T153", "the key", "has spaces or characters beyond ASCII", remedy)
    return key


def _parse(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadReply(f"the reply is not JSON ({error})") from None


def _message_of(data: bytes) -> str:
    """Return the message of an error's body: that of JSON if it has one, else its text."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.decode("utf-8", "replace")[:10_000]
    for _ in range(3):
        if not isinstance(value, dict):
            break
        value = next((value[k] for k in ("error", "message", "detail") if value.get(k)), str(value))
    return value if isinstance(value, str) else orjson.dumps(value).decode()
