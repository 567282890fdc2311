"""The losses of PPO: what they are at known points, where their slopes vanish, and that filler rows cost nothing."""

import math

import pytest
import torch
from torch import Tensor

from rlmin.learning import losses

T, B = 5, 3


def random(*size: int, seed: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def f64(*x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


EVERY = torch.ones(T, B, dtype=torch.float64)
SOME = (random(T, B, seed=9) > 0).double()


def slope(loss: Tensor, x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, x)
    return gradient


def test_at_ratio_1_the_slope_is_the_policy_gradient() -> None:
    log_prob, advantage = random(T, B, seed=1).requires_grad_(), random(T, B, seed=2)
    loss = losses.clipped_surrogate(log_prob, log_prob.detach(), advantage, EVERY, clip=0.2)
    want = slope(-(log_prob * advantage).mean(), log_prob)
    torch.testing.assert_close(loss.detach(), -advantage.mean())
    torch.testing.assert_close(slope(loss, log_prob), want)
    moved = losses.clipped_surrogate(log_prob, log_prob.detach() - 0.1, advantage, EVERY, clip=0.2)
    assert not torch.allclose(slope(moved, log_prob), want)


@pytest.mark.parametrize(
    ("ratio", "advantage", "flat"),
    [(1.3, 2.0, True), (1.3, -2.0, False), (0.7, -2.0, True), (0.7, 2.0, False), (1.1, 2.0, False), (0.9, -2.0, False)],
)
def test_the_slope_is_zero_only_beyond_the_clip_in_the_direction_the_advantage_asks_for(
    ratio: float, advantage: float, flat: bool
) -> None:
    log_prob = f64(math.log(ratio)).requires_grad_()
    loss = losses.clipped_surrogate(log_prob, f64(0.0), f64(advantage), f64(1.0), clip=0.2)
    gradient = slope(loss, log_prob)
    held = min(max(ratio, 0.8), 1.2)
    torch.testing.assert_close(loss.detach(), torch.tensor(-min(ratio * advantage, held * advantage)).double())
    torch.testing.assert_close(gradient, f64(0.0 if flat else -ratio * advantage))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_ratio_penalty_pulls_a_step_back_from_beyond_the_clip_and_leaves_the_others_alone(sign: float) -> None:
    clip, excess = 0.2, 0.5
    inside, beyond = sign * 0.99 * math.log1p(clip), sign * (math.log1p(clip) + excess)
    log_prob, old = f64(inside, beyond).requires_grad_(), f64(0.0, 0.0)
    loss = losses.ratio_penalty(log_prob, old, None, clip=clip)
    torch.testing.assert_close(loss.detach(), torch.tensor(0.5 * excess**2 / 2, dtype=torch.float64))
    torch.testing.assert_close(slope(loss, log_prob), f64(0.0, sign * excess / 2))
    surrogate = losses.clipped_surrogate(log_prob, old, f64(sign, sign), None, clip=clip)
    assert slope(surrogate, log_prob)[1] == 0, "the clip alone does not bring it back: the arm that must differ"


def test_the_divergence_is_the_mean_of_that_of_each_step() -> None:
    log_prob, old = random(T, B, seed=1), random(T, B, seed=2)
    each = losses.step_kl(log_prob, old, SOME)
    torch.testing.assert_close(losses.approximate_kl(log_prob, old, SOME), each.sum() / SOME.sum())
    assert (each[SOME == 0] == 0).all() and (each[SOME == 1] > 0).all()


def test_the_value_loss_is_half_the_mean_squared_error() -> None:
    value, target = random(T, B, seed=3).requires_grad_(), random(T, B, seed=4)
    loss = losses.value_loss(value, target, EVERY)
    torch.testing.assert_close(loss, 0.5 * torch.nn.functional.mse_loss(value, target))
    torch.testing.assert_close(slope(loss, value), (value - target).detach() / (T * B))


def test_a_clipped_value_has_no_slope_where_it_has_left_the_interval_towards_the_target() -> None:
    #                 inside  left, target ahead  left, target behind
    value = f64(0.1, 0.5, 0.5).requires_grad_()
    old, target = f64(0.0, 0.0, 0.0), f64(1.0, 1.0, -1.0)
    loss = losses.value_loss(value, target, torch.ones(3).double(), old_value=old, clip=0.2)
    error = f64(0.1 - 1, 0.2 - 1, 0.5 + 1)  # the second is held at 0.2
    torch.testing.assert_close(loss.detach(), 0.5 * error.square().mean())
    torch.testing.assert_close(slope(loss, value), f64(-0.9, 0.0, 1.5) / 3)
    free = losses.value_loss(value, target, torch.ones(3).double(), old_value=old)
    assert slope(free, value)[1] != 0


@pytest.mark.parametrize("filler", [1e3, float("inf"), float("nan")])
def test_filler_rows_change_neither_values_nor_gradients(filler: float) -> None:
    """Whatever a filler row holds, even what overflows exp()."""
    advantage, old, target = random(T, B, seed=5), random(T, B, seed=6), random(T, B, seed=7)
    clean = random(T, B, seed=8)
    spoiled = torch.where(SOME.bool(), clean, filler)

    def all_losses(x: Tensor, weight: Tensor) -> list[Tensor]:
        return [
            losses.clipped_surrogate(x, old, advantage, weight, clip=0.2),
            losses.value_loss(x, target, weight),
            losses.value_loss(x, target, weight, old_value=old, clip=0.1),
            losses.weighted_mean(x, weight),
            losses.approximate_kl(x, old, weight),
            losses.explained_variance(x, target, weight),
        ]

    for got, want in zip(all_losses(spoiled, SOME), all_losses(clean, SOME), strict=True):
        assert torch.equal(got, want) and want.isfinite()
    kept = SOME.bool()
    short = losses.clipped_surrogate(clean[kept], old[kept], advantage[kept], torch.ones_like(clean[kept]), clip=0.2)
    torch.testing.assert_close(all_losses(spoiled, SOME)[0], short)
    for index in range(4):
        slopes = []
        for x in (clean.clone().requires_grad_(), spoiled.clone().requires_grad_()):
            slopes.append(slope(all_losses(x, SOME)[index], x))
        assert torch.equal(slopes[0], slopes[1]) and not slopes[0][~kept].any() and slopes[0][kept].any()
    for got, want in zip(all_losses(spoiled, EVERY), all_losses(clean, SOME), strict=True):
        assert not torch.equal(got, want)


def test_a_batch_of_filler_alone_costs_nothing() -> None:
    x = random(T, B, seed=1).requires_grad_()
    nothing = torch.zeros(T, B, dtype=torch.float64)
    for loss in (
        losses.clipped_surrogate(x, x.detach(), x.detach(), nothing, clip=0.2),
        losses.value_loss(x, x + 1, nothing),
    ):
        assert loss == 0 and not slope(loss, x).any()
    assert losses.explained_variance(x, x, nothing).isnan()


def test_the_estimated_divergence_equals_the_exact_one_in_expectation_and_is_never_negative() -> None:
    old, new = random(4, seed=1).log_softmax(0), random(4, seed=2).log_softmax(0)
    exact = (old.exp() * (old - new)).sum()
    each = torch.stack([losses.approximate_kl(new[i], old[i], torch.ones(()).double()) for i in range(4)])
    torch.testing.assert_close((old.exp() * each).sum(), exact)
    assert (each >= 0).all() and exact > 0.01
    assert not torch.allclose((new.exp() * each).sum(), exact)  # actions must come from the old policy
    plain = old - new  # the naive estimator has the same mean and may be negative
    torch.testing.assert_close((old.exp() * plain).sum(), exact)
    assert (plain < 0).any()


def test_the_estimated_divergence_of_a_small_step_keeps_its_digits_in_float32() -> None:
    step = 1e-5 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    zero, weight = torch.zeros(1000), torch.ones(1000)
    want = (step.double().expm1() - step.double()).mean()
    torch.testing.assert_close(losses.approximate_kl(step, zero, weight).double(), want, rtol=1e-3, atol=0)
    naive = (step.exp() - 1 - step).mean().double()
    assert (naive / want - 1).abs() > 0.1


def test_the_explained_variance_of_known_predictions() -> None:
    target = random(T, B, seed=3)
    known = {1.0: target, 0.0: torch.full_like(target, 7.0), 0.75: 0.5 * target, -3.0: -target}
    for want, value in known.items():
        assert float(losses.explained_variance(value, target, EVERY)) == pytest.approx(want, abs=1e-12)
    assert float(losses.explained_variance(target + 3, target, EVERY)) == pytest.approx(
        1.0
    )  # a constant offset is forgiven


def test_no_weight_is_a_weight_of_ones() -> None:
    x, old, advantage = (random(T, B, seed=seed) for seed in (1, 2, 3))
    half = EVERY.clone()
    half[: T // 2] = 0

    def each(weight: Tensor | None) -> list[Tensor]:
        return [
            losses.weighted_mean(x, weight),
            losses.clipped_surrogate(x, old, advantage, weight, clip=0.2),
            losses.value_loss(x, advantage, weight, old_value=old, clip=0.2),
            losses.approximate_kl(x, old, weight),
        ]

    torch.testing.assert_close(each(None), each(EVERY))
    for none, part in zip(each(None), each(half), strict=True):
        assert not torch.allclose(none, part), "the arm that must fail"
