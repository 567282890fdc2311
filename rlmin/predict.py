"""Acting from outside: the stable-baselines3 signature, for any policy."""

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from rlmin.policy import Policy
from rlmin.spaces import leaves_of, pick, to_observation
from rlmin.types import State

PolicyState: TypeAlias = tuple[State, Tensor]
"""What `predict` hands back and wants again: the memory and the action taken last, each [B, ...]."""


@torch.no_grad()
def predict(
    policy: Policy,
    observation: Any,
    state: PolicyState | None = None,
    episode_start: Any = None,
    deterministic: bool = False,
    *,
    reward: Any = None,
    action_mask: Any = None,
    generator: torch.Generator | None = None,
) -> tuple[np.ndarray, PolicyState]:
    """Choose actions, one step of every environment.

    Args:
        policy: the policy.
        observation: as its environment gives it: one observation, or a batch [B, ...] (a dict or tuple of such).
        state: what the last call returned; None where nothing has been seen.
        episode_start: [B] bool, the observation opens an episode: memory is wiped before it is read. None: only
            where `state` is None.
        deterministic: the most likely action instead of a sample.
        reward: [B] float, what the last action earned, needed by a policy with `previous_reward` after the first step.
        action_mask: [B, A] bool, True is legal.
        generator: source of the samples.

    Returns:
        actions in the environment's own form, [B, ...] (without B where a single observation came in), and the state
        to pass to the next call.

    Raises:
        ValueError: the observation does not fit the policy's space, or the policy needs `reward` and has none.
    """
    device = next(policy.parameters()).device
    if action_mask is None and isinstance(observation, dict):
        action_mask = observation.get("action_mask")
    single = _is_single(observation, policy)
    leaves = to_observation(_batched(observation) if single else observation, policy.observation_space, device)
    rows = next(iter(leaves.values())).shape[0]
    memory, last = state if state is not None else (policy.initial_state(rows), policy.no_action(rows))
    if last.shape[0] != rows:
        raise ValueError(f"state: expected {rows} rows as in the observation, got {last.shape[0]}")
    if episode_start is None:
        start = torch.full((rows,), state is None, device=device)
    else:
        start = torch.as_tensor(np.asarray(episode_start), dtype=torch.bool, device=device).reshape(rows)
    if policy.config.previous_reward and reward is None and not bool(start.all()):
        raise ValueError(
            "predict: this policy reads the previous reward; pass reward=, what the last action earned, shape [B]"
        )
    earned = torch.zeros(rows, device=device) if reward is None else _row_tensor(reward, rows, device)
    leaves = policy.with_previous(leaves, last, earned)
    mask = None if action_mask is None else torch.as_tensor(np.asarray(action_mask), device=device).bool()
    mask = mask.reshape(rows, -1) if mask is not None else None
    out = policy.step(leaves, memory, start, mask)
    action = out.distribution.mode() if deterministic else out.distribution.sample(generator)
    chosen = cast(np.ndarray, policy.action_head.to_env(action).cpu().numpy())
    return (chosen[0] if single else chosen), (out.state, action)


def _is_single(observation: Any, policy: Policy) -> bool:
    """Whether the observation is that of one environment, without the axis B."""
    leaf = leaves_of(policy.observation_space)[0]
    return np.ndim(pick(observation, leaf.path)) == len(leaf.shape)


def _batched(observation: Any) -> Any:
    """The same observation with an axis B of one in front of every leaf."""
    if isinstance(observation, Mapping):
        return {key: _batched(part) for key, part in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_batched(part) for part in observation)
    return observation[None] if isinstance(observation, Tensor) else np.asarray(observation)[None]


def _row_tensor(x: Any, rows: int, device: torch.device) -> Tensor:
    return torch.as_tensor(np.asarray(x), dtype=torch.float32, device=device).reshape(rows)
