"""Cost of the default row checks and of their parts, in µs per row on one core.

python bench/checks_per_row.py FILE [--rounds 9] [--times 5]
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ["POLARS_MAX_THREADS"] = "1"

import pyarrow as pa

from prefdata.check import RowChecks, examine_rows
from prefdata.read import Columns, RowOptions, TextRule, expand_inputs, open_rows, read_part


def fastest(run: Callable[[], object], rounds: int) -> float:
    """Return CPU seconds of the fastest round: other work on the machine only adds time."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--times", type=int, default=5, help="copies of the file to check at once")
    arguments = parser.parse_args()
    (file,) = expand_inputs([arguments.file])
    rows = open_rows(file, RowOptions(None), Columns(), TextRule())
    parts = [read_part(file, block, rows.options).records for block in rows.blocks]
    records = pa.concat_tables(parts * arguments.times).combine_chunks()
    runs: dict[str, Callable[[], object]] = {
        "all checks and the profile": lambda: examine_rows(records, RowChecks.of()),
        "with PD608": lambda: examine_rows(records, RowChecks.of({"PD608": "I"})),
    }
    for name, run in runs.items():
        per_row = fastest(run, arguments.rounds) / records.num_rows * 1e6
        print(f"{name:28} {per_row:7.1f} µs a row")


if __name__ == "__main__":
    main()
