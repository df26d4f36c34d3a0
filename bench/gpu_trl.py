"""TRL's side of bench/gpu.py: DPOTrainer on our ids, in the order of our steps."""

import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_run import (
    BETA,
    RATE,
    Figures,
    Spec,
    columns_of,
    micro_batch,
    peak_gb,
    prepare,
    reset_peak,
    tokens_by_step,
    tokens_of,
    train_config,
)


def run(spec: Spec) -> Figures:
    """Run the reference pass and training; only the timers are ours."""
    with tempfile.TemporaryDirectory(dir=spec["work"]) as folder:
        checkpoint, data = prepare(spec, Path(folder))
        config = train_config(spec, checkpoint, data)
        columns, pairs = columns_of(config)
        texts = zip(*columns.values(), strict=True)
        longest = max(len(p) + max(len(c), len(r)) for p, c, r in texts)
        micro = micro_batch(pairs, tokens_of(spec) // (2 * longest))
        batches = {
            "per_device_train_batch_size": micro, "gradient_accumulation_steps": pairs // micro,
            "max_steps": spec["steps"], "output_dir": f"{folder}/trl",
        }  # fmt: skip
        clocks: dict[str, list[float]] = {"reference": [], "step": []}
        trainer = make_trainer(spec, checkpoint, columns, batches, clocks)
        if not spec.get("only_reference"):
            reset_peak(spec)
            trainer.train()
        tokens = sum(tokens_by_step(config))
    found: Figures = {"reference_tokens_per_s": tokens / clocks["reference"][0]}
    if clocks["step"]:
        found |= {"seconds": clocks["step"], "micro_batch": micro}
        found["losses"] = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return found | {"peak_gb": peak_gb(spec)}


def make_trainer(
    spec: Spec,
    checkpoint: Path,
    columns: dict[str, list[Any]],
    batches: dict[str, Any],
    clocks: dict[str, list[float]],
) -> Any:
    """Return a trainer that gets ids as they are and writes its seconds to `clocks`."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    class Fed(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *args: Any, **named: Any) -> Any:
            started = time.perf_counter()
            found = super()._precompute_ref_logps(*args, **named)
            clocks["reference"].append(time.perf_counter() - started)
            return found

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if spec["device"] == "cuda":
                torch.cuda.synchronize()
            clocks["step"].append(time.perf_counter() - self.started)

    arguments = DPOConfig(
        **batches, learning_rate=RATE, lr_scheduler_type="constant", beta=BETA, max_length=None,
        precompute_ref_log_probs=True, gradient_checkpointing=False,
        use_cpu=spec["device"] == "cpu", bf16=spec["precision"] == "bf16",
        use_liger_kernel=bool(spec.get("liger")), report_to="none", save_strategy="no",
        logging_steps=1, train_sampling_strategy="sequential", disable_tqdm=True, weight_decay=0.0,
    )  # fmt: skip
    texts = {"prompt": [""] * len(columns["prompt_ids"])}
    return Fed(
        model=AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_dict(texts | columns),
        processing_class=AutoTokenizer.from_pretrained(checkpoint),
        callbacks=[Clock()],
    )
