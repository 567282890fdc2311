"""Evaluation: whole episodes, the same number from every environment, with intervals that mean what they say.

Short episodes come back sooner; an evaluation that took the first to finish would be an evaluation of short episodes.
"""

import math
from types import SimpleNamespace
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlmin.envs import register
from rlmin.evaluation.evaluate import Evaluation, evaluate
from rlmin.policy import Policy, PolicyConfig
from rlmin.policy.fit import check_spaces
from rlmin.vector import Vector, adapt
from rlmin.vector.episodes import Episode, EpisodeStatistics

register()

B = 64
SHORT, LONG = 1, 8


class LongIsGood(gym.Env[np.ndarray, np.int64]):
    """Whatever is done, half of the episodes last SHORT steps and return 0, half last LONG steps and return 1."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = LONG if self.np_random.random() < 0.5 else SHORT
        self.good = self.left == LONG
        return np.zeros(2, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        over = self.left == 0
        info = {"is_success": self.good} if over else {}
        return np.zeros(2, np.float32), float(over and self.good), over, False, info


def long_is_good(rows: int = B, mode: AutoresetMode = AutoresetMode.SAME_STEP) -> Vector:
    return adapt(SyncVectorEnv([LongIsGood] * rows, autoreset_mode=mode))


def policy_of(vector: Vector, **settings: Any) -> Policy:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Policy(vector.observation_space, vector.action_space, PolicyConfig(width=4, layers=1, **settings))


def always(vector: Vector, action: int) -> Policy:
    policy = policy_of(vector)
    projection: Any = policy.action_head.projection
    projection.weight.data.zero_()
    projection.bias.data[action] = 50.0
    return policy


def of(returns: list[float], successes: list[bool] | None = None) -> Evaluation:
    told = None if successes is None else np.array(successes)
    return Evaluation(returns=np.array(returns), lengths=np.ones(len(returns), dtype=np.int64), successes=told)


# -- which episodes count ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_short_episodes_are_not_over_represented(mode: AutoresetMode) -> None:
    vector = long_is_good(mode=mode)
    fair = evaluate(policy_of(vector), vector, episodes=B, seed=0)
    error = 0.5 / math.sqrt(B)
    assert len(fair.returns) == B and abs(fair.mean_return - 0.5) < 3 * error
    assert set(zip(fair.returns.tolist(), fair.lengths.tolist(), strict=True)) == {(0.0, SHORT), (1.0, LONG)}
    assert fair.successes is not None and (fair.successes == (fair.returns == 1)).all()

    statistics = EpisodeStatistics(B)
    first: list[Episode] = []
    vector.reset(seed=0)
    while len(first) < B:  # the naive way: the first that finish, wherever
        first += statistics.update(vector.step(torch.zeros(B, dtype=torch.int64)))
    naive = np.mean([episode.return_ for episode in first[:B]])
    assert naive < 0.5 - 6 * error


def test_as_many_episodes_are_played_as_were_asked_for() -> None:
    vector = long_is_good(rows=3)
    for episodes in (1, 3, 7):
        assert len(evaluate(policy_of(vector), vector, episodes=episodes).returns) == episodes
    with pytest.raises(ValueError, match="episodes: expected a whole number of at least 1, got 0"):
        evaluate(policy_of(vector), vector, episodes=0)


def test_one_seed_gives_one_result_and_none_a_new_one_each_time() -> None:
    def lengths(seed: int | None) -> list[int]:
        vector = adapt("CartPole-v1", num_envs=4)
        found: list[int] = evaluate(
            policy_of(vector), vector, episodes=24, deterministic=False, seed=seed
        ).lengths.tolist()
        return found

    assert lengths(1) == lengths(1) != lengths(2)
    assert lengths(None) != lengths(None)


def test_sampled_actions_are_not_the_most_likely_ones() -> None:
    vector = adapt("CartPole-v1", num_envs=4)
    lengths = [
        evaluate(policy_of(vector), vector, deterministic=mode, seed=1).lengths.tolist() for mode in (True, False)
    ]
    assert lengths[0] != lengths[1]


def by_hand(policy: Policy, seed: int, episodes: int, *, forget: bool) -> list[float]:
    """Returns in one CartPole, stepped here; `forget` wipes memory, previous action and reward at every step."""
    env, returns = gym.make("CartPole-v1"), []
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed if episode == 0 else None)
        state, action, over, rewards = policy.initial_state(1), policy.no_action(1), False, [0.0]
        while not over:
            leaves = policy.with_previous(
                {"observation": torch.as_tensor(observation)[None]}, action, torch.tensor(rewards[-1:])
            )
            with torch.no_grad():
                out = policy.step(leaves, state, torch.tensor([forget or len(rewards) == 1]))
            state, action = out.state, out.distribution.mode()
            observation, reward, terminated, truncated, _ = env.step(int(action))
            rewards.append(float(reward))
            over = terminated or truncated
        returns.append(sum(rewards))
    return returns


def test_memory_previous_action_and_reward_are_carried_through_every_episode_of_every_environment() -> None:
    vector = adapt("CartPole-v1", num_envs=3)
    policy = policy_of(vector, previous_action=True, previous_reward=True)
    generator = torch.Generator().manual_seed(1)  # weights that make all three matter
    for parameter in policy.parameters():
        parameter.data.normal_(generator=generator)
    found = sorted(evaluate(policy, vector, episodes=6, seed=5).returns.tolist())
    assert found == sorted(total for i in range(3) for total in by_hand(policy, 5 + i, 2, forget=False))
    assert found != sorted(total for i in range(3) for total in by_hand(policy, 5 + i, 2, forget=True))
    assert len(set(found)) > 1


# -- known values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("action", "value"), [(0, 0.0), (1, -1.0), (2, -1.0)])
def test_constant_policies_score_in_a_t_maze_what_its_rules_say(action: int, value: float) -> None:
    """Always right reaches the junction and no goal: 0. Standing still lags behind at each of the first steps: -1."""
    vector = adapt("rlmin/TMaze-v0", num_envs=4)
    found = evaluate(always(vector, action), vector, episodes=8)
    np.testing.assert_allclose(found.returns, np.full(8, value), atol=1e-6)
    assert found.success_rate == 0 and len(set(found.lengths.tolist())) == 1


def test_an_environment_that_does_not_tell_success_has_no_success_rate() -> None:
    vector = adapt("CartPole-v1", num_envs=2)
    found = evaluate(policy_of(vector), vector, episodes=2)
    assert found.successes is None and found.success_rate is None and found.success_interval() is None
    assert (found.returns == found.lengths).all() and "success" not in str(found)


def test_spaces_that_differ_from_the_policys_are_an_error_that_shows_both() -> None:
    vector = long_is_good(rows=2)
    check_spaces(policy_of(vector), vector)
    with pytest.raises(ValueError, match=r"observation space: the policy expects Box.*\(4,\).* has Box.*\(2,\)"):
        evaluate(policy_of(adapt("CartPole-v1")), vector, episodes=1)
    other = Policy(vector.observation_space, spaces.Discrete(3, start=1), PolicyConfig(width=4))
    with pytest.raises(ValueError, match=r"action space: the policy expects Discrete\(3, start=1\)"):
        check_spaces(other, vector)


def test_bounds_and_precision_of_floats_are_no_difference_and_those_of_choices_and_pictures_are() -> None:
    def differ(made_for: gym.Space[Any], found: gym.Space[Any]) -> bool:
        vector = SimpleNamespace(observation_space=found, action_space=spaces.Discrete(2))
        try:
            check_spaces(Policy(made_for, spaces.Discrete(2), PolicyConfig(width=4)), cast(Vector, vector))
        except ValueError:
            return True
        return False

    unbounded = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    assert not differ(unbounded, spaces.Box(-5, 5, (3,), np.float64))
    assert not differ(spaces.Dict(a=unbounded), spaces.Dict(a=spaces.Box(0, 1, (3,))))
    assert differ(unbounded, spaces.Box(-5, 5, (4,), np.float64))
    assert differ(spaces.Dict(a=unbounded), spaces.Dict(b=unbounded))
    assert differ(spaces.Box(0, 9, (3,), np.int64), spaces.Box(0, 8, (3,), np.int64))
    assert differ(spaces.Discrete(3), spaces.Discrete(4))


# -- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("won", "n"), [(0, 20), (7, 20), (20, 20), (93, 200)])
def test_the_success_interval_is_wilsons(won: int, n: int) -> None:
    z, p = 1.959963984540054, won / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    want = [(centre + sign * half) / (1 + z * z / n) for sign in (-1, 1)]
    found = of([0.0] * n, [i < won for i in range(n)])
    assert found.success_rate == p
    assert found.success_interval() == pytest.approx(want, abs=1e-12)
    naive = [p + sign * z * math.sqrt(p * (1 - p) / n) for sign in (-1, 1)]
    assert not np.allclose(want, naive, atol=1e-3)
    wider = found.success_interval(0.99)
    assert wider is not None and wider[1] - wider[0] > want[1] - want[0]


def test_the_return_interval_is_that_of_a_mean() -> None:
    for n in (100, 1600):
        x = np.random.default_rng(1).normal(3.0, 2.0, n)
        found = of(x.tolist())
        low, high = found.return_interval()
        half = 1.96 * x.std() / math.sqrt(n)
        np.testing.assert_allclose([low, high], [x.mean() - half, x.mean() + half], atol=0.1 * half)
        assert found.return_interval() == (low, high)  # the same every time
        tighter = found.return_interval(0.5)
        assert low < tighter[0] < found.mean_return < tighter[1] < high
    assert not np.allclose([low, high], np.quantile(x, [0.025, 0.975]), atol=1.0)  # not the spread of the returns


def test_equal_returns_leave_nothing_open() -> None:
    assert of([2.0] * 9).return_interval() == (2.0, 2.0)
    assert of([5.0]).return_interval() == (5.0, 5.0)


def test_the_text_states_episodes_and_intervals() -> None:
    text = str(of([0.0, 1.0, 1.0, 1.0], [False, True, True, True]))
    low, high = of([], [False, True, True, True]).success_interval() or (0, 0)
    assert text.startswith("return 0.750 [") and f"success 75.0 % [{100 * low:.1f}, {100 * high:.1f}]" in text
    assert text.endswith("length 1.0  (4 episodes, 95 % intervals)")
