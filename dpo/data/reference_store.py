"""Reference log-probs on disk: one Arrow file for each token shard, and a manifest.

The manifest contains what decides the numbers, and is written last. Row i of a file belongs to row
i of its token shard.
"""

import operator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpo.data.reference_folder import reference_folder
from dpo.errors import MismatchError
from dpo.precision import Precision, Quantize, Weights
from prefdata.store.canonical import hash_json, to_json
from prefdata.store.manifest import ShardSeal
from prefdata.store.reader import Build, is_inside
from prefdata.store.shards import REFERENCE, read_shard
from prefdata.store.verify import check_seal

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


class Reference(NamedTuple):
    """Finished reference directory whose files match its manifest."""

    folder: Path
    manifest: ReferenceManifest

    def tables(self, split: str) -> list[pa.Table]:
        """Return the memory-mapped tables of one split, in the order of its token shards."""
        return [
            read_shard(self.folder / seal.path, rows=seal.rows, schema=REFERENCE)
            for seal in self.manifest.shards
            if seal.split == split
        ]


def open_reference(build: Build, name: str | Path) -> Reference:
    """Open finished log-probs by name; check their seals and that they belong to this build."""
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
        check_seal(folder / seal.path, seal.seal, None)
    reference = Reference(folder, manifest)
    _check_finite(reference)
    return reference


def _check_finite(reference: Reference) -> None:
    """Refuse stored log-probs that are NaN or infinite (T211): they cannot train a model."""
    for split in dict.fromkeys(seal.split for seal in reference.manifest.shards):
        before = 0
        for table in reference.tables(split):
            for name in REFERENCE.names[1:3]:
                wrong = np.flatnonzero(~np.isfinite(table[name].to_numpy()))
                if len(wrong):
                    pair = table["pair_id"][int(wrong[0])].as_py().hex()
                    problem = f"row {before + int(wrong[0]):,} of {split} (pair {pair[:12]}) has "
                    problem += (
                        f"{name} {table[name][int(wrong[0])].as_py()}; {len(wrong):,} such values"
                    )
                    raise MismatchError("T211", str(reference.folder), problem, _NOT_FINITE)
            before += table.num_rows


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
