"""Tokenizers of finished builds: a build records the tokenizer's hash, not its location."""

from pathlib import Path

from prefdata.errors import UsageError
from prefdata.store.manifest import TokenizerIdentity
from prefdata.tokens.tokenizer import TokenizerSpec, load_tokenizer_spec
from prefdata.tokens.tokenizer_cache import recall_place


def load_sealed(seal: TokenizerIdentity, name: str | None = None) -> TokenizerSpec:
    """Load the tokenizer that made a build, from `name`, its last known location, or the Hub.

    Raises UsageError: E123 if it is not found or is a different one.
    """
    known = recall_place(seal.tokenizer_sha256)
    found = name or known or seal.name
    remedy = "name its directory or its model on the Hub with --tokenizer"
    if found == seal.name and "/" not in found and not Path(found).is_dir():
        problem = f"was made with the tokenizer {seal.name!a}, which is not known on this machine"
        raise UsageError("E123", "the build", problem, remedy)
    target = load_tokenizer_spec(found, revision=None if known or name else seal.revision)
    if target.seal().tokenizer_sha256 != seal.tokenizer_sha256:
        raise UsageError(
            "E123", found, f"is a different tokenizer from the build's {seal.name}", remedy
        )
    return target
