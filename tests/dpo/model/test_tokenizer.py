"""Both packages find and load a tokenizer in the same way, and say in one line why they cannot."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpo.errors import UsageError as DpoUsageError
from dpo.model.load import load_config
from dpo.model.tokenizer import load_tokenizer
from dpo.sampling.files import read_prompts
from prefdata.errors import UsageError
from prefdata.tokens.load import is_hub_name
from prefdata.tokens.tokenizer import load_tokenizer_spec
from tests.dpo.tiny import save_tiny

Change = Callable[[Path], object]
BLNS = "\x1b[31m"


def edit(file: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """Change a JSON file in place, or replace it by the result of `change`."""

    def apply(folder: Path) -> None:
        path = folder / file
        value = json.loads(path.read_text())
        changed = change(value)
        path.write_text(json.dumps(value if changed is None else changed))

    return apply


def model(**changes: object) -> Change:
    return edit("tokenizer.json", lambda value: value["model"].update(changes))


def core(**changes: object) -> Change:
    return edit("tokenizer.json", lambda value: value.update(changes))


def config(**changes: object) -> Change:
    return edit("tokenizer_config.json", lambda value: value.update(changes))


def template(value: object) -> Change:
    """Move the template to the config, where older checkpoints have it."""

    def apply(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        config(chat_template=value)(folder)

    return apply


def content(file: str, data: bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(data)


REGEX = {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}
BROKEN: dict[str, tuple[Change, str]] = {
    "a model of a newer version": (model(type="Newer"), "pip install -U tokenizers"),
    "a stage of a newer version": (core(pre_tokenizer={"type": "Newer"}), "pip install -U"),
    "merges of unknown tokens": (model(merges=[["zz", "qq"]]), "`zz` out of vocabulary"),
    "merges of one part": (model(merges=["a"]), "Merges text file invalid"),
    "an id that is a text": (model(vocab={"a": "b"}), "expected u32"),
    "an id below zero": (model(vocab={"a": -1}), "expected u32"),
    "a pattern that is invalid": (core(normalizer=REGEX), "unmatched parenthesis"),
    "a name with escapes": (model(merges=[[BLNS, BLNS]]), "out of vocabulary"),
    "a list": (content("tokenizer.json", b"[1]"), ""),
    "nothing in it": (content("tokenizer.json", b"{}"), ""),
    "an empty file": (content("tokenizer.json", b""), ""),
    "a cut file": (content("tokenizer.json", b'{"version": "1.0", "tru'), ""),
    "not a text": (content("tokenizer.json", b"\xff\xfe\x00"), "UnicodeDecodeError"),
    "100,000 levels": (content("tokenizer.json", b'{"a":' * 100_000), "RecursionError"),
    "a config that is a list": (content("tokenizer_config.json", b"[1]"), ""),
    "a class that is a number": (config(tokenizer_class=5), ""),
    "an end that is a number": (config(eos_token=5), ""),
    "a template that is a number": (template(5), "chat_template is not a text"),
    "templates that are numbers": (
        template([{"name": "default", "template": 5}]),
        "chat_template is not a text",
    ),
    "a template that is not a text": (content("chat_template.jinja", b"\xff\xfe"), ""),
    "added tokens that are numbers": (config(added_tokens_decoder={"x": 5}), ""),
    "special tokens that are a list": (content("special_tokens_map.json", b"[1]"), ""),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save_tiny(tmp_path_factory.mktemp("sound") / "model"))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_tokenizer_is_one_coded_line_in_both_packages(
    kind: str, sound: Path, tmp_path: Path
) -> None:
    change, problem = BROKEN[kind]
    folder = tmp_path / "broken"
    shutil.copytree(sound, folder)
    change(folder)

    with pytest.raises(UsageError) as build:
        load_tokenizer_spec(str(folder))
    with pytest.raises(DpoUsageError) as train:
        load_tokenizer(str(folder))
    assert (build.value.code, train.value.code) == ("C110", "T130")
    assert build.value.problem == train.value.problem
    assert problem in str(build.value)
    assert "\n" not in str(build.value)


NAMES = {
    "gpt2": True,
    "distilgpt2": True,
    "org/model": True,
    "HuggingFaceTB/SmolLM2-135M-Instruct": True,
    "./gpt2": False,
    "../org/model": False,
    "~/model": False,
    "/abs/model": False,
    "runs/hh/model": False,
    "org/": False,
    "a..b": False,
    "a b": False,
    "": False,
    "n" * 500: False,
    "日本/語": False,
    "https://huggingface.co/org/model": False,
    "a\0b": False,
}


@pytest.mark.parametrize("name", NAMES, ids=[str(n) for n in range(len(NAMES))])
def test_a_name_is_a_path_or_on_the_hub_for_both_packages(name: str) -> None:
    assert is_hub_name(name) == NAMES[name]
    if NAMES[name]:
        return
    for load in (load_tokenizer_spec, load_tokenizer, load_config):
        with pytest.raises((UsageError, DpoUsageError)) as caught:
            load(name)
        assert caught.value.code in ("C110", "T130", "T101")


def test_a_file_is_not_taken_for_a_name_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")

    with pytest.raises(UsageError, match=r"is a file; name the directory that it is in"):
        load_tokenizer_spec("model.gguf")


PROMPTS = {
    "a key given twice": (b'{"prompt": "a", "prompt": "b"}', "R207"),
    "a key given twice, escaped": (b'{"prompt": "a", "pr\\u006fmpt": "b"}', "R207"),
    "a role given twice": (
        b'{"prompt": [{"role": "user", "role": "system", "content": "x"}]}',
        "R207",
    ),
    "another key given twice": (b'{"prompt": "a", "meta": {"x": 1, "x": 2}}', "R207"),
    "a list": (b'["a"]', "R209"),
    "a number": (b"5", "R209"),
    "not UTF-8": (b'{"prompt": "\xff"}', "R202"),
    "half a character": (b'{"prompt": "\\ud800"}', "R203"),
    "NUL": (b'{"prompt": "a\\u0000"}', "R204"),
    "NaN": (b'{"prompt": "a", "x": NaN}', "R205"),
    "cut": (b'{"prompt": "a', "R201"),
    "deep": (b'{"prompt": "a", "x": ' + b"[" * 200 + b"]" * 200 + b"}", "R208"),
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_prompts_are_read_as_strictly_as_pairs(kind: str, tmp_path: Path) -> None:
    line, code = PROMPTS[kind]
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"prompt": "fine"}\n' + line + b"\n")

    with pytest.raises(DpoUsageError) as caught:
        read_prompts(path)
    assert caught.value.code == "T132"
    assert caught.value.place == f"{path}:2"
    assert f"({code})" in caught.value.problem
