"""Acting and training are one policy: the pass over a rollout repeats, to rounding, what every single step said.

If this fails, the gradient is that of another policy than the one that acted, and PPO's ratio means nothing.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from rlmin import PPO, make_vec, verify_consistency
from rlmin.encoders import MIXERS
from rlmin.policy import Policy, PolicyOutput
from rlmin.types import Observation, State

TOLERANCE = 1e-5


class Fickle(gym.Env[Any, Any]):
    """Random observations and rewards; after each step it terminates, or is truncated, by chance."""

    def __init__(self, chance: float = 0.15) -> None:
        self.chance = chance
        self.observation_space = spaces.Box(-3, 3, (3,), np.float32)
        self.action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        terminated, truncated = (bool(x < self.chance) for x in self.np_random.random(2))
        return self.look(), float(self.np_random.normal()), terminated, truncated, {}

    def look(self) -> Any:
        return self.np_random.uniform(-3, 3, 3).astype(np.float32)


MODES: dict[str, Callable[[], Any]] = {
    "next step": lambda: SyncVectorEnv([Fickle] * 3, autoreset_mode=AutoresetMode.NEXT_STEP),
    "same step": lambda: SyncVectorEnv([Fickle] * 3, autoreset_mode=AutoresetMode.SAME_STEP),
    "disabled": lambda: SyncVectorEnv([Fickle] * 3, autoreset_mode=AutoresetMode.DISABLED),
    "sb3": lambda: DummyVecEnv([Fickle] * 3),
    "native": lambda: make_vec("rlmin/TMaze-v0", 3, length=4),
}


def restless(agent: PPO, seed: int = 0) -> PPO:
    """The agent with random weights large enough that memory moves its probabilities: a fresh head is all but flat."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return agent


def make(mode: str, **settings: Any) -> PPO:
    small = {"width": 8, "horizon": 16, "minibatches": 1, "previous_action": True, "previous_reward": True}
    return restless(PPO(MODES[mode](), seed=1, **{**small, **settings}))


class Shifted(Policy):
    """Training that sees every episode begin one step late."""

    def unroll(
        self, observation: Observation, state: State, start: Tensor, action_mask: Tensor | None = None
    ) -> PolicyOutput:
        late = torch.cat([torch.zeros_like(start[:1]), start[:-1]])
        return super().unroll(observation, state, late, action_mask)


def shifted(agent: PPO) -> PPO:
    wrong = Shifted(agent.policy.observation_space, agent.policy.action_space, agent.config)
    wrong.load_state_dict(agent.policy.state_dict())
    agent.policy = wrong
    return agent


SOME = ("min_gru", "lstm", "attention", "mlp")  # how an environment resets is no matter of the memory
CASES = [(encoder, mode) for encoder in MIXERS for mode in (MODES if encoder in SOME else ["next step"])]


@pytest.mark.parametrize(("encoder", "mode"), CASES)
def test_training_repeats_what_acting_said_and_one_step_late_it_does_not(encoder: str, mode: str) -> None:
    agent = make(mode, encoder=encoder)
    assert verify_consistency(agent, steps=64) < TOLERANCE
    with pytest.raises(AssertionError, match=r"acting and training disagree: log-ratio .* of environment \d"):
        verify_consistency(shifted(agent), steps=64)


@pytest.mark.parametrize("encoder", SOME)
def test_two_memories_agree_as_well_as_one(encoder: str) -> None:
    agent = make("next step", encoder=encoder, share_memory=False)
    assert verify_consistency(agent, steps=64) < TOLERANCE
    with pytest.raises(AssertionError):
        verify_consistency(shifted(agent), steps=64)


@pytest.mark.parametrize("bptt", [None, 4, 1])
@pytest.mark.parametrize("mode", MODES)
def test_the_first_epoch_of_an_update_has_ratio_one_whatever_the_window(mode: str, bptt: int | None) -> None:
    agent = make(mode, bptt=bptt, epochs=1, lr=1e-30)
    agent.learn(2 * 16 * 3)  # the second rollout begins inside episodes
    rollout = agent.collector.collect()
    assert rollout is not None
    assert agent.update(rollout)["approx_kl"] < TOLERANCE**2
    wrong = agent.collector.collect()
    assert wrong is not None
    wrong.batch["start"][:] = wrong.batch["start"].roll(1, 0)
    assert agent.update(wrong)["approx_kl"] > 1e-6, "the arm that must fail"


def test_another_environment_can_be_named_and_the_agent_is_left_as_it_was() -> None:
    agent = make("native")
    before = {name: x.clone() for name, x in agent.policy.state_dict().items()}
    numbers = agent.generator.get_state()
    assert verify_consistency(agent, "rlmin/TMaze-v0", steps=32) < TOLERANCE
    assert all(torch.equal(before[name], x) for name, x in agent.policy.state_dict().items())
    assert torch.equal(numbers, agent.generator.get_state())
    agent.learn(100)


def test_weights_that_are_not_numbers_are_no_agreement() -> None:
    agent = make("native")
    with torch.no_grad():
        next(agent.policy.parameters()).fill_(torch.nan)
    with pytest.raises((AssertionError, FloatingPointError)):
        verify_consistency(agent, steps=8)


def test_an_environment_of_other_spaces_is_refused() -> None:
    agent = PPO("rlmin/TMaze-v0", width=8)
    with pytest.raises(ValueError, match="observation space: the policy expects"):
        verify_consistency(agent, "CartPole-v1")


def test_checking_leaves_the_agent_s_own_seed_in_force() -> None:
    cues = []
    for seed in (1, 2):
        agent = PPO("rlmin/TMaze-v0", width=8, seed=seed, num_envs=16)
        verify_consistency(agent, steps=4)
        cues.append(agent.collector.now.observation["observation"])
    assert not torch.equal(*cues)
