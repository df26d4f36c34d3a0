"""Real data for tests: 200 rows of HH are in the repository; whole sets are used if they are near.

A checkout that has `shared/data` next to it runs the tests of whole sets too.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHOLE = ROOT.parent / "shared" / "data"
HH_SAMPLE = ROOT / "tests" / "data" / "hh-200.jsonl.gz"
HH_WHOLE = WHOLE / "hh-rlhf-harmless-base-test" / "test.jsonl.gz"


def find_hh() -> Path:
    """Return HH harmless-base/test, or 200 rows of it."""
    return HH_WHOLE if HH_WHOLE.exists() else HH_SAMPLE
