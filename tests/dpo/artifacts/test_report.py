"""The page of a run: at its end and after a stop, without scripts, safe for any names."""

import re
import signal
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dpo.artifacts.report.page import NAME, RunFacts, render_run
from dpo.config import TrainConfig
from dpo.errors import TrainingError
from dpo.training.loop import train

ConfigOf = Callable[..., TrainConfig]


def test_a_finished_run_has_its_curves_and_numbers(config_of: ConfigOf) -> None:
    finished = train(config_of(steps=3, eval_every=1))
    page = (finished.out / NAME).read_text()

    assert finished.summary is not None
    loss = f"{finished.summary.first_loss:.4f} → {finished.summary.final['loss']:.4f}"
    assert loss in page
    assert "of 3, 4 pairs each" in page
    assert finished.summary.build_hash in page
    assert f"{finished.summary.final['eval/rewards/accuracies']:.1%}" in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(drawings) == 6
    for drawing in drawings:
        tree = ElementTree.fromstring(drawing)
        assert any(part.tag == "polyline" for part in tree)
        assert sum(part.tag == "circle" for part in tree) in (3, 6)


def test_a_stopped_run_says_so_and_how_to_continue(config_of: ConfigOf) -> None:
    def stop(step: int, _total: int, _metrics: dict[str, float]) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    finished = train(config_of(steps=5), report=stop)
    page = (finished.out / NAME).read_text()
    assert finished.stopped_by == signal.SIGTERM
    assert "Stopped by SIGTERM after step 2; run the same command to continue." in page
    assert "<dd>2 <small>of 5, 4 pairs each</small></dd>" in page

    train(config_of(steps=5))
    assert "Stopped" not in (finished.out / NAME).read_text()


def test_a_run_that_an_error_stopped_says_which(config_of: ConfigOf) -> None:
    def fail(step: int, _total: int, _metrics: dict[str, float]) -> None:
        if step == 2:
            raise TrainingError("T301", "step 2", "loss nan & <b>worse</b>", "look")

    config = config_of(steps=5)
    with pytest.raises(TrainingError):
        train(config, report=fail)
    page = (config.out / NAME).read_text()
    assert "Stopped by an error at step 2: loss nan &amp; &lt;b&gt;worse&lt;/b&gt;." in page


def test_a_page_is_harmless_and_always_the_same(config_of: ConfigOf, tmp_path: Path) -> None:
    config = config_of(out=str(tmp_path / "<script>alert(1)</script>" / 'a"><img src=x>'))
    facts = RunFacts(config, 3, "Well.", {"build": "<i>"})
    lines = [{"step": 1, "skipped": 1.0}]
    page = render_run(facts, lines)

    assert page == render_run(facts, lines)
    assert "<script" not in page
    assert "<img" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"<[^>]*\s(?:src|href)\s*=", page)
    assert "steps 1." in page
