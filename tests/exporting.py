"""What the tests of exported policies share: random policies, and an environment that shows anything."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlmin.policy import Policy, PolicyConfig
from rlmin.vector import Vector, adapt

BOX = spaces.Box(-2, 2, (5,))
POINT = spaces.Box(-np.inf, np.inf, (2,), np.float64)

OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "numbers": BOX,
    "one number": spaces.Box(-1, 1, ()),
    "whole numbers": spaces.Box(-3, 9, (2, 3), np.int64),
    "unbounded whole numbers": spaces.Box(-40_000, 40_000, (4,), np.int64),
    "choice": spaces.Discrete(4, start=-2),
    "choices": spaces.MultiDiscrete(np.array([[3, 4], [2, 5]])),
    "bits": spaces.MultiBinary(3),
    "symbols": spaces.Box(0, 255, (4, 5, 3), np.uint8),
    "small picture": spaces.Box(0, 255, (18, 20, 3), np.uint8),
    "picture of floats, channels first": spaces.Box(0, 1, (3, 17, 19), np.float32),
    "grey picture": spaces.Box(0, 255, (40, 37), np.uint8),
    "several": spaces.Dict(
        [
            ("b", spaces.Box(-1, 1, (3,))),
            ("a", spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 255, (16, 17), np.uint8)])),
        ]
    ),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "choice": spaces.Discrete(3, start=1),
    "choices": spaces.MultiDiscrete([2, 4, 3]),
    "bits": spaces.MultiBinary(2),
    "point": spaces.Box(np.array([-2, 0, -np.inf], np.float32), np.array([3, 1, np.inf], np.float32)),
}


def make(
    observation: spaces.Space[Any] = BOX,
    action: spaces.Space[Any] = POINT,
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> Policy:
    """A policy with random weights everywhere, so that every part of it has a say."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        policy = Policy(observation, action, PolicyConfig(**{"width": 6, **settings})).to(dtype).eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in policy.parameters():
        parameter.data += 0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype)
    for name, buffer in policy.named_buffers():
        if name.endswith(("norm.mean", "norm.var")):
            buffer += 0.5 * torch.rand(buffer.shape, generator=generator, dtype=torch.float64)
    return policy


class Anything(gym.Env[Any, Any]):
    """Shows samples of its space; episodes end by chance; with `masked`, some choices are forbidden."""

    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any], masked: int = 0) -> None:
        self.observation_space, self.action_space, self.masked = observation, action, masked

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        over = bool(self.np_random.random() < 0.03)
        return self.observation_space.sample(), float(self.np_random.normal()), over, False, self._info()

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.np_random.random(self.masked) < 0.6} if self.masked else {}


def anything(policy: Policy, rows: int, *, masked: bool = False) -> Vector:
    """`rows` environments with the spaces of a policy."""
    flags = policy.action_head.mask_size if masked else 0
    makers = [lambda: Anything(policy.observation_space, policy.action_space, flags)] * rows
    return adapt(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP))
