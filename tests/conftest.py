"""Settings of all tests: hypothesis without deadlines, one thread, no access to the Hub."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported; avoids long retries

import torch
from hypothesis import settings

settings.register_profile("project", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("project")
torch.set_num_threads(1)
