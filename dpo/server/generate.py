"""Completions of a prompt by the protocol of OpenAI: `n` of them, with log-probs if there are any.

Servers differ in what they accept. What one refuses (400) is left out of all later requests:
`logprobs`, `seed`, and `n`, in place of which each completion becomes a request of its own; so does
`n` if the server ignores it.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from dpo.errors import UsageError
from dpo.server.client import BadReply, Client, RefusedError

Messages = list[dict[str, Any]]
_BY_ITSELF = {"stop", "eos", "eos_token", "end_turn", "stop_sequence"}


class Decoding(NamedTuple):
    """Sampling parameters of a request."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64


class Answer(NamedTuple):
    """One completion by a server's model."""

    text: str
    logp: float | None
    """Log-prob summed over its tokens, in nats, as the server gives it; None if it does not."""
    num_tokens: int | None
    ended: bool
    """True if the model ended it; False if it was cut."""
    model: str
    """Name of the model in the reply, or that of the request."""
    reasoning: str | None = None


class Dialect(NamedTuple):
    """Parameters that the server accepts."""

    n: bool = True
    logprobs: bool = True
    seed: bool = True
    max_tokens: str = "max_tokens"

    def notes(self) -> list[str]:
        """Return what the server does not accept, and what that means."""
        said = []
        if not self.n:
            said.append("the server gives one completion a request: `n` is not used")
        if not self.seed:
            said.append("the server refuses `seed`: completions do not repeat")
        return said


class Generator:
    """A model of a server, and what has been learned about its parameters."""

    def __init__(
        self, client: Client, model: str, decoding: Decoding, *, logprobs: bool = True
    ) -> None:
        self.client, self.model, self.decoding = client, model, decoding
        self.dialect = Dialect(logprobs=logprobs)

    async def complete(
        self, prompt: str | Messages, seeds: Sequence[int], place: str
    ) -> list[Answer]:
        """Return one completion for each seed; a string is continued verbatim."""
        path = "completions" if isinstance(prompt, str) else "chat/completions"
        found: list[Answer] = []
        while missing := seeds[len(found) :]:
            dialect = self.dialect
            num = len(missing) if dialect.n else 1
            body = self._body(prompt, num, missing[0])
            read = partial(read_reply, num=num, model=self.model)
            try:
                got = await self.client.ask(path, body, read, place)
            except RefusedError as refusal:
                if dialect is self.dialect:  # else another request has learned it meanwhile
                    self.dialect = _without(dialect, refusal, num)
                continue
            if len(got) < num:
                self.dialect = self.dialect._replace(n=False)
            found += got
        return found

    def _body(self, prompt: str | Messages, num: int, seed: int) -> dict[str, Any]:
        decoding, dialect = self.decoding, self.dialect
        verbatim = isinstance(prompt, str)
        body: dict[str, Any] = {
            "model": self.model,
            "prompt" if verbatim else "messages": prompt,
            "temperature": decoding.temperature,
            dialect.max_tokens: decoding.max_new_tokens,
        }
        if decoding.top_p < 1:
            body["top_p"] = decoding.top_p
        if num > 1:
            body["n"] = num
        if dialect.seed:
            body["seed"] = seed
        if dialect.logprobs:
            body["logprobs"] = 1 if verbatim else True
        return body


async def choose_model(client: Client) -> str:
    """Return the model that is asked for, or the only one that the server lists."""
    if client.server.model is not None:
        return client.server.model
    names = await client.ask("models", None, _read_models, "--server-model")
    if len(names) != 1:
        problem = f"lists {len(names)} models{': ' if names else ''}{', '.join(names[:8])}"
        raise UsageError("T157", client.url, problem, "name one of its models with --server-model")
    return names[0]


def read_reply(reply: Any, *, num: int, model: str) -> list[Answer]:
    """Return the completions of a reply: `num`, or one if the server ignores `n`."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise BadReply("the reply has no list of `choices`")
    if len(choices) not in (num, 1):
        raise BadReply(f"the reply has {len(choices)} choices, but n is {num}")
    if all(isinstance(one.get("index"), int) for one in choices):
        choices = sorted(choices, key=lambda one: one["index"])
    named = reply.get("model")
    model = named if isinstance(named, str) and named else model
    found = [_read_choice(one, model) for one in choices]
    if len(found) == 1 and found[0].num_tokens is None:
        usage = reply.get("usage")
        count = usage.get("completion_tokens") if isinstance(usage, dict) else None
        found = [found[0]._replace(num_tokens=count if type(count) is int else None)]
    return found


def _read_choice(choice: dict[str, Any], model: str) -> Answer:
    message = choice.get("message", {"content": choice.get("text", 0)})
    content = message.get("content", 0) if isinstance(message, dict) else 0
    if not isinstance(content, str | None):
        raise BadReply("a choice of the reply has no text")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    logps = _logps_of(choice.get("logprobs"))
    return Answer(
        text=content or "",
        logp=None if logps is None else math.fsum(logps),
        num_tokens=None if logps is None else len(logps),
        ended=choice.get("finish_reason") in _BY_ITSELF,
        model=model,
        reasoning=reasoning if isinstance(reasoning, str) else None,
    )


def _logps_of(given: Any) -> list[float] | None:
    """Return the log-prob of each token; None unless all are there as finite numbers."""
    if not isinstance(given, dict):
        return None
    values = given.get("token_logprobs")
    if isinstance(items := given.get("content"), list):
        values = [item.get("logprob") if isinstance(item, dict) else None for item in items]
    if not isinstance(values, list):
        return None
    sound = all(isinstance(v, int | float) and math.isfinite(v) for v in values)
    return [float(value) for value in values] if sound else None


def _read_models(reply: Any) -> list[str]:
    listed = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(listed, list):
        raise BadReply("the reply has no list of models (`data`)")
    names = [one.get("id") if isinstance(one, dict) else None for one in listed]
    return [name for name in names if isinstance(name, str)]


def _without(dialect: Dialect, refusal: RefusedError, num: int) -> Dialect:
    """Return the dialect without what the server seems to refuse; raise if that is nothing."""
    said = refusal.problem.lower()
    if "max_completion_tokens" in said and dialect.max_tokens == "max_tokens":
        return dialect._replace(max_tokens="max_completion_tokens")
    if "logprobs" in said and dialect.logprobs:
        return dialect._replace(logprobs=False)
    if "seed" in said and dialect.seed:
        return dialect._replace(seed=False)
    if num > 1:
        return dialect._replace(n=False)
    if dialect.logprobs:
        return dialect._replace(logprobs=False)
    raise refusal
