"""`dpo-judge` against a real server on the loopback whose errors and bias are known."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import prefdata
from dpo.cli import judge
from dpo.errors import UsageError
from dpo.judging.candidates import read_candidates
from dpo.judging.run import JudgeJob, judge_file
from dpo.judging.template import load_template
from dpo.server.client import Server
from prefdata.config import BuildConfig
from tests.dpo.judging.judge import Judge, answers_in, says
from tests.dpo.sampling.test_reward_model import save
from tests.dpo.server.ctrl_c import CtrlC
from tests.dpo.server.loopback import Asked, Loopback, Reply, well
from tests.dpo.tiny import save_tiny

KEY = "sk-very-secret-0123456789"


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def labelled(folder: Path, count: int) -> Path:
    """Return pairs whose chosen side is good."""
    rows = [
        {"prompt": f"Who is {n}?", "chosen": f"good {n}.", "rejected": f"bad {n}."}
        for n in range(count)
    ]
    return write(folder / "pairs.jsonl", rows)


def candidates(folder: Path, texts: list[list[str]]) -> Path:
    rows = [
        {"prompt": [{"role": "user", "content": f"Who is {n}?"}], "meta": n,
         "completions": [{"text": text, "model": "tiny", "score": 3.0 - at}
                         for at, text in enumerate(some)]}
        for n, some in enumerate(texts)
    ]  # fmt: skip
    return write(folder / "samples.jsonl", rows)


def job(file: Path, url: str, **more: Any) -> JudgeJob:
    server = Server(url, "tiny", first_wait=0.01, retries=3)
    return JudgeJob(str(file), file.with_name("out.jsonl"), server, **more)


def cli(*args: object) -> Result:
    return CliRunner().invoke(judge, [str(arg) for arg in args])


def test_a_sound_judge_finds_the_labels_and_a_build_reads_its_verdicts(tmp_path: Path) -> None:
    with Loopback(Judge()) as server:
        judge_file(job(labelled(tmp_path, 20), server.url))

    rows = read(tmp_path / "out.jsonl")
    assert len(server.asked) == 40
    assert all([c["rank"] for c in row["completions"]] == [1, 2] for row in rows)
    assert [row["prompt"][0]["content"] for row in rows] == [f"Who is {n}?" for n in range(20)]
    assert rows[3]["verdicts"] == [
        {"first": 0, "second": 1, "verdict": "first", "text": "I read both.\nVerdict: A"},
        {"first": 1, "second": 0, "verdict": "second", "text": "I read both.\nVerdict: B"},
    ]
    assert rows[3]["completions"][1] == {"text": "bad 3.", "given_rank": 2, "rank": 2}
    assert (rows[3]["judge"]["model"], rows[3]["judge"]["template"]) == ("tiny", "pairwise")
    body = server.asked[0].body
    assert (body["temperature"], "logprobs" in body, "n" in body) == (0.0, False, False)

    model = save_tiny(tmp_path / "model")
    config = BuildConfig(
        inputs=[str(tmp_path / "out.jsonl")], tokenizer=model, out=tmp_path / "data",
        test_fraction=0.0, severity={"PD606": "off"},
    )  # fmt: skip
    build = prefdata.build(config)
    (seal,) = build.manifest.inputs
    assert seal.layout == "judged"
    assert [row["chosen"][0]["content"][:4] for row in build.text("train").to_pylist()] == (
        ["good"] * 20
    )


def test_a_judge_never_sees_a_label_and_sees_each_order_once(tmp_path: Path) -> None:
    with Loopback(Judge()) as server:
        judge_file(job(labelled(tmp_path, 3), server.url))

    questions = [asked.body["messages"][-1]["content"] for asked in server.asked]
    assert not [q for q in questions if "chosen" in q or "rank" in q]
    seen = sorted(tuple(answers_in(q)) for q in questions)
    both = [
        (f"{a} {n}.", f"{b} {n}.") for n in range(3) for a, b in (("good", "bad"), ("bad", "good"))
    ]
    assert seen == sorted(both)


def numbers(line: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+\.\d+", line)]


@pytest.mark.parametrize(("error", "bias"), [(0.1, 0.2), (0.25, 0.0), (0.0, 0.5)])
def test_known_rates_of_error_and_bias_are_recovered(
    tmp_path: Path, error: float, bias: float
) -> None:
    file = labelled(tmp_path, 400)
    with Loopback(Judge(error, bias)) as server:
        done = cli("--validate", file, "--server", server.url, "--concurrency", 64,
                   "-o", tmp_path / "verdicts.jsonl")  # fmt: skip

    assert done.exit_code == 0, done.stderr
    if_first, if_second = bias + (1 - bias) * (1 - error), (1 - bias) * (1 - error)
    right, wrong = if_first * if_second, (1 - if_first) * (1 - if_second)
    chance = (right + wrong) / 2
    truth = {
        "position bias": 50 * (1 + bias),
        "accuracy": 50 * (if_first + if_second),
        "κ": (right - chance) / (1 - chance),
    }
    lines = done.stdout.splitlines()
    for name, value in truth.items():
        (line,) = [line for line in lines if name in line]
        found, low, high = numbers(line)[:3] if "κ" not in line else (
            numbers(line)[0], *numbers(line)[-2:]
        )  # fmt: skip
        assert low <= value <= high, line
        assert low < found < high
    assert "(Wilson, over prompts)" in done.stdout
    assert "bootstrap over prompts" in done.stdout

    again = cli(tmp_path / "verdicts.jsonl", "--validate", file)
    assert [line for line in again.stdout.splitlines() if "plain text" not in line] == [
        line for line in lines if "plain text" not in line
    ]


def test_two_files_of_verdicts_are_compared(tmp_path: Path) -> None:
    file = labelled(tmp_path, 60)
    for name, one in (("a", Judge()), ("b", Judge(error=0.2))):
        with Loopback(one) as server:
            judge_file(job(file, server.url)._replace(out=tmp_path / name))

    done = cli(tmp_path / "a", "--compare", tmp_path / "b", "--text", "chat")

    assert done.exit_code == 0, done.stderr
    assert "60 pairs of 60 prompts" in done.stdout
    assert "accuracy" not in done.stdout
    (kappa,) = [line for line in done.stdout.splitlines() if "κ" in line]
    assert 0 < numbers(kappa)[0] < 0.9


def test_unreadable_replies_are_asked_again_and_then_kept_and_counted(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    def mumbling(asked: Asked) -> Reply:
        """Answer on 0 the third time, on 1 never, and cut what is said on 2."""
        question = asked.body["messages"][-1]["content"]
        seen[question] = seen.get(question, 0) + 1
        if "Who is 0?" in question and seen[question] < 3:
            return says("Verdict: A or B?")
        if "Who is 1?" in question:
            return says("Verdict: A\nNo.\nVerdict: B")
        if "Who is 2?" in question:
            return says("Verdict: A", "length")
        return Judge()(asked)

    with Loopback(mumbling) as server:
        notes = judge_file(job(labelled(tmp_path, 4), server.url))

    rows = read(tmp_path / "out.jsonl")
    assert rows[0]["verdicts"][0]["unread"] == ["Verdict: A or B?"] * 2
    assert [c["rank"] for c in rows[0]["completions"]] == [1, 2]
    for row in rows[1:3]:
        assert {one["verdict"] for one in row["verdicts"]} == {"unreadable"}
        assert all(len(one["unread"]) == 2 and one["text"] for one in row["verdicts"])
        assert [c["rank"] for c in row["completions"]] == [None, None]
    assert "6 replies were cut at 1,024 tokens and not read: raise --max-new-tokens" in notes
    assert len({asked.body["seed"] for asked in server.asked}) == len(server.asked)

    done = cli(tmp_path / "out.jsonl", "--validate", tmp_path / "pairs.jsonl")
    assert "unreadable: 4 verdicts, which leave 2 rows without ranks" in done.stdout
    assert "2 pairs of 2 prompts; 2 are in only one file" in done.stdout


def test_four_candidates_are_ranked_by_their_pairs(tmp_path: Path) -> None:
    file = candidates(tmp_path, [["bad a", "good b", "bad c", "good d"]])
    with Loopback(Judge()) as server:
        judge_file(job(file, server.url))

    (row,) = read(tmp_path / "out.jsonl")
    assert len(server.asked) == 12
    assert [c["rank"] for c in row["completions"]] == [2, 1, 2, 1]
    assert [c["given_score"] for c in row["completions"]] == [3.0, 2.0, 1.0, 0.0]
    assert "score" not in row["completions"][0]
    assert row["meta"] == 0


def rating(asked: Asked) -> Reply:
    (answer,) = answers_in(asked.body["messages"][-1]["content"])
    return says(f"Fine.\n**Rating:** {answer.split()[1]}/10")


def test_ratings_are_scores_and_one_out_of_range_is_unreadable(tmp_path: Path) -> None:
    file = candidates(tmp_path, [["a 3", "b 9.5", "c 3"], ["a 4", "b 11"], ["only 5"]])
    with Loopback(rating) as server:
        judge_file(job(file, server.url, template="rating"))

    first, second, third = read(tmp_path / "out.jsonl")
    assert [(c["score"], c["rank"]) for c in first["completions"]] == [(3, 2), (9.5, 1), (3, 2)]
    assert [c.get("score") for c in second["completions"]] == [4, None]
    assert [c["rank"] for c in second["completions"]] == [None, None]
    assert third["completions"][0]["rank"] == 1
    done = cli(tmp_path / "out.jsonl", "--compare", file)
    assert "position bias" not in done.stdout
    assert "of 3 readable pairs 2 are decided, 1 are ties" in done.stdout


def ranking(asked: Asked) -> Reply:
    """Rank by the number in each answer, the higher the better; but call the first one best."""
    answers = answers_in(asked.body["messages"][-1]["content"])
    order = sorted(range(1, len(answers)), key=lambda at: -int(answers[at].split()[1]))
    return says("Ranking: " + " > ".join("ABC"[at] for at in [0, *order]))


def test_rankings_keep_what_both_orders_agree_on(tmp_path: Path) -> None:
    file = candidates(tmp_path, [["a 1", "b 3", "c 2"]])
    with Loopback(ranking) as server:
        judge_file(job(file, server.url, template="ranking"))

    (row,) = read(tmp_path / "out.jsonl")
    assert [one["order"] for one in row["verdicts"]] == [[0, 1, 2], [2, 1, 0]]
    assert [one["verdict"] for one in row["verdicts"]] == [[1, 2, 3], [1, 2, 3]]
    assert [c["rank"] for c in row["completions"]] == [1, 1, 1]  # 0 > 1 > 2 and 2 > 1 > 0


@pytest.mark.parametrize("stop", [1, 17, 40])
def test_a_run_that_was_stopped_asks_only_for_missing_rows(tmp_path: Path, stop: int) -> None:
    with Loopback(Judge()) as server:
        one = job(labelled(tmp_path, 40), server.url)
        with pytest.raises(KeyboardInterrupt):
            judge_file(one, CtrlC(stop))
    kept = (tmp_path / "out.jsonl.partial").read_bytes().count(b"\n") - 1
    with Loopback(Judge(), server.port) as server:  # a new one, without what was still in flight
        judge_file(one)

    assert len(server.asked) == 2 * (40 - kept)
    rows = read(tmp_path / "out.jsonl")
    assert [row["prompt"][0]["content"] for row in rows] == [f"Who is {n}?" for n in range(40)]


def test_a_file_of_dpo_sample_is_not_taken_for_one_of_dpo_judge(tmp_path: Path) -> None:
    header = {"format": 1, "command": "dpo-sample --server", "model": "tiny"}
    write(tmp_path / "out.jsonl.partial", [header])
    with Loopback(Judge()) as server:
        one = job(labelled(tmp_path, 2), server.url)
        with pytest.raises(UsageError, match=r"was not begun by dpo-judge.*\[T137\]$"):
            judge_file(one)


def test_verdicts_can_be_judged_again(tmp_path: Path) -> None:
    with Loopback(Judge()) as server:
        judge_file(job(labelled(tmp_path, 3), server.url))
        again = job(tmp_path / "out.jsonl", server.url)._replace(out=tmp_path / "again.jsonl")
        judge_file(again)

    first, second = read(tmp_path / "out.jsonl"), read(tmp_path / "again.jsonl")
    assert first == second


def by_length(*, prompts: list[Any], completions: list[str]) -> list[float]:
    assert len(prompts) == len(completions)
    return [float(len(text)) for text in completions]


def test_a_scorer_is_a_judge(tmp_path: Path) -> None:
    file = candidates(tmp_path, [["aaa", "a", "aaa"]] * 2)

    done = cli(file, "--scorer", f"{__name__}:by_length", "-o", tmp_path / "out.jsonl")

    assert done.exit_code == 0, done.stderr
    row = read(tmp_path / "out.jsonl")[1]
    assert [(c["score"], c["rank"]) for c in row["completions"]] == [(3, 1), (1, 2), (3, 1)]
    assert row["judge"] == {"scorer": f"{__name__}:by_length"}


def test_a_reward_model_is_a_judge(tmp_path: Path) -> None:
    model = save(tmp_path / "reward")
    file = labelled(tmp_path, 70)

    done = cli("--validate", file, "--scorer", f"reward-model:{model}", "-o", tmp_path / "out")

    assert done.exit_code == 0, done.stderr
    assert "accuracy" in done.stdout
    assert len(read(tmp_path / "out")) == 70


def test_an_own_template_asks_and_reads_as_it_says(tmp_path: Path) -> None:
    template = {
        "name": "mine", "kind": "pairwise", "system": "Be brief.", "verdict": "I pick (.*)",
        "user": "{{ prompt }} [{{ fence }} answer 1]\n{{ first }}\n[x]\n"
                "[{{ fence }} answer 2]\n{{ second }}\n[x]",
        "outcomes": {"one": "first", "Two": "second", "none": "tie"},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(json.dumps(template))
    words = {"A": "ONE", "B": "two", "tie": "none"}

    def picks(asked: Asked) -> Reply:
        verdict = Judge().verdict(asked.body["messages"][-1]["content"])
        return says(f"i pick {words[verdict]}")

    with Loopback(picks) as server:
        judge_file(job(labelled(tmp_path, 2), server.url, template=str(tmp_path / "mine.yaml")))

    assert server.asked[0].body["messages"][0] == {"role": "system", "content": "Be brief."}
    rows = read(tmp_path / "out.jsonl")
    assert [[c["rank"] for c in row["completions"]] for row in rows] == [[1, 2]] * 2


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a key": ({"usr": "x"}, "usr: no such key; did you mean 'user'"),
    "a kind": ({"kind": "duel"}, "kind: "),
    "no group": ({"verdict": "A|B"}, "needs exactly one group"),
    "two groups": ({"verdict": "(A)|(B)"}, "needs exactly one group"),
    "a pattern": ({"verdict": "(("}, "is not a regular expression"),
    "Jinja": ({"user": "{% if %}"}, "is not a template of Jinja"),
    "outcomes": ({"outcomes": {}}, "`outcomes` belongs to kind pairwise"),
    "an outcome": ({"outcomes": {"A": "left"}}, "outcomes.A"),
    "a range": ({"lowest": 1}, "`lowest` and `highest` belong to kind rating"),
    "a name": ({"user": "{{ prompt.answer }} {{ completion }}"}, "cannot be rendered"),
}


@pytest.mark.parametrize(("change", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_template_is_one_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    sound = {"name": "m", "kind": "pairwise", "user": "{{ first }}", "verdict": "(A|B)",
             "outcomes": {"A": "first", "B": "second"}}  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(sound | change))
    with Loopback(Judge()) as server:
        done = cli(labelled(tmp_path, 1), "--server", server.url, "--template", path,
                   "-o", tmp_path / "o")  # fmt: skip

    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert words in line
    assert line.endswith("[T178]")


def test_shipped_templates_read_what_they_ask_for() -> None:
    pairwise, rating, ranking = map(load_template, ("pairwise", "rating", "ranking"))

    assert pairwise.read_outcome("So.\n**Verdict: B**\n") == "second"
    assert pairwise.read_outcome("Verdict: A\nVerdict: A") == "first"
    assert pairwise.read_outcome("Verdict: A, since B is wrong") is None
    assert pairwise.read_outcome("Verdict: C") is None
    assert pairwise.read_outcome("A") is None
    assert rating.read_rating("# Rating: 7.5 / 10") == 7.5
    assert rating.read_rating("Rating: 0") is None
    assert rating.read_rating("Rating: 7\nRating: 8") is None
    assert ranking.read_ranking("Ranking: b > A = C", 3) == (2, 1, 2)
    assert ranking.read_ranking("Ranking: B > A", 3) is None
    assert ranking.read_ranking("Ranking: B > A > B", 2) is None


def test_a_fence_is_in_no_text_and_the_same_for_both_orders(tmp_path: Path) -> None:
    with Loopback(Judge()) as server:
        judge_file(job(labelled(tmp_path, 1), server.url))

    fences = {
        re.findall(r"\[(\w{8}) request\]", asked.body["messages"][0]["content"])[0]
        for asked in server.asked
    }
    assert len(fences) == 1


def test_the_key_is_in_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)

    def echo(asked: Asked) -> Reply:
        return says(f"{asked.key}\nVerdict: A") if asked.body else well(asked)

    with Loopback(echo) as server:
        done = cli(labelled(tmp_path, 3), "--server", server.url, "--api-key-env", "JUDGE_KEY",
                   "-o", tmp_path / "out.jsonl")  # fmt: skip

    assert {asked.key for asked in server.asked} == {KEY}
    assert done.exit_code == 0, done.stderr
    texts = done.output + "".join(path.read_text() for path in tmp_path.iterdir())
    assert KEY not in texts


@pytest.mark.parametrize(
    ("rows", "code", "words"),
    [
        ([{"prompt": "a", "completions": [{"text": "b"}]}], "T185", "has 1 completions"),
        ([{"prompt": "a", "completions": [{"text": "b"}] * 2}, {"completions": 3}], "T179", ":2"),
        ([{"prompt": "a", "completions": [{"text": "b"}] * 2}, 7], "T179", ":2: is not a row"),
        ([{"prompt": 4, "completions": [{"text": "b"}] * 2}], "T179", "`prompt` is neither"),
        ([{"a": "b"}], "PD102", "no layout has the columns"),
        ([], "T179", "has no candidates"),
    ],
)
def test_a_file_that_cannot_be_judged_is_one_line(
    tmp_path: Path, rows: list[Any], code: str, words: str
) -> None:
    file = write(tmp_path / "in.jsonl", rows)
    with Loopback(Judge()) as server:
        done = cli(file, "--server", server.url, "-o", tmp_path / "o")

    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stderr.strip().endswith(f"[{code}]")
    assert not (tmp_path / "o").exists()


def test_a_row_with_u0000_is_left_out_and_named(tmp_path: Path) -> None:
    texts = ["good one", "bad \0 one", "bad two"]
    rows = [{"prompt": text, "completions": [{"text": "good"}, {"text": text}]} for text in texts]
    file = write(tmp_path / "in.jsonl", rows)

    with Loopback(Judge()) as server:
        done = cli(file, "--server", server.url, "-o", tmp_path / "o")

    assert done.exit_code == 0, done.stderr
    assert f"1 rows with U+0000 are not judged; the first is {file}:2 [R204]" in done.output
    judged = [json.loads(line)["prompt"] for line in (tmp_path / "o").read_text().splitlines()]
    assert judged == ["good one", "bad two"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give FILE and a judge"),
        (["FILE"], "give FILE and a judge"),
        (["FILE", "-o", "x"], "--out has no effect without --server or --scorer"),
        (["FILE", "--template", "rating"], "--template has no effect without --server"),
        (["FILE", "--scorer", "a:b", "--seed", "3"], "--seed has no effect without --server"),
        (["FILE", "--server", "http://x", "--scorer", "a:b"], "give one of --server and --scorer"),
        (["--server", "http://x", "-o", "x"], "give a file to judge and --out"),
        (["FILE", "--compare", "FILE"], "has no verdicts"),
        (["FILE", "--server", "http://x", "--template", "duel", "-o", "o"], "shipped are pairwise"),
    ],
)
def test_a_command_that_cannot_be_meant_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = labelled(tmp_path, 2)

    done = cli(*[str(file) if word == "FILE" else word for word in words])

    assert done.exit_code == 2
    assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_pairs_keep_their_form_tools_and_labels(tmp_path: Path) -> None:
    rows = [{"prompt": "The sky is ", "chosen": "blue.", "rejected": "green."}] * 3
    verbatim = read_candidates(str(write(tmp_path / "text.jsonl", rows))).rows[0]
    assert (verbatim.prompt, verbatim.rest["prefdata_form"]) == ("The sky is ", "text")
    assert [one.order for one in verbatim.candidates] == [-1, -2]

    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
             {"role": "user", "content": "Who?"}]  # fmt: skip
    chat = [{"prompt": turns, "chosen": [{"role": "assistant", "content": "Me."}],
             "rejected": [{"role": "assistant", "content": "You."}]}]  # fmt: skip
    (row,) = read_candidates(str(write(tmp_path / "chat.jsonl", chat))).rows
    assert row.shown == "User: Hi\n\nAssistant: Yes?\n\nUser: Who?"
    assert row.prompt == turns
