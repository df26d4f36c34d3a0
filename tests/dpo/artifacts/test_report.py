"""The page of a run: at its end and after a stop, without scripts, safe for any names."""

import html
import math
import re
import shutil
import signal
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

import prefdata
from dpo.artifacts.report.page import NAME, RunFacts, RunLog, render_run
from dpo.config import TrainConfig
from dpo.errors import TrainingError
from dpo.training.log import read_lines
from dpo.training.loop import train
from prefdata.report.figures import size

ConfigOf = Callable[..., TrainConfig]


def test_a_finished_run_has_its_curves_and_numbers(config_of: ConfigOf) -> None:
    finished = train(config_of(steps=3, eval_every=1))
    page = (finished.out / NAME).read_text()

    assert finished.summary is not None
    lines = read_lines(finished.out / "metrics.jsonl")
    first, *_, last = [line["eval/loss"] for line in lines if "eval/loss" in line]
    assert f"<dt>loss</dt><dd>{first:.4f} → {last:.4f} <small>held out, step 3</small>" in page
    assert "of 3, 4 pairs each" in page
    assert finished.summary.build_hash in page
    assert f"{finished.summary.final['eval/rewards/accuracies']:.1%}" in page
    assert finished.summary.planned_bytes is not None
    assert f"at most; planned {size(finished.summary.planned_bytes)}" in page
    drawings = re.findall(r'<svg viewBox="0 0 360.*?</svg>', page, re.S)
    assert len(drawings) == 9
    dots = []
    for drawing in drawings:
        tree = ElementTree.fromstring(drawing)
        assert any(part.tag == "polyline" for part in tree)
        dots.append(sum(part.tag == "circle" for part in tree))
    assert dots == [3, 6, 6, 6, 3, 3, 0, 0, 0]  # steps have norm, rate and speed; evaluations not


def test_without_evaluation_the_loss_is_a_mean_of_steps(config_of: ConfigOf) -> None:
    finished = train(config_of(steps=7, eval_split=None))
    losses = [line["loss"] for line in read_lines(finished.out / "metrics.jsonl")]
    page = (finished.out / NAME).read_text()

    assert len(losses) == 7
    first, last = statistics.mean(losses[:5]), statistics.mean(losses[-5:])
    assert f"{first:.4f} → {last:.4f} <small>mean of the last 5 logged steps</small>" in page
    assert "Pairs of largest loss" not in page
    assert not (finished.out / "hardest.jsonl").exists()


def test_settings_that_differ_come_first_and_the_plan_is_there(config_of: ConfigOf) -> None:
    page = (train(config_of(loss={"beta": 0.3})).out / NAME).read_text()

    settings = re.search(
        r'id="settings".*?<pre>(.*?)</pre>.*?<details>.*?<pre>(.*?)</pre>', page, re.S
    )
    assert settings is not None
    changed, everything = (yaml.safe_load(html.unescape(text)) for text in settings.groups())
    assert changed["loss"] == [{"beta": 0.3}]
    assert "seed" not in changed
    assert everything["seed"] == 0
    assert "memory of each process" in page.split('id="plan"')[1]


def test_the_pairs_of_largest_loss_are_those_of_the_last_evaluation(config_of: ConfigOf) -> None:
    config = config_of(steps=2, eval_every=1)
    page = (train(config).out / NAME).read_text()

    *_, last = read_lines(config.out / "hardest.jsonl")
    losses = [one["loss"] for one in last["hardest"]]
    assert last["step"] == 2
    assert losses == sorted(losses, reverse=True)
    build = prefdata.open(config.data)
    text = build.text("test").to_pylist()
    assert len(losses) == min(10, len(text))
    shown = re.findall(r"<h3>Loss (.*?)</h3>.*?test\[(\d+)\]", page, re.S)
    assert shown == [(f"{one['loss']:.4f}", str(one["row"])) for one in last["hardest"]]
    for one in last["hardest"]:
        assert text[one["row"]]["pair_id"] == one["pair_id"]
        expected = -math.log(1 / (1 + math.exp(-one["margin"])))  # Eq. 7 of the DPO paper
        assert one["loss"] == pytest.approx(expected, rel=1e-4)
    part = page.split('id="hardest"')[1]
    assert html.escape(text[last["hardest"][0]["row"]]["prompt"][0]["content"]) in part


def test_a_run_ends_well_if_texts_of_its_data_are_lost(config_of: ConfigOf, arena: Any) -> None:
    config = config_of(steps=1)
    data = config.out.with_name("data")
    shutil.copytree(arena.data, data)
    for path in (data / "text").glob("test-*"):
        path.unlink()
    finished = train(config.model_copy(update={"data": data}))

    page = (finished.out / NAME).read_text()
    assert finished.summary is not None
    assert "Their texts cannot be read: " in page


def test_accuracy_by_source_is_a_table(config_of: ConfigOf) -> None:
    facts = RunFacts(config_of(eval_split="test"), 3, "Well.", {})
    line = {
        "step": 1, "eval/loss": 0.5, "eval/rewards/accuracies": 0.6,
        "eval/rewards/accuracies/a.jsonl": 0.25, "eval/other/rewards/accuracies/b.jsonl": 0.75,
    }  # fmt: skip
    page = render_run(facts, RunLog([line])).split('id="sources"')[1]

    assert re.findall(r'dir="auto">(.*?)</th><td>(.*?)</td><td class="n">(.*?)</td>', page) == [
        ("a.jsonl", "test", "25.0%"),
        ("b.jsonl", "other", "75.0%"),
    ]


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
    page = render_run(facts, RunLog(lines))

    assert page == render_run(facts, RunLog(lines))
    assert "<script" not in page
    assert "<img" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"<[^>]*\s(?:src|href)\s*=", page)
    assert "steps 1." in page
