"""Environments of other packages by their plain ids: found, learned in, acted in; a missing package is named."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rlmin import PPO, load, make_vec
from rlmin.cli import main
from rlmin.vector.make import make_one

NEEDS = {"ALE/Pong-v5": ("ale_py",), "Hopper-v5": ("mujoco",)}

IDS: dict[str, dict[str, Any]] = {
    "ALE/Pong-v5": {"max_episode_steps": 30},
    "Hopper-v5": {},
    "MiniGrid-Empty-5x5-v0": {},
}
EACH = [pytest.param(id, marks=[pytest.mark.needs(*NEEDS[id])] if id in NEEDS else []) for id in IDS]
SMALL: dict[str, Any] = {"width": 8, "layers": 1, "num_envs": 2, "horizon": 4}


@pytest.mark.parametrize("id", EACH)
def test_it_is_trained_in_and_acted_in_by_its_id(id: str) -> None:
    agent = PPO(id, env_kwargs=IDS[id], seed=0, **SMALL)
    before = [x.detach().clone() for x in agent.policy.parameters()]
    agent.learn(16)
    assert agent.num_timesteps == 16
    assert not all(torch.equal(a, b) for a, b in zip(before, agent.policy.parameters(), strict=True))
    env = make_one(id, **IDS[id])
    act = agent.actor(env)
    act.reset(seed=0)
    assert all(env.observation_space.contains(act.step()[0]) for _ in range(4))
    env.close()
    many = make_vec(id, 3, **IDS[id])
    act = agent.actor(many)
    act.reset(seed=0)
    assert act.step()[1].shape == (3,)
    many.close()
    agent.close()


@pytest.mark.needs("ale_py")
def test_the_older_names_of_atari_are_found_too() -> None:
    with make_one("PongNoFrameskip-v4") as env:
        assert env.observation_space.shape == (210, 160, 3)


@pytest.mark.parametrize("id", EACH)
def test_the_command_line_trains_in_it(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = [part for key, value in SMALL.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    main(["train", "--env", id, *small, "--total-timesteps", "16", "--eval-episodes", "0", "--folder", "run"])
    assert load("run").num_timesteps == 16


MISSING = {
    "ALE/Pong-v5": ("ale_py", r'needs the package ale_py: pip install "rlmin\[atari\]"'),
    "Hopper-v5": ("mujoco", r'needs the package mujoco: pip install "rlmin\[mujoco\]"'),
}


@pytest.mark.parametrize("id", MISSING)
def test_a_package_that_is_not_there_names_its_extra(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, message = MISSING[id]
    for name in [name for name in sys.modules if name.startswith((package, "gymnasium.envs.mujoco"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ValueError, match=message):
        make_vec(id, 2)
    with pytest.raises(ValueError, match=message):
        PPO(id)
