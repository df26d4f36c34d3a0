"""lines = blank + rows that gave pairs + refused rows, for any bytes."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdata.errors import UsageError
from prefdata.read import Limits, Pairing, expand_inputs, load_layout
from tests.effort import times
from tests.prefdata.read.rows import read_file

texts = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
pairs = st.fixed_dictionaries(
    {"prompt": values | texts, "chosen": values | texts, "rejected": values | texts},
    optional={"meta": values},
)
ranked = st.fixed_dictionaries(
    {
        "prompt": texts,
        "completions": st.lists(
            st.fixed_dictionaries(
                {"text": texts | values, "score": st.none() | st.integers(0, 3) | values}
            ),
            max_size=4,
        ),
    }
)


def as_json(value: object) -> bytes:
    """Return JSON as Python's writer spells it, with NaN and lone surrogates."""
    return json.dumps(value).encode()


lines = st.one_of(
    pairs.map(as_json),
    ranked.map(as_json),
    pairs.map(as_json).map(lambda line: line[: len(line) // 2]),
    st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")),
    st.sampled_from([b"", b" ", b"\r", b"\xef\xbb\xbf{}", b"\0" * 9, b"[1]", b"null"]),
)


@pytest.mark.stress
@settings(max_examples=times(300, 100_000), deadline=None, derandomize=True)
@given(
    content=st.lists(lines, max_size=12),
    ending=st.sampled_from([b"", b"\n"]),
    layout=st.sampled_from(["trl-std-explicit", "ranked", "trl-conv-implicit", "hh"]),
    strategy=st.sampled_from(["best_vs_worst", "adjacent", "all", "best_vs_random"]),
)
def test_no_line_is_lost(content: list[bytes], ending: bytes, layout: str, strategy: str) -> None:
    data = b"\n".join(content) + ending
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(data)
        (file,) = expand_inputs([str(path)])
        try:
            rows = read_file(
                file,
                layout=load_layout(layout),
                pairing=Pairing(strategy=strategy),
                limits=Limits(),
            )
        except UsageError:  # the file as a whole is refused
            return

    counts = rows.counts
    gave_pairs = set(rows.records["line"].to_pylist())
    refused = [row for row in rows.rejected.to_pylist() if row["ordinal"] == -1]
    assert counts.lines == counts.blank + len(gave_pairs) + counts.rejected
    assert counts.rejected == len(refused)
    assert not gave_pairs & {row["line"] for row in refused}
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):  # otherwise elements, not lines
        assert counts.lines == data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
        for row in refused:
            assert data[row["offset"] :].removeprefix(b"\xef\xbb\xbf").startswith(row["raw"])
