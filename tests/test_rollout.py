"""A rollout: T steps of B environments, each with the value of the state it reached under the memory the agent had."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from native_tensors import Tensors
from stable_baselines3.common.vec_env import DummyVecEnv
from tensordict import TensorDict
from torch import Tensor

from rlmin import PPO
from rlmin.learning.rollout import Rollout, check_finite
from rlmin.types import Observation, map_state

T, B = 12, 3


class Clock(gym.Env[Any, Any]):
    """Shows the time and a number of the episode, so the state that an action reaches is known: one later."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-99, 99, (2,), np.float32)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.number = 0, float(self.np_random.normal())
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        terminated, truncated = self.np_random.random(2) < (0.1, 0.2)
        return self.look(), 0.5 * float(action), bool(terminated), bool(truncated), {}

    def look(self) -> Any:
        return np.array([self.t, self.number], dtype=np.float32)


def sync(mode: AutoresetMode) -> Callable[[], Any]:
    return lambda: SyncVectorEnv([Clock] * B, autoreset_mode=mode)


MODES: dict[str, Callable[[], Any]] = {mode.name: sync(mode) for mode in AutoresetMode}
MODES |= {"sb3": lambda: DummyVecEnv([Clock] * B), "native": lambda: Tensors(Clock, B)}


def make(mode: str, **settings: Any) -> PPO:
    small = {"width": 8, "horizon": T, "minibatches": 1, "previous_action": True, "previous_reward": True}
    agent = PPO(MODES[mode](), seed=3, **{**small, **settings})
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return agent


def collect(agent: PPO) -> Rollout:
    rollout = agent.collector.collect()
    assert rollout is not None
    return rollout


def values_by_hand(agent: PPO, rollout: Rollout, *, wipe: bool = False) -> tuple[Tensor, Tensor]:
    """Value of every observation, and of every state reached; `wipe` forgets the memory before the latter."""
    batch, state = rollout.batch, rollout.state
    value, reached = torch.zeros(T, B), torch.zeros(T, B)
    with torch.no_grad():
        for t in range(T):
            seen: Observation = {name: leaf[t] for name, leaf in batch["observation"].items()}
            out = agent.policy.step(seen, state, batch["start"][t])
            value[t], state = out.value, out.state
            later = {"observation": seen["observation"] + torch.tensor([1.0, 0.0])}
            later = agent.policy.with_previous(later, batch["action"][t], batch["reward"][t])
            memory = map_state(torch.zeros_like, state) if wipe else state
            reached[t] = agent.policy.step(later, memory, torch.full((B,), wipe)).value
    return value, reached


@pytest.mark.parametrize("mode", MODES)
def test_next_value_is_that_of_the_state_reached_under_the_memory_before_any_reset(mode: str) -> None:
    agent = make(mode)
    found = 0
    for _ in range(3):
        rollout = collect(agent)
        batch = rollout.batch
        value, reached = values_by_hand(agent, rollout)
        torch.testing.assert_close(batch["value"], value, atol=1e-5, rtol=1e-5)
        lives = ~batch["terminated"] & ~batch["filler"]
        torch.testing.assert_close(batch["next_value"][lives], reached[lives], atol=1e-5, rtol=1e-5)
        cut = batch["truncated"]
        forgot = values_by_hand(agent, rollout, wipe=True)[1]
        assert (batch["next_value"] - forgot)[cut].abs().max() > 1e-3, "the arm that must fail: a memory reset too soon"
        found += int(cut.sum())
    assert found > 5


@pytest.mark.parametrize("mode", MODES)
def test_start_marks_the_first_observation_of_an_episode_and_nothing_else(mode: str) -> None:
    agent = make(mode)
    first, second = collect(agent).batch.clone(), collect(agent).batch.clone()
    batch = TensorDict.cat([first, second])
    assert torch.equal(batch["start"], batch["observation", "observation"][..., 0] == 0)
    ended = batch["terminated"] | batch["truncated"]
    assert ended.any() and not (ended & batch["filler"]).any()
    waiting = 2 if mode == "NEXT_STEP" else 1
    assert torch.equal(batch["start"][waiting:], ended[:-waiting])
    assert bool(batch["filler"].any()) == (mode == "NEXT_STEP")
    real = ~batch["filler"]
    assert torch.equal(batch["reward"][real], 0.5 * batch["action"].squeeze(-1)[real].float())


def test_the_second_rollout_goes_on_with_the_memory_of_the_first() -> None:
    agent = make("SAME_STEP")
    rollout = collect(agent)
    with torch.no_grad():
        after = agent.policy.unroll(dict(rollout.batch["observation"].items()), rollout.state, rollout.batch["start"])
    pairs: list[tuple[Tensor, Tensor]] = []
    again = collect(agent).state
    left, right = iter(flat(after.state)), iter(flat(again))
    pairs = list(zip(left, right, strict=True))
    assert pairs and all(torch.allclose(x, y, atol=1e-5) for x, y in pairs)


def flat(state: Any) -> list[Tensor]:
    return [x for part in state for x in flat(part)] if isinstance(state, tuple) else [state]


@pytest.mark.parametrize("settings", [{}, {"normalize_return": True}, {"normalize_observation": True}, {"bptt": 4}])
def test_filler_rows_move_no_weight_and_real_rows_do(settings: dict[str, Any]) -> None:
    def train(scramble: str) -> tuple[list[Tensor], dict[str, float]]:
        agent = make("NEXT_STEP", **settings)
        for _ in range(2):
            batch = (rollout := collect(agent)).batch
            assert batch["filler"].any()
            chosen = batch["filler"] if scramble == "filler" else ~batch["filler"]
            if scramble:
                for name in ("reward", "log_prob", "value", "next_value"):
                    batch[name][chosen] = 7.0
                batch["observation", "observation"][chosen] = -50.0
                batch["action"][chosen] = 2
            metrics = agent.update(rollout)
        return [x.clone() for x in agent.policy.state_dict().values()], metrics

    (plain, said), (fillers, heard) = train(""), train("filler")
    assert all(torch.equal(x, y) for x, y in zip(plain, fillers, strict=True))
    assert said == heard
    assert any(not torch.equal(x, y) for x, y in zip(plain, train("real")[0], strict=True)), "the arm that must fail"


def test_a_callback_that_has_seen_enough_stops_the_rollout_at_once() -> None:
    agent, seen = make("SAME_STEP"), []
    assert agent.collector.collect(lambda step: seen.append(step) or len(seen) < 5) is None  # type: ignore[func-returns-value]
    assert len(seen) == agent.collector.num_steps == 5


def test_what_is_not_finite_is_named_with_its_step_and_environment() -> None:
    batch = collect(make("SAME_STEP")).batch.clone()
    check_finite(batch, first_step=100)
    batch["observation", "observation"][4, 2, 1] = torch.inf
    with pytest.raises(FloatingPointError, match=r"observation.observation: .* inf\] at step 104 of environment 2"):
        check_finite(batch, first_step=100)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks whether the CPU waits for a GPU")
def test_no_step_of_a_rollout_waits_for_the_gpu() -> None:
    agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": 4}, num_envs=B, width=8, horizon=T, device="cuda")
    collect(agent)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            for t in range(T):
                agent.collector._step(t)
    finally:
        torch.cuda.set_sync_debug_mode("default")
