"""Losses that use the two log-ratios of a pair separately."""

import torch.nn.functional as F
from torch import Tensor

from dpo.loss.pair_logps import PairLogps


def sppo_hard(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """Squared error of chosen to 1/(2β), rejected to −1/(2β): https://arxiv.org/abs/2405.00675."""
    target = 1 / (2 * beta)
    return (logps.chosen_logratios - target) ** 2 + (logps.rejected_logratios + target) ** 2


def nca_pair(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """Noise contrast of two answers: https://arxiv.org/abs/2402.05369."""
    chosen, rejected = beta * logps.chosen_logratios, beta * logps.rejected_logratios
    return -F.logsigmoid(chosen) - (F.logsigmoid(-chosen) + F.logsigmoid(-rejected)) / 2


def bco_pair(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """Binary classifier of answers, without the shift: https://arxiv.org/abs/2404.04656."""
    chosen, rejected = beta * logps.chosen_logratios, beta * logps.rejected_logratios
    return -F.logsigmoid(chosen) - F.logsigmoid(-rejected)


def apo_zero(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """Chosen up and rejected down: Eq. 7 of https://arxiv.org/abs/2408.06266."""
    chosen, rejected = beta * logps.chosen_logratios, beta * logps.rejected_logratios
    return 1 - chosen.sigmoid() + rejected.sigmoid()


def apo_down(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """Both down, rejected further: Eq. 8 of https://arxiv.org/abs/2408.06266."""
    return (beta * logps.chosen_logratios).sigmoid() + 1 - (beta * logps.margins).sigmoid()


def cal_dpo(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """−log σ(margin), with both log-ratios pulled to ±1/(2β): https://arxiv.org/abs/2412.14516."""
    return -F.logsigmoid(logps.margins) + sppo_hard(logps, beta=beta)
