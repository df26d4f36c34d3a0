"""A judge on the loopback that errs, and prefers the first answer, at known rates."""

import hashlib
import re
from typing import Any, NamedTuple

from tests.dpo.server.loopback import Asked, Reply, well


class Judge(NamedTuple):
    """Rates of the judge; its draws are functions of the question."""

    error: float = 0.0
    bias: float = 0.0
    """Chance that it says A without reading."""

    def __call__(self, asked: Asked) -> Reply:
        """Prefer the answer with `good` in it to one with `bad`."""
        if asked.body is None:
            return well(asked)
        question = asked.body["messages"][-1]["content"]
        reply = f"I read both.\nVerdict: {self.verdict(question)}"
        return says(reply)

    def verdict(self, question: str) -> str:
        first, second = answers_in(question)
        if draw("bias", question) < self.bias:
            return "A"
        right = "tie" if first.split()[0] == second.split()[0] else "AB"["good" in second]
        return (
            {"A": "B", "B": "A"}.get(right, right)
            if draw("error", question) < self.error
            else right
        )


def answers_in(question: str) -> list[str]:
    """Return the answers that a question shows, in their order."""
    return re.findall(r"\[\w{8} answer[^\]]*\]\n(.*?)(?=\n\[)", question, re.DOTALL)


def draw(name: str, question: str) -> float:
    digest = hashlib.sha256(f"{name}, {question}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def says(text: str, reason: str = "stop") -> Reply:
    choice: dict[str, Any] = {"message": {"content": text}, "finish_reason": reason}
    return Reply(body={"model": "judge-1", "choices": [choice]})
