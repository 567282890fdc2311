"""What an environment did wrong, where the library that steps it only says what failed inside itself."""

import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from rlmin.spaces import Leaf, pick

RETURNS = {
    "step": (5, "env.step must return (observation, reward, terminated, truncated, info)"),
    "reset": (2, "env.reset must return (observation, info)"),
}


def picked(raw: Any, leaf: Leaf, where: str) -> Any:
    """The part of a raw observation that is `leaf`.

    Args:
        where: end of the error message, for instance " at step 3".

    Raises:
        ValueError: there is none.
    """
    try:
        return pick(raw, leaf.path)
    except (KeyError, IndexError, TypeError) as error:
        raise _missing(leaf, where) from error


def explained(error: Exception, call: str, leaves: Sequence[Leaf], where: str) -> ValueError | None:
    """The fault behind an error of a vector environment's `call` ("step" or "reset"); None where it is not known."""
    if isinstance(error, BadReward):
        return ValueError(f"{error}{where}")
    if not _raised_by_library(error.__traceback__):  # but by the environment: a bug of another kind
        return None
    if isinstance(error, KeyError):
        key: Any = error
        while isinstance(key, KeyError) and key.args:  # AsyncVectorEnv puts the worker's error into another
            key = key.args[0]
        lacking = next((leaf for leaf in leaves if key in leaf.path), None)
        return None if lacking is None else _missing(lacking, where)
    wanted, sentence = RETURNS[call]
    number = re.search(rf"values to unpack \(expected {wanted}(?:, got (\d+))?\)", str(error))
    kind = re.search(r"cannot unpack non-iterable (\w+) object", str(error))
    if number is None and kind is None:
        return None
    found = f"a {kind[1]}" if kind else f"{number[1]} values" if number and number[1] else "more values"
    return ValueError(f"{sentence}, got {found}{where}")


class BadReward(ValueError):
    """A reward that is not one number."""


class Rewards(np.ndarray[Any, Any]):
    """The array in which SyncVectorEnv and DummyVecEnv collect rewards, here one that refuses other things."""

    def __setitem__(self, row: Any, value: Any) -> None:
        try:
            if value is None:  # numpy would make it a NaN
                raise TypeError("None is not a number")
            super().__setitem__(row, value)
        except (TypeError, ValueError) as error:
            message = f"reward: expected one number from environment {row}, got {value!r:.80}"
            raise BadReward(message) from error


def guard_rewards(env: Any, name: str) -> None:
    """Make the reward array `name` of `env`, where it has one, a `Rewards`."""
    array = getattr(env, name, None)
    if isinstance(array, np.ndarray):
        setattr(env, name, array.view(Rewards))


def _missing(leaf: Leaf, where: str) -> ValueError:
    return ValueError(f"observation {leaf.name!r} is declared by the space but missing{where}")


def _raised_by_library(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in ("gymnasium", "stable_baselines3")
