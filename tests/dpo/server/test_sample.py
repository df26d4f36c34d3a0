"""`dpo-sample --server` against a real server on the loopback, sound and faulty."""

import json
import re
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import prefdata
from dpo.cli import sample
from dpo.errors import TrainingError, UsageError
from dpo.sampling.from_server import ServerJob, sample_from_server, seed_of
from dpo.sampling.sample import SampleConfig
from dpo.server.client import Server
from prefdata.config import BuildConfig
from prefdata.errors import CodedError
from tests.dpo.server.ctrl_c import CtrlC
from tests.dpo.server.loopback import Asked, Loopback, Reply, failing_first, prompt_of, soon, well
from tests.dpo.tiny import save_tiny

KEY = "sk-very-secret-0123456789"
CONFIG = SampleConfig(k=2, max_new_tokens=7)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prompts(folder: Path, count: int) -> Path:
    return write(folder / "in.jsonl", [{"prompt": f"Who is {n}?", "meta": n} for n in range(count)])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def job(folder: Path, url: str, *, count: int = 5, **server: Any) -> ServerJob:
    how = {"model": "tiny", "first_wait": 0.01, **server}
    return ServerJob(prompts(folder, count), Server(url, **how), folder / "out.jsonl")


def require_every_row_once_in_order(path: Path, count: int, k: int = 2) -> None:
    rows = read(path)
    assert [row["meta"] for row in rows] == list(range(count))
    for n, row in enumerate(rows):
        texts = [one["text"] for one in row["completions"]]
        assert len(texts) == k
        assert all(text.endswith(f"to Who is {n}?") for text in texts)


def cli(*args: object) -> Result:
    return CliRunner().invoke(sample, [str(arg) for arg in args])


def test_each_prompt_gets_k_completions_with_what_the_server_says(tmp_path: Path) -> None:
    with Loopback(well) as server:
        summary = sample_from_server(job(tmp_path, server.url), CONFIG)

    require_every_row_once_in_order(tmp_path / "out.jsonl", 5)
    assert len(server.asked) == 5
    body = server.asked[0].body
    assert body["messages"] == [{"role": "user", "content": "Who is 0?"}]
    assert (body["model"], body["n"], body["temperature"], body["max_tokens"]) == ("tiny", 2, 1, 7)
    assert body["seed"] == seed_of(0, 0, 0)
    row = read(tmp_path / "out.jsonl")[3]
    assert row["completions"][1] == {
        "text": "answer 1 to Who is 3?", "model": "tiny-1", "logp": -3.0, "num_tokens": 6,
        "ended": True,
    }  # fmt: skip
    assert row["sampled_with"] == {
        "model": "tiny", "k": 2, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 7, "seed": 0,
        "text": "chat",
    }  # fmt: skip
    assert (summary.num_completions, summary.num_tokens, summary.num_ended) == (10, 60, 10)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_verbatim_prompts_are_continued_by_the_other_path(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"text": "verbatim", "top_p": 0.5})
    with Loopback(well) as server:
        sample_from_server(job(tmp_path, server.url + "/api/v1/"), config)

    assert {asked.path for asked in server.asked} == {"/api/v1/completions"}
    assert {asked.body["top_p"] for asked in server.asked} == {0.5}
    (row, *_) = read(tmp_path / "out.jsonl")
    assert (row["prompt"], row["prefdata_form"]) == ("Who is 0?", "text")
    assert row["completions"][0]["logp"] == -3.0


def test_a_thousand_requests_come_back_once_each_in_order(tmp_path: Path) -> None:
    def slow(asked: Asked) -> Reply:
        return well(asked)._replace(delay=0.02 * (asked.number % 3))

    with Loopback(slow) as server:
        started = time.monotonic()
        sample_from_server(job(tmp_path, server.url, count=1000, concurrency=64), CONFIG)
        seconds = time.monotonic() - started

    require_every_row_once_in_order(tmp_path / "out.jsonl", 1000)
    assert len(server.asked) == 1000
    assert 32 < server.most_in_flight <= 64
    assert seconds < 60, "two seconds on a quiet machine"


FAULTS: dict[str, list[Reply]] = {
    "429": [Reply(429, {"error": "slow down"}, {"Retry-After": "0"})] * 2,
    "429 with a date": [Reply(429, {"error": "slow down"}, {"Retry-After": soon(-5)})],
    "500": [Reply(500, b"oops"), Reply(502, b""), Reply(503, b"<html>"), Reply(504, b"")],
    "time-outs": [Reply(delay=3)],
    "cut": [Reply(body={"choices": ["x" * 99]}, cut=True)],
    "no JSON": [Reply(body=b'{"choices": [')],
    "not an object": [Reply(body=[1])],
    "no choices": [Reply(body={"choices": []}), Reply(body={"choices": None}), Reply(body={})],
    "wrong counts": [Reply(body={"choices": [{"message": {"content": "x"}}] * 3})],
    "no text": [Reply(body={"choices": [{"message": {"content": 3}}] * 2})],
    "a choice that is a list": [Reply(body={"choices": [[], []]})],
}  # fmt: skip


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_retried(tmp_path: Path, faults: list[Reply]) -> None:
    with Loopback(failing_first(faults)) as server:
        sample_from_server(job(tmp_path, server.url, timeout=0.5), CONFIG)

    require_every_row_once_in_order(tmp_path / "out.jsonl", 5)
    assert len(server.asked) == 5 * (1 + len(faults))


