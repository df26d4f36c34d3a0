"""Raw preference files to records with their source file, line and bytes."""

from prefdata.read.adapt.collect import RowOptions
from prefdata.read.adapt.named import Columns
from prefdata.read.detect import detect_layout
from prefdata.read.files.chunks import Block
from prefdata.read.files.source import InputFile, expand_inputs, label_sources
from prefdata.read.fit import Fitted, Wanted
from prefdata.read.layouts.model import Layout
from prefdata.read.layouts.registry import (
    find_layout,
    installed_layouts,
    known_layouts,
    shipped_layouts,
)
from prefdata.read.limits import Limits, Pairing
from prefdata.read.reader import (
    LineCounts,
    OpenFile,
    OpenRows,
    notes_of,
    open_rows,
    raw_rows,
    read_part,
)
from prefdata.read.texts import TextChoice, TextMode, TextRule
from prefdata.read.trial import load_layout
from prefdata.read.unread import meaning_of

__all__ = [
    "Block",
    "Columns",
    "Fitted",
    "InputFile",
    "Layout",
    "Limits",
    "LineCounts",
    "OpenFile",
    "OpenRows",
    "Pairing",
    "RowOptions",
    "TextChoice",
    "TextMode",
    "TextRule",
    "Wanted",
    "detect_layout",
    "expand_inputs",
    "find_layout",
    "installed_layouts",
    "known_layouts",
    "label_sources",
    "load_layout",
    "meaning_of",
    "notes_of",
    "open_rows",
    "raw_rows",
    "read_part",
    "shipped_layouts",
]
