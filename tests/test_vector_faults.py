"""Action masks stand beside their observation, and an environment that breaks its word is named."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from test_spaces import Sampled
from test_vector import LIMIT, MODES, Climb, Tensors

from rlmin.spaces import leaf_spaces
from rlmin.vector import Vector, adapt


class Masked(gym.Env[Any, Any]):
    """Only action t % 4 is legal at time t, said in infos or in the observation."""

    def __init__(self, *, place: str) -> None:
        self.place, self.t, self.action_space = place, 0, spaces.Discrete(4)
        here: dict[str, gym.Space[Any]] = {"clock": spaces.Box(0, 99, (1,))}
        here |= {"action_mask": spaces.MultiBinary(4)} if place == "observation" else {}
        self.observation_space = spaces.Dict(here)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.look()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        legal = action == self.t % 4
        self.t += 1
        raw, info = self.look()
        return raw, float(legal), self.t == 3, False, {} if self.place == "forgotten" else info

    def look(self) -> tuple[Any, dict[str, Any]]:
        mask = np.arange(4) == self.t % 4
        raw: dict[str, Any] = {"clock": np.array([self.t], dtype=np.float32)}
        if self.place == "observation":
            return raw | {"action_mask": mask.astype(np.int8)}, {}
        return raw, {"action_mask": mask.tolist() if self.place == "list" else mask}


@pytest.mark.parametrize("place", ["infos", "list", "observation"])
@pytest.mark.parametrize("mode", ["next step", "same step", "disabled", "sb3", "single"])
def test_a_mask_belongs_to_the_observation_beside_it(mode: str, place: str) -> None:
    vector = adapt(MODES[mode](lambda: Masked(place=place), 2), seed=0)
    assert set(leaf_spaces(vector.observation_space)) == {"clock"}
    step = vector.reset()
    for _ in range(9):
        assert step.action_mask is not None and set(step.observation) == {"clock"}
        wanted = torch.arange(4) == step.observation["clock"].long() % 4
        assert torch.equal(step.action_mask, wanted)
        step = vector.step(step.action_mask.long().argmax(1))
        assert (step.reward[~step.filler] == 1).all(), "the masked action was the legal one"


def test_an_env_without_masks_has_none_and_one_that_forgets_is_refused() -> None:
    assert adapt(Climb(), seed=0).reset().action_mask is None
    vector = adapt(Masked(place="forgotten"), seed=0)
    vector.reset()
    with pytest.raises(ValueError, match="every reset and step or never at step 1"):
        vector.step(torch.tensor([0]))


BOX = spaces.Dict({"speed": spaces.Box(-1, 1, (3,), np.float32), "k": spaces.Discrete(3)})


def spoiled(change: Callable[[Any], Any], *, mode: str = "same step") -> Vector:
    def spoil(raw: Any, t: int) -> Any:
        return raw | change(raw) if t == 2 else raw

    vector = adapt(MODES[mode](lambda: Sampled(BOX, spoil=spoil), 2), seed=0)
    vector.reset()
    vector.step(torch.zeros(vector.num_envs, 2, dtype=torch.int64))
    return vector


@pytest.mark.parametrize("mode", ["next step", "same step", "single"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda raw: {"speed": np.zeros(4, np.float32)}, ValueError, r"'speed'.*3\] float32, got \[1, 4\].*at step 2"),
        (lambda raw: {"k": np.array(0.5)}, ValueError, r"'k'.*int64, got \[1\] float64.*at step 2"),
        (lambda raw: {"speed": raw["speed"] * np.nan}, FloatingPointError, r"'speed': NaN or inf from .* 0 at step 2"),
    ],
    ids=["shape", "type", "nan"],
)
def test_an_observation_against_its_declaration_is_named(mode: str, change: Any, error: Any, message: str) -> None:
    vector = spoiled(change, mode=mode)
    with pytest.raises(error, match=message):
        vector.step(torch.zeros(vector.num_envs, 2, dtype=torch.int64))


@pytest.mark.parametrize("mode", ["next step", "same step", "sb3"])
def test_a_reward_that_is_not_a_number_is_an_error(mode: str) -> None:
    class Bad(Climb):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            raw, _, terminated, truncated, info = super().step(action)
            return raw, float("inf") if self.t == 2 else 0.0, terminated, truncated, info

    vector = adapt(MODES[mode](Bad, 3), seed=0)
    vector.reset()
    vector.step(torch.ones(3, dtype=torch.int64))
    with pytest.raises(FloatingPointError, match="reward: NaN or inf from environment 0 at step 2"):
        vector.step(torch.ones(3, dtype=torch.int64))


class Broken(Tensors):
    """A vector environment with one fault of `what`."""

    def __init__(self, what: str) -> None:
        super().__init__(Climb, 3)
        self.what = what
        self.metadata = {} if what == "mode" else self.metadata

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        raw, reward, terminated, truncated, infos = super().step(actions)
        raw = raw[:2] if self.what == "rows" else raw.int() if self.what == "type" else raw
        raw = raw + torch.inf if self.what == "inf" else raw
        reward = reward[:, None] if self.what == "reward" else reward
        return raw, reward, terminated, truncated, {} if self.what == "final" else infos


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("rows", ValueError, r"'observation': the space declares \[B=3, 2\] float32, got \[2, 2\] .* at step 1"),
        ("inf", FloatingPointError, r"'observation': NaN or inf from environment 0 at step 1"),
        ("reward", ValueError, r"reward: expected \[B=3\], got \[3, 1\] at step 1"),
        ("final", ValueError, r"ended at step \d .*without infos\['final_obs'\]"),
        ("mode", ValueError, r"metadata\['autoreset_mode'\] is None"),
    ],
)
def test_a_broken_vector_environment_is_named(what: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        vector = adapt(Broken(what), seed=0)
        vector.reset()
        for _ in range(LIMIT):
            vector.step(torch.full((3,), 2))


def test_wrong_actions_and_wrong_order_are_refused() -> None:
    vector = adapt(Climb(), seed=0)
    with pytest.raises(RuntimeError, match="call reset"):
        vector.step(torch.tensor([1]))
    vector.reset()
    with pytest.raises(ValueError, match=r"action: expected \[1\], got \[2\]"):
        vector.step(torch.tensor([1, 1]))
