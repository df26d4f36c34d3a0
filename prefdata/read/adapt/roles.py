"""Role names of public sets, mapped to ours if the layout does not map them itself."""

from collections.abc import Mapping

OURS = frozenset({"system", "developer", "user", "assistant", "tool"})
CALL = "tool_calls"  # a turn whose text is a call, not content

USUAL: Mapping[str, str] = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    "function_call": CALL,
    "tool_call": CALL,
}
"""ShareGPT's names and similar ones, case-sensitive: `Assistant` may be somebody's name."""


def our_role(role: str, roles: Mapping[str, str]) -> str:
    """Return our name of a role: by the layout, then by USUAL; unknown names are kept (PD204).

    >>> our_role("gpt", {}), our_role("user", {}), our_role("narrator", {})
    ('assistant', 'user', 'narrator')
    """
    return roles[role] if role in roles else USUAL.get(role, role)
