"""Push and pull: every reader gets the same build, and nothing else is uploaded."""

import getpass
import hashlib
import io
import socket
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import orjson
import polars as pl
import pytest
from click.testing import CliRunner, Result

import prefdata
from prefdata.cli import main
from prefdata.report.form import report_of
from prefdata.report.html.page import render_report
from prefdata.sharing.pull import find_set, pull
from prefdata.sharing.push import PushOptions, push
from prefdata.sharing.record import plain_name
from prefdata.store.canonical import hash_json, to_json
from prefdata.store.reader import Build
from tests.hub import TOKEN, FakeHub
from tests.prefdata.sharing.conftest import add_reference, make_build

NAME = "org/set"
REPO = f"datasets/{NAME}"
MIT = PushOptions(licence="mit")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""Warnings of the client itself, huggingface_hub 2.4."""


def run(*words: object) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert TOKEN not in result.output
    return result


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def shared_digests(build: Build) -> dict[str, str]:
    """Return the digests of a build's files as they are shared: without text of refused rows."""
    found = {path: one for path, one in digests(build.path).items() if "rejected/" not in path}
    page = render_report(report_of(build)).encode()
    return found | {"report.html": hashlib.sha256(page).hexdigest()}


def test_what_is_pulled_is_what_was_pushed_hash_by_hash(
    build: Build, hub: FakeHub, tmp_path: Path
) -> None:
    done = run("push", build.path, NAME)
    assert done.exit_code == 0, done.output
    back = run("pull", NAME, "-o", tmp_path / "back" / "out")

    assert back.exit_code == 0, back.output
    wanted = shared_digests(build)
    assert digests(tmp_path / "back" / "out") == wanted
    assert len(wanted) == len(digests(build.path)) - 1
    pages = [(path / "report.html").read_text() for path in (build.path, tmp_path / "back" / "out")]
    rows = [page.count('<dl class="excerpts">') for page in pages]
    assert rows[0] > rows[1]
    assert run("verify", tmp_path / "back" / "out").exit_code == 0
    assert run("verify", NAME).exit_code == 0
    assert hub.private[REPO] is True


def test_a_shared_set_is_built_again_by_its_name(
    build: Build, hub: FakeHub, tiny: Path, tmp_path: Path
) -> None:
    push(build.path, NAME)
    done = run("build", NAME, "--tokenizer", tiny, "-o", tmp_path / "again")

    assert done.exit_code == 0, done.output
    assert prefdata.open(tmp_path / "again").content_hash == build.content_hash
    assert hub.head(REPO)[0] in prefdata.open(tmp_path / "again").manifest.inputs[0].name


def test_a_build_of_an_earlier_version_is_shared_as_it_is(
    hub: FakeHub, tiny: Path, tmp_path: Path
) -> None:
    made = make_build(tmp_path, tiny)
    path = made.path / "manifest.json"
    value = orjson.loads(path.read_bytes())
    old = {key: value[key] for key in value if key not in ("content_hash", "libraries", "hash")}
    path.write_bytes(to_json(old | {"hash": hash_json(old)}))
    add_reference(prefdata.open(made.path), "one")
    push(made.path, NAME, PushOptions(no_licence=True))
    back = pull(find_set(NAME), tmp_path / "back" / "out")

    assert back.manifest.hash == hash_json(old)
    assert back.content_hash == made.content_hash
    assert run("verify", back.path).exit_code == 0
    asked = len(hub.seen)
    pull(find_set(NAME, hub.head(REPO)[0]), back.path)
    assert not [line for line in hub.seen[asked:] if line.startswith("GET")]


def test_refused_rows_are_shared_only_if_asked_for(
    build: Build, hub: FakeHub, tmp_path: Path
) -> None:
    assert run("push", build.path, NAME, "--with-rejected").exit_code == 0
    assert run("pull", NAME, "-o", tmp_path / "back" / "out").exit_code == 0

    assert digests(tmp_path / "back" / "out") == digests(build.path)
    assert any(name.startswith("rejected/") for name in hub.head(REPO)[1])


def test_a_second_push_makes_no_commit(build: Build, hub: FakeHub) -> None:
    first = push(build.path, NAME)
    second = push(build.path, NAME)

    assert second.commit == first.commit == hub.head(REPO)[0]
    assert second.url is None
    assert len(hub.commits[REPO]) == 2
    assert hub.tags[REPO] == {f"build-{build.manifest.hash[:16]}": first.commit}


