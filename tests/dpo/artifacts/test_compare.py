"""`dpo-report` compares runs: what differs, what does not compare, and what is not a run."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from dpo.artifacts.report.compare import RunRecord, differing_settings, render_comparison
from dpo.cli import report
from dpo.config import TrainConfig
from dpo.training.loop import train
from dpo.training.run_folder import NAME
from tests.prefdata.report.chromium import BROWSER, CUT, DRIVER, open_chromium

ConfigOf = Callable[..., TrainConfig]


@pytest.fixture
def runs(config_of: ConfigOf, tmp_path: Path) -> list[Path]:
    """Two finished runs that differ in β and in the learning rate."""
    first = config_of(steps=3, eval_every=1, checkpoint_every=1, out=str(tmp_path / "first"))
    second = config_of(
        steps=3, eval_every=1, loss={"beta": 0.4}, optimizer={"learning_rate": 2e-3},
        out=str(tmp_path / "second"),
    )  # fmt: skip
    return [train(config).out for config in (first, second)]


def run_report(*words: Path | str) -> tuple[int, str]:
    result = CliRunner().invoke(report, [str(word) for word in words])
    return result.exit_code, result.output


def test_a_page_has_final_metrics_differences_and_curves(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    code, output = run_report(*runs, "-o", out)
    page = out.read_text()

    assert code == 0, output
    assert "first: state finished, steps 3, held-out loss " in output
    settings = page.split('id="settings"')[1].split("</section>")[0]
    rows = re.findall(r"<code>(.*?)</code></th><td.*?>(.*?)</td><td.*?>(.*?)</td>", settings)
    assert rows == [
        ("loss.beta", "0.1", "0.4"),
        ("optimizer.learning_rate", "0.001", "0.002"),
        ("checkpoint_every", "1", "null"),
    ]
    assert "accuracy compares" in page
    assert "different data" not in page
    drawings = re.findall(r'<svg viewBox="0 0 360.*?</svg>', page, re.S)
    assert len(drawings) == 11
    for drawing in drawings:
        kinds = [one.get("class") for one in ElementTree.fromstring(drawing).iter("polyline")]
        assert kinds == ["line run-0", "line run-1"]


def test_the_same_runs_give_the_same_page_and_only_that_is_replaced(
    runs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    run_report(*runs, "-o", out)
    before = out.read_bytes()
    code, _ = run_report(*runs, "-o", out)
    assert code == 0
    assert out.read_bytes() == before

    code, output = run_report(*runs, "-o", runs[0] / "report.html")
    assert code == 2
    assert "E171" in output


def test_a_run_that_is_not_finished_needs_a_checkpoint(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    (runs[0] / NAME).unlink()  # it has checkpoints of steps 1 and 2
    code, output = run_report(*runs, "-o", out)
    assert code == 0
    assert "first: state not finished, steps 3," in output

    (runs[1] / NAME).unlink()
    code, output = run_report(*runs, "-o", out)
    assert code == 2
    assert "second: is not finished, and no checkpoint names its settings" in output
    assert "T152" in output


def test_what_is_not_two_runs_is_refused(runs: list[Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "page.html"
    for words, problem in (
        ([runs[0]], "compares 2 to 8 runs, and was given 1"),
        ([runs[0]] * 9, "compares 2 to 8 runs, and was given 9"),
        ([runs[0], runs[0] / "model" / ".."], "is the same run as"),
        ([runs[0], empty], "is not the output of dpo-train"),
    ):
        code, output = run_report(*words, "-o", out)
        assert (code, out.exists()) == (2, False)
        assert problem in " ".join(output.split())
        assert "T152" in output


def test_runs_of_one_name_are_named_by_path(runs: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "copy" / "first"
    shutil.copytree(runs[0], other)
    code, output = run_report(runs[0], other, "-o", tmp_path / "page.html")

    assert code == 0
    assert f"{other}: state finished" in output
    assert "None but <code>out</code>" in (tmp_path / "page.html").read_text()


def test_groups_of_settings_are_compared_key_by_key(config_of: ConfigOf) -> None:
    plain, lora = config_of(), config_of(lora={"r": 4}, data="other")
    found = dict(differing_settings([plain, lora]))

    assert found["lora.r"] == ["–", "4"]
    assert "lora" not in found
    assert found["data"] == [str(plain.data), "other"]
    page = render_comparison(
        [RunRecord(f"<b>{n}", c, [], None) for n, c in enumerate((plain, lora))]
    )
    assert "They have different data" in page
    assert "<b>0" not in page
    assert "default-src 'none'" in page


@pytest.mark.browser
@pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium with its chromedriver")
def test_no_text_is_cut_on_a_phone(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    run_report(*runs, "-o", out)
    with open_chromium(tmp_path / "profile") as browser:
        for page in (out, runs[0] / "report.html"):
            browser.resize(390)
            browser.open(page)
            assert browser.run(CUT) == []
