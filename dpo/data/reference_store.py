"""Reference log-probs on disk: one Arrow file for each token shard, and a manifest.

The manifest contains what decides the numbers, and is written last. Row i of a file belongs to row
i of its token shard.
"""

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpo.data.reference_folder import reference_folder
from dpo.data.shards import Column, Shards, one_chunk
from dpo.data.token_weights import SIDES, TokenWeights, weigh_reference
from dpo.errors import MismatchError
from dpo.precision import Precision, Quantize, Weights
from prefdata.store.canonical import hash_json, to_json
from prefdata.store.manifest import ShardSeal
from prefdata.store.reader import Build, Shard, is_inside
from prefdata.store.shards import REFERENCE, read_shard
from prefdata.store.verify import SealsOnce, check_size

Logps = NDArray[np.float32]
_NOT_FINITE = "delete it and run `dpo-ref` again, which stops at such a row and reports the cause"


class ReferenceManifest(BaseModel):
    """Sources of reference log-probs, and the files that contain them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Literal["dpo-reference"] = "dpo-reference"
    format_version: Literal[1] = 1
    model: str
    """Name on the Hub, or of a directory without its path; only `weights_sha256` identifies the
    model."""
    weights_sha256: str
    """sha256 of what `weights_by` says."""
    weights_by: Literal["files", "values"] = Field(
        default="values", exclude_if=lambda by: by == "values"
    )
    """The checkpoint's tensor files and config, or its tensors' float32 values (older versions)."""
    values_sha256: str = Field(default="", exclude_if=operator.not_)
    """sha256 of the tensors' float32 values if `weights_by` is `files` and they are known: equal
    weights in another dtype or in other files are recognized by it."""
    tokenizer_sha256: str
    template_sha256: str | None
    build_hash: str
    """Hash in the manifest of the build."""
    content_hash: str = Field(default="", exclude_if=operator.not_)
    """Content hash of the build that the log-probs belong to."""
    mixed_precision: Precision
    weights: Weights = Field(default="float32", exclude_if=lambda value: value == "float32")
    """Dtype in which the model's weights were held; absent if float32."""
    quantize: Quantize | None = Field(default=None, exclude_if=operator.not_)
    """Form in which its linear layers were held; absent if in `weights`."""
    shared_prompts: bool
    """True if each prompt ran once for all of its completions."""
    token_shards: dict[str, str]
    """sha256 of each token shard, by its path in the build."""
    shards: list[ShardSeal] = []
    notices: list[str] = Field(default=[], exclude_if=operator.not_)
    """Notices of ignored tensors and of pairs longer than the config states; absent if none."""
    hash: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """sha256 of this file's canonical JSON without this field."""

    def own_hash(self) -> str:
        return hash_json(self.model_dump(mode="json", exclude={"hash"}))

    def decides_as(self, other: "ReferenceManifest") -> bool:
        """Return whether all that decides the numbers is equal; a model's name does not count.

        Builds are compared by content hash, or by the bytes of their files if one has none.
        """
        return self._decides(other) == other._decides(self)

    def _decides(self, other: "ReferenceManifest") -> dict[str, Any]:
        says_nothing = {"model", "shards", "notices", "hash", "values_sha256"}
        if not (self.content_hash and other.content_hash):
            return self.model_dump(exclude=says_nothing | {"content_hash"})
        decides = self.model_dump(exclude=says_nothing | {"build_hash", "token_shards"})
        return decides | {"token_shards": sorted(self.token_shards)}

    def is_of(self, build: Build) -> bool:
        """Return whether the log-probs belong to a build's tokens, row by row."""
        if self.content_hash:
            return self.content_hash == build.content_hash
        shards = {seal.path: seal.sha256 for seal in build.manifest.shards}
        return self.build_hash == build.manifest.hash and self.token_shards == shards

    def with_shards(self, shards: list[ShardSeal]) -> "ReferenceManifest":
        grown = self.model_copy(update={"shards": shards, "hash": ""})
        return grown.model_copy(update={"hash": grown.own_hash()})

    def to_bytes(self) -> bytes:
        return to_json(self.model_dump(mode="json"))


class ReferenceShard(NamedTuple):
    """Log-probs of one token shard, checked before they are returned."""

    folder: Path
    seal: ShardSeal
    first: int
    """Index of its first row in the split."""
    checks: SealsOnce

    @property
    def rows(self) -> int:
        return self.seal.rows

    def check(self) -> None:
        """Refuse a file that does not match its hash, unless it was checked before."""
        self.checks.check(self.folder / self.seal.path, self.seal.seal)

    def read(self) -> pa.Table:
        """Return the log-probs, memory-mapped. Raises MismatchError (T211) if one is not finite."""
        self.check()
        table = self.peek()
        _check_finite(table, self)
        return table

    def peek(self) -> pa.Table:
        return read_shard(self.folder / self.seal.path, rows=self.rows, schema=REFERENCE)


class Reference(NamedTuple):
    """Finished reference directory; each file is checked before its log-probs are returned."""

    folder: Path
    manifest: ReferenceManifest
    checks: SealsOnce

    def shards(self, split: str) -> list[ReferenceShard]:
        """Return the files of one split, in the order of its token shards."""
        seals = [seal for seal in self.manifest.shards if seal.split == split]
        firsts = np.cumsum([0, *(seal.rows for seal in seals)]).tolist()
        return [
            ReferenceShard(self.folder, seal, first, self.checks)
            for seal, first in zip(seals, firsts[:-1], strict=True)
        ]

    def tables(self, split: str) -> list[pa.Table]:
        """Return the memory-mapped tables of one split, in the order of its token shards."""
        return [shard.read() for shard in self.shards(split)]

    def token_logps(self, split: str, rows: Sequence[int]) -> list[tuple[Logps, Logps]]:
        """Return the log-probs of the tokens of chosen and rejected, in nats, of some rows."""
        shards = Shards(self.shards(split), lambda table, _first: table)
        shards.check(rows)
        found: list[tuple[Logps, Logps]] = []
        for row in rows:
            table, place = shards.locate(row)
            names = REFERENCE.names[3:]
            chosen, rejected = (table[name][place].values.to_numpy() for name in names)
            found.append((chosen, rejected))
        return found


