"""On a real terminal no command prints an escape that came from data: names, configs, contents.

click strips escapes when stdout is a pipe, so a pipe cannot show this. Each command runs in a
pseudo-terminal; rich's own colors and bars are not part of the payload.
"""

import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

from prefdata.building import build
from prefdata.config import BuildConfig
from tests.dpo.conftest import build_pairs, save_gpt2

EVIL = "\x1b[38;5;199mCANARY\x1b]8;;http://evil\x1b\\\x1b]0;t\x07\x9b31m\u202e\u2066"
LINE = "\nFAKE LINE"
NAME = EVIL.replace("/", "_") + LINE
RAW = (
    b"\x1b[38;5;199m",
    b"\x1b]",
    b"\x07",
    b"\xc2\x9b",
    b"\xe2\x80\xae",
    b"\xe2\x81\xa6",
    b"\nFAKE",
)
"""Sequences that must not reach the terminal; rich uses neither this color nor any OSC here."""
DRIVER = """
import json, sys
from prefdata.cli import main
from dpo.cli import ref, sample, score, train
commands = {"prefdata": main, "dpo-ref": ref, "dpo-sample": sample, "dpo-score": score}
commands["dpo-train"] = train
for name, *words in json.loads(open(sys.argv[1]).read()):
    try:
        commands[name].main(words, prog_name=name)
    except SystemExit as ended:
        print(f"@@{ended.code or 0}", flush=True)
"""


def on_a_terminal(commands: list[list[str]], folder: Path) -> list[tuple[int, bytes]]:
    """Run commands in one process that has a terminal; return exit codes and output."""
    listed = folder / "commands.json"
    listed.write_text(json.dumps(commands))
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 1000, 0, 0))  # no line is wrapped
    environment = {**os.environ, "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(listed)],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
        env=environment | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
    )  # fmt: skip
    output = read_all(ours, theirs)
    process.wait(timeout=60)
    parts = output.replace(b"\r\n", b"\n").split(b"@@")
    codes = [int(part.split(b"\n", 1)[0]) for part in parts[1:]]
    texts = [parts[0], *(part.split(b"\n", 1)[1] for part in parts[1:-1])]
    assert len(codes) == len(commands), output[-3000:]
    return list(zip(codes, texts, strict=True))


def read_all(ours: int, theirs: int) -> bytes:
    """Return what a process writes to a terminal until it ends; close both of its ends."""
    os.close(theirs)
    output = bytearray()
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        output += data
    os.close(ours)
    return bytes(output)


def rows(content: str) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"What is {n}? {content}",
            "chosen": f" It is {n} {content}",
            "rejected": f" no {n} {content}",
            "meta": {"part": content},
        }
        for n in range(12)
    ]