def load_all(commit: str, cache: Path, *, streaming: bool) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every split of every config, by config and split."""
    found = {}
    for config in datasets.get_dataset_config_names(NAME, revision=commit):
        for split in datasets.get_dataset_split_names(NAME, config, revision=commit):
            loaded = datasets.load_dataset(
                NAME, config, split=split, revision=commit, streaming=streaming,
                cache_dir=str(cache),
            )  # fmt: skip
            found[f"{config} {split}"] = list(loaded)
    return found


@pytest.mark.parametrize("streaming", [False, True])
def test_every_config_loads_with_datasets_and_equals_the_rows(
    streaming: bool, build: Build, hub: FakeHub, tmp_path: Path
) -> None:
    commit = push(build.path, NAME).commit
    hub.commit(REPO, {"README.md": b"later"})  # a pinned commit does not change
    found = load_all(str(commit), tmp_path / "datasets", streaming=streaming)

    tokens = f"tokens-{plain_name(build.manifest.tokenizer.name)}"
    configs = ["default", tokens, f"{tokens}-one", f"{tokens}-two"]
    splits = ["train", "validation", "test"]
    assert list(found) == [f"{config} {split}" for config in configs for split in splits]
    for config, split in product(configs, splits):
        rows = found[f"{config} {split}"]
        wanted = build.text(split) if config == "default" else build.tokens(split)
        ids = [one if isinstance(one, str) else one.hex() for one in wanted["pair_id"].to_pylist()]
        assert [row["pair_id"] for row in rows] == ids
        for column in ("prompt", "chosen", "rejected"):
            key = column if config == "default" else f"{column}_ids"
            assert [row[key] for row in rows] == wanted[key].to_pylist()
        if config == f"{tokens}-two":
            sums = [sum(row["ref_chosen_token_logps"]) for row in rows]
            assert sums == pytest.approx([row["ref_chosen_logps"] for row in rows], rel=1e-5)


def test_nothing_local_is_published(build: Build, hub: FakeHub) -> None:
    run("push", build.path, NAME)
    secrets = [
        str(build.path.parent), "data of mine", "refused row of mine", "unread value of mine",
        "odd role of mine", TOKEN, socket.gethostname(),
        build.path.parent.parent.name,
    ]  # fmt: skip
    if getpass.getuser() != "root":  # "root" may be a word of the texts
        secrets.append(getpass.getuser())
    for name, data in hub.head(REPO)[1].items():
        text = data
        if name.endswith(".parquet"):
            text = repr(pl.read_parquet(io.BytesIO(data)).to_dicts()).encode()
        for secret in secrets:
            assert secret.encode() not in text, (name, secret)
            assert secret.encode() not in data, (name, secret)


def test_a_part_that_changes_replaces_its_files_in_one_commit(
    build: Build, hub: FakeHub, tiny: Path, tmp_path: Path
) -> None:
    push(build.path, NAME)
    other = make_build(tmp_path, tiny, "other", shard_rows=100)
    push(other.path, NAME)

    assert len(hub.commits[REPO]) == 3
    files = hub.head(REPO)[1]
    assert not [name for name in files if "-of-00003" in name or name.startswith("reference/")]
    assert pull(find_set(NAME), tmp_path / "back").content_hash == other.content_hash


def test_foreign_files_are_refused_and_edits_of_cards_are_kept(build: Build, hub: FakeHub) -> None:
    card = "---\nlicense: cc0-1.0\nmine: [1]\ntags:\n- own\n---\n# My own words\n"
    hub.create(REPO, {"LICENSE": b"mine", "gguf/x.gguf": b"y", "README.md": card.encode()})
    refused = run("push", build.path, NAME)
    before = hub.head(REPO)[1]
    done = run("push", build.path, NAME, "--replace", "--license", "mit")

    assert "has 2 files that no push made: LICENSE, gguf/x.gguf" in refused.output
    assert "[E205]" in refused.output
    assert before["LICENSE"] == b"mine"
    assert done.exit_code == 0, done.output
    assert "LICENSE" not in hub.head(REPO)[1]
    text = hub.head(REPO)[1]["README.md"].decode()
    assert "# My own words" in text
    assert "mine:\n- 1\n" in text
    assert "- own\n" in text
    assert "license:\n- mit\n" in text
    assert run("push", build.path, NAME, "--license", "mit").exit_code == 0
    assert len(hub.commits[REPO]) == 2


def test_a_public_repo_needs_the_option(build: Build, hub: FakeHub) -> None:
    hub.create(REPO, private=False)
    refused = run("push", build.path, NAME)
    done = run("push", build.path, NAME, "--public")

    assert "[E206]" in refused.output
    assert done.exit_code == 0
    assert "(public)" in done.output
    assert run("push", build.path, "org/new", "--public").exit_code == 0
    assert hub.private["datasets/org/new"] is False


def test_without_a_licence_or_with_a_secret_nothing_is_sent(
    hub: FakeHub, tiny: Path, tmp_path: Path
) -> None:
    key = "AKIA" + "Q3EGRIFNZ4XWLM7T"
    rows = [
        {"prompt": f"Hi {n}", "chosen": f"Use {key} now", "rejected": f"No {n}"} for n in range(3)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    config = prefdata.BuildConfig(
        inputs=[str(path)], tokenizer=str(tiny), out=tmp_path / "out", test_fraction=0.0
    )
    out = prefdata.build(config).path
    unlicensed = run("push", out, NAME)
    secret = run("push", out, NAME, "--license", "mit")

    assert "[E207]" in run("push", out, NAME, "--license", "mit", "--no-license").output
    assert "[E207]" in unlicensed.output
    assert "[E208]" in secret.output
    assert "rows.jsonl:1 chosen" in secret.output
    assert key not in secret.output
    assert hub.seen == []
    assert run("push", out, NAME, "--no-license", "--allow-secrets").exit_code == 0


def test_a_dry_run_asks_and_changes_nothing(build: Build, hub: FakeHub) -> None:
    done = run("push", build.path, NAME, "--dry-run")

    assert done.exit_code == 0
    assert "nothing was changed" in done.output
    assert "text/train-00000-of-00003.parquet" in done.output
    assert not hub.commits
    assert all(line.startswith("GET") for line in hub.seen)


def test_a_branch_and_a_pull_request_leave_the_head(build: Build, hub: FakeHub) -> None:
    head = hub.create(REPO)
    assert run("push", build.path, NAME, "--create-pr").exit_code == 0
    assert run("push", build.path, NAME, "--revision", "next").exit_code == 0

    assert hub.head(REPO)[0] == head
    assert "manifest.json" in hub.head(REPO, "next")[1]
    assert any(name.startswith("refs/pr/") for name in hub.branches[REPO])


def test_a_pull_resumes_and_refuses_another_build(
    build: Build, hub: FakeHub, tiny: Path, tmp_path: Path
) -> None:
    push(build.path, NAME)
    found = find_set(NAME)
    pull(found, tmp_path / "back")
    asked = len(hub.seen)
    pull(found, tmp_path / "back")
    assert len(hub.seen) == asked, "a set that is here is not fetched again"

    other = make_build(tmp_path, tiny, "other", seed=1, max_length=90)
    refused = run("pull", NAME, "-o", other.path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    foreign = run("pull", NAME, "-o", tmp_path / "mine")

    assert "[E142]" in refused.output
    assert "[E143]" in foreign.output
    assert run("pull", NAME, "-o", other.path, "--replace").exit_code == 0


def test_a_repo_that_no_push_made_says_what_to_do(hub: FakeHub, tmp_path: Path) -> None:
    hub.create("datasets/org/raw", {"data.jsonl": b"{}"})

    assert "[E210]" in run("pull", "org/raw", "-o", tmp_path / "x").output
    assert "[E201]" in run("pull", "org/none", "-o", tmp_path / "x").output
    assert "[E200]" in run("pull", "none", "-o", tmp_path / "x").output
    assert not (tmp_path / "x").exists()


def test_a_set_is_found_offline_once_it_was_pulled(
    build: Build, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(build.path, NAME)
    pull(find_set(NAME), tmp_path / "one")
    asked = len(hub.seen)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    assert pull(find_set(NAME), tmp_path / "two").content_hash == build.content_hash
    assert len(hub.seen) == asked
    assert "[E211]" in run("pull", "org/other", "-o", tmp_path / "three").output


def test_one_foreign_file_is_named_as_one(build: Build, hub: FakeHub) -> None:
    hub.create(REPO, {"LICENSE": b"mine"})

    assert "has 1 file that no push made: LICENSE" in run("push", build.path, NAME).output


@pytest.mark.parametrize("name", ["./runs/hh", "runs", "/no/such/hh", "a/b/c", "tmp.jsonl/x"])
def test_a_path_that_does_not_exist_is_not_asked_of_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp.jsonl").mkdir()
    result = run("verify", name)

    assert result.exit_code == 2
    assert result.stderr.startswith(f"{name}: does not exist; name a build's directory, or a")
    assert result.stderr.endswith("[E132]\n")
