"""A target return, counted down by the rewards: the input of a return-conditioned policy."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from rlmin.settings import Positive, check_setting
from rlmin.settings.boundary import checked
from rlmin.wrappers.host import VectorWrapped, Wrapped
from rlmin.wrappers.previous import as_leaf
from rlmin.wrappers.transform import Like, Memory, Rows, Transform, with_entry, with_leaf

RETURN_TO_GO = "return_to_go"


class _ReturnToGo(Transform):
    def __init__(self, target: float | Sequence[float], scale: float) -> None:
        if not scale > 0:
            raise ValueError(f"ReturnToGo: scale={scale}: expected a number above 0")
        target = check_setting("target", target, float | tuple[float, ...])
        self.target, self.scale = np.asarray(target, dtype=np.float64), scale
        if not np.isfinite(self.target).all():
            raise ValueError(f"ReturnToGo: target={target}: expected finite numbers")

    def space(self, observation: gym.Space[Any], action: gym.Space[Any]) -> gym.Space[Any]:
        return with_leaf(observation, RETURN_TO_GO, spaces.Box(-np.inf, np.inf, (1,), np.float32))

    def start(self, rows: Like) -> Memory:
        return {"left": rows.each(self.target, np.float64)}

    def after(self, memory: Memory, action: Rows, reward: Rows, ended: Rows) -> tuple[Memory, Rows]:
        return {"left": memory["left"] - reward}, reward

    def see(self, memory: Memory, observation: Any) -> Any:
        return with_entry(observation, RETURN_TO_GO, as_leaf(memory["left"] / self.scale))


class ReturnToGo(Wrapped):
    """Adds "return_to_go" [1] float32: the target minus the rewards received so far, divided by `scale`.

        return_to_go[0] = target / scale;    return_to_go[t+1] = return_to_go[t] - reward[t] / scale

    Args:
        env: one environment.
        target: target return, env units.
        scale: env units that are shown as 1.

    Source: Chen et al. 2021, decision transformer (arXiv:2106.01345).
    """

    @checked
    def __init__(self, env: gym.Env[Any, Any], target: float, *, scale: Positive = 1.0) -> None:
        super().__init__(env, _ReturnToGo(target, scale), target=target, scale=scale)


class VectorReturnToGo(VectorWrapped):
    """`ReturnToGo` of every environment; `target` is one number, or one for each environment."""

    @checked
    def __init__(
        self, env: VectorEnv[Any, Any, Any], target: float | Sequence[float], *, scale: Positive = 1.0
    ) -> None:
        if np.ndim(target) == 1 and len(np.asarray(target)) != env.num_envs:
            raise ValueError(f"ReturnToGo: expected 1 or {env.num_envs} targets, got {len(np.asarray(target))}")
        super().__init__(env, _ReturnToGo(target, scale))
