"""Near-duplicates: MinHash proposes, exact Jaccard similarity of word shingles decides."""

from prefdata.dedup.near.clusters import choose, cluster
from prefdata.dedup.near.letters import BARRIER
from prefdata.dedup.near.pairs import find_pairs
from prefdata.dedup.near.sketch import (
    Sketch,
    SketchOptions,
    make_sketch,
    open_sketch,
    sketch_table,
)
from prefdata.dedup.near.units import Unit, unit_texts

__all__ = [
    "BARRIER",
    "Sketch",
    "SketchOptions",
    "Unit",
    "choose",
    "cluster",
    "find_pairs",
    "make_sketch",
    "open_sketch",
    "sketch_table",
    "unit_texts",
]
