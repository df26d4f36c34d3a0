"""Controlled sentiment (§6.1 of the paper): the frontier of reward against KL, of all methods.

    python -m pipelines.paper.sentiment.run [--settings FILE]

Each stage is a command that a user would type. What is there already is not made again, so a run
that was stopped at any point continues; of a trained policy, its evaluated points are kept.
"""

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from transformers.utils.logging import disable_progress_bar

from pipelines.commands import Invoke, clean_exit, in_a_process, show
from pipelines.fresh_samples import Evaluator
from pipelines.paper.sentiment.data import (
    keep_ended,
    prompt_rows,
    read_rows,
    sft_rows,
    write_rows,
)
from pipelines.paper.sentiment.evaluate import Point, numbers, sampling
from pipelines.paper.sentiment.figure import draw
from pipelines.paper.sentiment.peers import PPO_LIBRARY, Peer, peers
from pipelines.paper.sentiment.result import Frontier, advantages, best_of_points, places_of
from pipelines.paper.sentiment.settings import HERE, Run, Settings, keep, read, runs

DEFAULT_MODEL = ".models/SmolLM2-135M-Instruct"
PACKAGES = ("torch", "transformers", "prefdata-dpo", "vaderSentiment")
BUILD = {"text": "verbatim", "test_fraction": 0.0}
CHECKS_OFF = {
    "PD402": "off",  # beginnings of one topic are near-duplicates
    "PD409": "off",
}


