"""Copies of agents and policies act as the original, learn on bit for bit as it does, and share nothing with it."""

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils import EzPickle
from torch import Tensor

from rlmin import PPO, DecisionAgent, load
from rlmin.agents.agent import Agent
from rlmin.data import Episode
from rlmin.encoders import CELLS, MIXERS
from rlmin.policy import Policy, PolicyConfig

SMALL: dict[str, Any] = {"width": 8, "horizon": 8, "num_envs": 4, "minibatches": 2, "epochs": 1}
ALONE: dict[str, Any] = {"width": 8, "horizon": 32, "minibatches": 1, "epochs": 1}

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "cloudpickle": lambda x: pickle.loads(cloudpickle.dumps(x)),
    "queue": lambda x: pickle.loads(multiprocessing.reduction.ForkingPickler.dumps(x)),
    "twice": lambda x: copy.deepcopy(pickle.loads(pickle.dumps(x))),
}


def episodes() -> list[Episode]:
    rng = np.random.default_rng(0)
    return [Episode(rng.normal(size=(9, 3)).astype("f4"), [0, 1] * 4, [1.0] * 8, True) for _ in range(6)]


def maze() -> PPO:
    settings = {**SMALL, "normalize_observation": True, "normalize_return": True, "previous_action": True}
    return PPO("rlmin/TMaze-v0", env_kwargs={"length": 4}, **settings)


def pole() -> PPO:
    return PPO("CartPole-v1", **SMALL)


def single() -> PPO:
    return PPO(gym.make("CartPole-v1"), **ALONE)


def stable() -> PPO:
    from stable_baselines3.common.vec_env import DummyVecEnv

    return PPO(DummyVecEnv([lambda: gym.make("CartPole-v1")] * 4), **SMALL)


def cloner() -> DecisionAgent:
    return DecisionAgent(episodes(), width=8, rows=2, horizon=8, dropout=0.3, weight_decay=0.1)


def windows() -> DecisionAgent:
    return DecisionAgent(episodes(), encoder="attention", heads=2, width=8, rows=2, horizon=8, window=4)


MAKES: list[Callable[[], Agent]] = [maze, pole, single, stable, cloner]


def state(agent: Agent) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in {**agent.policy.state_dict(), **agent.learner_state()}.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(x, b[name]) for name, x in a.items())


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("make", MAKES)
def test_a_copy_learns_on_bit_for_bit_and_leaves_the_original_alone(make: Callable[[], Agent], how: str) -> None:
    agent = make().learn(96)
    before = state(agent)
    other = COPIES[how](agent)
    assert type(other) is type(agent) and same(before, state(other))
    other.learn(96, reset_num_timesteps=False)
    assert same(before, state(agent)) and not same(before, state(other))
    agent.learn(96, reset_num_timesteps=False)
    assert same(state(agent), state(other)) and agent.num_timesteps == other.num_timesteps
    early = COPIES[how](make())
    assert same(state(early.learn(64)), state(make().learn(64))), "of one that has learned nothing yet"


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_loaded_agent_and_a_saved_copy(how: str, tmp_path: Path) -> None:
    agent = maze().learn(64)
    agent.save(tmp_path / "a")
    loaded = PPO.load(tmp_path / "a")
    loaded.resume(tmp_path / "a")
    other = COPIES[how](loaded)
    other.save(tmp_path / "b")
    again = PPO.load(tmp_path / "b")
    again.resume(tmp_path / "b")
    for one in (agent, other, again):
        one.learn(64, reset_num_timesteps=False)
    assert same(state(agent), state(other)) and same(state(agent), state(again))
    lazy = COPIES[how](load(tmp_path / "a"))  # whose environment was never made
    assert lazy.learn(64, reset_num_timesteps=False).num_timesteps == 128


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_data_with_a_place_are_found_again_and_those_without_go_along(how: str, tmp_path: Path) -> None:
    import h5py

    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["observations"], file["actions"] = rng.normal(size=(64, 3)).astype("f4"), rng.integers(0, 2, 64)
        file["rewards"], file["terminals"] = np.ones(64, "f4"), np.arange(64) % 8 == 7
        file["timeouts"] = np.zeros(64, bool)
    agent = DecisionAgent(str(tmp_path / "d.hdf5"), width=8, rows=2, horizon=8).learn(48)
    other = COPIES[how](agent)
    content = pickle.dumps(agent)
    assert len(content) < len(pickle.dumps(DecisionAgent(episodes() * 50, width=8, rows=2, horizon=8)))
    for one in (agent, other):
        one.learn(48, reset_num_timesteps=False)
    assert same(state(agent), state(other))
    (tmp_path / "d.hdf5").unlink()
    gone = pickle.loads(content)
    with pytest.raises(ValueError, match=r"d\.hdf5"):
        gone.learn(48)
    gone.set_dataset(episodes())


