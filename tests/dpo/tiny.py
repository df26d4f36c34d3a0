"""A tiny random Llama and its tokenizer, saved as a checkpoint; progress that is recorded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prefdata.progress import Advance, Silent

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = ["Tell me a story about a dog.", "The capital of France is Paris.", "user assistant 0123"]


def tiny_tokenizer(*, template: str | None = CHATML) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_model(*, vocabulary: int = 300, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        initializer_range=0.3,  # far from uniform, so that a draw depends on the context
        bos_token_id=None,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).eval()


def save_tiny(folder: Path, *, template: str | None = CHATML) -> str:
    tokenizer = tiny_tokenizer(template=template)
    tokenizer.save_pretrained(folder)
    tiny_model(vocabulary=len(tokenizer)).save_pretrained(folder)
    return str(folder)


class Heard(Silent):
    """Progress that records how far its bars are; Ctrl-C comes when one reaches `stop`."""

    def __init__(self, stop: int | None = None) -> None:
        self.done: list[int] = []
        self.notes: list[str] = []
        self._stop = stop

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        del title, total
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            self.done.append(done)
            if self._stop is not None and done >= self._stop:
                raise KeyboardInterrupt

        yield advance

    def note(self, text: str) -> None:
        self.notes.append(text)
