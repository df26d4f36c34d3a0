"""Licence of a base or reference model, as the model's own card states it."""

from pathlib import Path

from prefdata.errors import PrefdataError
from prefdata.hub.fetch import fetch_file
from prefdata.hub.inputs import is_hub_name
from prefdata.hub.repo import Repo
from prefdata.sharing.card import parse_card

CARD = "README.md"


def find_licence(model: str) -> str | None:
    """Return the licence of a model's directory or of a model on the Hub, such as `apache-2.0`.

    None if its card states none or cannot be read: a card must not stop a push.
    """
    if Path(model).is_dir():
        path = Path(model) / CARD
    elif is_hub_name(model):
        try:
            path = fetch_file(Repo(model, "model"), CARD, None)
        except PrefdataError:
            return None
    else:
        return None
    if not path.is_file():
        return None
    stated = parse_card(path.read_text(encoding="utf-8", errors="replace"))[0].get("license")
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    return stated if isinstance(stated, str) and stated else None
