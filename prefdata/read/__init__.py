"""Raw preference files to records with their source file, line and bytes."""

from prefdata.read.adapt.collect import RowOptions
from prefdata.read.adapt.gather import gather_blocks
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
    load_layout,
    shipped_layouts,
)
from prefdata.read.limits import Limits, Pairing
from prefdata.read.reader import (
    FileRows,
    LineCounts,
    OpenFile,
    fit_to_blocks,
    notes_of,
    read_file,
    read_part,
)
from prefdata.read.texts import TextChoice, TextMode, TextRule, choose_in_blocks
from prefdata.read.unread import meaning_of

__all__ = [
    "Block",
    "Columns",
    "FileRows",
    "Fitted",
    "InputFile",
    "Layout",
    "Limits",
    "LineCounts",
    "OpenFile",
    "Pairing",
    "RowOptions",
    "TextChoice",
    "TextMode",
    "TextRule",
    "Wanted",
    "choose_in_blocks",
    "detect_layout",
    "expand_inputs",
    "find_layout",
    "fit_to_blocks",
    "gather_blocks",
    "installed_layouts",
    "known_layouts",
    "label_sources",
    "load_layout",
    "meaning_of",
    "notes_of",
    "read_file",
    "read_part",
    "shipped_layouts",
]
