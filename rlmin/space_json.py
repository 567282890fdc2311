"""Spaces as JSON, so that a saved policy knows its environment's spaces without the environment and without pickle."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


def space_to_json(space: gym.Space[Any]) -> dict[str, Any]:
    """A description of `space` in strict JSON. Text and other unread parts become {"kind": "Text"}."""
    match space:
        case spaces.Dict():
            return {"kind": "Dict", "parts": {key: space_to_json(part) for key, part in space.spaces.items()}}
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


def space_from_json(x: dict[str, Any]) -> gym.Space[Any]:
    """The space that `space_to_json` described.

    Raises:
        ValueError: an unknown kind.
    """
    match x["kind"]:
        case "Dict":
            # pairs, not a dict: a dict's keys would be sorted, and a policy's leaves have the order of its space
            return spaces.Dict([(key, space_from_json(part)) for key, part in x["parts"].items()])
        case "Tuple":
            return spaces.Tuple([space_from_json(part) for part in x["parts"]])
        case "Box":
            dtype, shape = np.dtype(x["dtype"]).type, tuple(x["shape"])
            low, high = (np.broadcast_to(np.asarray(x[side], dtype), shape) for side in ("low", "high"))
            return spaces.Box(low, high, shape, dtype)
        case "Discrete":
            return spaces.Discrete(x["n"], start=x["start"], **_options(x))
        case "MultiDiscrete":
            return spaces.MultiDiscrete(np.array(x["nvec"]), start=np.array(x["start"]), **_options(x))
        case "MultiBinary":
            return spaces.MultiBinary(x["shape"])
        case "Text":
            return spaces.Text(max_length=1)
    raise ValueError(f"unknown kind of space {x['kind']!r}")


def _dtype(space: gym.Space[Any]) -> dict[str, str]:
    """The type of whole numbers, where it is not the usual one."""
    return {} if space.dtype == np.int64 else {"dtype": str(space.dtype)}


def _options(x: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": np.dtype(x["dtype"]).type} if "dtype" in x else {}


def _compact(x: np.ndarray) -> Any:
    """One number where all are equal, else nested lists; infinities as "inf" and "-inf", which JSON has no sign for."""
    if x.size and bool((x == x.flat[0]).all()):
        return _plain(x.flat[0].item())
    return _plain(x.tolist())


def _plain(x: Any) -> Any:
    if isinstance(x, list):
        return [_plain(part) for part in x]
    return str(x) if isinstance(x, float) and math.isinf(x) else x