class Experiment:
    """The stages, in the order of the paper."""

    def __init__(
        self, settings: Settings, invoke: Invoke, *, ppo_library: Path = PPO_LIBRARY
    ) -> None:
        self.settings, self.out, self.invoke = settings, settings.out, invoke
        self.peers = peers(settings, ppo_library)
        self.reference = str(self.out / "sft" / "model")
        self.clock = self.out / "seconds.json"
        self.seconds: dict[str, float] = {}
        if self.clock.is_file():
            self.seconds = json.loads(self.clock.read_bytes())

    def run(self) -> Frontier:
        keep(self.settings)
        if self.settings.model == DEFAULT_MODEL:
            self._command("model", ["python", "pipelines/quickstart/get_model.py"])
        self._fine_tune()
        self._make_pairs()
        points = self._measure_reference()
        for run in runs(self.settings):
            points += self._evaluated(run)
        others, left_out = self._train_peers()
        points += others
        return self._write(points, left_out)

    def _fine_tune(self) -> None:
        """Fine-tune the model on reviews: the reference of all methods (appendix C.1)."""
        data = self.out / "sft-data"
        if not (self.out / "sft" / "run.json").exists():
            write_rows(self.out / "sft.jsonl", sft_rows())
            self._build("sft", self.out / "sft.jsonl", data, layout="trl-std-explicit")
            words = ["loss.name=sft", "loss.beta=null", "reference=null", *self.settings.sft]
            start = f"model={self.settings.model}"
            self._train("sft", [start, f"data={data}", f"out={self.out / 'sft'}", *words])

    def _make_pairs(self) -> None:
        """Sample completions of the reference, score them, and build all pairs of each prompt."""
        prompts, samples = self.out / "prompts.jsonl", self.out / "samples.jsonl"
        if not samples.exists():
            write_rows(prompts, prompt_rows("prompts", self.settings.num_prompts))
            self._sample("samples", prompts, samples, self.settings.k)
        if not (self.out / "data" / "manifest.json").exists():
            ranked = self.out / "ranked.jsonl"
            write_rows(ranked, keep_ended(read_rows(samples)))
            pairing = {"pairing": {"strategy": "all"}}
            self._build("pairs", ranked, self.out / "data", layout="ranked", **pairing)
        words = ["dpo-ref", str(self.out / "data"), "--model", self.reference]
        self._command("reference log-probs", words)

    def _measure_reference(self) -> list[Point]:
        """Return the reference and best-of-N, from one file of completions."""
        held_out, best = self.out / "held_out.jsonl", self.out / "best-of.jsonl"
        if not best.exists():
            write_rows(held_out, prompt_rows("held_out", self.settings.held_out))
            self._sample("best-of-n", held_out, best, max(self.settings.best_of))
        prompts = [row["prompt"] for row in read_rows(held_out)]
        scorer, config = self.settings.scorer, sampling(self.settings)
        self.evaluator = Evaluator(self.reference, scorer, prompts, config)
        return best_of_points(read_rows(best), self.settings.best_of)

    def _evaluated(self, run: Run) -> list[Point]:
        """Return the points of a run, which is trained and evaluated unless they are there."""
        folder = self.out / "runs" / run.name
        points = folder.with_name(f"{folder.name}.points.json")
        if not points.exists():
            places = [f"model={self.reference}", f"data={self.out / 'data'}", f"out={folder}"]
            saved = [f"checkpoint_every={self.settings.points[0]}", "keep_checkpoints=99"]
            words = [*self.settings.train, *saved, *run.overrides, f"seed={run.seed}"]
            self._train("train", [*places, *words])
            found = [self._point(run, folder, step) for step in self.settings.points]
            _write_points(points, found)
            shutil.rmtree(folder)  # gigabytes; the points are what is kept
        return [Point.model_validate(point) for point in json.loads(points.read_bytes())]

    def _point(self, run: Run, folder: Path, step: int) -> Point:
        """Return the point of one step; the last is the run's own model, others are exported."""
        model = folder / "model"
        if step < self.settings.points[-1]:
            model = folder / f"step-{step}"
            shutil.rmtree(model, ignore_errors=True)
            words = ["dpo-export", str(folder), "--step", str(step), "-o", str(model)]
            self._command("export", words)
        started = time.perf_counter()
        measured: dict[str, Any] = numbers(self.evaluator.measure(str(model)))
        self._add("evaluate", time.perf_counter() - started)
        return Point(method=run.method, setting=run.setting, seed=run.seed, step=step, **measured)

    def _train_peers(self) -> tuple[list[Point], dict[str, str]]:
        """Return the points of TRL's methods, and why there are none of some."""
        left_out = {peer.method: peer.missing for peer in self.peers if peer.missing}
        for method, why in left_out.items():
            print(f"{method} is left out: {why}", flush=True)
        return [
            self._one_of_trl(peer, beta, seed)
            for seed in self.settings.other_seeds
            for peer in self.peers
            if not peer.missing
            for beta in peer.betas
        ], left_out

    def _one_of_trl(self, peer: Peer, beta: float, seed: int) -> Point:
        folder = self.out / "runs" / f"{peer.module}-{beta:g}-seed{seed}"
        points = folder.with_name(f"{folder.name}.points.json")
        if not points.exists():
            shutil.rmtree(folder, ignore_errors=True)  # TRL's run is short, and begun anew
            words = ["python", "-m", f"pipelines.paper.sentiment.{peer.module}"]
            words += ["--beta", str(beta), "--seed", str(seed), "--out", str(folder)]
            settings = str(self.out / "settings.json")
            self._command(peer.module, [*words, "--settings", settings])
            measured: dict[str, Any] = numbers(self.evaluator.measure(str(folder / "model")))
            last = max(self.settings.points)
            point = Point(method=peer.method, setting=f"{beta:g}", seed=seed, step=last, **measured)
            _write_points(points, [point])
            shutil.rmtree(folder)
        return Point.model_validate(json.loads(points.read_bytes())[0])

    def _write(self, points: list[Point], left_out: dict[str, str]) -> Frontier:
        """Write result.json and frontier.svg."""
        places = places_of(points)
        result = Frontier(
            places=places,
            advantages=advantages(points),
            left_out=left_out,
            points=points,
            seconds=self.seconds,
            settings=self.settings.model_dump(mode="json"),
            versions={name: version(name) for name in PACKAGES},
        )
        (self.out / "result.json").write_text(result.model_dump_json(indent=2) + "\n")
        title = f"Controlled sentiment, {Path(self.settings.model).name}"
        (self.out / "frontier.svg").write_text(draw(places, title), encoding="utf-8")
        return result

    def _build(self, stage: str, rows: Path, out: Path, **options: Any) -> None:
        config = out.with_suffix(".yaml")
        value = BUILD | options | {
            "inputs": [str(rows)], "tokenizer": self.settings.model, "out": str(out),
            "severity": CHECKS_OFF,
        }  # fmt: skip
        config.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
        self._command(stage, ["prefdata", "build", str(config)])

    def _sample(self, stage: str, prompts: Path, out: Path, k: int) -> None:
        words = ["dpo-sample", str(prompts), "--model", self.reference, "-k", str(k), "--raw"]
        words += ["--max-new-tokens", str(self.settings.max_new_tokens), "-o", str(out)]
        self._command(stage, [*words, "--batch-size", "128", "--scorer", self.settings.scorer])

    def _train(self, stage: str, words: Sequence[str]) -> None:
        config = str(HERE / "train.yaml")  # fresh samples are what is evaluated, not pairs
        self._command(stage, ["dpo-train", config, "eval_split=null", *words])

    def _command(self, stage: str, words: Sequence[str]) -> None:
        show(words)
        started = time.perf_counter()
        self.invoke(words)
        self._add(stage, time.perf_counter() - started)

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.clock.write_text(json.dumps(self.seconds, indent=2) + "\n")


def _write_points(path: Path, points: list[Point]) -> None:
    """Write a run's points under their name once they are complete."""
    temporary = path.with_name(f"{path.name}.partial")
    temporary.write_text(json.dumps([point.model_dump() for point in points], indent=2) + "\n")
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=Path, default=HERE / "settings.yaml")
    args = parser.parse_args()
    disable_progress_bar()
    with clean_exit():
        settings = read(args.settings)
        result = Experiment(settings, in_a_process).run()
    for place in result.places:
        reward = f"{place.reward:.3f} ± {place.reward_interval:.3f}"
        kl = f"{place.kl:6.2f} ± {place.kl_interval:.2f}"
        print(f"{place.method:14}{place.setting:>6}{place.step:>5}  {reward}  {kl} nats")
    print("DPO's reward minus that of others, at their KL:")
    for one in result.advantages:
        value = "farther than DPO went" if one.value is None else f"{one.value:+.3f}"
        spread = "" if one.interval is None else f" ± {one.interval:.3f}"
        print(f"{one.method:14}{one.setting:>6}{one.step:>5}  {value}{spread}")
    print(f"{settings.out / 'result.json'} and {settings.out / 'frontier.svg'} are written")


if __name__ == "__main__":
    main()
