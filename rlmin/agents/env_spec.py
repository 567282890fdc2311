"""How to make an agent's environment again, for a checkpoint."""

import json
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import HumanRendering, OrderEnforcing, RenderCollection, TimeLimit

from rlmin.checks import warn_user
from rlmin.files.plain import encode
from rlmin.vector import Vector

MAKING = {"device", "num_envs", "vectorization_mode", "vector_kwargs", "wrappers"}
"""Arguments in a gymnasium spec that belong to `gym.make`, not to the environment."""

LARGEST = 2**18
"""Most letters of the arguments in a header. config.yaml holds three times as many, and at most a MiB of it is read."""


def describe_env(env: Any, env_kwargs: dict[str, Any] | None = None, workers: int = 0) -> dict[str, Any]:
    """How to make `env` again, for a checkpoint: its id and the arguments of its constructor.

    The id is None (unknown) if the environment has none, and if it has wrappers that do not come with
    the id: without them it would be another task. A time limit that is not the registered one is an argument.
    """
    if isinstance(env, str):
        return {"id": env, "kwargs": env_kwargs or {}, "workers": workers}
    env = env.env if isinstance(env, Vector) else env
    spec = getattr(env, "spec", None)
    if not isinstance(spec, EnvSpec) or _is_wrapped(env, spec):
        return {"id": None, "kwargs": {}, "workers": workers}
    arguments = {key: value for key, value in spec.kwargs.items() if key not in MAKING}
    limit = arguments.pop("max_episode_steps", _limit(env, spec))  # make_vec puts it among the arguments
    registered = gym.registry.get(spec.id)
    if limit != (None if registered is None else registered.max_episode_steps):
        arguments["max_episode_steps"] = -1 if limit is None else limit  # -1: gym.make sets no limit
    return {"id": spec.id, "kwargs": arguments, "workers": workers}


def keepable(spec: dict[str, Any]) -> dict[str, Any]:
    """How to make an environment again, as far as a file can hold it.

    Arguments without a plain form (a function, an object) make it unknown, with a warning.
    """
    try:
        size = len(json.dumps(encode(spec["kwargs"], "env_kwargs")))
        if size > LARGEST:
            raise TypeError(f"env_kwargs: cannot be written to a file, expected {LARGEST:,} letters, got {size:,}")
    except TypeError as error:
        hint = "a saved agent will not know its environment; load it with rlmin.load(folder, env=env)"
        warn_user(f"{error}: {hint}")
        return {**spec, "id": None, "kwargs": {}}
    return spec


def _limit(env: Any, spec: EnvSpec) -> int | None:
    """Steps after which `env` is truncated; the spec holds only the outermost of several time limits."""
    limits = []
    while isinstance(env, TimeLimit):
        limits.append(env._max_episode_steps)
        env = env.env
    return min(limits, default=spec.max_episode_steps)


def _is_wrapped(env: Any, spec: EnvSpec) -> bool:
    """Whether `env` has wrappers that its id does not bring."""
    if not isinstance(env, gym.Env) and env.unwrapped is not env:  # a vector wrapper
        return True
    registered = gym.registry.get(spec.id)
    known = () if registered is None else registered.additional_wrappers
    if [part.name for part in spec.additional_wrappers] == [part.name for part in known]:
        return bool(spec.kwargs.get("wrappers"))  # make_vec's
    while isinstance(env, TimeLimit | HumanRendering | RenderCollection):  # gym.make's own, in its order
        env = env.env
    return not isinstance(env, OrderEnforcing)  # the entry point's own wrappers lie below this one
