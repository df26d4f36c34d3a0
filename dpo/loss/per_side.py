"""Losses that use the two log-ratios of a pair separately, or its lengths."""

import torch.nn.functional as F
from torch import Tensor

from dpo.loss.pair_logps import PairLogps


def r_dpo(logps: PairLogps, *, beta: float = 0.1, alpha: float = 0.01) -> Tensor:
    """DPO with a length penalty of α per token: https://arxiv.org/abs/2403.19159.

    A chosen completion that is n tokens longer starts with n·α of the margin.
    """
    extra = logps.chosen_length - logps.rejected_length
    return -F.logsigmoid(beta * logps.margins + alpha * extra)


def dpop(logps: PairLogps, *, beta: float = 0.1, penalty: float = 50.0) -> Tensor:
    """DPO, penalizing chosen log-probs below reference: https://arxiv.org/abs/2402.13228."""
    lost = F.relu(-logps.chosen_logratios)
    return -F.logsigmoid(beta * (logps.margins - penalty * lost))


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
