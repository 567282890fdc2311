"""Gymnasium environments as a native vector environment: tensors in, tensors out, SAME_STEP."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor


class Tensors(VectorEnv[Any, Any, Any]):
    """`num_envs` environments of `make`."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], num_envs: int) -> None:
        self.inner = SyncVectorEnv([make] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        self.num_envs = num_envs
        self.single_observation_space = self.inner.single_observation_space
        self.single_action_space = self.inner.single_action_space

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return torch.from_numpy(self.inner.reset(seed=seed)[0]), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert isinstance(actions, Tensor)
        raw, reward, terminated, truncated, infos = self.inner.step(actions.numpy())
        final = raw.copy()
        for row in np.flatnonzero(terminated | truncated):
            final[row] = infos["final_obs"][row]
        out = {"final_obs": torch.from_numpy(final)}
        if "final_info" in infos and "is_success" in infos["final_info"]:
            out["is_success"] = torch.from_numpy(infos["final_info"]["is_success"])
        ends = torch.from_numpy(terminated), torch.from_numpy(truncated)
        return torch.from_numpy(raw), torch.from_numpy(reward), *ends, out
