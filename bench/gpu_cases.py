"""Checkpoints with random weights of real shapes, and pairs with real lengths, for bench/gpu.py.

bench/lengths.json has the tokens of prompt, chosen and rejected of the rows in tests/data, by the
tokenizer of SmolLM2-135M-Instruct. Texts are random words of one token each, so no tokenizer and
no data have to be fetched:

    python bench/gpu_cases.py --tokenizer .models/SmolLM2-135M-Instruct    # writes the file anew
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

LENGTHS = Path(__file__).with_name("lengths.json")
WORDS = 2000
LONGER = 8
"""Factor of prompts in the case `long`, such as a document or a conversation of many turns."""
LLAMA = {
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
QWEN = {
    "model_type": "qwen2", "vocab_size": 151936, "max_position_embeddings": 32768,
    "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "0.1": LLAMA,  # SmolLM2-135M
    "0.5": QWEN | {  # Qwen2.5-0.5B
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14,
    },
    "1.5": QWEN | {  # Qwen2.5-1.5B
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12,
    },
    "8": LLAMA | {  # Llama-3.1-8B
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "max_position_embeddings": 131072, "rope_theta": 500000.0, "tie_word_embeddings": False,
    },
}  # fmt: skip
_NARROW = {
    "vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 8192,
    "initializer_range": 0.06,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": _NARROW | {"model_type": "llama", "head_dim": 128},
    "Qwen3": _NARROW | {"model_type": "qwen3", "head_dim": 128},
    "Gemma 3": _NARROW | {
        "model_type": "gemma3_text", "head_dim": 256, "sliding_window": 64,
        "query_pre_attn_scalar": 256,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "Gemma 2": _NARROW | {"model_type": "gemma2", "head_dim": 256, "sliding_window": 64},
    "Mixtral": _NARROW | {"model_type": "mixtral", "head_dim": 128, "num_local_experts": 8},
}  # fmt: skip
"""Real head sizes, as these choose the kernel; narrow and of four layers, so that all are quick."""
_TOY = {
    "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip


class Case(NamedTuple):
    """Pairs of one measurement."""

    lengths: str
    """`hh`, or `long`: prompts `LONGER` times as long."""
    completions: int
    prompts: int

    @property
    def name(self) -> str:
        return f"{self.lengths} K={self.completions}"


def config_of(settings: dict[str, Any], *, toy: bool) -> Any:
    """Return a transformers config; a toy one keeps only the kind of model."""
    from transformers import CONFIG_MAPPING

    settings = dict(settings)
    kind: Any = CONFIG_MAPPING[settings.pop("model_type")]
    if toy:
        settings |= _TOY
        if "layer_types" in settings:
            settings["layer_types"] = settings["layer_types"][:2]
    return kind(**settings, bos_token_id=0, eos_token_id=1, pad_token_id=1)


def write_checkpoint(folder: Path, settings: dict[str, Any], *, device: str, toy: bool) -> Path:
    """Write a model with random weights, in bf16 as models are published, and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, TokenizersBackend

    torch.manual_seed(0)
    with torch.device(device):
        config = config_of(settings, toy=toy)
        from_config: Any = AutoModelForCausalLM.from_config
        model = from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    names = ["<s>", "</s>", *(f"w{number}" for number in range(WORDS))]
    core = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, "<s>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer_of: Any = TokenizersBackend
    tokenizer = tokenizer_of(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.save_pretrained(folder)
    return folder


def read_lengths() -> list[list[int]]:
    """Return tokens of prompt, chosen and rejected of real pairs, in a seeded order."""
    found: list[list[int]] = json.loads(LENGTHS.read_text())["lengths"]
    random.Random(0).shuffle(found)
    return found


def write_rows(path: Path, case: Case) -> Path:
    """Write prompts with ranked completions, of random words.

    The third and fourth completion of a prompt have the lengths of those of the next one.
    """
    draw = random.Random(1)

    def text(length: int) -> str:
        return " ".join(f"w{draw.randrange(WORDS)}" for _ in range(length))

    lengths = read_lengths()
    with path.open("w") as file:
        for number in range(case.prompts):
            near = [lengths[(number + more) % len(lengths)] for more in range(case.completions)]
            sizes = [size for row in near for size in row[1:]][: case.completions]
            prompt = near[0][0] * (LONGER if case.lengths == "long" else 1)
            answers = [
                {"text": text(max(1, size - 1)), "score": float(-rank)}
                for rank, size in enumerate(sizes)
            ]
            file.write(json.dumps({"prompt": text(prompt), "completions": answers}) + "\n")
    return path


def write_build(folder: Path, checkpoint: Path, case: Case) -> Path:
    """Build the pairs of a case: all pairs of each prompt, none for evaluation."""
    import prefdata
    from prefdata.config import BuildConfig

    values = {
        "inputs": [str(write_rows(folder.with_suffix(".jsonl"), case))],
        "tokenizer": str(checkpoint), "out": str(folder), "max_length": 16384,
        "test_fraction": 0.0, "pairing": {"strategy": "all"}, "severity": {"PD402": "off"},
    }  # fmt: skip
    prefdata.build(BuildConfig.model_validate(values))
    return folder


def segments_of(tokens: int, *, completions: int = 2) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield lengths of prompts and their completions until a pack of these tokens is full."""
    lengths = read_lengths()
    place = 0
    while tokens > 0:
        prompt, *answers = lengths[place % len(lengths)]
        answers += lengths[(place + 1) % len(lengths)][1:]
        sizes = [prompt, *answers[:completions]]
        if sum(sizes) > tokens:  # the rest is one prompt with one completion
            yield max(1, tokens - 1), (1,) * (tokens > 1)
            return
        yield sizes[0], tuple(sizes[1:])
        tokens -= sum(sizes)
        place += 1


def main() -> None:
    """Write the lengths of the rows in tests/data."""
    import prefdata
    from prefdata.config import BuildConfig

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True)
    options = parser.parse_args()
    data = Path(__file__).parents[1] / "tests" / "data" / "hh-200.jsonl.gz"
    with tempfile.TemporaryDirectory() as folder:
        values = {
            "inputs": [str(data)], "tokenizer": options.tokenizer, "out": f"{folder}/build",
            "test_fraction": 0.0, "severity": {"PD402": "off"},
        }  # fmt: skip
        build = prefdata.build(BuildConfig.model_validate(values))
        rows = [row for shard in build.shards("train") for row in shard.read().to_pylist()]
    parts = ("prompt_ids", "chosen_ids", "rejected_ids")
    lengths = [[len(row[part]) for part in parts] for row in rows]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in lengths)
    LENGTHS.write_text(f'{{"columns": {json.dumps(parts)}, "lengths": [\n{lines}\n]}}\n')
    print(f"{len(lengths)} pairs in {LENGTHS}")


if __name__ == "__main__":
    main()
