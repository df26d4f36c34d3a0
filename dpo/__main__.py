"""`python -m dpo CONFIG.yaml`: training, for `accelerate launch -m dpo`."""

from dpo.cli import train

train()
