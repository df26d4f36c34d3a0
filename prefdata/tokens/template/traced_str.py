"""Stand-ins for the texts of a dialogue, on which a chat template is traced.

A stand-in has its text, but only answers questions about it, and logs each question with its
answer. Every other operation ends the run, so a template learns nothing about a text without a
question in the log.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

Texts = Sequence[str]
Source = Callable[[Texts], str]
Parts = tuple[str | Source, ...]
"""Parts of a text: literals, and functions of the texts of a dialogue."""
Question = Callable[[Texts], bool]

MOST_PARTS = 4096  # of one text; a template that adds a text to itself doubles them
MOST_CHANGED = 16  # parts of a text that is changed as a whole
MOST_NOTES = 4096  # questions, or output texts, of one run
MARK = "\ufdd0"  # a Unicode noncharacter, which text does not contain


def join_parts(parts: Parts, texts: Texts) -> str:
    """Return the text of one dialogue.

    >>> from operator import itemgetter
    >>> join_parts(("<", itemgetter(1), ">"), ["a", "b"])
    '<b>'
    """
    return "".join([part if type(part) is str else part(texts) for part in parts])  # type: ignore[operator]


class Untraceable(BaseException):
    """Raised on an operation that cannot be traced.

    A BaseException, so that no `except Exception` inside Jinja can catch it.
    """


class Log:
    """Questions of one run with their answers, and the texts that it output."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.asked: list[tuple[Question, bool]] = []
        self.put_out: list[Parts] = []

    def mark(self, value: Any) -> Any:
        """Return the mark of a stand-in for the output; return other values unchanged."""
        if type(value) is not TracedStr:
            return value
        if len(self.put_out) >= MOST_NOTES:
            raise Untraceable
        self.put_out.append(value._parts)
        return f"{MARK}{len(self.put_out) - 1}{MARK}"


class TracedStr:
    """A text of a dialogue as a template sees it while it is traced."""

    __slots__ = ("_log", "_parts", "_text")

    def __init__(self, parts: Parts, text: str, log: Log) -> None:
        self._parts, self._text, self._log = parts, text, log

    def _asks(self, question: Callable[[str], bool]) -> bool:
        if len(self._log.asked) >= MOST_NOTES:
            raise Untraceable
        parts, answer = self._parts, question(self._text)
        self._log.asked.append((lambda texts: question(join_parts(parts, texts)), answer))
        return answer

    def _change(self, change: Callable[[str], str]) -> "TracedStr":
        parts = self._parts
        if len(parts) > MOST_CHANGED:
            raise Untraceable
        changed: Source = lambda texts: change(join_parts(parts, texts))  # noqa: E731
        return TracedStr((changed,), change(self._text), self._log)

    def __bool__(self) -> bool:
        return self._asks(bool)

    def __contains__(self, part: object) -> bool:
        known = _own(part)
        return self._asks(lambda text: known in text)

    def startswith(self, part: object) -> bool:
        known = _own(part)
        return self._asks(lambda text: text.startswith(known))

    def endswith(self, part: object) -> bool:
        known = _own(part)
        return self._asks(lambda text: text.endswith(known))

    def __eq__(self, other: object) -> bool:
        known = _own(other)
        return self._asks(lambda text: text == known)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def strip(self, chars: object = None) -> "TracedStr":
        cut = None if chars is None else _own(chars)
        return self._change(lambda text: text.strip(cut))

    def lstrip(self, chars: object = None) -> "TracedStr":
        cut = None if chars is None else _own(chars)
        return self._change(lambda text: text.lstrip(cut))

    def rstrip(self, chars: object = None) -> "TracedStr":
        cut = None if chars is None else _own(chars)
        return self._change(lambda text: text.rstrip(cut))

    def __add__(self, other: object) -> "TracedStr":
        parts, text = _known(other)
        return self._joined(self._parts + parts, self._text + text)

    def __radd__(self, other: object) -> "TracedStr":
        parts, text = _known(other)
        return self._joined(parts + self._parts, text + self._text)

    def _joined(self, parts: Parts, text: str) -> "TracedStr":
        if len(parts) > MOST_PARTS:
            raise Untraceable
        return TracedStr(parts, text, self._log)

    def __getattr__(self, name: str) -> NoReturn:
        raise Untraceable(name)

    def _unseen(self, *_: object) -> NoReturn:
        raise Untraceable

    __hash__ = __str__ = __repr__ = __len__ = __iter__ = __getitem__ = _unseen
    __format__ = __lt__ = __le__ = __gt__ = __ge__ = __mul__ = __rmul__ = _unseen
    __mod__ = __rmod__ = __int__ = __float__ = __index__ = _unseen


def _own(value: object) -> str:
    """Return text of the template's own; comparing two texts of a dialogue is not traced."""
    if type(value) is not str:
        raise Untraceable
    return value


def _known(value: object) -> tuple[Parts, str]:
    if type(value) is TracedStr:
        return value._parts, value._text
    text = _own(value)
    return (text,), text
