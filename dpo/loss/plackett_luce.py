"""Losses of a group's complete ranking, from all of its pairs."""

import torch
from torch import Tensor

from dpo.loss.pair_logps import PairLogps


def plackett_luce(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """−log of the chance of the group's ranking, for each of its pairs: arXiv 2305.18290.

    Appendix A.3: with h the log-ratios in the order of the ranking, the sum over k of
    log Σ_{j ≥ k} e^(β·(h_j − h_k)). The pairs in which k is chosen name the j below it, so all
    pairs of a group must be present, as with `pairing: all`; equal ranks form no pair and do not
    compete. A group of one pair is DPO.
    """
    keys = torch.stack((logps.group.double(), logps.winner.double()))
    (groups, _), winner_of = torch.unique(keys, dim=1, return_inverse=True)
    _, group_of = torch.unique(groups, return_inverse=True)
    logits = -beta * logps.margins
    peaks = logits.new_zeros(len(groups)).scatter_reduce(0, winner_of, logits.detach(), "amax")
    worse = torch.zeros_like(peaks).index_add(0, winner_of, (logits - peaks[winner_of]).exp())
    losses = peaks + ((-peaks).exp() + worse).log()
    of_groups = losses.new_zeros(int(group_of.max()) + 1).index_add(0, group_of, losses)
    return of_groups[group_of[winner_of]]