class Stubborn(gym.Wrapper[Any, Any, Any, Any]):
    """A game that holds something that cannot be copied."""

    def __init__(self, env: gym.Env[Any, Any], **_: Any) -> None:
        super().__init__(env)
        self.file = io.FileIO(__file__)

    def close(self) -> None:
        self.file.close()
        super().close()


class Easy(Stubborn, EzPickle):
    """A game whose copy is a new one."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        EzPickle.__init__(self, env)
        super().__init__(env)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("wrapper", [Stubborn, Easy])
def test_an_environment_that_cannot_be_copied_is_made_anew_or_asked_for(how: str, wrapper: Any) -> None:
    agent = PPO(wrapper(gym.make("CartPole-v1")), **ALONE).learn(32)
    other = COPIES[how](agent)
    weights = other.policy.state_dict()
    assert all(torch.equal(x, weights[name]) for name, x in agent.policy.state_dict().items())
    with pytest.raises(ValueError, match=r"this agent has no environment; give it one with set_env\(env\)"):
        other.learn(32)
    other.set_env(gym.make("CartPole-v1"))
    assert other.learn(32, reset_num_timesteps=False).num_timesteps == 64
    agent.close()


def test_workers_stay_with_the_original_and_a_copy_starts_its_own() -> None:
    agent = PPO("CartPole-v1", workers=1, **SMALL).learn(32)
    other = copy.deepcopy(agent)
    assert other._vector is None
    other.learn(32, reset_num_timesteps=False)
    assert other.num_timesteps == 64 and other.vector is not agent.vector
    for one in (agent, other):
        one.close()


@pytest.mark.parametrize("encoder", MIXERS)
@pytest.mark.parametrize("how", COPIES)
def test_a_copied_policy_acts_alike_and_has_weights_of_its_own(how: str, encoder: str) -> None:
    space, actions = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)
    policy = Policy(
        space,
        actions,
        PolicyConfig(encoder=encoder, width=8, heads=2 if "heads" in CELLS[encoder].option_names else None),
    ).eval()
    seen, start = {"observation": torch.randn(4, 3)}, torch.ones(4, dtype=torch.bool)

    def value(one: Policy) -> Tensor:
        with torch.no_grad():
            return one.step(seen, one.initial_state(4), start).value.clone()

    before = value(policy)
    other = COPIES[how](policy)
    assert torch.equal(before, value(other))
    if how == "queue":  # of a module torch shares the weights, as it says
        return
    with torch.no_grad():
        for x in other.parameters():
            x.add_(1)
    assert torch.equal(before, value(policy)) and not torch.equal(before, value(other))


def test_weights_alone_go_through_torch_save() -> None:
    agent, fresh = maze().learn(64), maze()
    file = io.BytesIO()
    torch.save(agent.policy.state_dict(), file)
    file.seek(0)
    fresh.policy.load_state_dict(torch.load(file))
    seen = np.zeros((4, 2), np.float32)
    kept = {"deterministic": True}
    assert np.array_equal(agent.predict(seen, **kept)[0], fresh.predict(seen, **kept)[0])  # type: ignore[arg-type]


def test_a_copy_logs_nowhere_and_a_list_of_copies_is_one_of_different_agents(tmp_path: Path) -> None:
    from rlmin.runs.logs import make_logger

    agent = maze()
    agent.set_logger(make_logger(tmp_path, {}))
    first, second = copy.deepcopy([agent, agent])
    assert first is second, "as everywhere in Python"
    other = copy.deepcopy(agent)
    other.learn(64)
    agent.logger.close()
    assert (tmp_path / "metrics.csv").read_text() == ""


def learned(agent: PPO) -> dict[str, np.ndarray]:
    """In another process, on as many threads as in this one: sums depend on them."""
    torch.set_num_threads(1)
    agent.learn(64, reset_num_timesteps=False)
    return {name: x.numpy() for name, x in agent.policy.state_dict().items()}


@pytest.mark.slow
def test_another_process_learns_what_this_one_would_have() -> None:
    agent = maze().learn(64)
    before = state(agent)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(learned, (agent,))
    assert same(before, state(agent)), "and what is here stays as it is"
    here = learned(agent)
    assert all(np.array_equal(x, here[name]) for name, x in found.items())
