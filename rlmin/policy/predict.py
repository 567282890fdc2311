"""Acting from outside: the stable-baselines3 signature, for any policy."""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rlmin.policy.policy import Policy
from rlmin.settings.boundary import checked
from rlmin.spaces import leaves_of, pick, to_observation
from rlmin.types import Observation, State
from rlmin.wrappers.return_to_go import RETURN_TO_GO

PolicyState: TypeAlias = tuple[State, Tensor]
"""What `predict` returns and takes again: the memory and the last action, each [B, ...]."""


@torch.no_grad()
@checked
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
        action_mask: [B, A] bool, True is legal; None: the entry "action_mask" of a dict observation, if there is one.
            Ignored where the action is a Box.
        generator: source of the samples.

    Returns:
        actions in the environment's own form, [B, ...] (without B where a single observation came in), and the state
        to pass to the next call.

    Raises:
        FloatingPointError: the observation holds NaN or infinity; the memory is as it was.
        ValueError: the observation does not fit the policy's space, another argument does not fit its rows, or the
            policy needs `reward` and has none.
    """
    device = policy.device
    if action_mask is None and isinstance(observation, Mapping):
        action_mask = observation.get("action_mask")
    space = policy.acting_space
    _check_alone(observation, space)
    _check_return_to_go(observation, space)
    single = _is_single(observation, space)
    leaves = to_observation(_add_batch(observation, space) if single else observation, space, device)
    _check_finite(leaves)
    rows = next(iter(leaves.values())).shape[0]
    memory, last = _unpack(policy, state, rows)
    if episode_start is None:
        start = torch.full((rows,), state is None, device=device)
    else:
        start = _rows("episode_start", episode_start, (rows,), torch.bool, device)
    leaves = policy.with_previous(leaves, last, _read_reward(policy, reward, start))
    flags, mask = policy.action_head.mask_size, None
    if action_mask is not None and flags:
        mask = _rows("action_mask", action_mask, (rows, flags), torch.bool, device)
    out = policy.step(leaves, memory, start, mask)
    action = out.distribution.mode() if deterministic else out.distribution.sample(generator)
    chosen = policy.action_head.to_env(action).cpu().numpy().astype(policy.action_space.dtype, copy=False)
    if single:  # a choice as a number that can index a list or a dict; a point as an array even if it has no axes
        chosen = chosen[0] if isinstance(policy.action_space, gym.spaces.Discrete) else chosen[0, ...]
    return chosen, (out.state, action)


def _check_alone(observation: Any, space: gym.Space[Any]) -> None:
    """Raise a ValueError for what `env.reset()` returns, unless it is a Tuple that was seen."""
    if isinstance(space, gym.spaces.Tuple) or not isinstance(observation, tuple):
        return
    if len(observation) == 2 and isinstance(observation[1], dict):
        raise ValueError("observation: got (observation, info), as env.reset() returns it; give the first alone")


def _check_return_to_go(observation: Any, space: gym.Space[Any]) -> None:
    """Raise a ValueError that says how to give a return to aim for, if the observation has none."""
    wanted = isinstance(space, gym.spaces.Dict) and RETURN_TO_GO in space.spaces
    if wanted and not (isinstance(observation, Mapping) and RETURN_TO_GO in observation):
        hint = "wrap the environment in ReturnToGo(env, target, scale=agent.return_scale), or act by agent.actor(...)"
        raise ValueError(f"predict: the observation has no return to aim for, {RETURN_TO_GO!r}; {hint}")


def _check_finite(leaves: Observation) -> None:
    for name, leaf in leaves.items():
        if leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
            raise FloatingPointError(f"predict: observation {name!r} holds NaN or infinity")


def _unpack(policy: Policy, state: PolicyState | None, rows: int) -> PolicyState:
    """The memory and the last action in `state`, or those before the first step."""
    if state is None:
        return policy.initial_state(rows), policy.no_action(rows)
    if not (isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], Tensor)):
        raise TypeError(f"state: expected what the last call returned, or None, got {type(state).__name__}")
    if state[1].shape[0] != rows:
        raise ValueError(f"state: expected {rows} rows as in the observation, got {state[1].shape[0]}")
    return state


def _read_reward(policy: Policy, reward: Any, start: Tensor) -> Tensor:
    """[B] float, the previous reward; zeros where none is given and none is needed."""
    if policy.config.previous_reward and reward is None and not bool(start.all()):
        raise ValueError(
            "predict: this policy reads the previous reward; pass reward=, what the last action earned, shape [B]"
        )
    reward = torch.zeros(len(start)) if reward is None else reward
    return _rows("reward", reward, (len(start),), torch.float32, start.device)


def _is_single(observation: Any, space: gym.Space[Any]) -> bool:
    """Whether the observation is that of one environment, without the axis B."""
    leaf = leaves_of(space)[0]
    try:
        return np.ndim(pick(observation, leaf.path)) == len(leaf.shape)
    except (KeyError, IndexError, TypeError):
        return False  # a leaf is missing: `to_observation` says which


def _add_batch(observation: Any, space: gym.Space[Any]) -> Any:
    """The same observation with an axis B of one in front of every leaf."""
    if isinstance(space, gym.spaces.Dict):
        return {key: _add_batch(observation[key], part) for key, part in space.items() if key in observation}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_add_batch(part, inner) for part, inner in zip(observation, space, strict=False))
    return observation[None] if isinstance(observation, Tensor | np.ndarray) else [observation]


def _rows(name: str, x: Any, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`x` as a tensor of `shape`; what belongs to a single environment may lack the axis B."""
    try:
        tensor = torch.as_tensor(x if isinstance(x, Tensor) else np.asarray(x), dtype=dtype, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        what = "flags" if dtype is torch.bool else "numbers"
        raise ValueError(f"{name}: expected {what}, {list(shape)}, got {x!r:.60}") from error
    if tensor.numel() != math.prod(shape):
        raise ValueError(f"{name}: expected {list(shape)}, got {list(tensor.shape)}")
    return tensor.reshape(shape)
