"""Settings of all tests: hypothesis without deadlines, one thread, no access to the Hub."""

import os
import signal
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported; avoids long retries
os.environ["OMP_NUM_THREADS"] = "1"  # of commands that tests start; tests run in parallel

import pytest
import torch
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # `make test &`: tests send it to themselves
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("project", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("project")
torch.set_num_threads(1)

ROOT = Path(__file__).parent
SLOW = (
    *("dpo/artifacts/test_hub", "dpo/data/test_groups", "dpo/data/test_reference"),
    *("dpo/data/test_shards", "dpo/data/test_token_weights", "dpo/loss/test_loss"),
    *("dpo/model/test_cpu_memory",),
    *("dpo/model/test_adapters", "dpo/model/test_held", "dpo/model/test_images"),
    *("dpo/model/test_sharded", "dpo/test_families", "test_architectures"),
    *("dpo/model/test_fingerprints", "dpo/model/test_length_limits"),
    *("dpo/model/test_load", "dpo/model/test_lora"),
    *("dpo/model/test_moe", "dpo/model/test_spot_check", "dpo/sampling/test_model_types"),
    *("dpo/sampling/test_sample", "dpo/test_untouched", "dpo/training/test_crash"),
    *("dpo/training/test_distributed", "dpo/training/test_eval_split"),
    *("dpo/training/test_evaluation", "dpo/training/test_gradients", "dpo/training/test_killed"),
    *("dpo/judging/test_judge", "dpo/server/test_killed", "dpo/server/test_sample"),
    *("dpo/training/test_loop", "dpo/training/test_optimizer", "dpo/training/test_other_run"),
    *("dpo/training/test_precision", "dpo/training/test_reference_free"),
    *("dpo/training/test_reference_ranks", "pipelines/test_loop"),
    *("pipelines/test_noise", "pipelines/test_paper_sentiment", "pipelines/test_paper_win_rates"),
    *("dpo/training/test_sharding", "dpo/training/test_trackers", "prefdata/check/test_rows"),
    *("prefdata/dedup/near/test_build_near", "prefdata/hub/test_doors"),
    *("prefdata/hub/test_inputs",),
    *("prefdata/read/files/test_bombs", "prefdata/read/test_layouts_damaged"),
    *("prefdata/read/test_read_back", "prefdata/read/test_real_sets"),
    *("prefdata/read/test_rows_in_memory", "prefdata/read/test_saved_sets"),
    *("prefdata/read/test_texts", "prefdata/report/test_show", "prefdata/sharing/test_faults"),
    *("prefdata/sharing/test_guide", "prefdata/sharing/test_parts"),
    *("prefdata/sharing/test_share", "prefdata/stages/test_given_splits"),
    *("prefdata/stages/test_nothing_left", "prefdata/stages/test_output"),
    *("prefdata/stages/test_split_leaks", "prefdata/store/test_content", "prefdata/test_build"),
    *("prefdata/test_builders", "prefdata/test_cli", "prefdata/test_command"),
    *("dpo/test_systems", "prefdata/test_systems"),
    *("prefdata/test_crash", "prefdata/test_untouched", "prefdata/tokens/template/test_limited"),
    *("prefdata/tokens/template/test_probe", "prefdata/tokens/template/test_trace"),
    *("prefdata/report/test_listing", "prefdata/stages/test_rejected", "test_examples"),
    *("test_archives", "test_arguments", "test_fuzz", "test_terminal", "test_yaml"),
)
"""Modules that start processes or take more than eight seconds: `make quick` skips them."""
READS_PROC = (
    *("dpo/model/test_sharded", "prefdata/read/files/test_bombs", "prefdata/read/test_memory"),
    *("prefdata/test_builders", "prefdata/tokens/template/test_limited"),
    "prefdata/tokens/template/test_probe",
)
"""Modules that measure processes in /proc: skipped on macOS, which has none."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    has_proc = Path("/proc/self/status").exists()
    for item in items:
        if item.path.is_relative_to(ROOT):
            name = item.path.relative_to(ROOT).with_suffix("").as_posix()
            if name in SLOW:
                item.add_marker("slow")
            if name in READS_PROC and not has_proc:
                item.add_marker(pytest.mark.skip(reason="there is no /proc"))
