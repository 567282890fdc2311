"""PPO's loss, its slopes and what is logged of it as one operation, away from the CPU with numba.

    loss = policy_loss + ratio_penalty_weight * ratio_penalty + value_weight * value_loss - entropy_weight * entropy

The parts are those of `rlmin.learning.losses`, which torch computes with about a hundred small launches a gradient
step. All slopes are known in closed form, so they come with the loss, and backward begins at the policy's outputs. The
settings are a tensor: a recorded graph reads them anew each time.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlmin.kernels.operators import define, load_gpu
from rlmin.kernels.operators import usable as usable

MEASURED = (
    "loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "ratio_penalty",
    "approx_kl",
    "clip_fraction",
    "kl_max",
)
SETTINGS = ("clip", "ratio_penalty", "value_weight", "entropy", "value_clip")


class Slopes(NamedTuple):
    """What `ppo_loss` returns."""

    measured: Tensor  # [8] in the order of MEASURED; means over rows of weight 1, and the largest divergence
    log_prob: Tensor  # slopes of the loss, in the shape of log_prob
    entropy: Tensor
    value: Tensor


@torch.no_grad()
def ppo_loss(
    log_prob: Tensor,
    entropy: Tensor,
    value: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    target: Tensor,
    unit: Tensor,
    settings: Tensor,
    *,
    weight: Tensor | None = None,
    old_value: Tensor | None = None,
) -> Slopes:
    """The loss of a minibatch and its slopes with respect to the policy's outputs.

    Args:
        log_prob, entropy, value: what the policy says now, of one shape.
        old_log_prob, advantage, target: of the rollout, in that shape.
        unit: scalar; value and target are divided by it.
        settings: [5] in the order of SETTINGS, on the same device.
        weight: 1 for real rows and 0 for filler; None: all are real.
        old_value: of the rollout; given, values are clipped at the distance `value_clip` from it.

    Returns:
        see `Slopes`. No gradient flows: call backward on the outputs, with these slopes.
    """
    flat = [x.contiguous() for x in (log_prob, entropy, value, old_log_prob, advantage, target)]
    return Slopes(*_operator(*flat, unit, settings, weight, old_value))


def settings_of(like: Tensor, **values: float | None) -> Tensor:
    """The settings as a tensor; a value of None is 0, which nothing reads."""
    return torch.tensor([values[name] or 0.0 for name in SETTINGS], dtype=like.dtype, device=like.device)


def _run(*tensors: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gpu = load_gpu("ppo_loss_gpu", tensors[0].device)
    return _compute(*tensors) if gpu is None else gpu.ppo_loss(*tensors)


def _compute(
    log_prob: Tensor,
    entropy: Tensor,
    value: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    target: Tensor,
    unit: Tensor,
    settings: Tensor,
    weight: Tensor | None,
    old_value: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    clip, penalty_weight, value_weight, entropy_weight, value_clip = settings
    one = torch.ones_like(log_prob)
    keep = one if weight is None else weight.to(one.dtype)
    count, real = keep.sum().clamp(min=1), keep > 0

    def mean(x: Tensor) -> Tensor:
        return torch.where(real, x, 0).sum() / count

    log_ratio = torch.where(real, log_prob - old_log_prob, 0)
    ratio = log_ratio.exp()
    whole, cut = ratio * advantage, torch.minimum(torch.maximum(ratio, 1 - clip), 1 + clip) * advantage
    inside = (ratio >= 1 - clip) & (ratio <= 1 + clip)
    dgain = torch.where(inside | (whole < cut), whole, 0)
    excess = (log_ratio.abs() - torch.log1p(clip)).clamp(min=0)
    error, slope = _value_error(value, target, unit, old_value, value_clip)
    kl = log_ratio.expm1() - log_ratio
    parts = [-mean(torch.minimum(whole, cut)), mean(error), mean(entropy), 0.5 * mean(excess.square()), mean(kl)]
    policy, critic, spread, penalty, _ = parts
    loss = policy + penalty_weight * penalty + value_weight * critic - entropy_weight * spread
    off = mean(((ratio - 1).abs() > clip).to(one.dtype))
    share = torch.where(real, one / count, 0)
    dlog_prob = share * (penalty_weight * excess * log_ratio.sign() - torch.where(real, dgain, 0))
    dvalue = value_weight * share * torch.where(real, slope, 0)
    return torch.stack([loss, *parts, off, kl.max()]), dlog_prob, -entropy_weight * share, dvalue


def _value_error(
    value: Tensor, target: Tensor, unit: Tensor, old_value: Tensor | None, clip: Tensor
) -> tuple[Tensor, Tensor]:
    """Half the squared error in `unit`, and its slope."""
    error = (value - target) / unit
    if old_value is None:
        return 0.5 * error.square(), error / unit
    far = (value - old_value) / unit
    held = torch.minimum(torch.maximum(far, -clip), clip) + (old_value - target) / unit
    larger = (far.abs() > clip) & (held.square() > error.square())
    return 0.5 * torch.where(larger, held, error).square(), torch.where(larger, 0, error) / unit


def _fake(log_prob: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    slopes = (torch.empty_like(log_prob), torch.empty_like(log_prob), torch.empty_like(log_prob))
    return log_prob.new_empty(len(MEASURED)), *slopes


_INPUTS = ("log_prob", "entropy", "value", "old_log_prob", "advantage", "target", "unit", "settings")
_operator = define(
    f"ppo_loss({', '.join(f'Tensor {name}' for name in _INPUTS)}, Tensor? weight, Tensor? old_value)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _run,
    _fake,
)