def test_retry_after_holds_all_requests(tmp_path: Path) -> None:
    times: list[float] = []

    def limited(asked: Asked) -> Reply:
        times.append(time.monotonic())
        busy = Reply(429, {"error": {"message": "busy"}}, {"retry-after": "0.5"})
        return busy if asked.number == 1 else well(asked)._replace(delay=0.1)

    with Loopback(limited) as server:
        sample_from_server(job(tmp_path, server.url, count=8, concurrency=2), CONFIG)

    later = [at - times[1] for at in times[2:]]
    assert sum(0.05 < at < 0.45 for at in later) == 0
    assert len(server.asked) == 9


def test_the_rate_is_kept(tmp_path: Path) -> None:
    with Loopback(well) as server:
        started = time.monotonic()
        sample_from_server(job(tmp_path, server.url, count=6, rate=1200), CONFIG)

    assert time.monotonic() - started > 0.24


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (Reply(401, {"error": {"message": f"Wrong: {KEY}"}}), "T154", r"401: Wrong: \*\*\*"),
        (Reply(403, f"no: {KEY}".encode()), "T154", r"403: no: \*\*\*"),
        (Reply(404, {"detail": f"no model for {KEY}"}), "T155", "404"),
        (Reply(301, b"", {"Location": "http://elsewhere/"}), "T155", "301"),
        (Reply(400, {"error": {"message": f"too long {KEY}"}}), "T156", r"in.jsonl:1: .*too long"),
        (Reply(422, {"error": f"bad {KEY}"}), "T156", "422"),
        (Reply(500, {"error": {"message": f"broken {KEY}"}}), "T320", "2 tries"),
        (Reply(500, KEY.encode() * 40), "T320", r"500: \*\*\*"),
        (Reply(429, {"error": "x"}, {"Retry-After": "3600"}), "T320", "wait for 3,600 s"),
        (Reply(body={"choices": []}), "T321", "0 choices, but n is"),
        (Reply(body={"choices": [{"text": "x"}] * 9}), "T321", "9 choices, but n is 2"),
        (Reply(body=f'{{"{KEY}'.encode()), "T321", "not JSON"),
    ],
)  # fmt: skip
def test_a_fault_that_stays_is_a_coded_line_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Reply, code: str, words: str
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with Loopback(lambda _: fault) as server:
        done = cli(
            prompts(tmp_path, 2), "--server", server.url, "--server-model", "tiny", "-k", 2,
            "--api-key-env", "MY_KEY", "--retries", 1, "-o", tmp_path / "o",
        )  # fmt: skip

    assert done.exit_code == (1 if code.startswith("T32") else 2)
    line = done.stderr.strip().splitlines()[-1]
    assert line.endswith(f"[{code}]")
    assert re.search(words, line)
    assert server.asked[0].key == KEY
    everything = done.output + "".join(
        path.read_text() for path in tmp_path.iterdir() if path.is_file()
    )
    assert KEY not in everything
    assert KEY[:10] not in everything
    assert not (tmp_path / "o").exists()


def test_the_key_is_in_no_output_even_if_the_model_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def echo(asked: Asked) -> Reply:
        text = f"you sent {asked.key}"
        return Reply(body={"choices": [{"message": {"content": text}}], "model": asked.key})

    with Loopback(echo) as server:
        done = cli(prompts(tmp_path, 3), "--server", server.url, "-o", tmp_path / "o", "--debug",
                   "--server-model", "tiny", "--concurrency", 2, "--timeout", 9)  # fmt: skip

    assert done.exit_code == 0, done.stderr
    assert {asked.key for asked in server.asked} == {KEY}
    assert "you sent ***" in (tmp_path / "o").read_text()
    assert KEY not in done.output + (tmp_path / "o").read_text()


def test_only_the_first_row_meets_a_refusal(tmp_path: Path) -> None:
    with Loopback(lambda _: Reply(401, b"")) as server, pytest.raises(UsageError, match="T154"):
        sample_from_server(job(tmp_path, server.url, count=50), CONFIG)

    assert len(server.asked) == 1


