"""Options of commands that ask a server."""

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from prefdata.errors import UsageError

if TYPE_CHECKING:
    from dpo.server.client import Server

SERVER_OPTIONS = ("server_model", "api_key_env", "concurrency", "rate", "retries", "timeout")
_OPTIONS = (
    click.option("--server", metavar="URL", help="OpenAI-compatible server: its address."),
    click.option(
        "--server-model", metavar="NAME", help="Its model; default: the only one that it lists."
    ),
    click.option(
        "--api-key-env",
        metavar="VARIABLE",
        default="OPENAI_API_KEY",
        show_default=True,
        help="Environment variable that holds the server's key.",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(min=1),
        default=16,
        show_default=True,
        help="Requests in flight at once.",
    ),
    click.option(
        "--rate",
        type=click.FloatRange(min=0, min_open=True),
        help="Requests per minute.  [default: no limit]",
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        default=8,
        show_default=True,
        help="Further tries of a request that fails.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=300.0,
        show_default=True,
        help="Seconds for one request.",
    ),
)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a server to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def server_from(options: dict[str, Any]) -> "Server | None":
    """Take the options of a server out of a command's; None without --server."""
    url = options.pop("server")
    model, variable, *how = (options.pop(name) for name in SERVER_OPTIONS)
    if url is None:
        return None
    from dpo.server.client import Server

    key = os.environ.get(variable)
    if key is None and _is_given("api_key_env"):
        remedy = "export it, or leave --api-key-env out for a server without keys"
        raise UsageError("T158", f"--api-key-env {variable}", "is not set", remedy)
    return Server(url, model, key, *how)


def require_not_given(names: Iterable[str], reason: str) -> None:
    """Refuse options that would have no effect."""
    if given := [f"--{name.replace('_', '-')}" for name in names if _is_given(name)]:
        raise click.UsageError(f"{', '.join(given)} {reason}")


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is not ParameterSource.DEFAULT
