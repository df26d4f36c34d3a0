"""What every test shares: hypothesis without deadlines, and one thread."""

import torch
from hypothesis import settings

settings.register_profile("project", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("project")
torch.set_num_threads(1)
