"""Peak memory of a pack, forward and backward, as tokens, vocabulary and hidden size grow.

    python bench/memory.py

Each cell is its own process: a Llama of two layers with tied embeddings, one pack of T tokens in
pairs of 512 (prompt 256, completions of 128), float32. The figure is the process's peak minus its
memory before the pass and minus the gradients of the weights, whose size does not depend on T. It
is the least of three processes, since the allocator's own memory varies. In brackets: the same
with transformers' `[tokens, vocabulary]` logits and log_softmax, one row per completion, up to
4,096 tokens.
"""

import argparse
import ctypes
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

VOCABULARIES = (49_152, 151_936)
TOKENS = (1024, 4096, 16_384)
HIDDEN = (576, 1152)
PROMPT, COMPLETION = 256, 128
MOST_PLAIN_TOKENS = 4096
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell is not None:
        print(measure(**json.loads(options.cell)))
        return
    print(f"{'hidden':>6} {'tokens':>7}" + "".join(f"{v:>12,}" for v in VOCABULARIES), end="")
    print(f"{'larger by':>11}   MiB above weights and gradients; in brackets with whole logits")
    for hidden in HIDDEN:
        for tokens in TOKENS:
            ours = [run_cell(hidden, tokens, vocabulary, "ours") for vocabulary in VOCABULARIES]
            cells = "".join(f"{mib:>12,.0f}" for mib in ours)
            print(f"{hidden:>6} {tokens:>7}{cells}{ours[1] / ours[0] - 1:>11.1%}", end="")
            if tokens <= MOST_PLAIN_TOKENS:
                plain = [run_cell(hidden, tokens, v, "plain") for v in VOCABULARIES]
                print(f"   ({plain[0]:,.0f} and {plain[1]:,.0f})", end="")
            print(flush=True)


def run_cell(hidden: int, tokens: int, vocabulary: int, way: str) -> float:
    return min(run_once(hidden, tokens, vocabulary, way) for _ in range(REPEATS))


def run_once(hidden: int, tokens: int, vocabulary: int, way: str) -> float:
    cell = {"hidden": hidden, "tokens": tokens, "vocabulary": vocabulary, "way": way}
    command = [sys.executable, __file__, "--cell", json.dumps(cell)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr[-2000:])
    return float(done.stdout.split()[-1])


def measure(*, hidden: int, tokens: int, vocabulary: int, way: str) -> float:
    """Return the peak in MiB above the weights and their gradients."""
    from dpo.data.packing import pack
    from dpo.model.policy import Policy

    run = run_packed if way == "ours" else run_plain
    for words in (64, vocabulary):  # first a small one, to load libraries
        policy = Policy(make_model(hidden, words), shared=way == "ours")
        policy.add_gradients_in_place()
        if words == 64:
            run(policy, pack(make_rows(PROMPT + 2 * COMPLETION, words)))
    batch = pack(make_rows(tokens, vocabulary))
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = resident()
    reset_peak()
    run(policy, batch)
    held = peak() - before
    gradients = sum(p.grad.numel() * 4 for p in policy.parameters() if p.grad is not None)
    return float((held - gradients) / 2**20)


def run_packed(policy: Any, batch: Any) -> None:
    policy(batch).logps_N.sum().backward()


def run_plain(policy: Any, batch: Any) -> None:
    """Run forward and backward with one row per completion, full logits and log_softmax."""
    import torch

    from dpo.model.unshared import split_pack

    total: Any = torch.zeros(())
    for row in split_pack(batch.segments, range(batch.num_completions)):
        ids = batch.input_ids_T[row.places_RT[0]]
        logps = policy.model(input_ids=ids[None], use_cache=False).logits[0].log_softmax(-1)
        found = logps[row.predicts_n].gather(-1, ids[row.predicts_n + 1, None])
        total = total + found.sum()
    total.backward()


def make_model(hidden: int, vocabulary: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=hidden * 8 // 3,
        num_hidden_layers=2, num_attention_heads=9, num_key_value_heads=3,
        tie_word_embeddings=True, max_position_embeddings=4096,
    )  # fmt: skip
    return LlamaForCausalLM(config).train()


def make_rows(tokens: int, vocabulary: int) -> list[Any]:
    import numpy as np

    from dpo.data.packing import PromptWithCompletions

    draw = np.random.default_rng(0)
    lengths = (PROMPT, COMPLETION, COMPLETION)
    texts = [
        [draw.integers(vocabulary, size=length, dtype=np.int32) for length in lengths]
        for _ in range(tokens // sum(lengths))
    ]
    return [PromptWithCompletions(prompt, tuple(sides), (None, None)) for prompt, *sides in texts]


def resident() -> int:
    """Return the resident bytes of the process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the peak resident bytes since `reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
