"""Near-duplicates: MinHash proposes, exact Jaccard similarity of word shingles decides."""

from prefdata.dedup.near.letters import BARRIER
from prefdata.dedup.near.neighbors import (
    Neighbors,
    choose,
    cluster,
    near_copies,
)
from prefdata.dedup.near.options import NearDuplicates, Unit, unit_texts
from prefdata.dedup.near.pairs import find_pairs
from prefdata.dedup.near.sketch import (
    Sketch,
    SketchOptions,
    make_sketch,
    open_sketch,
    sketch_table,
)

__all__ = [
    "BARRIER",
    "NearDuplicates",
    "Neighbors",
    "Sketch",
    "SketchOptions",
    "Unit",
    "choose",
    "cluster",
    "find_pairs",
    "make_sketch",
    "near_copies",
    "open_sketch",
    "sketch_table",
    "unit_texts",
]
