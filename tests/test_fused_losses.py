"""Choices and PPO's loss as single operations, against the parts of `rlmin.learning.losses` and autograd."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rlmin.kernels.choices import choice_terms
from rlmin.kernels.ppo_loss import MEASURED, Slopes, ppo_loss, settings_of, usable
from rlmin.learning import losses
from rlmin.policy.distributions import Categorical
from rlmin.policy.heads import ILLEGAL, PADDING

T, B = 7, 3
SETTINGS: dict[str, Any] = {"clip": 0.2, "ratio_penalty": 3.0, "value_weight": 0.5, "entropy": 0.02, "value_clip": 0.3}
OUTPUTS = ("log_prob", "entropy", "value")


pytestmark = pytest.mark.usefixtures("kernel_without_numba")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def draw(*size: int, seed: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def make(rows: int = B) -> dict[str, Tensor]:
    names = ("log_prob", "entropy", "value", "old_log_prob", "advantage", "target", "old_value")
    found = {name: draw(T, rows, seed=i) for i, name in enumerate(names)}
    found["old_log_prob"] = found["log_prob"] + 0.3 * found["old_log_prob"]
    found["old_log_prob"][0, 0] = found["log_prob"][0, 0] + 1e-5  # a tiny divergence keeps its digits
    for name in OUTPUTS:
        found[name].requires_grad_()
    return found


def add_parts(x: dict[str, Tensor], unit: Tensor, weight: Tensor | None, clip_value: bool) -> dict[str, Tensor]:
    """What the operation gives, from functions that are tested by themselves."""
    log_prob, old, clip = x["log_prob"], x["old_log_prob"], SETTINGS["clip"]
    value_clip = {"old_value": x["old_value"] / unit, "clip": SETTINGS["value_clip"]} if clip_value else {}
    kl = losses.step_kl(log_prob, old, weight)
    parts = {
        "policy_loss": losses.clipped_surrogate(log_prob, old, x["advantage"], weight, clip=clip),
        "value_loss": losses.value_loss(x["value"] / unit, x["target"] / unit, weight, **value_clip),
        "entropy": losses.weighted_mean(x["entropy"], weight),
        "ratio_penalty": losses.ratio_penalty(log_prob, old, weight, clip=clip),
        "approx_kl": losses.weighted_mean(kl, weight),
        "clip_fraction": losses.weighted_mean((((log_prob - old).exp() - 1).abs() > clip).double(), weight),
        "kl_max": kl.max(),
    }
    loss = parts["policy_loss"] + SETTINGS["ratio_penalty"] * parts["ratio_penalty"]
    return parts | {"loss": loss + SETTINGS["value_weight"] * parts["value_loss"] - 0.02 * parts["entropy"]}


def run(tensors: list[Tensor], unit: Tensor, settings: dict[str, float], **given: Any) -> Slopes:
    every: Any = (*tensors, unit, settings_of(unit, **settings))
    return ppo_loss(*every, **given)


@pytest.mark.parametrize("filler", [False, True])
@pytest.mark.parametrize("clip_value", [False, True])
@pytest.mark.parametrize("rows", [B, 211])
def test_the_loss_and_its_slopes_are_those_of_the_parts(filler: bool, clip_value: bool, rows: int) -> None:
    x, unit = make(rows), torch.tensor(1.7, dtype=torch.float64, device=DEVICE)
    weight = (draw(T, rows, seed=9) > 0).double() if filler else None
    if weight is not None:
        with torch.no_grad():
            x["advantage"][weight == 0] = torch.nan
            x["target"][weight == 0] = torch.inf
    wanted = add_parts(x, unit, weight, clip_value)
    given: Any = {"weight": weight, "old_value": x["old_value"] if clip_value else None}
    tensors = [x[name] for name in (*OUTPUTS, "old_log_prob", "advantage", "target")]
    found = run(tensors, unit, SETTINGS, **given)
    torch.testing.assert_close(found.measured, torch.stack([wanted[name] for name in MEASURED]).detach())
    slopes = torch.autograd.grad(wanted["loss"], [x[name] for name in OUTPUTS])
    torch.testing.assert_close(found[1:], slopes)
    wrong = run(tensors, unit, SETTINGS | {"clip": 0.1}, **given)
    assert not torch.allclose(wrong.log_prob, slopes[0]), "the settings are read"


def test_what_is_no_number_is_not_lost() -> None:
    x, unit = make(), torch.ones((), dtype=torch.float64, device=DEVICE)
    with torch.no_grad():
        x["advantage"][3, 1] = torch.nan
    tensors = [x[name].detach() for name in (*OUTPUTS, "old_log_prob", "advantage", "target")]
    measured = dict(zip(MEASURED, run(tensors, unit, SETTINGS).measured.tolist(), strict=True))
    assert measured["policy_loss"] != measured["policy_loss"] and measured["value_loss"] < torch.inf


@pytest.mark.parametrize(("K", "n"), [(1, 4), (3, 5), (2, 1)])
def test_choices_have_the_terms_and_slopes_of_autograd(K: int, n: int) -> None:
    logits, action = draw(T, B, K, n, seed=1), torch.randint(n, (T, B, K), generator=torch.Generator().manual_seed(2))
    logits, action = (3 * logits).requires_grad_(), action.to(DEVICE)
    if n > 3:
        with torch.no_grad():
            logits[2, 1, 0, 1:] = ILLEGAL
            logits[3, :, 0, -1] = PADDING
            action[2:4, :, 0] = 0
    plain = Categorical(logits)
    wanted, found = (plain.log_prob(action), plain.entropy()), choice_terms(logits, action)
    torch.testing.assert_close(found, wanted)
    weights = draw(2, T, B, seed=5)
    both = [sum((w * x).sum() for w, x in zip(weights, pair, strict=True)) for pair in (found, wanted)]
    slopes = [torch.autograd.grad(x, logits)[0] for x in both]
    torch.testing.assert_close(*slopes)
    if n > 1:
        assert slopes[0].abs().max() > 0.1
        assert not torch.allclose(choice_terms(logits, 0 * action)[0], wanted[0]), "the action counts"


def test_they_keep_what_pytorch_asks_of_operators() -> None:
    x, unit = make(), torch.ones((), dtype=torch.float64, device=DEVICE)
    tensors = [x[name].detach() for name in (*OUTPUTS, "old_log_prob", "advantage", "target")]
    tests = ("test_schema", "test_faketensor")
    settings = settings_of(unit, **SETTINGS)
    torch.library.opcheck(torch.ops.rlmin.ppo_loss.default, (*tensors, unit, settings, None, None), test_utils=tests)
    logits, action = draw(T, B, 2, 3, seed=1), torch.zeros(T, B, 2, dtype=torch.int64, device=DEVICE)
    torch.library.opcheck(torch.ops.rlmin.choices_forward.default, (logits, action), test_utils=tests)
    slopes = (draw(T, B, seed=1), draw(T, B, seed=2))
    torch.library.opcheck(torch.ops.rlmin.choices_backward.default, (*slopes, logits, action), test_utils=tests)


def test_they_are_used_where_numba_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(3, device=DEVICE)
    assert usable(x, x)
    monkeypatch.setenv("RLMIN_KERNEL", "cpu")
    assert not usable(x.cpu(), x.cpu())
