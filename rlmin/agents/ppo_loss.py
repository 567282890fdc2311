"""The loss of one minibatch of PPO, down to the gradients of the weights."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rlmin.agents.ppo_config import PPOConfig
from rlmin.kernels import ppo_loss
from rlmin.learning.losses import clipped_surrogate, ratio_penalty, step_kl, value_loss, weighted_mean
from rlmin.policy import PolicyOutput

if TYPE_CHECKING:
    from tensordict import TensorDict


class Weights(NamedTuple):
    """Settings of the loss that may change from update to update."""

    entropy: float
    clip: float
    fused: Tensor  # these and the constant ones, for `rlmin.kernels.ppo_loss`


def make_weights(config: PPOConfig, like: Tensor, *, entropy: float, clip: float) -> Weights:
    """The settings of an update, on the device of `like`."""
    constant = {name: getattr(config, name) for name in ("ratio_penalty", "value_weight", "value_clip")}
    return Weights(entropy, clip, ppo_loss.settings_of(like, entropy=entropy, clip=clip, **constant))


def columns_of(batch: "TensorDict", config: PPOConfig, *, filler: bool) -> list[str]:
    """The columns that a gradient step reads; filler rows are rare, and losses are faster without them."""
    names = ["observation", "start", "action", "log_prob", "advantage", "target"]
    if config.value_clip is not None:
        names.append("value")
    if filler:
        names.append("filler")
    return names + [name for name in ("action_mask",) if name in batch.keys()]  # noqa: SIM118, of a TensorDict


def backward_loss(
    out: PolicyOutput, part: "TensorDict", unit: Tensor, config: PPOConfig, weights: Weights
) -> dict[str, Tensor]:
    """Add the gradient of the loss to the weights of the policy.

    Args:
        out: what the policy says now about the minibatch.
        part: the minibatch [W, rows] of a rollout with advantages and targets.
        unit: scalar that values are learned in.

    Returns:
        scalars by name, without gradient: means over rows that are no filler, and `kl_max`.
    """
    weight = (~part["filler"]).float() if "filler" in part.keys() else None  # noqa: SIM118, of a TensorDict
    old = part["value"] if config.value_clip is not None else None
    if not ppo_loss.usable(out.value, unit):
        return _backward_parts(out, part, weight, old, unit, config, weights)
    log_prob, entropy = out.distribution.log_prob_and_entropy(part["action"])
    constant = (part["log_prob"], part["advantage"], part["target"], unit, weights.fused)
    found = ppo_loss.ppo_loss(log_prob, entropy, out.value, *constant, weight=weight, old_value=old)
    torch.autograd.backward((log_prob, entropy, out.value), found[1:])
    return dict(zip(ppo_loss.MEASURED, found.measured.unbind(), strict=True))


def _backward_parts(
    out: PolicyOutput,
    part: "TensorDict",
    weight: Tensor | None,
    old: Tensor | None,
    unit: Tensor,
    config: PPOConfig,
    weights: Weights,
) -> dict[str, Tensor]:
    """`backward_loss` by torch's operations."""
    clip, before = weights.clip, part["log_prob"]
    log_prob = out.distribution.log_prob(part["action"])
    policy_loss = clipped_surrogate(log_prob, before, part["advantage"], weight, clip=clip)
    penalty = ratio_penalty(log_prob, before, weight, clip=clip)
    old = None if old is None else old / unit
    critic_loss = value_loss(out.value / unit, part["target"] / unit, weight, old_value=old, clip=config.value_clip)
    entropy = weighted_mean(out.distribution.entropy(), weight)
    loss = policy_loss + config.ratio_penalty * penalty + config.value_weight * critic_loss - weights.entropy * entropy
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        ratio, kl = (log_prob - before).exp(), step_kl(log_prob, before, weight)
        return {
            "loss": loss.detach(),
            "policy_loss": policy_loss.detach(),
            "value_loss": critic_loss.detach(),
            "entropy": entropy.detach(),
            "ratio_penalty": penalty.detach(),
            "approx_kl": weighted_mean(kl, weight),
            "clip_fraction": weighted_mean(((ratio - 1).abs() > clip).float(), weight),
            "kl_max": kl.max(),
        }
