"""Reader of finished builds: only files in the manifest, and only if they match its hashes."""

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import pyarrow as pa
from pyarrow import parquet

from prefdata.arrow import empty_table
from prefdata.errors import UsageError
from prefdata.records.schema import DUPLICATES, REJECTED
from prefdata.records.split_names import rank_of
from prefdata.store.commit import FileDigest
from prefdata.store.content import hash_content
from prefdata.store.manifest import Manifest, OtherFile, ShardSeal, SplitStats, read_manifest
from prefdata.store.shards import TOKENS, read_shard
from prefdata.store.staging import NEAR_FILE
from prefdata.store.verify import SealsOnce, cache_folder, check_seal, check_size

if TYPE_CHECKING:
    from datasets import Dataset


_SHOWN = 3  # inputs named by `repr`


class Shard(NamedTuple):
    """One token shard, verified before its rows are returned."""

    path: Path
    name: str
    """Path relative to the build's directory, as in the manifest."""
    split: str
    rows: int
    tokens: int
    sha256: str
    bytes: int
    checks: SealsOnce | None = None
    """Check at first use; None if the shard was checked when its build was opened."""

    @property
    def seal(self) -> FileDigest:
        return FileDigest(self.bytes, self.sha256)

    def check(self) -> None:
        """Refuse a shard that does not match its hash, unless it was checked before."""
        if self.checks is not None:
            self.checks.check(self.path, self.seal)

    def read(self) -> pa.Table:
        """Return the shard's rows, memory-mapped, not copied."""
        self.check()
        return read_shard(self.path, rows=self.rows)

    def peek(self) -> pa.Table:
        """Return the shard's rows without hashing it, for counts that decide no row of a step."""
        return read_shard(self.path, rows=self.rows)