def write(path: Path, values: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of hostile names and contents, with a model, a build and its config."""
    room = tmp_path_factory.mktemp("room")
    model = save_gpt2(room / "model", seed=0)
    build_pairs(room / NAME, tokenizer=model, count=16)
    shutil.copytree(model, room / f"model {NAME}")
    named = room / "typed"
    shutil.copytree(model, named)
    config = json.loads((named / "config.json").read_text())
    (named / "config.json").write_text(json.dumps({**config, "model_type": EVIL}))
    broken = room / "broken"
    shutil.copytree(model, broken)
    core = json.loads((broken / "tokenizer.json").read_text())
    core["model"]["merges"] = [[EVIL, EVIL]]
    (broken / "tokenizer.json").write_text(json.dumps(core))
    write(room / f"rows {NAME}.jsonl", rows(EVIL + LINE))
    write(room / "bad.jsonl", [*rows(EVIL), {EVIL: EVIL}, {"prompt": 1, EVIL: LINE}])
    (room / f"h {NAME}.csv").write_text(f'prompt,chosen,rejected,"{EVIL}{LINE}"\na,b,c,d\n')
    (room / "twice.csv").write_text(f'prompt,chosen,rejected,"{EVIL}","{EVIL}"\na,b,c,d,e\n')
    write(room / "prompts.jsonl", [{"prompt": f"Tell {EVIL}{LINE}"}])
    write(room / "bad prompts.jsonl", [{"prompt": [{"role": EVIL, "content": EVIL, "x": LINE}]}])
    write(room / "twice.jsonl", [{"prompt": "a"}]).write_text(
        f'{{"prompt": "a", {json.dumps(EVIL)}: 1, {json.dumps(EVIL)}: 2}}\n'
    )
    quoted = json.dumps(EVIL + LINE)
    (room / "key.yaml").write_text(f"inputs: [a]\n{quoted}: 1\n")
    (room / "value.yaml").write_text(f"inputs: [a]\ntokenizer: x\nout: o\nlayout: {quoted}\n")
    (room / "dup.yaml").write_text(f"{quoted}: 1\n{quoted}: 2\n")
    (room / "own.yaml").write_text(f"name: {quoted}\nabout: {quoted}\n{quoted}: x\n")
    train = f"model: model\ndata: {json.dumps(NAME)}\nsteps: 1\nglobal_batch_size: 2\n"
    (room / "train.yaml").write_text(train + f"out: {json.dumps('run ' + NAME)}\n")
    (room / "t-value.yaml").write_text(train + f"out: o\neval_split: {quoted}\n")
    (room / "t-model.yaml").write_text(train.replace("model: model", "model: typed") + "out: o\n")
    return room


PREFDATA: dict[str, tuple[list[str], tuple[int, ...]]] = {
    "a file": (["validate", f"rows {NAME}.jsonl"], (0, 1)),
    "rows that are refused": (["validate", "bad.jsonl"], (1,)),
    "a header": (["validate", f"h {NAME}.csv"], (0, 1, 2)),
    "a column twice": (["validate", "twice.csv"], (2,)),
    "a key twice": (["validate", "twice.jsonl"], (1, 2)),
    "no file": (["validate", f"no {NAME}"], (2,)),
    "an option": (["validate", f"--{NAME}"], (2,)),
    "a severity": (["validate", "bad.jsonl", "--severity", f"{NAME}=E"], (2,)),
    "a layout": (["validate", "bad.jsonl", "--layout", NAME], (2,)),
    "a layout's file": (["layouts", "own.yaml"], (2,)),
    "a layout's name": (["layouts", NAME], (2,)),
    "a baseline": (["validate", "bad.jsonl", "--baseline", f"no {NAME}"], (2,)),
    "a report": (["validate", "bad.jsonl", "--report", f"{NAME}.xyz"], (2,)),
    "a key of a config": (["build", "key.yaml"], (2,)),
    "a value of a config": (["build", "value.yaml"], (2,)),
    "a key twice in a config": (["build", "dup.yaml"], (2,)),
    "a tokenizer": (["build", "bad.jsonl", "--tokenizer", NAME, "-o", "o"], (2,)),
    "a broken tokenizer": (["build", "bad.jsonl", "--tokenizer", "broken", "-o", "o"], (2,)),
    "a build": (
        ["build", f"rows {NAME}.jsonl", "--tokenizer", "model", "-o", f"new {NAME}",
         "--text", "verbatim"], (0,),
    ),
    "a build is shown": (["show", NAME], (0,)),
    "a pair is shown": (["show", NAME, "--row", "1"], (0,)),
    "a pair with it is shown": (["show", f"new {NAME}", "--row", "0"], (0,)),
    "no build": (["show", f"no {NAME}"], (2,)),
    "a code": (["explain", NAME], (2,)),
    "a command": ([NAME], (2,)),
}  # fmt: skip
LINES_ARE_SHOWN = "a pair with it is shown"
DPO: dict[str, tuple[list[str], tuple[int, ...]]] = {
    "ref: no model": (["dpo-ref", NAME, "--model", f"./no {NAME}"], (2,)),
    "ref: a type of model": (["dpo-ref", NAME, "--model", "typed"], (2,)),
    "ref: an option": (["dpo-ref", NAME, f"--{NAME}"], (2,)),
    "ref": (["dpo-ref", NAME, "--model", f"model {NAME}"], (0,)),
    "train: no config": (["dpo-train", f"no {NAME}.yaml"], (2,)),
    "train: a key": (["dpo-train", "key.yaml"], (2,)),
    "train: a key twice": (["dpo-train", "dup.yaml"], (2,)),
    "train: a value": (["dpo-train", "t-value.yaml"], (2,)),
    "train: a type of model": (["dpo-train", "t-model.yaml"], (2,)),
    "train: an override": (["dpo-train", "train.yaml", NAME], (2,)),
    "train: an override's key": (["dpo-train", "train.yaml", f"{EVIL}=1"], (2,)),
    "train": (["dpo-train", "train.yaml"], (0,)),
    "train again": (["dpo-train", "train.yaml"], (0,)),
    "sample: a row": (["dpo-sample", "bad prompts.jsonl", "--model", "model", "-o", "s"], (0, 2)),
    "sample: a key twice": (["dpo-sample", "twice.jsonl", "--model", "model", "-o", "s"], (2,)),
    "sample: no file": (["dpo-sample", f"no {NAME}", "--model", "model", "-o", "s"], (2,)),
    "sample: a scorer": (
        ["dpo-sample", "prompts.jsonl", "--model", "model", "-o", "s", "--scorer", f"{NAME}:f"],
        (2,),
    ),
    "sample: a broken tokenizer": (
        ["dpo-sample", "prompts.jsonl", "--model", "broken", "-o", "s"], (2,),
    ),
    "sample": (
        ["dpo-sample", "prompts.jsonl", "--model", f"model {NAME}", "-k", "2",
         "-o", f"samples {NAME}", "--max-new-tokens", "3"], (0,),
    ),
    "score: no model": (["dpo-score", f"./no {NAME}", NAME, "-o", "sc"], (2,)),
    "score: no data": (["dpo-score", "model", f"no {NAME}", "-o", "sc"], (2,)),
    "score: a key": (["dpo-score", "model", NAME, "-o", "sc", "--by", NAME], (2,)),
    "score": (
        ["dpo-score", "model", f"scored {NAME}", "--reference", f"model {NAME}",
         "-o", f"scores {NAME}", "--by", "part"], (0,),
    ),
}  # fmt: skip


def require_no_escape(
    cases: dict[str, tuple[list[str], tuple[int, ...]]], done: list[tuple[int, bytes]]
) -> None:
    faults = []
    for (kind, (_, allowed)), (code, output) in zip(cases.items(), done, strict=True):
        raw = [escape for escape in RAW if escape in output]
        if kind == LINES_ARE_SHOWN:
            raw.remove(b"\nFAKE")
        if raw or code not in allowed or b"Traceback" in output or b"[X001]" in output:
            faults.append((kind, code, raw, output[-1000:]))
    assert not faults


def test_no_command_of_prefdata_prints_an_escape_of_data(room: Path) -> None:
    done = on_a_terminal([["prefdata", *words] for words, _ in PREFDATA.values()], room)

    require_no_escape(PREFDATA, done)
    shown = sum(b"CANARY" in output for _, output in done)
    assert shown >= 15, "the payload is shown, escaped"


def test_no_command_of_dpo_prints_an_escape_of_data(room: Path) -> None:
    config = BuildConfig.model_validate(
        {"inputs": [str(room / f"rows {NAME}.jsonl")], "tokenizer": str(room / "model"),
         "out": str(room / f"scored {NAME}"), "text": "verbatim"}
    )  # fmt: skip
    build(config)
    done = on_a_terminal([words for words, _ in DPO.values()], room)

    require_no_escape(DPO, done)
    shown = sum(b"CANARY" in output for _, output in done)
    assert shown >= 15, "the payload is shown, escaped"


def test_the_terminal_is_one() -> None:
    """The payload printed without the wrapper is found, so the tests above can fail."""
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", "import sys; print(sys.stdout.isatty(), sys.argv[1])", EVIL],
        stdout=theirs, check=True,
    )  # fmt: skip
    output = read_all(ours, theirs)

    assert output.startswith(b"True")
    assert all(escape in output for escape in RAW[:-1])
