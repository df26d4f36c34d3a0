"""Heads of many families: scales and caps by other names, heads of two layers, models that peek."""

from typing import Any

import pytest
import torch

from bench.tiny_models import config_of, model_of
from dpo.data.packing import pack
from dpo.errors import UsageError
from dpo.model.heads import LogitForm
from dpo.model.policy import PolicyOptions
from dpo.model.self_check import logits_notice, make_policy, plain_logps
from tests.dpo.model.zoo import pairs_of, rows_of

PAIRS = pairs_of(rows_of((6, 5, 4), (3, 2, 30), (8, 8, 9), (30, 8, 2)))
ROWS = rows_of((20, 7, 9, 3), (3, 1, 14, 30), (30, 12, 2, 5), seed=1)


@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("gemma4", LogitForm(1.0, 5.0)),  # its cap is in the config of its text model
        ("hyperclovax", LogitForm(2.0)),  # multiplies by logits_scaling
        ("granite", LogitForm(0.5)),  # divides by it
        ("cohere", LogitForm(0.5)),
        ("falcon_h1", LogitForm(0.5)),  # lm_head_multiplier
        ("recurrent_gemma", LogitForm(1.0, 5.0)),  # logits_soft_cap
        ("xlstm", LogitForm(1.0, 5.0)),  # output_logit_soft_cap
        ("llama", LogitForm()),
        ("bert", None),  # its head is two layers and a norm
        ("modernbert-decoder", None),
    ],
)
def test_logits_are_those_of_the_model(family: str, form: LogitForm | None) -> None:
    model = model_of(config_of(family))
    expected = plain_logps(model, ROWS)

    policy, _ = make_policy(model, PAIRS)

    assert policy.form == form
    assert (logits_notice(policy) is None) == (form is not None)
    with torch.no_grad():
        assert (policy(pack(ROWS)).logps_N - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("in_place", [False, True])
def test_a_model_with_a_head_of_its_own_trains_as_by_plain_passes(in_place: bool) -> None:
    model = model_of(config_of("bert"))
    expected = gradients(model, plainly(model))
    policy, why = make_policy(model, PAIRS)
    assert why is None
    assert "computes its logits itself" in (logits_notice(policy) or "")
    if in_place:
        policy.add_gradients_in_place()

    found = gradients(model, policy(pack(ROWS)).logps_N)

    assert found.keys() == expected.keys()
    gap = sum((found[name] - slope).square().sum() for name, slope in expected.items())
    assert (gap / sum(slope.square().sum() for slope in expected.values())).sqrt() <= 1e-4


def test_its_collisions_are_those_of_its_probabilities() -> None:
    model = model_of(config_of("bert"))
    policy, _ = make_policy(model, PAIRS, options=PolicyOptions(log_sum_sq_probs=True))
    row = rows_of((5, 3))[0]
    text = torch.from_numpy(pack([row]).input_ids_T.numpy())

    with torch.no_grad():
        found = policy(pack([row])).collisions_N
        policy.share(shared=False)
        probs = model(input_ids=text[None], use_cache=False).logits[0, 4:-1].softmax(-1)

    torch.testing.assert_close(found, probs.square().sum(-1).log(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "settings"), [("bert", {"is_decoder": False}), ("xlm", {}), ("xlnet", {})]
)
def test_a_model_whose_tokens_see_later_ones_is_refused(
    family: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=r"tokens see later ones.*set is_decoder.*T114"):
        make_policy(model_of(config_of(family, **settings)), PAIRS)


def plainly(model: Any) -> torch.Tensor:
    found = []
    for row in ROWS:
        for completion in row.completions:
            ids = torch.tensor([*row.prompt.tolist(), *completion.tolist()])
            logits = model(input_ids=ids[None], use_cache=False).logits[0, len(row.prompt) - 1 : -1]
            logps = logits.log_softmax(-1)
            found.append(logps.gather(-1, ids[len(row.prompt) :, None])[:, 0])
    return torch.cat(found)


def gradients(model: Any, logps: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the gradients of a weighted sum, and clear them."""
    (logps * torch.linspace(-1, 1, len(logps))).sum().backward()
    found = {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}
    model.zero_grad()
    return found


def test_a_model_with_a_tower_gets_its_own_attention_back() -> None:
    """The config of got_ocr2 does not change with the attention of its text model."""
    model = model_of(config_of("got_ocr2"))
    expected = plain_logps(model, ROWS)
    policy, why = make_policy(model, PAIRS)
    assert why is None

    policy.share(shared=False)

    torch.testing.assert_close(plain_logps(model, ROWS), expected, rtol=0, atol=1e-4)
    with torch.no_grad():
        assert (policy(pack(ROWS)).logps_N - expected).abs().max() <= 1e-4
