"""Stable-baselines3's VecEnv by what it promises: what SB3's own PPO trains in, rlmin's does."""

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack

from rlmin import PPO
from rlmin.vector import adapt
from rlmin.vector.faults import EnvError

SMALL: dict[str, Any] = {"width": 8, "layers": 1, "horizon": 8, "minibatches": 1, "epochs": 1}


class Bare(VecEnv):
    """Only what is abstract in VecEnv; the base class is not initialised, as in bindings of simulators."""

    def __init__(self, lacking: Sequence[str] = (), at_end: str = "both") -> None:
        self.num_envs, self.lacking, self.at_end = 2, lacking, at_end
        self.observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.time = 0

    def __getattribute__(self, name: str) -> Any:
        if name in super().__getattribute__("__dict__").get("lacking", ()):
            raise AttributeError(name)
        return super().__getattribute__(name)

    def reset(self) -> np.ndarray:
        self.time = 0
        return np.zeros((2, 3), np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        self.time += 1

    def step_wait(self) -> Any:
        over = self.time % 4 == 0
        info: dict[str, Any] = {}
        if over and self.at_end in ("both", "observation"):
            info["terminal_observation"] = np.ones(3, np.float32)
        if over and self.at_end in ("both", "cut"):
            info["TimeLimit.truncated"] = True
        seen = np.full((2, 3), 0.0 if over else 0.5, np.float32)
        return seen, np.ones(2, np.float32), np.array([over, False]), [info, {}]

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * 2

    render_mode = None

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False, False]


@pytest.mark.parametrize("lacking", [(), ("seed",), ("reset_infos",), ("seed", "reset_infos", "render_mode")])
def test_ppo_trains_in_what_a_vec_env_promises(lacking: tuple[str, ...]) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        agent = PPO(Bare(lacking), **SMALL).learn(32)
    assert agent.num_timesteps == 32
    # without the base class's __init__ there are no seeds to set, whether `seed` is there or not
    assert any("takes no seed" in str(one.message) for one in told) == ("seed" in lacking)


def test_a_terminal_observation_is_needed_only_where_an_episode_was_cut() -> None:
    action = torch.zeros(2, dtype=torch.int64)
    for at_end, truncated in (("both", True), ("observation", False), ("none", False)):
        vector = adapt(Bare(at_end=at_end))
        vector.reset()
        for _ in range(4):
            step = vector.step(action)
        assert step.truncated.tolist() == [truncated, False] and step.terminated.tolist() == [not truncated, False]
        assert step.final_observation is not None
        assert step.final_observation["observation"][0, 0] == (0 if at_end == "none" else 1)
    vector = adapt(Bare(at_end="cut"))
    vector.reset()
    with pytest.raises(ValueError, match="environment 0 ended at step 4 since reset without"):
        for _ in range(4):
            vector.step(action)


def test_the_wrappers_of_stable_baselines3_stay_around_it() -> None:
    stacked = VecFrameStack(Bare(("seed", "reset_infos")), 2)
    with pytest.warns(UserWarning, match="takes no seed"):
        vector = adapt(stacked)
        vector.reset(seed=1)
    assert vector.observation_space.shape == (6,)


def test_an_environment_that_is_seeded_is_as_before() -> None:
    first = [adapt(DummyVecEnv([lambda: gym.make("CartPole-v1")])).reset(seed=s).observation for s in (3, 3, 4)]
    same = [bool((first[0]["observation"] == x["observation"]).all()) for x in first]
    assert same == [True, True, False]


def test_a_process_of_stable_baselines3_that_is_gone_is_one_error() -> None:
    class Broken(Bare):
        def step_wait(self) -> Any:
            raise EOFError

    vector = adapt(Broken())
    vector.reset()
    with pytest.raises(EnvError, match=r"step failed at step 1 since reset \(EOFError\)"):
        vector.step(torch.zeros(2, dtype=torch.int64))