def reference_column(
    stored: Sequence[ReferenceShard], tokens: Sequence[Shard], counting: TokenWeights | None
) -> Column[Any]:
    """Return sums over chosen and rejected, (rows, 2), in nats, by row; weighted if asked for."""
    empty = np.zeros((0, 2), np.float32)
    if counting is None:
        return Column(Shards(stored, lambda table, _first: table), _sums, empty=empty)
    both = [_WithMasks(*two) for two in zip(stored, tokens, strict=True)]
    return Column(
        Shards(both, lambda table, _first: table),
        lambda table, places: weigh_reference(counting, table.take(places)),
        empty=empty,
    )


class _WithMasks(NamedTuple):
    """Log-probs of a shard with the masks of its completions."""

    stored: ReferenceShard
    tokens: Shard

    @property
    def rows(self) -> int:
        return self.stored.rows

    def check(self) -> None:
        self.stored.check()
        self.tokens.check()

    def read(self) -> pa.Table:
        return self._join(self.stored.read(), self.tokens.read())

    def peek(self) -> pa.Table:
        return self._join(self.stored.peek(), self.tokens.peek())

    def _join(self, table: pa.Table, tokens: pa.Table) -> pa.Table:
        for side in SIDES:
            table = table.append_column(f"{side}_mask", tokens[f"{side}_mask"])
        return table


def _sums(table: pa.Table, places: NDArray[np.int64]) -> NDArray[np.float32]:
    names = REFERENCE.names[1:3]
    return np.stack([one_chunk(table[name]).to_numpy()[places] for name in names], 1)


def open_reference(build: Build, name: str | Path) -> Reference:
    """Open finished log-probs by name; check that they belong to this build, and their files.

    Of a build that was opened lazily the files are hashed at their first use.
    """
    folder = reference_folder(build.path, name)
    path = folder / "manifest.json"
    remedy = f"run `dpo-ref {build.path} --model MODEL --name {name}`"
    if not path.exists():
        raise MismatchError("T203", str(folder), "contains no finished reference log-probs", remedy)
    manifest = read_manifest(path)
    if not manifest.is_of(build):
        problem = "was computed from token shards that differ from those of the build"
        raise MismatchError("T204", str(folder), problem, f"{remedy}, with another name")
    _check_shards(manifest, build, path)
    for seal in manifest.shards:
        check_size(folder / seal.path, seal.seal)
    reference = Reference(folder, manifest, SealsOnce())
    if build.checks is None:
        for split in build.splits:
            reference.tables(split)
    return reference


def _check_finite(table: pa.Table, shard: ReferenceShard) -> None:
    """Refuse stored log-probs that are NaN or infinite (T211): they cannot train a model."""
    for name in REFERENCE.names[1:3]:
        wrong = np.flatnonzero(~np.isfinite(table[name].to_numpy()))
        if len(wrong):
            place = int(wrong[0])
            pair = table["pair_id"][place].as_py().hex()[:12]
            problem = f"row {shard.first + place:,} of {shard.seal.split} (pair {pair}) has {name}"
            problem += f" {table[name][place].as_py()}; {len(wrong):,} such values in its shard"
            raise MismatchError("T211", str(shard.folder), problem, _NOT_FINITE)


def _check_shards(manifest: ReferenceManifest, build: Build, path: Path) -> None:
    """Refuse a list of files that differs from the token shards in names, rows or order.

    So a list can neither omit rows nor lead out of its directory.
    """
    for split in build.splits:
        wanted = [(Path(shard.name).name, shard.rows) for shard in build.shards(split)]
        listed = [(seal.path, seal.rows) for seal in manifest.shards if seal.split == split]
        if listed != wanted:
            wrong = next((one for one in listed if one not in wanted), None)
            found = f"lists {wrong[0]!a}" if wrong else f"lists {len(listed)} files in this order"
            problem = f"{found} for {split}, which has {len(wanted)} token shards"
            raise MismatchError("T163", str(path), problem, "run `dpo-ref` with another --name")
    extra = next((seal for seal in manifest.shards if seal.split not in build.splits), None)
    if extra is not None:
        problem = f"lists {extra.path!a} for {extra.split!a}, a split that the build does not have"
        raise MismatchError("T163", str(path), problem, "run `dpo-ref` with another --name")
    for seal in manifest.shards:
        if not is_inside(path.parent / seal.path, path.parent):
            problem = "is a link that leads out of its directory"
            raise MismatchError("T163", str(path.parent / seal.path), problem, "put the file here")


def read_manifest(path: Path) -> ReferenceManifest:
    """Read a manifest and check it against its own hash."""
    remedy = "run `dpo-ref` with another --name"
    try:
        manifest = ReferenceManifest.model_validate(orjson.loads(path.read_bytes()))
    except (OSError, orjson.JSONDecodeError, ValidationError) as error:
        raise MismatchError("T207", str(path), "is not a reference manifest", remedy) from error
    if manifest.hash != manifest.own_hash():
        raise MismatchError("T207", str(path), "was changed after it was written", remedy)
    return manifest
