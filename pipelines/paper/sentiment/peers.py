"""The methods that TRL trains, each by a module of this directory, and what they need.

An environment has one TRL: that of `make bench`, whose RLOO is used here. TRL 1.12 is the last that
has PPO: `make ppo` installs it into a directory of its own, which only `ppo.py` reads.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pipelines.paper.sentiment.settings import Settings

PPO_LIBRARY = Path(sys.prefix) / "ppo"
"""Directory of TRL 1.12 in this environment."""


class Peer(NamedTuple):
    """A method, its module, the coefficients of its KL penalty, and why it cannot run."""

    method: str
    module: str
    betas: list[float]
    missing: str | None


def peers(settings: Settings, ppo_library: Path = PPO_LIBRARY) -> list[Peer]:
    """Return the methods of the settings, also those whose library is not here."""
    no_trl = None if find_spec("trl") else "TRL is not installed; `make bench` installs it"
    no_ppo = None
    if not (ppo_library / "trl" / "experimental" / "ppo").is_dir():
        no_ppo = "TRL 1.12 is not installed; `make ppo` installs it"
    found = [
        Peer("rloo (TRL)", "rloo", settings.rloo, no_trl),
        Peer("ppo (TRL 1.12)", "ppo", settings.ppo, no_ppo),
    ]
    return [peer for peer in found if peer.betas]
