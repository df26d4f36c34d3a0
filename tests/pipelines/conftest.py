"""Recipes are scripts beside the packages, not installed: they are found from the repo's root."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
