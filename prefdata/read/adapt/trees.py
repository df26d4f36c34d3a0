"""Trees of messages: each message with two or more answers is a prompt with candidates."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from prefdata.read.adapt.fields import at_path, require
from prefdata.read.faults import RowError
from prefdata.read.files.parse_json import Object
from prefdata.read.layouts.model import Tree

Node = TypeVar("Node")
PATH, REPLIES = "path", "replies"
MAX_TURNS = 64  # of one prompt


def tree_rows(row: Object, spec: Tree) -> list[Object]:
    """Return a row for each prompt of the tree, in the tree's order; raise R213 if it has none."""
    root = require(spec.root, at_path(spec.root, row), "any") if spec.root else row
    own = {spec.root} if spec.root else {spec.replies, spec.text, spec.role}
    rest = {name: value for name, value in row.items() if name not in own}

    def replies(node: Any) -> list[Any]:
        found = require(spec.replies, node.get(spec.replies) or [], "list")
        if any(type(reply) is not dict for reply in found):
            raise RowError("R210", f"`{spec.replies}` holds something that is not a message")
        return list(found)

    if type(root) is not dict:
        raise RowError("R210", f"`{spec.root}` is not a message")
    rows = [
        prompt_row(rest, path, answers, spec)
        for path, answers in prompts(
            root, replies, lambda node: node.get(spec.role) == spec.answers
        )
    ]
    if not rows:
        raise RowError("R213", "no message of the tree has two answers to compare")
    return rows


def prompts(
    root: Node,
    replies: Callable[[Node], list[Node]],
    is_answer: Callable[[Node], bool],
    max_turns: int = MAX_TURNS,
) -> Iterator[tuple[tuple[Node, ...], list[Node]]]:
    """Yield the path to each message with two or more answers, and those answers.

    Messages deeper than `max_turns` are skipped: the prompts of a chain grow with its square.

    >>> below = {1: [2, 3], 2: [4], 3: [], 4: [5, 6], 5: [], 6: []}
    >>> list(prompts(1, below.__getitem__, lambda node: node != 4))
    [((1,), [2, 3]), ((1, 2, 4), [5, 6])]
    """
    stack: list[tuple[Node, tuple[Node, ...]]] = [(root, ())]
    while stack:
        node, above = stack.pop()
        path, below = (*above, node), replies(node)
        answers = [reply for reply in below if is_answer(reply)]
        if len(answers) > 1:
            yield path, answers
        if len(path) < max_turns:
            stack.extend((reply, path) for reply in reversed(below))


def prompt_row(rest: Object, path: tuple[Object, ...], answers: list[Object], spec: Tree) -> Object:
    """Return the row that a tree's layout reads: `path`, messages as in a chat, and `replies`."""
    turns = [{"role": node.get(spec.role), "content": node.get(spec.text)} for node in path]
    return {**rest, PATH: turns, REPLIES: answers}
