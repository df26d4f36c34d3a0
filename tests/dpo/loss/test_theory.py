"""Claims of the paper's §4 and appendix A, on a policy that is a table of logits.

A tabular policy can be trained to convergence, so what a loss leads to can be compared with what
the paper derives: https://arxiv.org/abs/2305.18290.
"""

from collections.abc import Callable
from itertools import combinations, permutations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dpo.loss import LOSSES, PairLogps

PROMPTS, COMPLETIONS, RANKED = 3, 6, 4
DRAWS = 4_000_000
"""Labels of each pair. At β = 0.1 an error of 0.01 in a reward moves 10 % of a probability."""
BETAS = [0.1, 0.5, 1.0]


class World:
    """Rewards and a reference of some prompts, both (P, C), drawn by a seed; float64."""

    def __init__(self, completions: int) -> None:
        self.generator = torch.Generator().manual_seed(7)
        shape = (PROMPTS, completions)
        self.reward = 2 * torch.rand(shape, generator=self.generator, dtype=torch.float64)
        logits = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        self.ref_logps = logits.log_softmax(-1)

    def optimum(self, beta: float) -> Tensor:
        """Return π_ref·exp(r/β)/Z, Eq. 4."""
        return (self.ref_logps + self.reward / beta).softmax(-1)


