"""Mixtures: exact counts by source, the same bytes twice, and nothing lost on the way."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import prefdata
from prefdata.cli import main
from prefdata.errors import PrefdataError
from prefdata.store.reader import Build
from tests.prefdata.conftest import write_rows
from tests.prefdata.split_files import Row, ask

WEIGHTS = {"half": 0.5, "once": 1.0, "often": 2.5}
SIZES = {"half": 31, "once": 20, "often": 33}
ROWS = {"half": 16, "once": 20, "often": 83}
"""Weight times size, rounded: 15.5, 20 and 82.5."""


def rows_of(name: str) -> list[Row]:
    """Return the pairs of a source; every fourth has the prompt of the one before."""
    return [
        ask(f"{name} {n - (n % 4 == 3)} ask", f"yes {n} {name}", f"no {n}")
        for n in range(SIZES[name])
    ]


def sources(folder: Path, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name, weight in WEIGHTS.items():
        path = write_rows(folder / f"{name}.jsonl", rows_of(name))
        found.append({"path": str(path), "name": f"set {name}", "weight": weight})
    test = write_rows(folder / "held.jsonl", [ask(f"held {n}") for n in range(7)])
    return [*found, {"path": str(test), "split": "test", **more}]


def build(folder: Path, tiny: Path, out: str = "out", **settings: Any) -> Build:
    more = {"severity": {"PD402": "off"}, "shard_rows": 40, **settings}
    return prefdata.build(sources(folder), tokenizer=str(tiny), out=folder / out, **more)


def counts(built: Build) -> Counter[str]:
    return Counter(built.text("train")["source"].to_pylist())


def test_each_source_has_exactly_its_rows(tiny: Path, tmp_path: Path) -> None:
    built = build(tmp_path, tiny)

    assert counts(built) == {f"{name}.jsonl": rows for name, rows in ROWS.items()}
    assert built.splits["train"].rows == sum(ROWS.values())
    assert built.splits["test"].rows == 7, "other splits have each pair once"
    of_pairs = Counter(zip(*(built.text("train")[c].to_pylist() for c in ("source", "pair_id")),
                           strict=True))  # fmt: skip
    times = {name: Counter(n for (file, _), n in of_pairs.items() if file == f"{name}.jsonl")
             for name in WEIGHTS}  # fmt: skip
    assert times == {"half": {1: 16}, "once": {1: 20}, "often": {2: 16, 3: 17}}
    assert all(shard.rows <= 40 for shard in built.shards("train"))
    assert built.tokens("train")["pair_id"].to_pylist() == [
        bytes.fromhex(one) for one in built.text("train")["pair_id"].to_pylist()
    ]


def test_the_copies_of_a_prompt_are_adjacent_and_whole(tiny: Path, tmp_path: Path) -> None:
    text = build(tmp_path, tiny).text("train")
    groups = text["group_id"].to_pylist()
    runs = [group for at, group in enumerate(groups) if at == 0 or groups[at - 1] != group]

    assert len(runs) == len(set(runs))
    seen: dict[str, list[str]] = {}
    for group, pair in zip(groups, text["pair_id"].to_pylist(), strict=True):
        seen.setdefault(group, []).append(pair)
    for pairs in seen.values():
        first = list(dict.fromkeys(pairs))
        assert pairs[: len(first)] == first, "each pair comes once before one comes again"


def test_nothing_vanishes(tiny: Path, tmp_path: Path) -> None:
    built = build(tmp_path, tiny)
    left_out = [row for row in built.rejected().to_pylist() if row["code"] == "PD410"]
    report = orjson.loads((built.path / "report.json").read_bytes())

    assert len(left_out) == 15
    assert {row["source"] for row in left_out} == {"half.jsonl"}
    lines = built.manifest.lines
    assert (lines.lines, lines.kept, lines.filtered, lines.rejected) == (91, 76, 15, 0)
    assert [finding["count"] for finding in report["findings"] if finding["code"] == "PD410"] == [
        15
    ]
    (stage,) = (stage for stage in built.manifest.funnel if stage.stage == "mixture")
    assert (stage.rows_in, stage.rows_out, stage.dropped) == (91, 76, {"PD410": 15})


def test_a_mixture_is_shown_by_source(tiny: Path, tmp_path: Path) -> None:
    built = build(tmp_path, tiny)
    said = CliRunner().invoke(main, ["show", str(built.path)]).output

    found = {one.name: (one.weight, one.pairs, one.rows) for one in built.manifest.mixture}
    assert found == {f"set {name}": (WEIGHTS[name], SIZES[name], ROWS[name]) for name in WEIGHTS}
    for text in (said, (built.path / "README.md").read_text(),
                 (built.path / "report.html").read_text()):  # fmt: skip
        assert "set often" in text
        assert "83" in text
    assert "Mixture: train by source" in said
    assert not (built.path / ".building").exists()
    notes = prefdata.validate(sources(tmp_path)).notes
    assert any("weights, which a build applies" in note for note in notes)


def test_the_same_mixture_is_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    first = build(tmp_path, tiny)
    again = build(tmp_path, tiny, "again", workers=2)
    other = build(tmp_path, tiny, "other", seed=1)

    assert again.manifest.to_bytes() == first.manifest.to_bytes()
    assert counts(other) == counts(first)
    assert other.content_hash != first.content_hash


def test_pairs_are_counted_when_they_are_tokenized(tiny: Path, tmp_path: Path) -> None:
    """A pair that is refused at the end takes part in no count, so the numbers stay exact."""
    rows = [*rows_of("often")[:10], *(ask(f"long {n} " * 400) for n in range(5))]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    for weight, num in ((2.5, 25), (0.25, 3)):
        built = prefdata.build(
            [{"path": str(path), "weight": weight}], tokenizer=str(tiny), max_length=300,
            out=tmp_path / f"{weight}", test_fraction=0.0, severity={"PD402": "off"},
        )  # fmt: skip
        assert built.splits["train"].rows == num
        assert built.manifest.mixture[0].pairs == 10
        assert built.manifest.lines.rejected == 5


def test_a_drawn_test_split_is_not_weighted(tiny: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [ask(f"ask {n} {n * n}") for n in range(200)])
    built = prefdata.build(
        [{"path": str(path), "weight": 3}], tokenizer=str(tiny), out=tmp_path / "out",
        test_fraction=0.2, severity={"PD402": "off"},
    )  # fmt: skip

    test = built.splits["test"].rows
    assert 20 < test < 60
    assert built.splits["train"].rows == 3 * (200 - test)


def test_the_files_of_a_directory_are_one_source(tiny: Path, tmp_path: Path) -> None:
    """The count is exact for the source: 4.5 rows of 3 files are not three times 2."""
    for n in range(3):
        (tmp_path / "set").mkdir(exist_ok=True)
        write_rows(tmp_path / f"set/{n}.jsonl", [ask(f"ask {n} {m} {m * n}") for m in range(3)])
    built = prefdata.build(
        [{"path": str(tmp_path / "set"), "weight": 0.5}], tokenizer=str(tiny), test_fraction=0.0,
        out=tmp_path / "out", severity={"PD402": "off"},
    )  # fmt: skip

    assert built.splits["train"].rows == 5
    assert [(one.name, one.pairs) for one in built.manifest.mixture] == [("0.jsonl and 2 more", 9)]


def test_the_config_in_the_manifest_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    """Whatever way its files were named: the files of a source are counted together again."""
    for n in range(3):
        (tmp_path / "set").mkdir(exist_ok=True)
        write_rows(tmp_path / f"set/{n}.jsonl", [ask(f"ask {n} {m} {m * n}") for m in range(3)])
    settings: dict[str, Any] = {"tokenizer": str(tiny), "severity": {"PD402": "off"}}
    first = prefdata.build(
        [{"path": str(tmp_path / "set"), "weight": 0.5}], out=tmp_path / "a", **settings
    )
    named = [one | {"path": str(tmp_path / "set" / one["path"])}
             for one in first.manifest.config["inputs"]]  # fmt: skip
    again = prefdata.build(named, out=tmp_path / "b", **settings)

    assert again.manifest.to_bytes() == first.manifest.to_bytes()


def test_an_interrupted_mixture_resumes_to_the_same_bytes(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(tmp_path, tiny, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr("prefdata.building.write_others", _stop)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path, tiny, "again", workers=1)
    left = {path: path.stat().st_mtime_ns
            for path in (tmp_path / "again/.building/tokens").iterdir()}  # fmt: skip
    again = build(tmp_path, tiny, "again", workers=1)

    assert again.manifest.to_bytes() == whole.manifest.to_bytes()
    assert left
    for path, before in left.items():
        assert (again.path / "tokens" / path.name).stat().st_mtime_ns == before, "made once"


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


def test_builds_with_other_copies_differ_in_numbers_alone(tiny: Path, tmp_path: Path) -> None:
    once, often = tmp_path / "once", tmp_path / "often"
    path = write_rows(tmp_path / "rows.jsonl", rows_of("often"))
    for out, weight in ((once, 1.0), (often, 2.5)):
        prefdata.build(
            [{"path": str(path), "weight": weight}], tokenizer=str(tiny), out=out,
            test_fraction=0.0, severity={"PD402": "off"},
        )  # fmt: skip
    found = prefdata.diff(str(once), str(often))

    assert (found.added, found.gone, found.moved, found.tokens, found.same) == ([], [], [], [], 0)
    assert len(found.numbers) == 33
    assert found.splits == {"train": [33, 83]}


@given(weight=st.floats(0.01, 9), size=st.integers(1, 40), seed=st.integers(0, 3))
def test_counts_are_exact_for_any_weight(weight: float, size: int, seed: int) -> None:
    from types import SimpleNamespace

    import numpy as np
    import polars as pl

    from prefdata.read import InputFile
    from prefdata.stages.mixture import _draw

    file = InputFile(Path("a"), "a", 0, of=prefdata.Source(path="a", weight=weight))
    ids = np.random.default_rng(0).integers(0, 2**63, (2, size)).astype(np.uint64)
    keys = pl.DataFrame({"source_index": [0] * size, "pair_id_hi": ids[0], "pair_id_lo": ids[1]})
    found: Any = SimpleNamespace(files=[SimpleNamespace(file=file)])
    copies, _ = _draw(keys, found, seed)

    assert copies.sum() == int(np.floor(weight * size + 0.5))
    assert copies.max() - copies.min() <= 1


def test_a_file_in_two_sources_is_an_error_with_both_weights(tiny: Path, tmp_path: Path) -> None:
    one, *_ = sources(tmp_path)
    first, second = {**one, "name": "a", "weight": 1.5}, {**one, "name": "a", "weight": 1.0}
    with pytest.raises(PrefdataError) as caught:
        prefdata.build([first, second], tokenizer=str(tiny), out=tmp_path / "out")

    assert caught.value.code == "E185"
    assert "half.jsonl with weight 1.5 and" in str(caught.value)
    assert "one weight (2.5 is as often as both together)" in str(caught.value)


def test_text_of_a_mixture_says_that_its_copies_are_dropped(tiny: Path, tmp_path: Path) -> None:
    built = build(tmp_path, tiny, shard_rows=1000)
    train = str(built.path / "text" / "train-00000-of-00001.parquet")
    report = prefdata.validate(train)
    copies = built.splits["train"].rows - report.lines.kept

    (said,) = [note for note in report.notes if "text of a mixture" in note]
    assert said.startswith(f"{train}: text of a mixture, read with each pair once: its {copies} ")
    test = prefdata.validate(str(built.path / "text" / "test-00000-of-00001.parquet"))
    assert not any("text of a mixture" in note for note in test.notes)


def test_a_mixture_without_a_pair_is_an_error(tiny: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [ask("one")])
    with pytest.raises(PrefdataError, match=r"no row of train.*weight.*E120"):
        prefdata.build(
            [{"path": str(path), "weight": 0.1}], tokenizer=str(tiny), out=tmp_path / "out"
        )
