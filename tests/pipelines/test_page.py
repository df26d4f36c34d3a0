"""The result's page is one file: no script, nothing fetched, every text escaped."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dpo.artifacts.report.curves import Series, histogram, line_plot, smooth, ticks
from pipelines.quickstart import result
from pipelines.quickstart.evaluate import training_figures
from pipelines.quickstart.page import render_page
from pipelines.quickstart.result import Example, Result, Samples
from prefdata.report import html
from tests.prefdata.report.chromium import BROWSER, CUT, DRIVER, open_chromium

SAMPLES = Samples(
    sentiment=0.5,
    sentiment_se=0.01,
    share_ended=0.9,
    mean_tokens=20.0,
    ref_logp_per_token=-2.0,
    distinct_bigrams=0.8,
)
EXAMPLE = Example(
    beginning="<script>alert(1)</script>",
    before="a & b",
    after='"<img src=x onerror=alert(2)>"',
    before_score=0.4,
    after_score=0.9,
)
NAMES = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
)
REJECTED_LINES = [
    *({"step": n} | dict.fromkeys(NAMES, n / 10) for n in range(1, 21)),
    {"step": 20} | {f"eval/{name}": 0.5 for name in NAMES},
]
RESULT = Result(
    **training_figures(REJECTED_LINES),
    sentiment_before=0.5,
    sentiment_after=0.5,
    sentiment_difference=0.0,
    kl=1.0,
    kl_se=0.1,
    num_samples=240,
    num_prompts=120,
    before=SAMPLES,
    after=SAMPLES,
    examples=[EXAMPLE],
    seconds={"train": 3.0},
    versions={"torch": "2"},
)


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(RESULT, REJECTED_LINES, [0.1, 0.5, 1.0], [0.9, 0.0, 0.95])


def test_the_page_has_no_script_and_loads_nothing(page: str) -> None:
    assert "<script" not in page
    assert not re.search(r"<[^>]+\s(src|href|on\w+)\s*=", page)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_texts_are_escaped(page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "a &amp; b" in page
    assert "<img" not in page


def test_the_page_follows_the_reader_s_light_or_dark(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page


def test_every_plot_is_whole_xml_inside_its_frame(page: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)

    assert len(plots) == 6
    for plot in plots:
        for element in ElementTree.fromstring(plot).iter():
            for name in ("x", "x1", "x2", "cx"):
                assert 0 <= float(element.get(name, 0)) <= 360
            for name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(element.get(name, 0)) <= 220


def test_a_line_rises_where_its_values_rise() -> None:
    svg = line_plot("t", [Series("a", "after", [(0, 0.0), (1, 1.0), (2, 2.0)])])

    places = re.search(r'points="([^"]+)"', svg)
    assert places is not None
    xs, ys = zip(*(map(float, place.split(",")) for place in places[1].split()), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys, reverse=True)


def test_a_flat_line_and_a_single_step_can_be_drawn() -> None:
    assert "polyline" in line_plot("t", [Series("a", "after", [(1, 0.5), (2, 0.5)])])
    assert "circle" in line_plot("t", [Series("a", "after", [(1, 0.5)], dots=True)])


def test_a_histogram_counts_every_value() -> None:
    svg = histogram("t", [("a", "before", [0.0, 0.05, 1.0])], bins=10, x_label="x")

    heights = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"', svg)]
    assert heights[0] == pytest.approx(2 * heights[-1], abs=0.2)
    assert sum(h > 0 for h in heights) == 2


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        ([0.12, 0.97], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ([-61.0, -38.0], [-65.0, -60.0, -55.0, -50.0, -45.0, -40.0, -35.0]),
        ([0.5, 0.5], [0.5, 0.6]),
        ([0.0, 0.0], [0.0, 1.0]),
    ],
)
def test_marks_are_round_and_hold_every_value(values: list[float], marks: list[float]) -> None:
    assert ticks(values) == marks


def test_smoothing_keeps_a_constant() -> None:
    assert smooth([(n, 3.0) for n in range(9)]) == [(n, 3.0) for n in range(9)]


def test_figures_come_from_the_first_and_the_last_lines() -> None:
    found = training_figures(REJECTED_LINES)

    assert found["first_loss"] == 0.1
    assert found["last_loss"] == pytest.approx(1.55)
    assert found["reward_accuracy"] == 0.5
    assert found["reward_accuracy_before"] == 0.1
    assert found["steps"] == 20


def test_margins_of_rounding_are_ties() -> None:
    first = {**REJECTED_LINES[0], "rewards/margins": -1e-6, "rewards/accuracies": 0.0625}

    assert training_figures([first, *REJECTED_LINES[1:]])["reward_accuracy_before"] == 0.5


def test_the_page_has_the_colors_of_the_other_pages() -> None:
    template = Path(result.__file__).with_name("report.html.jinja").read_text()
    style = Path(html.__file__).with_name("style.css").read_text()
    colors = re.findall(r"#[0-9a-f]{3,6}\b", template.split("</style>")[0])

    assert len(colors) == 14
    assert set(colors) <= set(re.findall(r"#[0-9a-f]{3,6}\b", style))


@pytest.mark.browser
@pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium with its chromedriver")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_shows_its_texts_whole(page: str, tmp_path: Path, width: int) -> None:
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    with open_chromium(tmp_path / "profile") as browser:
        browser.resize(width)
        browser.open(path)
        assert browser.run(CUT) == []
