"""Comparison of two builds: pairs that were added, are gone, flipped, moved, or changed."""
