"""Spaces as JSON, so that a saved policy knows its environment's spaces without the environment and without pickle."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlmin.files.plain import NUMBERS, decode, encode


def space_to_json(space: gym.Space[Any]) -> dict[str, Any]:
    """A description of `space` in strict JSON. Text and other unread parts become {"kind": "Text"}."""
    match space:
        case spaces.Dict():
            # pairs where a key is a number: a key of JSON is text
            keys = all(isinstance(key, str) for key in space.spaces)
            parts = [(key, space_to_json(part)) for key, part in space.spaces.items()]
            return {"kind": "Dict", "parts": dict(parts) if keys else [[encode(key), part] for key, part in parts]}
        case spaces.Tuple():
            return {"kind": "Tuple", "parts": [space_to_json(part) for part in space.spaces]}
        case spaces.Box():
            low, high = _compact(space.low), _compact(space.high)
            return {"kind": "Box", "low": low, "high": high, "shape": list(space.shape), "dtype": str(space.dtype)}
        case spaces.Discrete():
            return {"kind": "Discrete", "n": int(space.n), "start": int(space.start), **_dtype(space)}
        case spaces.MultiDiscrete():
            nvec, start = space.nvec.tolist(), space.start.tolist()
            return {"kind": "MultiDiscrete", "nvec": nvec, "start": start, **_dtype(space)}
        case spaces.MultiBinary():
            return {"kind": "MultiBinary", "shape": space.n if isinstance(space.n, int) else list(space.shape)}
        case _:
            return {"kind": "Text"}


def space_from_json(x: Any, *, most: int = 2**30) -> gym.Space[Any]:
    """The space that `space_to_json` described.

    Args:
        x: the description, which is not trusted.
        most: largest number of entries and choices; they are counted before anything is made.

    Raises:
        ValueError: it does not describe a space, or a larger one.
    """
    try:
        size = _size(x)
        if size > most:
            raise ValueError(f"expected at most {most:,} entries and choices, got {size:,}")
    except (KeyError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        raise ValueError(f"not the description of a space ({type(error).__name__}: {error!s:.100})") from None
    try:
        return _make(x)
    except Exception as error:  # each space of gymnasium has its own error for invalid numbers
        raise ValueError(f"not the description of a space ({type(error).__name__}: {error!s:.100})") from None


def _make(x: dict[str, Any]) -> gym.Space[Any]:
    match x["kind"]:
        case "Dict":
            # pairs, not a dict: a dict's keys would be sorted, and a policy's leaves have the order of its space
            return spaces.Dict([(key, _make(part)) for key, part in _entries(x["parts"])])
        case "Tuple":
            return spaces.Tuple([_make(part) for part in x["parts"]])
        case "Box":
            dtype, shape = np.dtype(x["dtype"]).type, tuple(x["shape"])
            sides = [np.asarray(x[side], dtype) for side in ("low", "high")]
            # for a space without entries, the lists do not show all axes
            low, high = (side.reshape(shape) if not side.size else np.broadcast_to(side, shape) for side in sides)
            return spaces.Box(low, high, shape, dtype)
        case "Discrete":
            return spaces.Discrete(x["n"], start=x["start"], **_options(x))
        case "MultiDiscrete":
            return spaces.MultiDiscrete(np.array(x["nvec"]), start=np.array(x["start"]), **_options(x))
        case "MultiBinary":
            return spaces.MultiBinary(x["shape"])
        case "Text":
            return spaces.Text(max_length=1)
    raise ValueError(f"unknown kind of space {x['kind']!r:.50}")


def _size(x: dict[str, Any]) -> int:
    """Entries and choices of a described space; at least 1 a part."""
    if "dtype" in x and x["dtype"] not in NUMBERS:
        raise ValueError(f"unknown type of numbers {x['dtype']!r:.50}")
    match x["kind"]:
        case "Dict":
            return 1 + sum(_size(part) for _, part in _entries(x["parts"]))
        case "Tuple":
            return 1 + sum(_size(part) for part in x["parts"])
        case "Box":
            return _entries_of(x["shape"])
        case "Discrete":
            return _length(x["n"])
        case "MultiDiscrete":
            return sum(map(_length, _flat(x["nvec"]))) + len(_flat(x["start"]))
        case "MultiBinary":
            shape = x["shape"]
            return _entries_of(shape if isinstance(shape, list) else [shape])
    return 1


def _entries_of(shape: list[Any]) -> int:
    """Number of entries of an array; an axis of 0 counts as 1, since a loop over the others still takes time."""
    return math.prod(max(1, _length(size)) for size in shape)


def _length(x: Any) -> int:
    if type(x) is not int or x < 0:
        raise ValueError(f"expected a length, got {x!r:.50}")
    return x


def _flat(x: Any) -> list[Any]:
    return [part for parts in x for part in _flat(parts)] if isinstance(x, list) else [x]


def _entries(parts: Any) -> list[tuple[Any, Any]]:
    """Key and space of each part, given a dict or pairs."""
    if isinstance(parts, dict):
        return list(parts.items())
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in parts):
        raise ValueError("expected pairs of a key and a space")
    return [(decode(key), part) for key, part in parts]


def _dtype(space: gym.Space[Any]) -> dict[str, str]:
    """The integer type, if it is not the usual one."""
    return {} if space.dtype == np.int64 else {"dtype": str(space.dtype)}


def _options(x: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": np.dtype(x["dtype"]).type} if "dtype" in x else {}


def _compact(x: np.ndarray) -> Any:
    """One number if all are equal, else nested lists; infinity, which JSON lacks, becomes "inf" or "-inf"."""
    if x.size and bool((x == x.flat[0]).all()):
        return _plain(x.flat[0].item())
    return _plain(x.tolist())


def _plain(x: Any) -> Any:
    if isinstance(x, list):
        return [_plain(part) for part in x]
    return str(x) if isinstance(x, float) and math.isinf(x) else x
