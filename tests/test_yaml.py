"""YAML is read strictly: ambiguous values are errors, and an unreadable file is one line."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from dpo.config import LoraSettings, TrainConfig
from dpo.config_file import read_config as read_train
from dpo.errors import UsageError as TrainError
from prefdata.config import BuildConfig, read_config
from prefdata.errors import UsageError
from prefdata.read.layouts.registry import find_layout
from prefdata.settings import RenamedKeyWarning

BUILD = "inputs: [rows.jsonl]\ntokenizer: tiny\nout: out\n"
TRAIN = "model: m\ndata: d\nout: o\n"


def deep(depth: int) -> str:
    return "x: " + "[" * depth + "]" * depth


def bomb(key: str) -> str:
    lines = [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return f"{key}:\n  a0: &a0 [lol, lol]\n" + "\n".join(lines) + "\n"


UNREADABLE = {
    "an impossible date": ("x: 2024-02-30", "'2024-02-30' is not a valid timestamp"),
    "a month that is none": ("x: 2024-13-01", "is not a valid timestamp"),
    "a zone beyond a day": ("x: 2024-01-01 00:00:00 +99:99", "is not a valid timestamp"),
    "the first year, east of Greenwich": ("x: !!timestamp x", "'x' is not a valid timestamp"),
    "a binary number without digits": ("x: 0b_", "'0b_' is not a valid int"),
    "a hexadecimal one": ("x: 0x_", "'0x_' is not a valid int"),
    "30 digits": ("x: " + "9" * 30, "is not a valid int"),
    "5,000 digits": ("x: " + "9" * 5000, "is not a valid int"),
    "a tagged word": ("x: !!int x", "'x' is not a valid int"),
    "a tagged nothing": ("x: !!int ''", "is not a valid int"),
    "a tagged float": ("x: !!float x", "'x' is not a valid float"),
    "a tagged boolean": ("x: !!bool maybe", "'maybe' is not a valid bool"),
    "Python's objects": ("x: !!python/object/apply:os.system ['true']", "python/object/apply"),
    "bad base64": ("x: !!binary 'a'", "base64"),
    "an octal number": ("x: 010", "010 is 8 in YAML 1.1 and different in 1.2; write 8"),
    "a commit of digits": ("revision: 01234567", "or quote it if it is a string"),
    "a number to the base of 60": ("x: 1:30", "1:30 is 90 in YAML 1.1"),
    "a key given twice": ("seed: 1\nseed: 2", "the key 'seed' is given twice"),
    "a key given twice, once quoted": ("seed: 1\n'seed': 2", "the key 'seed' is given twice"),
    "a key given twice, further in": ("pairing: {seed: 1, seed: 2}", "given twice"),
    "a key given twice in a list": ("x: [{a: 1}, {a: 1, a: 2}]", "given twice"),
    "deep nesting": (deep(60), "nested deeper than 32 levels"),
    "very deep nesting": (deep(100_000), "is not YAML"),
    "deep blocks": ("".join(f"{' ' * n}a:\n" for n in range(500)), "nested deeper"),
    "an alias of itself": ("x: &x [*x]", "an alias is inside the value that it names"),
    "an alias of itself in a mapping": ("x: &x {y: {z: *x}}", "an alias is inside"),
    "aliases of aliases": (bomb("x"), "aliases expanded"),
    "aliases where all is allowed": (bomb("chat_template_kwargs"), "aliases expanded"),
    "a chain of aliases": (
        "a0: &a0 []\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000)),
        "aliases expanded",
    ),
    "an alias of nothing": ("x: *y", "undefined alias"),
    "NUL in a path": ('x: "a\\0b"', "a text contains U+0000"),
    "NUL in a key": ('"a\\0b": 1', "a text contains U+0000"),
    "half a character": ('x: "\\ud800"', "is not YAML"),
    "a key that is a list": ("[1]: 2", "unhashable"),
    "two documents": ("x: 1\n---\nx: 2", "expected a single document"),
    "a tab": ("x:\n\t- 1", "cannot start any token"),
    "a merge of a number": ("<<: 5", "expected a mapping"),
    "a control character": ("x: a\x07b", "is not YAML"),
    "no mapping": ("- 1", "contains no settings"),
    "nothing": ("# only a comment", "contains no settings"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_is_one_coded_line_in_both_packages(kind: str, tmp_path: Path) -> None:
    text, problem = UNREADABLE[kind]
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(UsageError) as build:
        read_config(path)
    with pytest.raises(TrainError) as train:
        read_train(path)
    with pytest.raises(UsageError) as layout:
        find_layout(str(path))
    codes = [error.value.code for error in (build, train, layout)]
    assert codes == ["C100", "T120", "C151"]
    for error in (build, train, layout):
        assert problem in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"x: \x80", b"x: " + b"a" * (5 << 20)], ids=["16", "80", "large"]
)
def test_a_file_that_is_not_text_is_one_coded_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)

    with pytest.raises(UsageError, match="C100"):
        read_config(path)


def build_config(tmp_path: Path, text: str) -> BuildConfig:
    path = tmp_path / "c.yaml"
    path.write_text(BUILD + text)
    return read_config(path)


def train_config(tmp_path: Path, text: str) -> TrainConfig:
    path = tmp_path / "c.yaml"
    path.write_text(TRAIN + text)
    return read_train(path)


@pytest.mark.parametrize("word", ["off", "'off'", "no", "false", "Off"])
def test_off_switches_a_check_off(word: str, tmp_path: Path) -> None:
    assert build_config(tmp_path, f"severity: {{PD402: {word}}}").severity == {"PD402": "off"}


AS_MEANT: dict[str, tuple[str, str, object]] = {
    "no precision": ("mixed_precision: no", "mixed_precision", "no"),
    "precision off": ("mixed_precision: off", "mixed_precision", "no"),
    "a dumped precision": ("mixed_precision: false", "mixed_precision", "no"),
    "one layer": ("lora: {targets: q_proj}", "lora", LoraSettings(targets=("q_proj",))),
    "no dropout": ("dropout: no", "dropout", False),
    "dropout": ("dropout: yes", "dropout", True),
    "dropout on": ("dropout: on", "dropout", True),
    "true": ("dropout: true", "dropout", True),
    "a split by the name of a word": ("eval_split: on", "eval_split", "on"),
    "no split": ("eval_split: null", "eval_split", None),
}


@pytest.mark.parametrize("kind", AS_MEANT)
def test_a_word_is_what_its_setting_needs(kind: str, tmp_path: Path) -> None:
    text, name, value = AS_MEANT[kind]

    assert getattr(train_config(tmp_path, text), name) == value


@pytest.mark.parametrize(
    "text",
    ["steps: yes", "epochs: on", "seed: no", "global_batch_size: true", "mixed_precision: on",
     "optimizer: {schedule: no}", "eval_split: true", "loss: {beta: yes}", "loss: [{beta: yes}]",
     "severity: {PD402: yes}"],
)  # fmt: skip
def test_a_word_is_not_a_number_and_not_another_choice(text: str, tmp_path: Path) -> None:
    """PyYAML's true is 1 to a field that takes numbers."""
    with pytest.raises((UsageError, TrainError)) as caught:
        (build_config if "severity" in text else train_config)(tmp_path, text)

    assert caught.value.code in ("C102", "T122")


