"""Classic control without velocities is gymnasium's classic control with columns left out."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rlmin.envs import register

register()

PAIRS = [
    ("rlmin/CartPoleNoVel-v1", "CartPole-v1", [0, 2], 500),
    ("rlmin/PendulumNoVel-v1", "Pendulum-v1", [0, 1], 200),
]


@pytest.mark.parametrize(("id", "source", "shown", "limit"), PAIRS)
def test_it_is_the_original_with_the_velocities_left_out(id: str, source: str, shown: list[int], limit: int) -> None:
    ours, theirs = gym.make(id), gym.make(source)
    ours.action_space.seed(0)
    seen, full = ours.reset(seed=4)[0], theirs.reset(seed=4)[0]
    for _ in range(60):
        assert np.array_equal(seen, full[shown]) and seen in ours.observation_space
        assert not np.array_equal(seen, full[[1, 2]]), "the columns matter"
        action = ours.action_space.sample()
        seen, reward, terminated, truncated, _ = ours.step(action)
        full, *rest, _ = theirs.step(action)
        assert [reward, terminated, truncated] == pytest.approx(rest)
        if terminated or truncated:
            seen, full = ours.reset()[0], theirs.reset()[0]


@pytest.mark.parametrize(("id", "source", "shown", "limit"), PAIRS)
def test_the_time_limit_is_the_originals(id: str, source: str, shown: list[int], limit: int) -> None:
    assert gym.spec(id).max_episode_steps == gym.spec(source).max_episode_steps == limit


@pytest.mark.filterwarnings("ignore:.*recommend using a symmetric and normalized space.*")
@pytest.mark.parametrize("id", [pair[0] for pair in PAIRS])
def test_gymnasium_accepts_it(id: str) -> None:
    check_env(gym.make(id).unwrapped, skip_render_check=True)
