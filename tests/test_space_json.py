"""Spaces as JSON: what is written is strict JSON, and what is read back is the same space, leaves in the same order."""

import json
from collections import OrderedDict
from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  (registers its environments)
import numpy as np
import pytest
from gymnasium import spaces

from rlmin.spaces import leaf_spaces
from rlmin.spaces.as_json import space_from_json, space_to_json

INF = np.inf

SIZES, STARTS = np.array([[2, 3, 4], [5, 6, 7]]), np.array([[0, 1, 2], [-3, 4, 5]])
SPACES: dict[str, gym.Space[Any]] = {
    "box": spaces.Box(-1.5, 2.5, (3,)),
    "box of float64": spaces.Box(-0.1, 0.1, (2,), np.float64),
    "box without axes": spaces.Box(0.0, 1.0, ()),
    "box with bounds of its own": spaces.Box(np.array([[0, -1, 2]], np.float32), np.array([[1, 5, 3]], np.float32)),
    "unbounded box": spaces.Box(-INF, INF, (2, 3)),
    "half-bounded box": spaces.Box(np.array([0, -INF, -INF], np.float32), np.array([INF, 1, INF], np.float32)),
    "picture": spaces.Box(0, 255, (4, 5, 3), np.uint8),
    "box of int64": spaces.Box(-3, 7, (2,), np.int64),
    "box of bool": spaces.Box(0, 1, (2,), np.bool_),
    "box without entries": spaces.Box(-1, 1, (1, 0, 4)),
    "whole numbers without entries": spaces.Box(0, 9, (0, 3), np.int64),
    "discrete": spaces.Discrete(5),
    "discrete from -2": spaces.Discrete(4, start=-2),
    "discrete of int32": spaces.Discrete(4, dtype=np.int32),
    "multi-discrete": spaces.MultiDiscrete([2, 5, 3]),
    "multi-discrete grid": spaces.MultiDiscrete(SIZES, start=STARTS),
    "multi-discrete of int8": spaces.MultiDiscrete([2, 3], dtype=np.int8),
    "multi-binary": spaces.MultiBinary(4),
    "multi-binary grid": spaces.MultiBinary([2, 3]),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Box(0, INF, (1,)))),
    "nested": spaces.Dict(
        b=spaces.Dict(x=spaces.Discrete(3), a=spaces.MultiBinary(2)), a=spaces.Tuple([spaces.Discrete(2)])
    ),
    "in an order of its own": spaces.Dict(OrderedDict(b=spaces.Discrete(2), a=spaces.Discrete(3))),
}


def there_and_back(space: gym.Space[Any]) -> gym.Space[Any]:
    return space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False)))


@pytest.mark.parametrize("name", SPACES)
def test_what_is_read_back_is_the_same_space(name: str) -> None:
    space = SPACES[name]
    back = there_and_back(space)
    assert back == space and type(back) is type(space)
    if 0 not in (space.shape or ()):  # such a space can be written, but no policy reads it
        assert list(leaf_spaces(back)) == list(leaf_spaces(space))
    assert back.dtype == space.dtype and back.shape == space.shape


def test_different_spaces_have_different_descriptions() -> None:
    texts = {json.dumps(space_to_json(space)) for space in SPACES.values()}
    assert len(texts) == len(SPACES)


def test_equal_bounds_are_written_once() -> None:
    assert len(json.dumps(space_to_json(spaces.Box(0, 255, (84, 84, 3), np.uint8)))) < 100


def test_infinities_written_as_numbers_are_understood_too() -> None:
    text = '{"kind": "Box", "low": -Infinity, "high": [1.0, Infinity], "shape": [2], "dtype": "float32"}'
    assert space_from_json(json.loads(text)) == spaces.Box(-INF, np.array([1, INF], np.float32), (2,))


def test_text_becomes_text_and_gives_no_leaf() -> None:
    space = gym.make("MiniGrid-Empty-5x5-v0").observation_space
    back = there_and_back(space)
    assert isinstance(back, spaces.Dict) and isinstance(back["mission"], spaces.Text)
    assert leaf_spaces(back) == leaf_spaces(space) and list(leaf_spaces(back)) == ["direction", "image"]


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown kind of space 'Torus'"):
        space_from_json({"kind": "Torus"})


LARGE: list[dict[str, object]] = [
    {"kind": "Box", "low": 0, "high": 1, "shape": [2**20, 2], "dtype": "float32"},
    {"kind": "Box", "low": 0, "high": 1, "shape": [4, 2**31, 0], "dtype": "float16"},  # no entry, and 2^33 empty lists
    {"kind": "MultiBinary", "shape": [2**31, 0]},
    {"kind": "Discrete", "n": 2**40, "start": 0},
    {"kind": "MultiDiscrete", "nvec": [2**40], "start": [0]},
]


@pytest.mark.parametrize("told", LARGE)
def test_a_space_too_large_is_refused_before_it_is_made(told: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected at most 1,000 entries and choices, got [\d,]+"):
        space_from_json({"kind": "Tuple", "parts": [told]}, most=1000)


def test_parts_that_are_no_pairs_are_an_error() -> None:
    with pytest.raises(ValueError, match="expected pairs of a key and a space"):
        space_from_json({"kind": "Dict", "parts": [{"a": {"kind": "Text"}}]})
