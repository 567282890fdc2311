"""Hosts of a transform: around one environment, or around many in any of the three autoreset modes.

mode        rows that ended                                the transform
SAME_STEP   observation is the next episode's first,       the state reached is seen with the memory it ended with,
            final_obs the state reached                    then its memory starts anew
NEXT_STEP   the next call ignores its action and resets    that call is no transition: the memory starts anew
DISABLED    nothing, the caller resets them                the memory starts anew at that reset
"""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from torch import Tensor

from rlmin.envs.draws import to_signed
from rlmin.types import AnyVectorWrapper
from rlmin.wrappers.transform import Like, Memory, Transform, mix, where


class Wrapped(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """One environment, seen through a transform."""

    def __init__(self, env: gym.Env[Any, Any], transform: Transform, **arguments: Any) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, **arguments)
        gym.Wrapper.__init__(self, env)
        self.transform = transform
        self.observation_space = transform.space(env.observation_space, env.action_space)
        self._memory: Memory = {}
        self._like = Like((), None)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None or self._like.seed is None:
            self._like.seed = np.int64(to_signed(int(self.np_random.integers(1 << 62)) if seed is None else seed))
        self._memory = _open(self.transform, self._like, {} if seed is not None else self._memory)
        return self.transform.see(self._memory, observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        action = self.transform.act(self._memory, action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        ended = np.bool_(terminated or truncated)
        self._memory, given = self.transform.after(self._memory, np.asarray(action), np.float64(reward), ended)
        return self.transform.see(self._memory, observation), float(given), terminated, truncated, info


class VectorWrapped(AnyVectorWrapper):
    """A vector environment, seen through a transform. Tensors stay tensors."""

    def __init__(self, env: VectorEnv[Any, Any, Any], transform: Transform) -> None:
        super().__init__(env)
        mode = (env.metadata or {}).get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ValueError(f"{env}: expected metadata['autoreset_mode'] to be an AutoresetMode, got {mode!r}")
        self.mode, self.transform = mode, transform
        self.single_observation_space = transform.space(env.single_observation_space, env.single_action_space)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._like = Like((env.num_envs,), None)
        self._memory: Memory = {}
        self._ended: Any = None
        self._prefix = f"wrapper{_depth(env)}."
        if hasattr(env, "get_state"):  # only then, since saving a run asks whether it exists
            self.get_state, self.set_state = self._get_state, self._set_state

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        rows = (options or {}).get("reset_mask")  # before gymnasium takes it out
        observation, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        device = _device(observation)
        self._like.device = device
        if seed is not None or self._like.seed is None:
            self._like.seed = self._seeds(seed)
        opened = _open(self.transform, self._like, {} if seed is not None else self._memory)
        if rows is None or not self._memory:
            self._memory = opened
        else:
            self._memory = mix(_as_rows(rows, device), opened, self._memory)
        self._ended = self._like.full(False, np.bool_)
        return self.transform.see(self._memory, observation), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        actions = self.transform.act(self._memory, actions if self._like.device is not None else np.asarray(actions))
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        ended = terminated | truncated
        after, given = self.transform.after(self._memory, actions, reward, ended)
        opens = {AutoresetMode.SAME_STEP: ended, AutoresetMode.NEXT_STEP: self._ended}.get(self.mode)
        if self.mode is AutoresetMode.NEXT_STEP:
            given = where(self._ended, reward, given)
        if self.mode is AutoresetMode.SAME_STEP and "final_obs" in infos:
            infos = {**infos, "final_obs": self._final(after, infos["final_obs"])}
        if opens is not None:
            after = mix(opens, _open(self.transform, self._like, after), after)
        self._memory, self._ended = after, ended
        return self.transform.see(after, observation), given, terminated, truncated, infos

    def _final(self, memory: Memory, final: Any) -> Any:
        """`final_obs` through the transform: a batch, or an array with one observation or None a row."""
        if not (isinstance(final, np.ndarray) and final.dtype == object):
            return self.transform.see(memory, final)
        seen = np.full(len(final), None, dtype=object)
        for row, one in enumerate(final):
            if one is not None:
                seen[row] = self.transform.see({name: part[row] for name, part in memory.items()}, one)
        return seen

    def _get_state(self) -> dict[str, Tensor]:
        """The environment's state, the transform's memory and its seeds, as tensors."""
        own = {**self._memory, "seed": self._like.seed}
        own = {self._prefix + name: torch.as_tensor(part).clone() for name, part in own.items()}
        inner: dict[str, Tensor] = self.env.get_state()  # type: ignore[attr-defined]
        return inner | own

    def _set_state(self, state: dict[str, Tensor]) -> Any:
        """Continue from `get_state()` of an environment wrapped in the same way; returns its observation."""
        own = {name: part for name, part in state.items() if name.startswith(self._prefix)}
        observation = self.env.set_state({name: part for name, part in state.items() if name not in own})  # type: ignore[attr-defined]
        device = self._like.device = _device(observation)
        memory = {name.removeprefix(self._prefix): _as_rows(part, device) for name, part in own.items()}
        self._like.seed = memory.pop("seed")
        self._memory, self._ended = memory, self._like.full(False, np.bool_)
        return self.transform.see(memory, observation)

    def _seeds(self, seed: int | list[int] | None) -> Any:
        if seed is None:
            random = self.env.np_random  # of gymnasium's own vector environments: one for each, in a tuple
            random = copy.deepcopy(random[0] if isinstance(random, tuple) else random)  # theirs does not change
            seed = int(random.integers(1 << 62))
        seeds = range(seed, seed + self.num_envs) if isinstance(seed, int) else seed
        return _as_rows(np.array([to_signed(number) for number in seeds], dtype=np.int64), self._like.device)


def _open(transform: Transform, like: Like, before: Memory) -> Memory:
    """Memory of new episodes, which it counts if it draws random numbers."""
    memory = transform.start(like)
    if "episode" in memory and "episode" in before:
        memory["episode"] = before["episode"] + 1
    return memory


def _depth(env: Any) -> int:
    """Number of transforms around the environment."""
    inside = 0
    while isinstance(env, VectorWrapper):
        inside, env = inside + isinstance(env, VectorWrapped), env.env
    return inside


def _device(observation: Any) -> torch.device | None:
    """Device of a batched observation; None for numpy."""
    while isinstance(observation, dict | tuple):
        observation = next(iter(observation.values())) if isinstance(observation, dict) else observation[0]
    return observation.device if isinstance(observation, Tensor) else None


def _as_rows(x: Any, device: torch.device | None) -> Any:
    return np.asarray(x) if device is None else torch.as_tensor(x).to(device)
