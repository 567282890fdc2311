"""Spaces derived from values, for data without spaces."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


def space_of(values: Sequence[Any], *, where: str, action: bool = False) -> gym.Space[Any]:
    """The smallest usual space that holds all `values`.

        uint8 arrays    Box(0, 255)            whole numbers    Discrete(largest + 1)
        bool arrays     MultiBinary            arrays of them   MultiDiscrete for actions, else Box
        float           Box without bounds; for actions Box(-1, 1) if none lies outside

    A space that is larger than its values (an unused action, a bound that was never reached) cannot be found: name
    the environment or the spaces instead.

    Args:
        values: arrays [L, ...], or nested dicts and tuples of arrays, one for each episode.
        where: prefix of error messages.
        action: whether they are actions.

    Raises:
        ValueError: no such space, or the values differ in structure.
    """
    example = values[0]
    if isinstance(example, dict):
        parts = [(key, space_of(_parts(values, key, where), where=f"{where}: {key}", action=action)) for key in example]
        return spaces.Dict(parts)
    if isinstance(example, tuple):
        count = range(len(example))
        return spaces.Tuple([space_of(_parts(values, i, where), where=f"{where}: {i}", action=action) for i in count])
    arrays = [np.asarray(value) for value in values]
    shape, kind = arrays[0].shape[1:], np.result_type(*{x.dtype for x in arrays}).kind
    if any(x.shape[1:] != shape for x in arrays) or kind not in "biuf":
        raise ValueError(f"{where}: no space fits {kind!r} values of shapes {sorted({x.shape[1:] for x in arrays})}")
    if 0 in shape and (kind == "b" or (action and kind in "iu")):
        raise ValueError(f"{where}: expected choices, got values of shape {shape}, which have no entries")
    if arrays[0].dtype == np.uint8 and shape:
        return spaces.Box(0, 255, shape, np.uint8)
    if kind == "b":
        return spaces.MultiBinary(shape) if shape else spaces.Discrete(2)
    least = min((x.min() for x in arrays if x.size), default=0)
    largest = max((x.max() for x in arrays if x.size), default=0)
    if kind == "f":
        bound = 1.0 if action and least >= -1 and largest <= 1 else np.inf
        return spaces.Box(-bound, bound, shape, np.float32)
    if shape and not action:
        info = np.iinfo(np.int64)
        return spaces.Box(int(info.min), int(info.max), shape, np.int64)
    if least < 0:
        raise ValueError(f"{where}: whole numbers from {least} on: the space cannot be guessed; pass it")
    if not shape:
        return spaces.Discrete(int(largest) + 1)
    return spaces.MultiDiscrete(np.max([x.max(0) for x in arrays if x.size], axis=0).astype(np.int64) + 1)


def _parts(values: Sequence[Any], key: Any, where: str) -> list[Any]:
    try:
        return [value[key] for value in values]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{where}: {key!r} is in the first episode and missing in another") from error