class Build(NamedTuple):
    """A finished build whose token shards match its manifest."""

    path: Path
    manifest: Manifest
    remembers: bool = True
    """True if digests of unchanged files come from the cache."""
    checks: SealsOnce | None = None
    """Check of shards at their first use; None if all were checked when the build was opened."""

    def __repr__(self) -> str:
        """Return three lines: place and content, splits, tokenizer and inputs."""
        names = sorted(self.splits, key=rank_of)
        splits = ", ".join(f"{name} {self.splits[name].rows:,}" for name in names)
        tokens = sum(split.tokens for split in self.splits.values())
        inputs = [one.name for one in self.manifest.inputs]
        more = f" and {len(inputs) - _SHOWN:,} more" if len(inputs) > _SHOWN else ""
        named = f"{', '.join(inputs[:_SHOWN])}{more}"
        return (
            f"Build {str(self.path)!r}, content {self.manifest.content_hash[:16]}\n"
            f"  pairs: {splits}; {tokens:,} tokens\n"
            f"  tokenizer {self.manifest.tokenizer.name}; inputs: {named}"
        )

    @property
    def content_hash(self) -> str:
        """Return the manifest's content hash; compute it for a build of an earlier version."""
        seal = self.manifest.tokenizer.tokenizer_sha256
        return self.manifest.content_hash or hash_content(
            ((split, shard.read()) for split in self.splits for shard in self.shards(split)),
            tokenizer_sha256=seal,
        )

    @property
    def splits(self) -> dict[str, SplitStats]:
        return self.manifest.splits

    def shards(self, split: str) -> list[Shard]:
        """Return the split's token shards, in order."""
        self._check_split(split)
        return [
            Shard(
                self.path / seal.path, seal.path, seal.split, seal.rows, seal.tokens,
                seal.sha256, seal.bytes, self.checks,
            )
            for seal in self.manifest.shards
            if seal.split == split
        ]  # fmt: skip

    def tokens(self, split: str) -> pa.Table:
        """Return all rows of a split, memory-mapped, not copied: one chunk for each shard."""
        tables = [shard.read() for shard in self.shards(split)]
        return pa.concat_tables(tables) if tables else empty_table(TOKENS)

    def text(self, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the kept pairs of a split as text, or some columns; row n is row n of `tokens`."""
        self._check_split(split)
        names = None if columns is None else list(columns)
        return self._parquet(f"text/{split}-", names)

    def text_parts(self, split: str) -> Iterator[pa.Table]:
        """Yield the kept pairs of a split, one row group at a time."""
        self._check_split(split)
        for file in self._checked(f"text/{split}-"):
            reader = parquet.ParquetFile(file)
            for group in range(reader.num_row_groups):
                yield reader.read_row_group(group)

    def text_column(self, split: str, name: str) -> Iterator[pa.DictionaryArray]:
        """Yield one column of a split's text, a file at a time, without reading the others."""
        self._check_split(split)
        for file in self._checked(f"text/{split}-"):
            column = parquet.read_table(file, columns=[name])[name]
            yield column.combine_chunks().dictionary_encode()

    def dataset(self, split: str) -> "Dataset":
        """Return the kept pairs of a split as a `datasets.Dataset`."""
        from datasets import Dataset

        return Dataset(self.text(split))

    def frame(self, split: str) -> pl.DataFrame:
        """Return the kept pairs of a split as a polars frame."""
        return pl.DataFrame(self.text(split))

    def rejected(self) -> pa.Table:
        """Return every row that was refused, with its code."""
        return self._with_columns("rejected/", REJECTED)

    def duplicates(self) -> pa.Table:
        """Return each copy and near-duplicate that was dropped, and the pair that is kept."""
        return self._with_columns("duplicates.parquet", DUPLICATES)

    def near_duplicates(self) -> pa.Table:
        """Return each near-duplicate that is kept, because PD402 is only a warning."""
        if all(file.path != NEAR_FILE for file in self.manifest.files):
            return empty_table(DUPLICATES)
        return self._with_columns(NEAR_FILE, DUPLICATES)

    @property
    def has_rejected(self) -> bool:
        """Return whether the refused rows are here; a shared copy may lack them."""
        files = [file for file in self.manifest.files if file.path.startswith("rejected/")]
        return all((self.path / file.path).is_file() for file in files)

    def file(self, name: str) -> Path:
        """Check a file of the build that is not a shard, and return its path."""
        for entry in self.manifest.files:
            if entry.path == name:
                _check_file(self.path, entry, remembers=self.remembers)
                return self.path / name
        raise UsageError("E139", str(self.path), f"has no {name}", "see its manifest")

    def _parquet(self, prefix: str, columns: list[str] | None = None) -> pa.Table:
        paths = self._checked(prefix)
        return pa.concat_tables(parquet.read_table(path, columns=columns) for path in paths)

    def _with_columns(self, prefix: str, schema: pa.Schema) -> pa.Table:
        """Return a table with null in the columns that earlier versions did not write."""
        table = self._parquet(prefix)
        for field in schema:
            if field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        return table.select(schema.names)

    def _checked(self, prefix: str) -> list[Path]:
        files = [file for file in self.manifest.files if file.path.startswith(prefix)]
        for file in files:
            _check_file(self.path, file, remembers=self.remembers)
        return [(self.path / file.path).absolute() for file in files]  # `a:b` is not a URL

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            problem = f"has no split {split!r}"
            remedy = f"it has {', '.join(sorted(self.splits))}"
            raise UsageError("E138", str(self.path), problem, remedy)


def open_build(path: str | Path, *, remembers: bool = True) -> Build:
    """Open a finished build; raise a coded error unless every token shard matches its hash.

    Digests of unchanged shards are cached in the user's cache directory. With `remembers=False`
    every byte is read and hashed, as training and reference passes do.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for seal in manifest.shards:
        _check_file(folder, seal, remembers=remembers)
        read_shard(folder / seal.path, rows=seal.rows)
    return Build(folder, manifest, remembers)


def open_lazily(path: str | Path) -> Build:
    """Open a finished build whose shards are hashed at their first use, each byte of them.

    Missing files, sizes and links are checked here, so a build of any size opens in seconds.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for seal in manifest.shards:
        check_size(_inside(folder, seal), seal.seal)
    return Build(folder, manifest, remembers=False, checks=SealsOnce())


def _check_file(folder: Path, entry: ShardSeal | OtherFile, *, remembers: bool) -> None:
    check_seal(_inside(folder, entry), entry.seal, cache_folder() if remembers else None)


def _inside(folder: Path, entry: ShardSeal | OtherFile) -> Path:
    """Return the path of a file of a build. Raises E130 for a link out of its directory."""
    path = folder / entry.path
    if not is_inside(path, folder):
        problem = "is a link that leads out of the build's directory"
        raise UsageError("E130", str(path), problem, "replace it with the file itself")
    return path


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether a file is in a directory after all links are followed.

    A snapshot in the Hub's cache links to the blobs of its own repo, which belong to it.
    """
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:  # resolve() would return a path for it, since Python 3.13
            return False
    real = path.resolve()
    blobs = [up.parent / "blobs" for up in folder.absolute().parents if up.name == "snapshots"]
    return any(real.is_relative_to(place.resolve()) for place in (folder, *blobs[:1]))