def test_what_pyyaml_reads_is_read_in_python_too() -> None:
    """PyYAML makes booleans of `no` and `off`."""
    train = yaml.safe_load(TRAIN + "mixed_precision: no\ndropout: on\n")
    build = yaml.safe_load(BUILD + "severity: {PD402: off}\ncontrol_tokens: encode\n")

    assert TrainConfig(**train).mixed_precision == "no"
    assert BuildConfig(**build).severity == {"PD402": "off"}
    with pytest.raises(ValidationError):
        TrainConfig(**train | {"steps": True})


def test_words_for_a_template_stay_booleans(tmp_path: Path) -> None:
    text = "chat_template_kwargs: {enable_thinking: no, deep: [{x: on}], name: 'no', yes: 1}"

    assert build_config(tmp_path, text).chat_template_kwargs == {
        "enable_thinking": False, "deep": [{"x": True}], "name": "no", "yes": 1,
    }  # fmt: skip


@pytest.mark.parametrize("value", [".inf", ".nan", "!!set {a}", "!!binary YQ==", "{1: 2}"])
def test_a_variable_that_json_cannot_represent_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="C102"):
        build_config(tmp_path, f"chat_template_kwargs: {{x: {value}}}")


def test_intended_aliases_and_merges_are_read(tmp_path: Path) -> None:
    text = "loss: &l {name: ipo, beta: 0.1}\noptimizer: {<<: {weight_decay: 0.5}, weight_decay: 1}"
    config = train_config(tmp_path, text)

    assert (config.loss[0].name, config.optimizer.weight_decay) == ("ipo", 1)


@pytest.mark.parametrize(
    "override",
    ['out="\\0"', "steps=0b_", "steps=[[[", "steps=010", "x=2024-02-30"],
)
def test_an_override_is_read_as_strictly(override: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(TRAIN)

    with pytest.raises(TrainError) as caught:
        read_train(path, [override])
    assert caught.value.code in ("T123", "T121")


def test_overrides_know_words(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(TRAIN)

    assert read_train(path, ["mixed_precision=no", "dropout=yes"]).mixed_precision == "no"


def test_an_old_key_is_read_under_its_new_name_with_a_notice(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(
        "model: m\ndata: d\nout: o\nbatch_unit: groups\nweigh: groups\n"
        "loss: {name: beta_dpo, keep: 0.5}\n"
    )
    with pytest.warns(RenamedKeyWarning) as seen:
        config = read_train(tmp_path / "train.yaml")

    assert config.average_over == "groups"
    assert config.loss[0].settings["keep_fraction"] == 0.5
    assert {str(one.message).split(";")[0] for one in seen} == {
        "`weigh` is now `average_over`", "`keep` is now `keep_fraction`",
    }  # fmt: skip


def test_an_old_key_with_the_new_one_is_an_error(tmp_path: Path) -> None:
    text = "model: m\ndata: d\nout: o\nweigh: pairs\naverage_over: pairs\n"
    (tmp_path / "train.yaml").write_text(text)
    with pytest.raises(TrainError, match="weigh is the old name of average_over"):
        read_train(tmp_path / "train.yaml")


def test_a_command_says_in_one_line_that_a_key_was_renamed(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(f"model: m\ndata: d\nout: {tmp_path}/o\nweigh: pairs\n")
    command = [sys.executable, "-m", "dpo", str(tmp_path / "train.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path.cwd())

    assert "note: `weigh` is now `average_over`; the old name is not accepted" in done.stderr
    assert "Warning" not in done.stderr
