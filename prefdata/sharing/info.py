"""`dataset_info` of a card: columns, rows and bytes of each config, for the Hub's pages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyarrow import parquet

from prefdata.records.split_names import rank_of


def describe_configs(configs: Mapping[str, str], files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return the `dataset_info` of each config, given the directory of its Parquet files.

    `files` are all files of a repo, by their name there. Bytes of a split are those of its columns
    before compression; features are named as in `datasets`.
    """
    return [{"config_name": name, **_describe(folder, files)} for name, folder in configs.items()]


def _describe(folder: str, files: Mapping[str, Path]) -> dict[str, Any]:
    from datasets import Features

    splits: dict[str, list[int]] = {}
    features: Any = None
    download = 0
    for name, path in files.items():
        parent, _, file = name.rpartition("/")
        if parent != folder:
            continue
        about = parquet.read_metadata(path)
        if features is None:
            features = Features.from_arrow_schema(about.schema.to_arrow_schema())
        sizes = splits.setdefault(file.partition("-")[0], [0, 0])
        sizes[0] += sum(about.row_group(at).total_byte_size for at in range(about.num_row_groups))
        sizes[1] += about.num_rows
        download += path.stat().st_size
    return {
        "features": features._to_yaml_list(),
        "splits": [
            {"name": split, "num_bytes": splits[split][0], "num_examples": splits[split][1]}
            for split in sorted(splits, key=rank_of)
        ],
        "download_size": download,
        "dataset_size": sum(num_bytes for num_bytes, _ in splits.values()),
    }
