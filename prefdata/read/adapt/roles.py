"""Names of roles that sets give to ours, where a layout does not say it itself."""

from collections.abc import Mapping

OURS = frozenset({"system", "developer", "user", "assistant", "tool"})
TOOL_CALLS = "tool_calls"  # of a turn whose text is a call, not content

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
    "function_call": TOOL_CALLS,
    "tool_call": TOOL_CALLS,
}
"""ShareGPT's names and their kin, as they are written: `Assistant` may be somebody's name."""


def our_role(role: str, roles: Mapping[str, str]) -> str:
    """Our name of a role: by the layout, else by custom; an unknown one stays (PD204).

    >>> our_role("gpt", {}), our_role("user", {}), our_role("narrator", {})
    ('assistant', 'user', 'narrator')
    """
    return roles[role] if role in roles else USUAL.get(role, role)
