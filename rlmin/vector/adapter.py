"""Adapting: a `Vector` from anything that a user calls an environment."""

import sys
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from rlmin.envs.tensor_env import TensorEnv
from rlmin.settings import Positive, Seed, Size, Workers
from rlmin.settings.boundary import checked
from rlmin.vector.base import Vector
from rlmin.vector.gym import GymVector
from rlmin.vector.make import make_vec
from rlmin.vector.workers import STEP_TIMEOUT, has_processes, watch


@checked
def adapt(
    env: Any,
    *,
    num_envs: Size | None = None,
    device: torch.device | str = "cpu",
    seed: Seed | None = None,
    env_kwargs: dict[str, Any] | None = None,
    workers: Workers = 0,
    step_timeout: Positive | None = STEP_TIMEOUT,
) -> Vector:
    """A `Vector` from anything that a user calls an environment.

    Args:
        env: an id, a gymnasium vector environment (any autoreset mode, arrays or tensors), a stable-baselines3 VecEnv,
            one gymnasium environment (B = 1), or a `Vector`, which is returned as it is.
        num_envs, env_kwargs, workers: for an id, see `make_vec`; num_envs None: one. A made environment has its own
            number, arguments and processes: others are an error.
        device: device of the tensors of a `Step`.
        seed: seed of the first reset.
        step_timeout: seconds that a worker process of an AsyncVectorEnv, or of a SubprocVecEnv of stable-baselines3,
            may take for a step; None: no limit. Any other vector environment may keep processes its own way, so a call
            of it is ended too (`rlmin.vector.deadline`). What SyncVectorEnv, DummyVecEnv and native environments run
            in this process is never interrupted.

    Raises:
        TypeError: `env` is none of these.
        ValueError: an unknown id, an unsupported space or autoreset mode, a missing device, or an argument for ids
            beside an environment.
    """
    if isinstance(env, str):
        options: dict[str, Any] = {"workers": workers, "step_timeout": step_timeout}
        env = make_vec(env, 1 if num_envs is None else num_envs, device=device, **options, **(env_kwargs or {}))
    else:
        _check_made(env, num_envs=num_envs, env_kwargs=env_kwargs, workers=workers)
    if isinstance(env, Vector):
        return env
    if isinstance(env, gym.Env):
        env = _alone(env)
    if isinstance(env, VectorEnv):
        if isinstance(env.unwrapped, AsyncVectorEnv):
            watch(env.unwrapped, step_timeout)
        return _limit(GymVector(env, device=device, seed=seed), step_timeout)
    sb3 = sys.modules.get("stable_baselines3.common.vec_env.base_vec_env")  # loaded, if the user has made a VecEnv
    if sb3 is not None and isinstance(env, sb3.VecEnv):
        from rlmin.vector.sb3 import SB3Vector  # needs stable-baselines3, which the user has imported

        if has_processes(env.unwrapped):
            watch(env.unwrapped, step_timeout)
        return _limit(SB3Vector(env, device=device, seed=seed), step_timeout, _dummy())
    if isinstance(env, type):
        raise TypeError(f"env: expected an environment, got the class {env.__name__}; make one, {env.__name__}()")
    found = _kind(env)
    if isinstance(env, list | tuple) or callable(env):
        found += "; several, or functions that make them, are one DummyVecEnv"
    raise TypeError(f"env: expected an id, a gymnasium Env or VectorEnv or a stable-baselines3 VecEnv, got {found}")


def _kind(env: Any) -> str:
    return f"{type(env).__module__}.{type(env).__name__}"


def _dummy() -> type:
    """Stable-baselines3's VecEnv of environments in this process."""
    kind: type = sys.modules["stable_baselines3.common.vec_env.dummy_vec_env"].DummyVecEnv
    return kind


def _limit(vector: Vector, timeout: float | None, *in_process: type) -> Vector:
    """`vector`, whose calls have a limit of time unless its environments run in this process or are watched."""
    env = vector.env.unwrapped
    known = isinstance(env, (SyncVectorEnv, AsyncVectorEnv, TensorEnv, *in_process)) or has_processes(env)
    vector.limit = None if known else timeout
    return vector


def _check_made(env: Any, *, num_envs: int | None, env_kwargs: Mapping[str, Any] | None, workers: int) -> None:
    """Raise a ValueError for arguments that need an id, beside an environment that is already made."""
    rows = 1 if isinstance(env, gym.Env) else getattr(env, "num_envs", num_envs)
    unheard = {"env_kwargs": env_kwargs, "workers": workers, "num_envs": num_envs if num_envs != rows else None}
    for name, value in unheard.items():
        if value:
            found = f" and has {rows} row{'' if rows == 1 else 's'}" if name == "num_envs" else ""
            raise ValueError(f"{name}={value}: this environment is made already{found}; give its id instead")


def _alone(env: gym.Env[Any, Any]) -> VectorEnv[Any, Any, Any]:
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, gym.wrappers.Autoreset):
            raise ValueError("remove gymnasium.wrappers.Autoreset: rlmin resets ended episodes itself")
        layer = layer.env
    return SyncVectorEnv([lambda: env], autoreset_mode=AutoresetMode.SAME_STEP)
