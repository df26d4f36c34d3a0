"""Raw preference files to records that know their file, line and bytes."""

from prefdata.read.detect import detect_layout
from prefdata.read.layout import Layout, load_layout, shipped_layouts
from prefdata.read.limits import Limits, Pairing
from prefdata.read.reader import FileRows, LineCounts, read_file
from prefdata.read.source import InputFile, expand_inputs

__all__ = [
    "FileRows",
    "InputFile",
    "Layout",
    "Limits",
    "LineCounts",
    "Pairing",
    "detect_layout",
    "expand_inputs",
    "load_layout",
    "read_file",
    "shipped_layouts",
]
