"""Summaries and dialogue end to end on a tiny model: stopped, changed, judged by a server."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.commands import RecipeError
from pipelines.paper.tldr.overlap import overlap
from pipelines.paper.win_rates import result, settings
from pipelines.paper.win_rates.cost import costs, judge_requests, table
from pipelines.paper.win_rates.result import WinRates, win_rate
from pipelines.paper.win_rates.run import Experiment
from pipelines.paper.win_rates.settings import PAPER, Settings, read
from prefdata.errors import CodedError
from tests.dpo.judging.judge import answers_in, says
from tests.dpo.server.loopback import Asked, Loopback, Reply, well
from tests.dpo.tiny import save_tiny
from tests.pipelines.invoked import Invoked

ROOT = PAPER.parents[1]
TASKS = ["tldr", "dialogue"]
Changes = dict[str, Any]
FAST = [
    "epochs=null", "steps=2", "global_batch_size=4", "checkpoint_every=null", "eval_every=null",
    "optimizer={name: adamw, learning_rate: 1e-2}",
]  # fmt: skip
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def by_length(*, prompts: list[Any], completions: list[str]) -> list[float]:
    assert len(prompts) == len(completions)
    return [float(len(text)) for text in completions]


def write(path: Path, rows: list[Changes]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def tldr(tmp_path_factory: pytest.TempPathFactory) -> Changes:
    """Return settings of a run whose model is fine-tuned already, judged by a scorer."""
    folder = tmp_path_factory.mktemp("tldr")
    comparisons = [
        {
            "info": {"id": str(n), "post": f"A dog, {NUMBERS[n % 10]} and {NUMBERS[-n // 10]}."},
            "summaries": [{"text": f"Dog {NUMBERS[n % 10]}."}, {"text": f"No {n}."}],
            "choice": n % 2,
        }
        for n in range(20)
    ]
    news = [{"article": f"{'Paris ' * n}is far.", "highlights": "A dog."} for n in range(1, 5)]
    return {
        "task": "tldr",
        "model": save_tiny(folder / "model", template=None),
        "out": str(folder / "out"),
        "template": str(PAPER / "tldr" / "post.jinja"),
        "build": {
            "inputs": [write(folder / "comparisons.jsonl", comparisons)], "test_fraction": 0.3,
            "severity": {"PD402": "off"},
        },
        "sft": None,
        "train": FAST,
        "runs": {"dpo": []},
        "temperatures": [0.0, 1.0],
        "best_of": {"n": 3, "scorer": f"{__name__}:by_length"},
        "max_new_tokens": 8,
        "evaluations": {
            "tldr": {"rows": 4},
            "news": {
                "file": write(folder / "news.jsonl", news), "prompt": "article",
                "reference": "highlights", "rows": 9, "max_words": 5,
            },
        },
        "judge": {"scorer": f"{__name__}:by_length"},
    }  # fmt: skip


def settings_of(values: Changes, file: Path, **changes: Any) -> Settings:
    file.write_text(yaml.safe_dump(values | changes, sort_keys=False), encoding="utf-8")
    return read(file)


def test_summaries_are_judged_at_each_temperature_and_a_stopped_run_continues(
    tldr: Changes, tmp_path: Path
) -> None:
    config = settings_of(tldr, tmp_path / "settings.yaml", evaluations={"tldr": {"rows": 4}})
    first = Invoked(fail_at=9)
    with pytest.raises(KeyboardInterrupt):
        Experiment(config, first).run()

    rest = Invoked()
    found = Experiment(config, rest).run()

    assert first.names[:4] == ["prefdata", "dpo-ref", "dpo-train", "dpo-sample"]
    assert first.names[4:] == ["dpo-judge", *["dpo-sample", "dpo-judge"] * 2]
    assert rest.names == ["dpo-judge", *["dpo-sample", "dpo-judge"] * 2]
    again = Invoked()
    assert Experiment(config, again).run() == found
    assert again.names == []

    places = [(one.evaluation, one.method, one.temperature) for one in found.rates]
    both = [("tldr", name, at) for name in ("sft", "dpo") for at in (0.0, 1.0)]
    assert places == [*both, ("tldr", "best-of-n", 1.0)]
    assert found.left_out == {"tldr": 0}
    for one in found.rates:
        assert one.judged + one.unjudged == 4
        assert None not in (one.low, one.rate, one.high)
        assert 0 <= (one.low or 0) <= (one.rate or 0) <= (one.high or 0) <= 1
        assert one.reference_words == 2
    assert sum(found.pairs.values()) == 20
    assert set(found.reward_accuracies) == {"dpo"}
    written = WinRates.model_validate_json((config.out / "result.json").read_bytes())
    assert written == found


def test_another_file_is_evaluated_without_training_again(tldr: Changes, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    only = {"out": out, "temperatures": [1.0], "best_of": None}
    evaluations = tldr["evaluations"]
    before = settings_of(
        tldr, tmp_path / "a.yaml", **only, evaluations={"tldr": evaluations["tldr"]}
    )
    Experiment(before, Invoked()).run()
    news = evaluations["news"] | {"max_words": 3}

    added = Invoked()
    after = settings_of(
        tldr, tmp_path / "b.yaml", **only, evaluations={"tldr": {"rows": 4}, "news": news}
    )
    found = Experiment(after, added).run()

    assert added.names == ["dpo-sample", "dpo-judge"] * 2
    assert found.left_out == {"tldr": 0, "news": 3}

    changed = settings_of(tldr, tmp_path / "c.yaml", **only, max_new_tokens=9)
    with pytest.raises(RecipeError, match=r"tldr-sft-t1\.jsonl: was made with other settings"):
        Experiment(changed, Invoked()).run()


def longer_wins(asked: Asked) -> Reply:
    if asked.body is None:
        return well(asked)
    first, second = (len(one) for one in answers_in(asked.body["messages"][-1]["content"]))
    return says(f"Verdict: {'tie' if first == second else 'AB'[second > first]}")


def test_dialogue_starts_from_preferred_ft_and_a_server_judges(
    tldr: Changes, tmp_path: Path
) -> None:
    def transcript(*turns: str) -> str:
        names = ("Human", "Assistant")
        return "".join(f"\n\n{names[at % 2]}: {text}" for at, text in enumerate(turns))

    rows = [
        {
            "chosen": transcript(*turns, f"I tell you {one} a story."),
            "rejected": transcript(*turns, f"No {one}."),
        }
        for n, one in enumerate(NUMBERS * 2)
        for turns in [[f"Who is {one} {n}?", "A dog.", "Go."] if n % 4 == 0 else [f"Is {n} {one}?"]]
    ]
    build = {"inputs": [write(tmp_path / "hh.jsonl", rows)], "test_fraction": 0.4,
             "severity": {"PD402": "off"}}  # fmt: skip
    with Loopback(longer_wins) as server:
        config = settings_of(
            tldr, tmp_path / "settings.yaml", task="dialogue", out=str(tmp_path / "out"),
            template=str(PAPER / "dialogue" / "transcript.jinja"), build=build, sft=FAST,
            base={"model": tldr["model"], "examples": 2}, best_of=None, temperatures=[1.0],
            evaluations={"hh": {"rows": 4}}, cut_at="\n\nHuman:",
            judge={"server": {"url": server.url}, "template": str(PAPER / "tldr" / "judge.yaml")},
        )  # fmt: skip
        invoked = Invoked()
        found = Experiment(config, invoked).run()

    assert invoked.names[:4] == ["prefdata", "dpo-train", "dpo-ref", "dpo-train"]
    assert [one.method for one in found.rates] == ["preferred-ft", "dpo", "base"]
    assert all(one.judged == 4 for one in found.rates)
    shown = json.loads((config.out / "prompts" / "hh-2-shot.jsonl").read_text().splitlines()[0])
    assert [turn["role"] for turn in shown["prompt"]] == ["user", "assistant"] * 2 + ["user"]
    assert shown["prompt"][-1:] == shown["asked"]
    chosen = {text for row in rows for text in [row["chosen"].rpartition("Assistant: ")[2]]}
    assert {turn["content"] for turn in shown["prompt"][1::2]} <= chosen
    assert shown["reference"] in chosen
    moved = Invoked()
    values = config.model_dump(mode="json")
    values["judge"]["server"]["url"] = "http://localhost:1"
    assert Experiment(Settings.model_validate(values), moved).run().rates == found.rates
    assert moved.names == []


def test_ties_count_half_and_unreadable_verdicts_not_at_all() -> None:
    def row(*ranks: int | None) -> dict[str, Any]:
        return {"completions": [{"rank": rank, "text": "a b"} for rank in ranks]}

    rows = [row(1, 2), row(1, 1), row(2, 1), row(1, 2), row(None, None)]

    found = win_rate(("tldr", "dpo", 0.5), [*rows, row(1, 2)], rows)

    # Wilson: (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n), p = 0.625, n = 4, z² = 3.8415
    assert (found.rate, found.judged, found.ties, found.unjudged) == (0.625, 4, 1, 2)
    assert (found.low, found.high) == pytest.approx((0.2194, 0.9081), abs=1e-4)
    assert win_rate(("tldr", "dpo", 0.5), rows[4:], rows[4:]).rate is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": 1}, "temperature: no such key; did you mean 'temperatures'"),
        ({"judge": {}}, "judge: give one of scorer and server"),
        ({"build": {"out": "x"}}, "build: out is set by the experiment"),
        ({"build": {"layuot": "hh"}}, "layuot"),
        ({"train": ["loss.betta=1"]}, "betta: no such key"),
        ({"runs": {"sft": []}}, "runs: sft is the name of another method"),
    ],
)
def test_settings_are_checked_before_the_first_command(
    tldr: Changes, tmp_path: Path, changes: Changes, words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        settings_of(tldr, tmp_path / "settings.yaml", **changes)


def test_a_model_that_is_not_there_is_one_line(tldr: Changes, tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    config = settings_of(tldr, tmp_path / "settings.yaml", model=none, out=str(tmp_path / "out"))

    with pytest.raises(CodedError, match=r"none: is not a directory.*\[T101\]$"):
        Experiment(config, Invoked()).run()


@pytest.mark.parametrize(
    "name", [f"{task}/{size}" for task in TASKS for size in ("settings", "full")]
)
def test_shipped_settings_are_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    found = read(PAPER / f"{name}.yaml")

    assert found.task == name.partition("/")[0]
    assert "dpo" in found.runs
    assert found.template is not None
    assert found.template.is_file()
    for evaluation in found.evaluations.values():
        assert found.size or evaluation.file is None or Path(evaluation.file).is_file()
    if found.task == "tldr":
        assert found.temperatures == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_hours_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    full = read(PAPER / "dialogue" / "full.yaml")
    size = full.size
    assert size is not None

    found = {one.stage: one for one in costs(full, size)}

    tokens = size.pairs * (size.prompt_tokens + 2 * size.completion_tokens)
    assert found["dpo"].gpu_hours == pytest.approx(6 * 2.8e9 * tokens / 395.6e12 / 3600)
    assert found["dpo"].gpu_hours == found["preferred-ft"].gpu_hours
    assert found["reference"].gpu_hours == pytest.approx(found["dpo"].gpu_hours / 3)
    # 256 prompts, 4 temperatures, 3 methods and best of 128, batches of 128 answers
    steps = 256 * 4 * 3 / 128 * full.max_new_tokens
    assert found["sampling"].gpu_hours == pytest.approx(steps * 5.6e9 / 1.675e12 / 3600)
    assert judge_requests(full) == 2 * 256 * 4 * 4


@pytest.mark.parametrize("task", TASKS)
def test_the_estimate_is_on_the_page(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    lines = "\n".join(table(read(PAPER / task / "full.yaml")))

    assert lines in (ROOT / "docs" / "paper.md").read_text("utf-8")


def test_the_shipped_comparisons_are_of_different_posts() -> None:
    lines = (PAPER / "tldr" / "comparisons.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    chosen = [row["summaries"][row["choice"]]["text"] for row in rows]

    assert len({row["info"]["post"] for row in rows}) == len(set(chosen)) == 40
    assert 10 < sum(row["choice"] for row in rows) < 30


def test_overlap_is_that_of_words_and_a_longer_copy_gains_nothing() -> None:
    post = "Dogs that bark rarely bite. " + "Cats never do. " * 20
    prompts = [[{"role": "user", "content": post}]] * 3

    none, some, copied = overlap(prompts=prompts, completions=["x", "Dogs bite.", post])

    assert none == 0 < some < copied
    assert overlap(prompts=prompts[:1], completions=[post[:200]]) == [copied]


@pytest.mark.parametrize("module", [settings, result])
def test_the_schemas_are_current(module: Any) -> None:
    name = "win-rates" if module is result else "win-rates-config"
    remedy = f"run `python -m {module.__name__} schemas/{name}.schema.json`"

    assert (ROOT / "schemas" / f"{name}.schema.json").read_text("utf-8") == module.schema(), remedy
