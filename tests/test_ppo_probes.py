"""Probe environments: each is solved by one ability alone, has an exact answer, and is learned within seconds."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlmin import PPO
from rlmin.evaluation.evaluate import evaluate
from rlmin.vector import adapt


class Probe(gym.Env[Any, Any]):
    """One number seen, two actions, one step; a subclass says what is different."""

    length = 1

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.cue = 0, int(self.np_random.integers(2)) * 2 - 1
        return np.array([self.seen()], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(self.earned(int(action)))
        self.t += 1
        return np.array([self.seen()], dtype=np.float32), reward, *self.ends(), {}

    def ends(self) -> tuple[bool, bool]:
        return self.t == self.length, False

    def seen(self) -> float:
        return 0.0

    def earned(self, action: int) -> float:
        return 1.0


class Constant(Probe):
    """A reward of 1, whatever is seen or done."""


class Shown(Probe):
    """The reward is what is seen."""

    def seen(self) -> float:
        return self.cue

    def earned(self, action: int) -> float:
        return self.cue


class Late(Probe):
    """Two steps, 0 then 1 is seen; the second pays 1."""

    length = 2

    def seen(self) -> float:
        return self.t % 2

    def earned(self, action: int) -> float:
        return self.t


class Chosen(Probe):
    """Action 1 earns 1, action 0 loses 1."""

    def earned(self, action: int) -> float:
        return 2 * action - 1


class Matched(Shown):
    """The action that matches what is seen earns 1, the other loses 1."""

    def earned(self, action: int) -> float:
        return (2 * action - 1) * self.cue


class Remembered(Matched):
    """A cue at the first step, nothing after; at the fourth step the action that matches the cue earns 1."""

    length = 4

    def seen(self) -> float:
        return self.cue if self.t == 0 else 0.0

    def earned(self, action: int) -> float:
        return super().earned(action) if self.t == 3 else 0.0


class Forever(Probe):
    """A reward of 1 at every step; a time limit cuts the episode off after five."""

    def ends(self) -> tuple[bool, bool]:
        return False, self.t == 5


class Mortal(Forever):
    """The same, but the time limit is reported as an end."""

    def ends(self) -> tuple[bool, bool]:
        return self.t == 5, False


def train(probe: type[Probe], steps: int = 4096, **settings: Any) -> PPO:
    small = {"width": 16, "layers": 1, "horizon": 16, "epochs": 4, "lr": 5e-3, "lr_final": None, "entropy": 0.0}
    small |= {"normalize_advantage": False, "minibatches": 1}
    env = SyncVectorEnv([probe] * 8, autoreset_mode=AutoresetMode.SAME_STEP)
    return PPO(env, seed=1, **{**small, **settings}).learn(steps)


def values(agent: PPO, *episode: float) -> list[float]:
    """The value at each step of an episode that shows these numbers."""
    seen = torch.tensor(episode).reshape(-1, 1, 1)
    start = torch.arange(len(episode)).reshape(-1, 1) == 0
    with torch.no_grad():
        return agent.policy.unroll({"observation": seen}, agent.policy.initial_state(1), start).value.flatten().tolist()


def chance_of_one(agent: PPO, seen: float) -> float:
    with torch.no_grad():
        observation, state = {"observation": torch.tensor([[seen]])}, agent.policy.initial_state(1)
        out = agent.policy.step(observation, state, torch.ones(1, dtype=torch.bool))
        return float(out.distribution.log_prob(torch.tensor([[1]])).exp())


def test_the_value_of_a_constant_reward_is_that_reward() -> None:
    assert values(train(Constant), 0.0) == pytest.approx([1.0], abs=0.05)


def test_the_value_follows_what_is_seen() -> None:
    agent = train(Shown)
    assert values(agent, 1.0) + values(agent, -1.0) == pytest.approx([1.0, -1.0], abs=0.1)


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_a_reward_one_step_away_is_worth_gamma(gamma: float) -> None:
    assert values(train(Late, gamma=gamma), 0.0, 1.0) == pytest.approx([gamma, 1.0], abs=0.05)


def test_the_action_that_earns_more_is_taken() -> None:
    agent = train(Chosen)
    assert chance_of_one(agent, 0.0) > 0.95
    assert values(agent, 0.0) == pytest.approx([1.0], abs=0.15)


def test_the_action_depends_on_what_is_seen() -> None:
    agent = train(Matched)
    assert chance_of_one(agent, 1.0) > 0.95 and chance_of_one(agent, -1.0) < 0.05


LONGER = [pytest.param(encoder, marks=pytest.mark.slow) for encoder in ("min_lstm", "gru", "lstm", "aaren")]


@pytest.mark.parametrize("encoder", ["min_gru", "attention", *LONGER])
def test_an_encoder_that_remembers_answers_a_cue_three_steps_old(encoder: str) -> None:
    played = evaluate(train(Remembered, 8192, encoder=encoder).policy, adapt(Remembered()), episodes=40, seed=5)
    assert played.mean_return > 0.95


def test_without_memory_the_cue_is_lost() -> None:
    played = evaluate(train(Remembered, 8192, encoder="mlp").policy, adapt(Remembered()), episodes=100, seed=5)
    assert abs(played.mean_return) < 0.35, "chance is 0, with a deviation of 0.1"


def test_a_reward_of_one_forever_is_worth_one_over_one_minus_gamma_through_time_limits() -> None:
    immortal = values(train(Forever, 12_288, gamma=0.9), 0.0, 0.0, 0.0)
    assert immortal == pytest.approx([10.0] * 3, abs=0.7)
    mortal = values(train(Mortal, 4096, gamma=0.9), 0.0, 0.0, 0.0)
    assert max(mortal) < 5, "the arm that must fail: an end that is none; the sum over five steps is 4.1"
