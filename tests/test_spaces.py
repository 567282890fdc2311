"""Observation spaces become named leaves, in every mode and for what a user passes to `predict`."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack
from test_vector import LIMIT, MODES, Climb

from rlmin.spaces import leaf_spaces, leaf_tensor, leaves_of, to_observation
from rlmin.types import Observation
from rlmin.vector import adapt

NESTED = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (4, 3, 2), np.uint8),
        "sensors": spaces.Dict({"left": spaces.Discrete(4, start=-2), "right": spaces.MultiBinary(5)}),
        "pair": spaces.Tuple((spaces.MultiDiscrete([3, 7], start=[1, 10]), spaces.Box(-1, 1, (), np.float64))),
        "counts": spaces.Box(-9, 9, (2,), np.int32),
        "mission": spaces.Text(8),
    }
)


class Sampled(gym.Env[Any, Any]):
    """Observations drawn from `space`; three steps an episode."""

    def __init__(self, space: gym.Space[Any], *, spoil: Callable[[Any, int], Any] = lambda raw, t: raw) -> None:
        self.observation_space, self.action_space = space, spaces.MultiDiscrete([3, 2])
        self.spoil, self.t = spoil, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.spoil(self.observation_space.sample(), self.t), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.t += 1
        return (
            self.spoil(self.observation_space.sample(), self.t),
            float("nan" if self.t == 9 else 0),
            self.t == 3,
            False,
            {},
        )


def check_nested(observation: Observation) -> None:
    sizes = {name: (tuple(leaf.shape), leaf.dtype) for name, leaf in observation.items()}
    assert sizes == {
        "counts": ((2, 2), torch.int64),
        "image": ((2, 4, 3, 2), torch.uint8),
        "pair.0": ((2, 2), torch.int64),
        "pair.1": ((2,), torch.float32),
        "sensors.left": ((2,), torch.int64),
        "sensors.right": ((2, 5), torch.int8),
    }
    assert int(observation["sensors.left"].min()) >= 0 and int(observation["sensors.left"].max()) < 4
    assert (observation["pair.0"] >= 0).all() and (observation["pair.0"] < torch.tensor([3, 7])).all()


@pytest.mark.parametrize("mode", ["next step", "same step", "disabled"])
def test_nested_spaces_become_named_leaves_of_small_types(mode: str) -> None:
    vector = adapt(MODES[mode](lambda: Sampled(NESTED), 2), seed=0)
    step = vector.reset()
    check_nested(step.observation)
    for _ in range(5):
        step = vector.step(torch.tensor([[2, 1], [0, 0]]))
        check_nested(step.observation)
        if step.final_observation is not None:
            check_nested(step.final_observation)


def test_a_start_is_subtracted_and_nothing_else_changes() -> None:
    raw = {"a": np.array([-2, 1]), "b": np.array([[1, 10], [3, 16]])}
    space = spaces.Dict({"a": spaces.Discrete(4, start=-2), "b": spaces.MultiDiscrete([3, 7], start=[1, 10])})
    observation = to_observation(raw, space)
    assert observation["a"].tolist() == [0, 3]
    assert observation["b"].tolist() == [[0, 0], [2, 6]]


def test_sb3_dict_and_image_spaces_arrive_whole() -> None:
    space = spaces.Dict(
        {"image": spaces.Box(0, 255, (4, 3, 2), np.uint8), "speed": spaces.Box(-1, 1, (3,), np.float32)}
    )
    vector = adapt(DummyVecEnv([lambda: Sampled(space), lambda: Sampled(space)]), seed=0)
    step = vector.reset()
    for _ in range(3):
        step = vector.step(torch.zeros(2, 2, dtype=torch.int64))
    assert step.final_observation is not None
    assert step.final_observation["image"].shape == (2, 4, 3, 2)
    assert not torch.equal(step.final_observation["speed"], step.observation["speed"])


def test_sb3_wrappers_are_part_of_the_environment() -> None:
    vector = adapt(VecFrameStack(DummyVecEnv([Climb, Climb]), n_stack=3), seed=0)
    step = vector.reset()
    for _ in range(LIMIT):
        step = vector.step(torch.ones(2, dtype=torch.int64))
    assert step.observation["observation"].shape == (2, 6)
    assert step.final_observation is not None and int(step.final_observation["observation"][0, -1]) == 10 * LIMIT


@pytest.mark.parametrize(
    "space",
    [
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Box(0, 1, (2,)), None),
        spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]),
        spaces.Dict({"inner": spaces.Sequence(spaces.Discrete(2))}),
    ],
    ids=["sequence", "graph", "one of", "nested"],
)
def test_spaces_that_cannot_be_read_are_named(space: gym.Space[Any]) -> None:
    with pytest.raises(ValueError, match=r"(Sequence|Graph|OneOf).* not supported; use Box"):
        leaf_spaces(space)


def test_two_leaves_of_one_name_and_no_leaf_at_all_are_refused() -> None:
    twice = spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(2)})})
    with pytest.raises(ValueError, match=r"two leaves called \['a.b'\]"):
        leaf_spaces(twice)
    with pytest.raises(ValueError, match="no leaf"):
        leaf_spaces(spaces.Dict({"mission": spaces.Text(4)}))


def test_what_a_user_passes_to_predict_is_checked_and_converted() -> None:
    space = spaces.Dict(
        {"x": spaces.Box(-1, 1, (3,)), "k": spaces.Discrete(5), "pixels": spaces.Box(0, 255, (2,), np.uint8)}
    )
    raw = {"x": [[0.0, 0.5, 1.0]], "k": [4], "pixels": [[0, 255]]}
    observation = to_observation(raw, space)
    assert observation["x"].dtype == torch.float32 and observation["pixels"].tolist() == [[0, 255]]
    with pytest.raises(ValueError, match=r"'x': the space declares \[B=1, 3\] float32, got \[1, 2\]"):
        to_observation(raw | {"x": [[0.0, 0.5]]}, space)
    with pytest.raises(ValueError, match="'k' is missing"):
        to_observation({"x": raw["x"], "pixels": raw["pixels"]}, space)
    with pytest.raises(ValueError, match=r"'pixels': .*\[B=2, 2\] uint8, got \[1, 2\]"):
        to_observation(raw | {"k": [4, 0]}, space)


@pytest.mark.parametrize(
    ("space", "last", "bad", "message"),
    [
        (spaces.Discrete(4), [[0], [3]], [[1], [7]], r"'d': expected 0..3, got 7 from environment 1 at step 2"),
        (spaces.Discrete(4, start=-2), [[-2], [1]], [[1], [-3]], r"'d': expected -2..1, got -3 from environment 1"),
        (spaces.MultiDiscrete([2, 3]), [[1, 2], [0, 0]], [[2, 0], [0, 0]], "'d', entry 0: expected 0..1, got 2 from"),
        (spaces.MultiBinary(2), [[1, 1], [0, 0]], [[1, 1], [0, 256]], "'d', entry 1: expected 0..1, got 256 from"),
    ],
    ids=["discrete", "discrete with a start", "multi-discrete", "multi-binary"],
)
def test_a_choice_that_does_not_exist_is_refused(space: gym.Space[Any], last: Any, bad: Any, message: str) -> None:
    (leaf,) = leaves_of(spaces.Dict({"d": space}))
    for kind in (np.array, torch.tensor):
        leaf_tensor(kind(last).reshape(2, *leaf.shape), leaf, 2, copy=True, where=" at step 2")
        with pytest.raises(ValueError, match=message):
            leaf_tensor(kind(bad).reshape(2, *leaf.shape), leaf, 2, copy=True, where=" at step 2")
