"""Damaged configs of builds and of runs."""

from random import Random

from tests.fuzz.mutate import damaged

BUILD = """\
inputs: [rows.jsonl]
tokenizer: tiny
out: out
layout: trl-std-explicit
pairing: {strategy: all, seed: 3, ties: keep}
limits: {max_depth: 32, allow_nul: true}
exclude: []
evaluations: [held_out.jsonl]
severity: {PD402: off, PD301: W}
near_duplicates: {threshold: 0.8}
test_fraction: 0.1
max_length: 512
length_policy: cut_prompt_start
chat_template_kwargs:
  enable_thinking: no
  tools: [{name: a, args: {x: 1}}]
template_date: 2024-02-28
workers: 1
"""
TRAIN = """\
model: tiny
data: out
out: run
reference: {name: default}
loss:
  - {name: sigmoid, beta: 0.1}
  - {name: sft, weight: 0.5}
optimizer: {name: adamw, learning_rate: 1.0e-5, schedule: cosine, warmup_steps: 10}
lora: {r: 8, targets: [q_proj, v_proj]}
global_batch_size: 8
epochs: 1
mixed_precision: no
dropout: yes
seed: 7
eval_every: 10
trackers: [tensorboard]
"""
VALUES = (
    "", "~", "null", "yes", "no", "off", "'off'", "1", "-1", "0", "1.5", ".inf", "-.inf", ".nan",
    "1e400",
    "9" * 30, "9" * 5000, "0b_", "010", "1:30", "2024-02-30", "2024-01-01", "!!int x", "!!float x",
    "!!timestamp x", "!!binary a", "!!set {a}", "!!python/name:os.system", "&a [*a]", "*a", "[]",
    "{}", "[[[[]]]]", "{a: {b: {c: 1}}}", '"a\\0b"', '"\\u202e"', '"\\e[31m"', "x" * 500, "日本",
    "'../..'", "[" * 60 + "]" * 60, "|\n  text", "{<<: {a: 1}}", "{a: 1, a: 2}", "? [a]", "- - -",
    "%x", "@x", "`x`",
)  # fmt: skip


def make_settings(kind: str, number: int) -> bytes:
    """Return the config of a kind (`build` or `train`) and a number; it is deterministic."""
    random = Random(f"{kind} config {number}")
    lines = (BUILD if kind == "build" else TRAIN).splitlines()
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(lines))
        key, colon, value = lines[at].rpartition(": ")
        action = random.randrange(5)
        if action == 0:
            lines[at] = f"{key}{colon}{random.choice(VALUES)}"
        elif action == 1:
            lines.insert(at, lines[random.randrange(len(lines))])
        elif action == 2:
            other = lines[random.randrange(len(lines))].rpartition(": ")[2]
            lines[at] = f"{key}{colon}{other}"
        elif action == 3:
            lines[at] = f"{key}x{colon}{value}"
    data = "\n".join(lines).encode() + b"\n"
    return data if random.random() < 0.5 else damaged(data, random)
