"""Vector environments by id."""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from gymnasium.envs import registration
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv

from rlmin.checks import existing as existing
from rlmin.envs.tensor_env import TensorEnv
from rlmin.files.read_yaml import parse_yaml
from rlmin.files.trust import check_import
from rlmin.settings import Positive, Seed, Size, Workers
from rlmin.settings.boundary import checked
from rlmin.vector.faults import EnvError, in_words, is_raised_in
from rlmin.vector.workers import STEP_TIMEOUT, watch, worker

PROVIDERS = {r"MiniGrid-|BabyAI-": "minigrid", r"ALE/|\w+NoFrameskip-v": "ale_py", r"popgym-": "popgym"}
"""Pattern of ids -> package that registers them on import: gymnasium has no plug-ins since 1.0."""

EXTRAS = {"ale_py": "atari", "mujoco": "mujoco", "Box2D": "box2d"}
"""Package -> the extra of rlmin that installs it."""


@checked
def make_vec(
    id: str,
    num_envs: Size,
    *,
    device: torch.device | str = "cpu",
    seed: Seed | None = None,
    workers: Workers = 0,
    step_timeout: Positive | None = STEP_TIMEOUT,
    **kwargs: Any,
) -> VectorEnv[Any, Any, Any]:
    """A vector environment by id, in SAME_STEP.

    Args:
        id: as registered with gymnasium, also "module:Name-v0".
        num_envs: B.
        device: device of a native environment, whose vector entry point takes a `device`; others compute in numpy.
        seed: seed of one first reset, which makes later unseeded resets reproducible.
        workers: above 0, environments run in processes of their own (gymnasium's AsyncVectorEnv with shared memory,
            one process for each environment) instead of one after the other; not for a native environment.
        step_timeout: seconds that such a process may take for a step or a reset; None: no limit.
        kwargs: arguments of the environment; `max_episode_steps` is gym.make's, -1 for no limit.

    Raises:
        ValueError: no such id (the message names the nearest one), a missing package, or a missing device.
    """
    device = existing(device)
    with _name_package(id):
        spec = _spec(id)
        if _is_native(spec, kwargs):
            if workers:
                why = "it steps all its environments at once, in this process"
                raise ValueError(f"workers={workers}: {id} has none, as {why}; leave it out")
            kwargs["device"] = device
            env = gym.make_vec(spec, num_envs, vectorization_mode="vector_entry_point", **kwargs)
        else:
            options: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}
            options |= {"worker": worker} if workers > 0 else {}
            mode = "async" if workers > 0 else "sync"
            env = gym.make_vec(spec, num_envs, vectorization_mode=mode, vector_kwargs=options, **kwargs)
            if isinstance(env, AsyncVectorEnv):
                watch(env, step_timeout)
    if seed is not None:
        env.reset(seed=seed)
    return env


def make_one(id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """One environment by id; arguments and errors are those of `make_vec`."""
    with _name_package(id):
        return gym.make(_spec(id), **kwargs)


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """["size=9", "layouts=null"] -> {"size": 9, "layouts": None}; values are read as YAML.

    Raises:
        ValueError: a pair without "=", or a value that is no YAML.
    """
    for pair in pairs:
        if "=" not in pair:
            key, colon, value = pair.partition(":")
            raise ValueError(f"expected key=value, got {pair!r}" + (f"; write {key}={value}" if colon else ""))
    return {key: parse_yaml(value, where=key) for key, value in (pair.split("=", 1) for pair in pairs)}


@contextmanager
def readable_errors(what: str) -> Iterator[None]:
    """Context that turns the errors of an environment's constructor for unsuitable arguments into one ValueError."""
    try:
        yield
    except (gym.error.Error, ImportError, TypeError, AssertionError, RuntimeError) as error:
        raise ValueError(f"{what}: {str(error).strip() or type(error).__name__}") from error


@contextmanager
def _name_package(id: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"environment {id!r}: {_missing(error) or error}") from error
    except gym.error.DependencyNotInstalled as error:
        cause = error.__cause__
        said = _missing(cause) if isinstance(cause, ModuleNotFoundError) else None
        raise ValueError(f"environment {id!r}: {said or error}") from error
    except (ValueError, TypeError, AssertionError, RuntimeError, ImportError, gym.error.Error):
        raise  # errors for unsuitable arguments
    except EOFError as error:
        raise EnvError(f"environment {id!r}: a worker ended while it made its environment") from error
    except (Exception, SystemExit) as error:  # any error of its author's code
        if isinstance(error, SystemExit) and is_raised_in(error, "rlmin"):
            raise  # the error of a signal's handler
        raise EnvError(f"environment {id!r}: making it failed ({in_words(error)})") from error


def _missing(error: ModuleNotFoundError) -> str | None:
    """The way to install a missing package; None if no known environments come with it."""
    package = (error.name or str(error)).partition(".")[0]
    if package not in (*PROVIDERS.values(), *EXTRAS):
        return None
    wanted = f'"rlmin[{EXTRAS[package]}]"' if package in EXTRAS else package
    return f"needs the package {package}: pip install {wanted}"


def import_provider(id: str) -> str:
    """Import the package that registers `id`, if it is known, and return the id without its module.

    Raises:
        ValueError: the id came from a file, and may not import the module that it names: see `rlmin.files.trust`.
        ImportError: there is no such module.
    """
    module, _, name = id.rpartition(":")
    module = module or next((package for pattern, package in PROVIDERS.items() if re.match(pattern, id)), "")
    if module:
        check_import(id, module, PROVIDERS.values())
        _import(module, id)
    return name


def _import(module: str, id: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        file = Path(f"{module.partition('.')[0]}.py")
        if error.name != file.stem or not (file.exists() or Path(file.stem).is_dir()):
            raise ModuleNotFoundError(f"No module named {error.name!r}, to import {id!r}", name=error.name) from None
        hint = f"./{file} is there: name the environment by --env {id}, or set PYTHONPATH=."
        raise ModuleNotFoundError(f"{error}; {hint}", name=error.name) from error
    except (Exception, SystemExit) as error:  # any error of its author's code
        raise ValueError(f"environment {str(id)!r}: importing {module!r} failed ({in_words(error)})") from error


def _spec(id: str) -> registration.EnvSpec:
    name = import_provider(id)
    if name not in gym.registry and "-v" not in name:
        namespace, plain, _ = registration.parse_env_id(name) if name else (None, name, None)
        newest = registration.find_highest_version(namespace, plain)
        name = name if newest is None else f"{name}-v{newest}"
    if name not in gym.registry:
        near = difflib.get_close_matches(name, list(gym.registry), n=1)
        known = "`rlmin list envs` and gymnasium.pprint_registry() list the known ones"
        raise ValueError(f"no environment {id!r}; " + (f"did you mean {near[0]!r}?" if near else known))
    return gym.registry[name]


def _is_native(spec: registration.EnvSpec, kwargs: dict[str, Any]) -> bool:
    entry = spec.vector_entry_point
    if entry is None:
        return False
    creator = registration.load_env_creator(entry) if isinstance(entry, str) else entry
    takes = inspect.signature(creator).parameters
    limited = "max_episode_steps" in kwargs and "max_episode_steps" not in takes  # then it is a wrapper of single ones
    games = isinstance(creator, type) and issubclass(creator, TensorEnv)
    return (games or "device" in takes) and not limited
