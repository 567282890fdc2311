"""Spaces as JSON, so that a saved policy knows its environment's spaces without the environment and without pickle."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


def space_to_json(space: gym.Space[Any]) -> dict[str, Any]:
    """A JSON-able description of `space`. Text and other unread parts become {"kind": "Text"}."""
    match space:
        case spaces.Dict():
            return {"kind": "Dict", "parts": {key: space_to_json(part) for key, part in space.spaces.items()}}
        case spaces.Tuple():
            return {"kind": "Tuple", "parts": [space_to_json(part) for part in space.spaces]}
        case spaces.Box():
            low, high = _compact(space.low), _compact(space.high)
            return {"kind": "Box", "low": low, "high": high, "shape": list(space.shape), "dtype": str(space.dtype)}
        case spaces.Discrete():
            return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
        case spaces.MultiDiscrete():
            return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
        case spaces.MultiBinary():
            return {"kind": "MultiBinary", "shape": list(space.shape)}
        case _:
            return {"kind": "Text"}


def space_from_json(x: dict[str, Any]) -> gym.Space[Any]:
    """The space that `space_to_json` described.

    Raises:
        ValueError: an unknown kind.
    """
    match x["kind"]:
        case "Dict":
            return spaces.Dict({key: space_from_json(part) for key, part in x["parts"].items()})
        case "Tuple":
            return spaces.Tuple([space_from_json(part) for part in x["parts"]])
        case "Box":
            dtype, shape = np.dtype(x["dtype"]).type, tuple(x["shape"])
            low, high = (np.broadcast_to(np.asarray(x[side], dtype), shape) for side in ("low", "high"))
            return spaces.Box(low, high, shape, dtype)
        case "Discrete":
            return spaces.Discrete(x["n"], start=x["start"])
        case "MultiDiscrete":
            return spaces.MultiDiscrete(x["nvec"], start=x["start"])
        case "MultiBinary":
            return spaces.MultiBinary(x["shape"])
        case "Text":
            return spaces.Text(max_length=1)
    raise ValueError(f"unknown kind of space {x['kind']!r}")


def _compact(x: np.ndarray) -> Any:
    """One number where all are equal, else nested lists."""
    return x.flat[0].item() if x.size and bool((x == x.flat[0]).all()) else x.tolist()
