"""Faults of the Hub as coded lines, which contain no token, no header and no address.

E200 a name or a login that cannot be used     E201 no such repo, revision or file
E202 the login may not do it                   E203 the repo changed in between
E204 a transfer that failed                    E211 offline, and not in the cache
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prefdata.errors import PrefdataError, UsageError

_MAY_NOT_SEE = "check the name and the revision; a private repo needs a login (`hf auth login`)"
_PATIENCE = 6
"""Multiple of the client's download timeout; without a limit a request may wait forever."""
_AGAIN = "nothing was changed on the Hub; run the same command again"


class HubError(PrefdataError):
    """Failure of the Hub or of the connection; the same command may work later."""

    exit_code = 1


@contextmanager
def hub_faults(place: str, doing: str) -> Iterator[None]:
    """Turn errors of the Hub's client into coded ones; `place` is the repo, `doing` the attempt."""
    import httpx2
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    session = get_session()
    before, session.timeout = session.timeout, _PATIENCE * constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        yield
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if isinstance(error.__cause__, HfHubHTTPError):  # the Hub answered and refused
            raise _word(place, doing, error.__cause__) from error
        problem = f"could not be reached to {doing}, and the files are not in the cache"
        raise HubError("E211", place, problem, "go online, or pull it first") from error
    except LocalTokenNotFoundError as error:
        problem = f"could not {doing}: no token was found"
        raise UsageError("E200", place, problem, "log in with `hf auth login`") from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        kind = "revision" if isinstance(error, RevisionNotFoundError) else "repo"
        kind = "file" if isinstance(error, EntryNotFoundError) else kind
        problem = f"could not {doing}: there is no such {kind}, or this login cannot see it"
        raise UsageError("E201", place, problem, _MAY_NOT_SEE) from error
    except (HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError) as caught:
        raise _word(place, doing, caught) from caught
    finally:
        session.timeout = before


def _word(place: str, doing: str, caught: BaseException) -> PrefdataError:
    error = caught.__cause__ or caught  # uploads are wrapped in a RuntimeError
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    said = f"HTTP {status} {response.reason_phrase}".rstrip() if response else type(error).__name__
    if status == 401:
        problem = f"refuses the login to {doing} ({said})"
        return UsageError("E200", place, problem, "log in with `hf auth login`, or set HF_TOKEN")
    if status == 403:
        problem = f"does not let this login {doing} ({said})"
        return UsageError("E202", place, problem, "use a token that allows it")
    if status == 412:
        problem = f"was changed by somebody else, so this command could not {doing} ({said})"
        return HubError("E203", place, problem, _AGAIN)
    wait = "wait, then run the same command again" if status == 429 else _AGAIN
    return HubError("E204", place, f"failed to {doing} ({said})", wait)
