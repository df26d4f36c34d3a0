"""Texts of all codes, one file for each family."""

from prefdata.check.codes.bias import BIAS
from prefdata.check.codes.conversation import CONVERSATION
from prefdata.check.codes.pairs import PAIRS
from prefdata.check.codes.reading import READING
from prefdata.check.codes.sets import SETS
from prefdata.check.codes.structure import STRUCTURE

__all__ = ["BIAS", "CONVERSATION", "PAIRS", "READING", "SETS", "STRUCTURE"]
