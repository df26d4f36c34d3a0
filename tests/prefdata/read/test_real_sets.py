"""Real files, where they lie beside the project: every line accounted for."""

import gzip
from collections import Counter
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from prefdata.check import check_rows
from prefdata.dedup import find_contradictions, find_copies
from prefdata.errors import UsageError
from prefdata.keys import keys_of
from prefdata.read import FileRows, Limits, Pairing, expand_inputs, read_file

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
HH = DATA / "hh-rlhf-harmless-base-test" / "test.jsonl.gz"


def real(path: Path) -> FileRows:
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    (file,) = expand_inputs([str(path)])
    return read_file(file, layout=None, pairing=Pairing(), limits=Limits())


def test_hh_counts_are_the_measured_ones() -> None:
    rows = real(HH)
    kept, refused = check_rows(rows.records)

    assert (rows.layout, rows.counts.lines, rows.counts.blank) == ("hh", 2312, 0)
    assert set(rows.rejected["code"].to_pylist()) == {"PD207"}
    assert rows.rejected["line"].to_pylist() == [1255, 1689, 1951, 1953, 2037]
    assert set(refused["code"].to_pylist()) == {"PD202"}
    assert refused["line"].to_pylist() == [87, 517, 926, 1104]
    assert kept.num_rows == 2303
    assert find_copies(keys_of(kept)).is_empty()
    assert find_contradictions(keys_of(kept)).is_empty()


def test_hh_text_is_kept_letter_by_letter() -> None:
    def spelled(turns: list[dict[str, str]]) -> str:
        names = {"user": "Human", "assistant": "Assistant"}
        return "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in turns)

    rows = real(HH)
    lines = gzip.decompress(HH.read_bytes()).split(b"\n")
    for record in rows.records.to_pylist():
        raw = orjson.loads(lines[record["line"] - 1])
        for side in ("chosen", "rejected"):
            whole = spelled(record["prompt"] + record[side])
            # a marker without its space is the one thing that is not spelled back
            assert whole == raw[side] or whole.replace(": ", ":") == raw[side].replace(": ", ":")


def test_hh_sides_with_two_turns_of_one_role_are_thirteen() -> None:
    rows = real(HH)
    twice = 0
    for record in rows.records.to_pylist():
        for side in ("chosen", "rejected"):
            roles = [turn["role"] for turn in record["prompt"] + record[side]]
            twice += any(a == b for a, b in pairwise(roles))

    assert twice == 13 - 5  # five of the thirteen are in rows whose prompts differ


@pytest.mark.parametrize(("language", "duplicates"), [("en", 5), ("zh", 11)])
def test_llama_factory_demo_is_read_whole(language: str, duplicates: int) -> None:
    rows = real(DATA / "llamafactory-demo" / f"dpo_{language}_demo.json")
    kept, refused = check_rows(rows.records)

    assert (rows.layout, rows.counts.lines, rows.counts.pairs) == ("sharegpt-ranking", 300, 300)
    assert refused.num_rows == 0
    assert len(find_copies(keys_of(kept))) == duplicates


def test_unpaired_rows_are_an_unknown_layout() -> None:
    with pytest.raises(UsageError, match=r"\[PD102\]$"):
        real(DATA / "llamafactory-demo" / "kto_en_demo.json")


def test_alpaca_pairs_have_six_identical_ones() -> None:
    rows = real(DATA / "llms-from-scratch-pref" / "instruction-data-with-preference.json")
    _, refused = check_rows(rows.records)

    assert (rows.layout, rows.counts.lines, rows.counts.pairs) == ("alpaca", 1100, 1100)
    assert Counter(refused["code"].to_pylist()) == {"PD301": 6}
