"""Plots of any numbers: all can be drawn, and the drawing is inside its picture."""

import math
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prefdata.report.html.funnel import NARROW, WIDE, Frame, draw_funnel, steps_of
from prefdata.report.html.plots import WIDTH, draw_interval, draw_lengths, reach_of
from prefdata.report.lengths import (
    PARTS,
    add_lengths,
    count_lengths,
    histogram,
    measure_parts,
    measure_sums,
)
from prefdata.report.model import Bias
from prefdata.store.manifest import FunnelStage
from tests.prefdata.report.synthetic import empty_report, full_report, line_classes

COUNTS = st.integers(0, 10**9)
STAGES = st.lists(
    st.builds(
        FunnelStage,
        stage=st.sampled_from(["read", "check", "duplicates", "tokens", "other"]),
        rows_in=COUNTS,
        rows_out=COUNTS,
        dropped=st.dictionaries(st.sampled_from([f"PD{n}" for n in range(300, 320)]), COUNTS),
    ),
    max_size=6,
)
LENGTHS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=50)


def numbers_in(picture: str) -> list[float]:
    """Return the numbers in attributes and paths."""
    values = re.findall(r' (?:x|y|x1|x2|y1|y2|cx|width|height|d)="([^"]*)"', picture)
    assert not any(word in value for value in values for word in ("nan", "inf"))
    return [float(text) for value in values for text in re.findall(r"-?\d+\.?\d*", value)]


@given(STAGES, st.integers(0, 10**9), st.sampled_from([WIDE, NARROW]))
def test_any_funnel_can_be_drawn(stages: list[FunnelStage], lines: int, frame: Frame) -> None:
    lost = line_classes(lines, lines // 3, 0, 0)
    report = empty_report().model_copy(update={"funnel": stages, "lines": lost})
    numbers = numbers_in(draw_funnel(report, frame))

    assert all(math.isfinite(number) for number in numbers)
    assert min(numbers) >= -1


@given(LENGTHS, LENGTHS)
def test_any_lengths_can_be_drawn(chosen: list[int], rejected: list[int]) -> None:
    shapes = {
        name: histogram(np.array(values, np.int64))
        for name, values in (("chosen", chosen), ("rejected", rejected))
    }
    picture = draw_lengths(shapes, "tokens")

    assert sum(shapes["chosen"].counts) == len(chosen)
    assert all(-1 <= number <= WIDTH + 1 for number in numbers_in(picture))


@given(st.tuples(*[st.floats(0, 1)] * 3).map(sorted))
def test_any_interval_can_be_drawn(values: list[float]) -> None:
    low, auc, high = values
    bias = Bias(name="x", auc=auc, low=low, high=high, pairs=1, sentence="x")

    assert all(0 <= number <= 240 for number in numbers_in(draw_interval(bias, reach_of([bias]))))


@given(st.lists(st.tuples(*[st.integers(0, 2**31 - 1)] * 3), min_size=1, max_size=30))
def test_lengths_are_as_numpy_computes_them(rows: list[tuple[int, int, int]]) -> None:
    parts = dict(zip(PARTS, np.array(rows, np.int64).T, strict=True))
    found = measure_parts(parts)
    assert found is not None

    for part in PARTS:
        assert found.lengths[part].max == parts[part].max()
        assert found.lengths[part].median == np.median(parts[part])
        shape = found.histograms[part]
        counts, _ = np.histogram(parts[part], np.array([*shape.edges[:-1], shape.edges[-1] - 0.5]))
        assert shape.counts == counts.tolist()
    longer = [(1 if c > r else 0.5 if c == r else 0) for _, c, r in rows]
    assert found.chosen_longer == round(float(np.mean(longer)), 6)


def test_stages_that_change_nothing_are_left_out() -> None:
    stages = [
        FunnelStage(stage=name, rows_in=before, rows_out=after, dropped=dropped)
        for name, before, after, dropped in [
            ("read", 9, 9, {}),
            ("check", 9, 7, {"PD202": 2}),
            ("duplicates", 7, 7, {}),
            ("pairs", 7, 8, {}),
            ("near duplicates", 8, 8, {}),
        ]
    ]
    report = empty_report().model_copy(update={"funnel": stages})

    assert [step.title for step in steps_of(report)] == ["check", "pairs"]
    report = report.model_copy(update={"funnel": [stages[0], stages[-1]]})
    assert [step.title for step in steps_of(report)] == ["near duplicates"]


def test_the_stream_ends_as_wide_as_the_kept_rows() -> None:
    report = full_report()
    picture = draw_funnel(report, WIDE)
    widths = [float(width) for width in re.findall(r'class="kept[^>]*width="([\d.]+)"', picture)]

    assert math.isclose(sum(widths) / WIDE.stream_width, 17_846 / 20_310, rel_tol=0.01)


@given(values=st.lists(st.integers(0, 50), min_size=1, max_size=60), cut=st.integers(0, 60))
def test_lengths_that_are_counted_in_parts_have_numpys_quantiles(
    values: list[int], cut: int
) -> None:
    whole = np.array(values)
    halves = [whole[:cut], whole[cut:]]

    found = measure_sums(add_lengths(count_lengths(dict.fromkeys(PARTS, half)) for half in halves))

    assert found is not None
    lengths = found.lengths["prompt"]
    assert (lengths.median, lengths.max) == (np.median(whole), max(values))
    assert lengths.p95 == round(float(np.percentile(whole, 95)), 3)
    assert lengths.mean == round(float(whole.mean()), 3)
    assert found.histograms["chosen"] == histogram(whole)
