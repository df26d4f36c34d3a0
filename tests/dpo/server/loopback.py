"""A server on the loopback that speaks the protocol of OpenAI, and fails as a test asks."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from time import time
from types import TracebackType
from typing import Any, NamedTuple, Self


class Asked(NamedTuple):
    """One request that the server got."""

    number: int
    """From 0."""
    path: str
    body: Any
    key: str | None


class Reply(NamedTuple):
    """A status, headers and a body; `cut` closes the connection in the middle of the body."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    cut: bool = False
    delay: float = 0.0


Answerer = Callable[[Asked], Reply]


class Loopback:
    """The server, in a thread of its own; `asked` has all requests."""

    def __init__(self, answer: Answerer, port: int = 0) -> None:
        self.answer, self.port = answer, port
        self.asked: list[Asked] = []
        self.in_flight = self.most_in_flight = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        """Close the port and all connections."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def _answered(self, asked: Asked) -> Reply:
        try:
            return self.answer(asked)
        except Exception as error:  # noqa: BLE001 - so that a test fails at once, and says why
            return Reply(418, {"error": f"the test's server raised {error!r}"})

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        path = head[0].split(" ")[1]
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        key = headers.get("authorization", "").removeprefix("Bearer ") or None
        asked = Asked(len(self.asked), path, json.loads(raw) if raw else None, key)
        self.asked.append(asked)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = self._answered(asked)
            await asyncio.sleep(reply.delay)
            return await _send(writer, reply)
        finally:
            self.in_flight -= 1


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> bool:
    body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    lines = [f"HTTP/1.1 {reply.status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    data = "\r\n".join([*lines, "", ""]).encode() + body
    writer.write(data[: -len(body) // 2] if reply.cut else data)
    await writer.drain()
    return not reply.cut


def soon(seconds: float) -> str:
    """Return a date of a Retry-After header."""
    return formatdate(time() + seconds, usegmt=True)


def prompt_of(asked: Asked) -> str:
    if asked.path.endswith("/chat/completions"):
        return str(asked.body["messages"][-1]["content"])
    return str(asked.body["prompt"])


def completion(text: str, *, chat: bool, logprobs: bool) -> dict[str, Any]:
    """Return one choice whose tokens are its words, each of log-prob -0.5."""
    words = text.split()
    side: dict[str, Any] = (
        {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    )
    found: Any = {"token_logprobs": [-0.5] * len(words)}
    if chat:
        found = {"content": [{"token": word, "logprob": -0.5} for word in words]}
    return {**side, "finish_reason": "stop", "logprobs": found if logprobs else None}


def well(asked: Asked, *, logprobs: bool = True, num: int | None = None) -> Reply:
    """Answer as a sound server does, with `answer NUMBER to PROMPT`."""
    if asked.path.endswith("/models"):
        return Reply(body={"data": [{"id": "tiny"}]})
    chat = asked.path.endswith("/chat/completions")
    count = asked.body.get("n", 1) if num is None else num
    logprobs = logprobs and bool(asked.body.get("logprobs"))
    choices = [
        {
            "index": at,
            **completion(f"answer {at} to {prompt_of(asked)}", chat=chat, logprobs=logprobs),
        }
        for at in range(count)
    ]
    return Reply(body={"model": "tiny-1", "choices": choices})


def failing_first(faults: list[Reply]) -> Answerer:
    """Return a server that answers each prompt's first requests with these faults."""
    seen: Counter[str] = Counter()

    def answer(asked: Asked) -> Reply:
        if asked.body is None:
            return well(asked)
        prompt = prompt_of(asked)
        seen[prompt] += 1
        return faults[seen[prompt] - 1] if seen[prompt] <= len(faults) else well(asked)

    return answer