DIALECTS: dict[str, tuple[Any, str]] = {
    "ignores n": (lambda body: body.get("n") and 1, "one completion a request"),
    "refuses n": (lambda body: body.get("n") and Reply(400, {"error": "only one choice"}),
                  "one completion a request"),
    "refuses logprobs": (
        lambda body: body.get("logprobs") and Reply(400, {"error": {"message": "no logprobs"}}),
        "`logp` is null in 10 of 10",
    ),
    "refuses logprobs and says nothing": (
        lambda body: body.get("logprobs") and Reply(422, b""), "`logp` is null in 10 of 10",
    ),
    "refuses the seed": (
        lambda body: "seed" in body and Reply(400, {"error": "unknown field seed"}),
        "refuses `seed`",
    ),
    "wants another name": (
        lambda body: "max_tokens" in body and Reply(400, {"error": "use max_completion_tokens"}),
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("refuses", "words"), DIALECTS.values(), ids=DIALECTS.keys())
def test_what_a_server_refuses_is_left_out_and_reported(
    tmp_path: Path, refuses: Any, words: str
) -> None:
    def answer(asked: Asked) -> Reply:
        refused = refuses(asked.body)
        if isinstance(refused, Reply):
            return refused
        return well(asked, num=refused or None)

    with Loopback(answer) as server:
        summary = sample_from_server(job(tmp_path, server.url), CONFIG)

    require_every_row_once_in_order(tmp_path / "out.jsonl", 5)
    assert words in " ".join(summary.readings)
    bodies = [asked.body for asked in server.asked]
    assert len(bodies) <= 12
    if "completion a request" in words:
        assert len({body["seed"] for body in bodies[1:]}) >= 9


def test_logps_that_a_server_does_not_give_are_null(tmp_path: Path) -> None:
    with Loopback(lambda asked: well(asked, logprobs=False)) as server:
        summary = sample_from_server(job(tmp_path, server.url), CONFIG)

    completions = [one for row in read(tmp_path / "out.jsonl") for one in row["completions"]]
    assert {one["logp"] for one in completions} == {None}
    assert "`logp` is null in 10 of 10 completions" in " ".join(summary.readings)


def test_completions_that_are_all_equal_are_reported(tmp_path: Path) -> None:
    def greedy(asked: Asked) -> Reply:
        return well(asked, num=1)

    with Loopback(greedy) as server:
        summary = sample_from_server(job(tmp_path, server.url), CONFIG)

    said = "all completions of 5 of 5 prompts are equal at temperature 1"
    assert said in " ".join(summary.readings)


def test_a_server_that_dies_midway_and_comes_back_costs_only_time(tmp_path: Path) -> None:
    first = Loopback(well).start()
    second: list[Loopback] = []

    def die_and_return() -> None:
        while len(first.asked) < 100:
            time.sleep(0.002)
        first.stop()
        time.sleep(0.2)
        second.append(Loopback(well, first.port).start())

    other = threading.Thread(target=die_and_return)
    other.start()
    sample_from_server(job(tmp_path, first.url, count=400, concurrency=8), CONFIG)
    other.join()
    second[0].stop()

    require_every_row_once_in_order(tmp_path / "out.jsonl", 400)
    assert len(second[0].asked) > 100
    counts = Counter(prompt_of(one) for one in [*first.asked, *second[0].asked])
    assert max(counts.values()) <= 2


def test_a_server_that_stays_away_is_an_error_and_what_is_done_is_kept(tmp_path: Path) -> None:
    def dying(asked: Asked) -> Reply:
        return well(asked) if asked.number < 20 else Reply(503, b"gone")

    with Loopback(dying) as server:
        one = job(tmp_path, server.url, count=50, concurrency=4, retries=1)
        with pytest.raises(TrainingError, match=r"finished rows are kept \[T320\]$"):
            sample_from_server(one, CONFIG)
    with Loopback(well) as server:
        again = one._replace(server=one.server._replace(url=server.url, concurrency=9))
        sample_from_server(again, CONFIG)

    require_every_row_once_in_order(tmp_path / "out.jsonl", 50)
    assert len(server.asked) == 30


@pytest.mark.parametrize("stop", [1, 7, 30])
@pytest.mark.parametrize("cut", [0, 1, 9, 300])
def test_a_run_that_was_stopped_asks_only_for_what_is_missing(
    tmp_path: Path, stop: int, cut: int
) -> None:
    with Loopback(well) as server:
        one = job(tmp_path, server.url, count=30, concurrency=4)
        with pytest.raises(KeyboardInterrupt):
            sample_from_server(one, CONFIG, CtrlC(stop=stop))
    partial = tmp_path / "out.jsonl.partial"
    whole = partial.read_bytes()
    partial.write_bytes(whole[: len(whole) - cut])
    kept = max(0, partial.read_bytes().count(b"\n") - 1)
    with Loopback(well, server.port) as server:  # a new one, without what was still in flight
        sample_from_server(one, CONFIG)

    require_every_row_once_in_order(tmp_path / "out.jsonl", 30)
    assert len(server.asked) == 30 - kept
    assert not partial.exists()


def test_a_partial_file_of_other_settings_is_refused(tmp_path: Path) -> None:
    with Loopback(well) as server:
        one = job(tmp_path, server.url, count=30)
        with pytest.raises(KeyboardInterrupt):
            sample_from_server(one, CONFIG, CtrlC(stop=9))
        other = CONFIG.model_copy(update={"temperature": 0.5})
        with pytest.raises(UsageError, match=r"begun with another temperature; .*\[T137\]$"):
            sample_from_server(one, other)
        another = one._replace(server=one.server._replace(model="other"))
        with pytest.raises(UsageError, match=r"begun with another model; .*\[T137\]$"):
            sample_from_server(another, CONFIG)


def test_a_model_is_chosen_if_the_server_has_only_one(tmp_path: Path) -> None:
    with Loopback(well) as server:
        done = cli(prompts(tmp_path, 2), "--server", server.url, "-o", tmp_path / "o")
    assert done.exit_code == 0, done.stderr
    assert server.asked[-1].body["model"] == "tiny"

    listed = Reply(body={"data": [{"id": "a"}, {"id": "b"}]})
    with Loopback(lambda _: listed) as server:
        done = cli(prompts(tmp_path, 2), "--server", server.url, "-o", tmp_path / "o2")
    assert done.exit_code == 2
    assert "lists 2 models: a, b; name one" in done.stderr
    assert done.stderr.strip().endswith("[T157]")


def first_is_best(*, prompts: list[Any], completions: list[str]) -> list[float]:
    assert len(prompts) == len(completions)
    return [-float(text.split()[1]) for text in completions]


def test_a_build_reads_scored_samples_of_a_server(tmp_path: Path) -> None:
    with Loopback(well) as server:
        one = job(tmp_path, server.url)._replace(scorer=f"{__name__}:first_is_best")
        summary = sample_from_server(one, CONFIG)
    model = save_tiny(tmp_path / "model")

    config = BuildConfig(
        inputs=[str(one.out)], tokenizer=model, out=tmp_path / "data", test_fraction=0.0
    )
    build = prefdata.build(config)

    assert summary.mean_score == -0.5
    (seal,) = build.manifest.inputs
    assert seal.layout == "ranked"
    assert len(build.tokens("train")) == 5
    assert build.text("train")["chosen_rank"].to_pylist() == [1] * 5


def test_the_best_of_n_is_kept(tmp_path: Path) -> None:
    with Loopback(well) as server:
        one = job(tmp_path, server.url)._replace(scorer=f"{__name__}:first_is_best", best_of=3)
        sample_from_server(one, CONFIG)

    assert {asked.body["n"] for asked in server.asked} == {6}
    for row in read(one.out):
        assert [c["text"].split()[1] for c in row["completions"]] == ["0", "3"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one of --model and --server"),
        (["--model", "m", "--server", "http://x"], "give one of --model and --server"),
        (["--model", "m", "--concurrency", 4], "--concurrency has no effect without --server"),
        (["--server", "http://x", "--dtype", "bfloat16"], "--dtype has no effect with --server"),
        (["--server", "ftp://x"], "is not an address of http or https"),
        (["--server", "http://"], "is not an address of http or https"),
        (["--server", "http://x:99999"], "is not an address of http or https"),
        (["--server", "http://me:pw@x"], "which may be secret"),
        (["--server", "http://x/v1?key=pw"], "which may be secret"),
        (["--server", "http://x", "--api-key-env", "NOT_SET_HERE"], "is not set"),
        (["--server", "http://x", "--rate", 0], "--rate"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(
    tmp_path: Path, words: list[object], said: str
) -> None:
    done = cli(prompts(tmp_path, 1), *words, "-o", tmp_path / "o")

    assert done.exit_code == 2
    assert said in done.stderr
    assert "pw" not in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)

    done = cli(prompts(tmp_path, 1), "--server", "http://127.0.0.1:9", "-o", tmp_path / "o")

    assert done.exit_code == 2
    assert done.stderr.strip().endswith("[T153]")
    assert key.split()[0] not in done.stderr.replace("the key", "")


def test_mixed_prompts_go_to_the_chat_and_undecided_ones_are_refused(tmp_path: Path) -> None:
    rows = [{"prompt": "Who?"}, {"prompt": "Story:\n"}]
    with Loopback(well) as server:
        one = job(tmp_path, server.url)._replace(prompts=write(tmp_path / "mixed.jsonl", rows))
        with pytest.raises(CodedError, match=r"choose --text chat or --text verbatim \[E180\]$"):
            sample_from_server(one, CONFIG)

    assert server.asked == []
