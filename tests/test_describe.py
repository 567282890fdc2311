"""A saved agent makes its environment again from an id and arguments, and only where these say everything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TimeLimit, TransformReward

from rlmin import PPO, load
from rlmin.agents.env_spec import describe_env
from rlmin.envs import register
from rlmin.vector import adapt, make_vec

register()

ID = "CartPole-v1"


def doubled(env: Any) -> Any:
    return TransformReward(env, lambda reward: 2 * float(reward))


class Outer(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that records no arguments."""


KNOWN: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "as registered": (lambda: gym.make(ID), {}),
    "shorter": (lambda: gym.make(ID, max_episode_steps=7), {"max_episode_steps": 7}),
    "without a limit": (lambda: gym.make(ID, max_episode_steps=-1), {"max_episode_steps": -1}),
    "bare": (lambda: gym.make(ID).unwrapped, {"max_episode_steps": -1}),
    "limited again": (lambda: TimeLimit(gym.make(ID), 9), {"max_episode_steps": 9}),
    "limited again, but later": (lambda: TimeLimit(gym.make(ID, max_episode_steps=5), 9), {"max_episode_steps": 5}),
    "seen": (lambda: gym.make(ID, render_mode="rgb_array_list"), {"render_mode": "rgb_array"}),
    "vectorised": (lambda: gym.make_vec(ID, 2), {}),
    "vectorised and shorter": (lambda: make_vec(ID, 2, max_episode_steps=7), {"max_episode_steps": 7}),
    "adapted": (lambda: adapt(make_vec(ID, 2)), {}),
}

UNKNOWN: dict[str, Callable[[], Any]] = {
    "wrapped": lambda: doubled(gym.make(ID)),
    "wrapped without record": lambda: Outer(gym.make(ID)),
    "wrapped, then limited": lambda: TimeLimit(doubled(gym.make(ID)), 9),
    "bare and wrapped": lambda: doubled(gym.make(ID).unwrapped),
    "vector wrapper": lambda: gym.wrappers.vector.NormalizeReward(make_vec(ID, 2)),
    "adapted vector wrapper": lambda: adapt(gym.wrappers.vector.NormalizeReward(make_vec(ID, 2))),
    "wrappers inside": lambda: gym.make_vec(ID, 2, vectorization_mode="sync", wrappers=[doubled]),
    "wrapped spec": lambda: gym.make_vec(doubled(gym.make(ID)).spec, 2, vectorization_mode="sync"),
    "by hand": lambda: SyncVectorEnv([lambda: doubled(gym.make(ID))]),
    "no id": CartPoleEnv,
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_gymnasium_made_is_described_by_id_and_arguments(name: str) -> None:
    make, kwargs = KNOWN[name]
    env = make()
    assert describe_env(env) == {"id": ID, "kwargs": kwargs, "workers": 0}
    make_vec(ID, 2, **kwargs).close()  # which it can be made from again
    env.close()


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_environment_with_wrappers_of_its_own_has_no_id(name: str) -> None:
    env = UNKNOWN[name]()
    assert describe_env(env) == {"id": None, "kwargs": {}, "workers": 0}
    env.close()


def test_wrappers_that_come_with_the_id_do_not_hide_it() -> None:
    def wrapped_below() -> Any:
        return Outer(CartPoleEnv())

    plain = {"id": "Below-v0", "entry_point": wrapped_below, "max_episode_steps": 9}
    recorded = {"id": "Above-v0", "entry_point": CartPoleEnv}
    gym.register(**plain)  # type: ignore[arg-type]
    gym.register(**recorded, additional_wrappers=(TransformReward.wrapper_spec(func=float),))  # type: ignore[arg-type]
    try:
        for id in ("Below-v0", "Above-v0"):
            assert describe_env(gym.make(id))["id"] == id
            assert describe_env(doubled(gym.make(id)))["id"] is None
    finally:
        del gym.registry["Below-v0"], gym.registry["Above-v0"]


def test_a_loaded_agent_trains_in_the_task_it_was_saved_from_or_in_none(tmp_path: Path) -> None:
    size: dict[str, Any] = {"horizon": 8, "width": 8}
    PPO(gym.make(ID, max_episode_steps=7), num_envs=1, **size).save(tmp_path / "short")
    vector = PPO.load(tmp_path / "short").vector
    vector.reset(seed=0)
    ends = [bool(vector.step(torch.tensor([t % 2])).truncated) for t in range(7)]
    assert ends == [False] * 6 + [True]
    PPO(doubled(gym.make(ID)), num_envs=1, **size).save(tmp_path / "wrapped")
    with pytest.raises(ValueError, match="no environment; give it one with set_env"):
        load(tmp_path / "wrapped").learn(8)
