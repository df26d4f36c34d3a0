"""Croissant metadata that the Hub serves for a set, made only from the header of its card.

The format is that of the Hub's dataset viewer (huggingface/dataset-viewer): one `FileSet` of
Parquet files and one `RecordSet` for each config, one field for each column.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

Json = dict[str, Any]
TYPES = {
    "string": "sc:Text",
    "bool": "sc:Boolean",
    "float32": "cr:Float32",
    "float64": "cr:Float64",
    "int16": "cr:Int16",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
}
_TERMS = (
    *("arrayShape", "citeAs", "column", "extract", "field", "fileProperty", "fileObject"),
    *("fileSet", "includes", "isArray", "jsonPath", "key", "parentField", "recordSet"),
    *("references", "regex", "repeated", "replace", "source", "subField", "transform"),
)
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{term: f"cr:{term}" for term in _TERMS},
}


def describe_set(name: str, card: str, address: str) -> Json:
    """Return the metadata of a set from its card."""
    header = yaml.safe_load(card.split("---\n")[1])
    infos = header["dataset_info"]
    repo = {
        "@type": "cr:FileObject",
        "@id": "repo",
        "name": "repo",
        "description": "The git repository.",
        "contentUrl": f"{address}/datasets/{name}/tree/refs%2Fconvert%2Fparquet",
        "encodingFormat": "git+https",
        "sha256": "https://github.com/mlcommons/croissant/issues/80",
    }
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": header["pretty_name"],
        "description": f"Dataset {name}.",
        "creator": {"@type": "Organization", "name": name.split("/")[0]},
        "keywords": [*header["task_categories"], *header["tags"], *header["size_categories"]],
        "license": f"https://choosealicense.com/licenses/{header['license'][0]}/",
        "url": f"{address}/datasets/{name}",
        "distribution": [repo, *(_file_set(info["config_name"]) for info in infos)],
        "recordSet": [one for info in infos for one in _record_sets(info)],
    }


def _file_set(config: str) -> Json:
    return {
        "@type": "cr:FileSet",
        "@id": f"parquet-files-for-config-{config}",
        "containedIn": {"@id": "repo"},
        "encodingFormat": "application/x-parquet",
        "includes": f"{config}/*/*.parquet",
    }


def _record_sets(info: Json) -> Iterator[Json]:
    config, splits = info["config_name"], [split["name"] for split in info["splits"]]
    files, key = f"parquet-files-for-config-{config}", f"{config}_splits/split_name"
    yield {
        "@type": "cr:RecordSet",
        "dataType": "cr:Split",
        "@id": f"{config}_splits",
        "name": f"{config}_splits",
        "description": f"Splits of {config}.",
        "key": {"@id": key},
        "field": [{"@type": "cr:Field", "@id": key, "dataType": "sc:Text"}],
        "data": [{key: split} for split in splits],
    }
    pattern = f"{re.escape(config)}/(?:partial-)?({'|'.join(map(re.escape, splits))})/.+parquet$"
    split_field = {
        "@type": "cr:Field",
        "@id": f"{config}/split",
        "dataType": "sc:Text",
        "source": {
            "fileSet": {"@id": files},
            "extract": {"fileProperty": "fullpath"},
            "transform": {"regex": pattern},
        },
        "references": {"field": {"@id": key}},
    }
    fields = [
        _field(f"{config}/{feature['name']}", {"fileSet": {"@id": files}}, feature["name"], feature)
        for feature in info["features"]
    ]
    yield {
        "@type": "cr:RecordSet",
        "@id": config,
        "description": f"The config {config}.",
        "field": [split_field, *fields],
    }


def _field(name: str, files: Json, column: str, feature: Json, path: str | None = None) -> Json:
    """Return the field of a column, or of the part of it at a JSON path."""
    field: Json = {"@type": "cr:Field", "@id": name}
    if "list" in feature:
        items = feature["list"]
        inner = {"struct": items} if isinstance(items, list) else {"dtype": items}
        found = _field(name, files, column, inner, path)
        return found | {"isArray": True, "arrayShape": "-1"}
    if "struct" in feature:
        return field | {
            "subField": [
                _field(f"{name}/{part['name']}", files, column, part, part["name"])
                for part in feature["struct"]
            ]
        }
    source: Json = files | {"extract": {"column": column}}
    if path is not None:
        source["transform"] = {"jsonPath": path}
    return field | {"dataType": TYPES[feature["dtype"]], "source": source}
