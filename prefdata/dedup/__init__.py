"""Duplicate pairs and contradictory pairs."""

from prefdata.dedup.exact import find_contradictions, find_copies

__all__ = ["find_contradictions", "find_copies"]