def converge(loss_of: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Return the logits, (P, C), at which a loss of log-probs is least; training begins at 0."""
    logits = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(logits.log_softmax(-1))
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits.detach()


def select(
    logps: Tensor, ref_logps: Tensor, places: Tensor, group: Tensor | None = None
) -> PairLogps:
    """Return the pairs of a table (P, C) at `places`: rows of prompt, chosen, rejected."""
    prompt, chosen, rejected = places.T
    ones = torch.ones(len(places), dtype=logps.dtype)
    own = torch.arange(len(places)) if group is None else group
    return PairLogps(
        logps[prompt, chosen], logps[prompt, rejected],
        ref_logps[prompt, chosen], ref_logps[prompt, rejected],
        ones, ones, ones, own, chosen, ones,
    )  # fmt: skip


def distance(probs: Tensor, others: Tensor) -> float:
    """Return the largest total variation of a prompt's distributions."""
    return float((probs - others).abs().sum(-1).max() / 2)


def train_on_pairs(world: World, beta: float) -> Tensor:
    """Return the log-probs of DPO on labels drawn from Bradley–Terry, Eq. 1."""
    pairs = combinations(range(COMPLETIONS), 2)
    places = torch.tensor([[p, *pair] for pair in pairs for p in range(PROMPTS)])
    prompt, first, second = places.T
    wins = (world.reward[prompt, first] - world.reward[prompt, second]).sigmoid()
    won = torch.binomial(torch.full_like(wins, DRAWS), wins, generator=world.generator) / DRAWS
    both = torch.cat((places, places[:, [0, 2, 1]]))
    weight = torch.cat((won, 1 - won))

    def loss_of(logps: Tensor) -> Tensor:
        losses = LOSSES["dpo"](select(logps, world.ref_logps, both), beta=beta)
        return (weight * losses).sum()

    return converge(loss_of, world.reward).log_softmax(-1)


@pytest.mark.parametrize("beta", BETAS)
def test_dpo_recovers_the_optimal_policy_from_drawn_labels(beta: float) -> None:
    world = World(COMPLETIONS)

    policy = train_on_pairs(world, beta).exp()

    assert distance(world.ref_logps.exp(), world.optimum(beta)) > 0.1
    assert distance(policy, world.optimum(beta)) <= 0.02


@pytest.mark.parametrize("beta", BETAS)
def test_dpo_recovers_rewards_up_to_a_function_of_the_prompt(beta: float) -> None:
    """Eq. 5: r = β·log(π/π_ref) + β·log Z(x)."""
    world = World(COMPLETIONS)
    log_z = (world.ref_logps + world.reward / beta).logsumexp(-1, keepdim=True)

    rewards = beta * (train_on_pairs(world, beta) - world.ref_logps)

    error = rewards + beta * log_z - world.reward
    assert float(error.abs().max()) < 0.01
    assert float(rewards.mean(-1).sub(world.reward.mean(-1)).abs().min()) > 0.05


@pytest.mark.parametrize("beta", BETAS)
def test_the_policy_of_dpo_maximizes_reward_less_the_kl(beta: float) -> None:
    """Compare with ascent on Eq. 3 itself, which needs neither labels nor Eq. 4."""
    world = World(COMPLETIONS)

    def cost(logps: Tensor) -> Tensor:
        gain = world.reward - beta * (logps - world.ref_logps)
        return -(logps.exp() * gain).sum()

    ascended = converge(cost, world.reward).softmax(-1)

    assert distance(train_on_pairs(world, beta).exp(), ascended) <= 0.02


@pytest.mark.parametrize("beta", BETAS)
def test_rankings_of_four_recover_the_optimal_policy(beta: float) -> None:
    """Appendix A.3: a ranking is a group of six pairs, and counts by its Plackett–Luce chance."""
    world = World(COMPLETIONS - 1)
    rankings = [
        (p, ranking)
        for p in range(PROMPTS)
        for four in combinations(range(COMPLETIONS - 1), RANKED)
        for ranking in permutations(four)
    ]
    order = torch.tensor([ranking for _, ranking in rankings])
    prompt = torch.tensor([p for p, _ in rankings])
    ranked = world.reward[prompt[:, None], order]  # (G, 4)
    chance = sum(ranked[:, k] - ranked[:, k:].logsumexp(-1) for k in range(RANKED)).exp()
    assert torch.allclose(chance.view(PROMPTS, -1, 24).sum(-1), torch.ones(1).double())
    pairs = list(combinations(range(RANKED), 2))
    places = torch.tensor([[p, r[i], r[j]] for p, r in rankings for i, j in pairs])
    group = torch.arange(len(rankings)).repeat_interleave(len(pairs))

    def loss_of(logps: Tensor) -> Tensor:
        found = select(logps, world.ref_logps, places, group)
        losses = LOSSES["plackett_luce"](found, beta=beta)
        return (chance[group] * losses).sum() / len(pairs)

    policy = converge(loss_of, world.reward).softmax(-1)
    assert distance(world.ref_logps.exp(), world.optimum(beta)) > 0.1
    assert distance(policy, world.optimum(beta)) <= 0.02


@pytest.mark.parametrize("beta", BETAS)
def test_a_pair_counts_by_how_wrong_the_rewards_order_it(beta: float) -> None:
    """§4: the gradient is −β·σ(r̂_l − r̂_w)·(∇log π(y_w) − ∇log π(y_l))."""
    world = World(COMPLETIONS)
    logits = torch.randn(
        world.reward.shape, generator=world.generator, dtype=torch.float64, requires_grad=True
    )
    logps = logits.log_softmax(-1)
    implicit = (beta * (logps - world.ref_logps)).detach()
    for chosen, rejected in permutations(range(COMPLETIONS), 2):
        places = torch.tensor([[p, chosen, rejected] for p in range(PROMPTS)])
        loss = LOSSES["dpo"](select(logps, world.ref_logps, places), beta=beta).sum()
        (found,) = torch.autograd.grad(loss, logits, retain_graph=True)

        weight = (implicit[:, rejected] - implicit[:, chosen]).sigmoid()
        # ∇log π(y) of a table of logits is onehot(y) − π, so the π of both sides cancel
        sides = F.one_hot(torch.tensor([chosen, rejected]), COMPLETIONS).double()
        expected = -beta * weight[:, None] * (sides[0] - sides[1])
        assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.5, 1.0])
def test_unlikelihood_descends_the_papers_objective(alpha: float) -> None:
    """§6: maximize log π(y_w) − α·log π(y_l); α = 0 is Preferred-FT."""
    world = World(COMPLETIONS)
    logits = world.reward.clone().requires_grad_()
    places = torch.tensor([[p, 0, 1] for p in range(PROMPTS)])

    pairs = select(logits.log_softmax(-1), world.ref_logps, places)
    loss = LOSSES["unlikelihood"](pairs, alpha=alpha).sum()
    (found,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (tuned,) = torch.autograd.grad(LOSSES["sft"](pairs).sum(), logits)

    probs = world.reward.softmax(-1)
    onehot = F.one_hot(torch.tensor([0, 1]), COMPLETIONS).double()
    up, down = onehot[0] - probs, onehot[1] - probs
    assert torch.allclose(found, -(up - alpha * down), atol=1e-12)
    assert torch.allclose(tuned, -up, atol=1e-12)
