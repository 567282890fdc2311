"""A stable-baselines3 VecEnv as `Step` records: always reset in the same step, infos a list of dicts.

A VecEnv promises `num_envs`, its two spaces, `reset` and `step`. `seed` and `reset_infos`, which DummyVecEnv adds, are
used if they exist.
"""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor

from rlmin.types import Observation, Step
from rlmin.vector.base import MASK, SUCCESS, Vector
from rlmin.vector.make import make_one


class SB3Vector(Vector):
    """A stable-baselines3 VecEnv; wrappers such as VecNormalize or VecFrameStack are part of it."""

    def __init__(self, env: Any, *, device: torch.device | str, seed: int | None) -> None:
        super().__init__(
            env,
            num_envs=env.num_envs,
            observation_space=env.observation_space,
            action_space=env.action_space,
            mode="stable-baselines3 VecEnv",
            device=device,
            seed=seed,
        )

    @property
    def fills(self) -> bool:
        """See `Vector.fills`."""
        return False

    def reset(self, seed: int | None = None) -> Step:
        seed = self._first_seed(seed)
        if seed is not None and not self._try_seed(seed):
            warnings.warn("this VecEnv takes no seed, so another run has other episodes", stacklevel=2)
        raw = self._call(self.env.reset)
        self.heard = raw, self._reset_infos()
        mask, known = self._mask(raw, self._reset_infos())
        return self._open_episodes(self._observe(raw), self._settle_mask(mask, known, None))

    def step(self, action: Tensor) -> Step:
        self._check_action(action)
        chosen = action.detach().cpu().numpy().astype(self.action_space.dtype, copy=False)
        raw, reward, done, infos = self._call(self.env.step, chosen)
        self.heard = raw, infos
        ended = self._column("done", done, torch.bool)
        rows: list[int] = ended.nonzero().flatten().tolist()
        observation = self._observe(raw)
        truncated = torch.zeros_like(ended)
        for row in rows:
            truncated[row] = bool(infos[row].get("TimeLimit.truncated", False))
        fresh = self._reset_infos()  # the infos of an ended row are those of its last step
        latest = [fresh[row] if over else info for row, (over, info) in enumerate(zip(done, infos, strict=True))]
        mask, known = self._mask(raw, latest)
        return Step(
            observation=observation,
            reward=self._column("reward", reward, torch.float32),
            terminated=ended & ~truncated,
            truncated=truncated,
            start=ended,
            filler=torch.zeros_like(ended),
            final_observation=self._final(observation, infos, rows, truncated) if rows else None,
            action_mask=self._settle_mask(mask, known, None),
            success=self._settle_success(self._success(infos, rows)),
        )

    def infos(self, step: Step) -> list[dict[str, Any]]:
        """See `Vector.infos`."""
        return list(self.heard[1])

    def _try_seed(self, seed: int) -> bool:
        """Seed it, and return whether that was possible."""
        try:
            self.env.seed(seed)
        except (AttributeError, NotImplementedError):
            return False
        return True

    def _reset_infos(self) -> list[dict[str, Any]]:
        """The infos of the latest resets; empty if the VecEnv does not keep them."""
        found = getattr(self.env.unwrapped, "reset_infos", None)
        return [{} for _ in range(self.num_envs)] if found is None else list(found)

    def _final(
        self, observation: Observation, infos: list[dict[str, Any]], rows: list[int], truncated: Tensor
    ) -> Observation:
        """The states reached; that of a terminated row may be missing, as its value is 0 in any case."""
        key = "terminal_observation"
        known = [row for row in rows if key in infos[row]]
        reported = {row: infos[row][key] for row in known}
        for row in rows:
            if reported.get(row) is None and (row in reported or bool(truncated[row])):
                raise ValueError(f"environment {row} ended{self._where()} without infos[{key!r}]")
        return self._patch(observation, reported, known) if known else observation

    def _success(self, infos: list[dict[str, Any]], rows: list[int]) -> Tensor | None:
        reported = {row: infos[row][key] for row in rows for key in SUCCESS if key in infos[row]}
        if not reported:
            return None
        success = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        for row, value in reported.items():
            success[row] = bool(value)
        return success

    def _mask(self, raw: Any, infos: list[dict[str, Any]]) -> tuple[Tensor | None, Tensor | None]:
        if self._mask_observed:
            return torch.from_numpy(np.array(raw[MASK], dtype=bool)).flatten(1).to(self.device), None
        if self._masked is False and MASK not in infos[0]:
            return None, None
        known = torch.tensor([MASK in info for info in infos])
        if not known.any():
            return None, None
        width = next(np.size(info[MASK]) for info in infos if MASK in info)
        rows = [np.ravel(info[MASK]) if MASK in info else np.ones(width) for info in infos]
        return torch.from_numpy(np.array(rows, dtype=bool)).to(self.device), known.to(self.device)


def as_vec_env(env: Any, rows: int, kwargs: dict[str, Any]) -> VecEnv:
    """The VecEnv that stable-baselines3's algorithms make: a DummyVecEnv, each environment in a Monitor.

    Args:
        env: a gymnasium id, of which `rows` are made (rendered as pictures if possible), or a gymnasium environment.
        rows: B.
        kwargs: arguments of the environment's constructor, if `env` is an id.

    Raises:
        TypeError: `env` is neither.
        ValueError: there is no such environment, or its arguments do not fit.
    """
    if not isinstance(env, str | gym.Env):
        several = callable(env) or isinstance(env, list | tuple)
        hint = "; several, or functions that make them, are one DummyVecEnv" if several else ""
        raise TypeError(f"env: expected an id, a gymnasium Env or a VecEnv, got {type(env).__name__}{hint}")

    def make() -> gym.Env[Any, Any]:
        one = _drawable(env, kwargs) if isinstance(env, str) else env
        return one if is_wrapped(one, Monitor) else Monitor(one)

    return DummyVecEnv([make] * rows)


def _drawable(id: str, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
    """One environment, rendered as pictures if it can be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*render_mode", UserWarning)  # gymnasium's, where it has none
        try:
            return make_one(id, **{"render_mode": "rgb_array", **kwargs})
        except TypeError:  # it takes no render_mode
            return make_one(id, **kwargs)
