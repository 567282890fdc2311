"""The small-view memory levels are minigrid's own: same layouts, views, rewards and ends for the same seeds."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from minigrid.envs.memory import MemoryEnv

from rlmin.envs import register
from rlmin.envs.grid_layouts import read_level
from rlmin.envs.minigrid_memory import MiniGridMemory

register()


def original(level: str, view_size: int) -> Any:
    size, random_length = read_level(level)
    return MemoryEnv(size=size, random_length=random_length, agent_view_size=view_size)


def walk(rng: np.random.Generator) -> int:
    """Mostly forward, so that the junction is reached."""
    return int(rng.choice([0, 1, 2], p=[0.15, 0.15, 0.7]))


@pytest.mark.parametrize(
    ("level", "view_size"), [("S7", 3), ("S9", 3), ("S13Random", 3), ("S17Random", 5), ("S11", 7), ("S15", 3)]
)
def test_every_view_reward_and_end_is_minigrids(level: str, view_size: int) -> None:
    ours, theirs = MiniGridMemory(level=level, view_size=view_size), original(level, view_size)
    rng, ends = np.random.default_rng(0), 0
    image, _ = ours.reset(seed=11)
    wanted, _ = theirs.reset(seed=11)
    for _ in range(1200):
        assert np.array_equal(image, wanted["image"]) and image.dtype == wanted["image"].dtype
        action = walk(rng)
        image, reward, terminated, truncated, info = ours.step(action)
        wanted, gain, over, cut, _ = theirs.step(action)
        assert (reward, terminated, truncated) == (gain, over, cut)
        if terminated or truncated:
            assert info == {"is_success": terminated and reward > 0} and np.array_equal(image, wanted["image"])
            ends += 1
            image, _ = ours.reset()
            wanted, _ = theirs.reset()
    assert ends >= 3


def test_another_seed_shows_other_views() -> None:
    def trace(seed: int) -> list[bytes]:
        env, rng = MiniGridMemory(level="S9"), np.random.default_rng(0)
        views = [env.reset(seed=seed)[0].tobytes()]
        return views + [env.step(walk(rng))[0].tobytes() for _ in range(60)]

    assert trace(3) == trace(3) != trace(4)


def test_numbered_layouts_are_those_of_minigrids_seeds() -> None:
    ours, theirs, rng = MiniGridMemory(level="S13Random", layouts=6), original("S13Random", 3), np.random.default_rng(1)
    ours.reset(seed=0)
    numbers = []
    for _ in range(30):
        image, info = ours.reset()
        numbers.append(info["layout"])
        wanted = theirs.reset(seed=info["layout"])[0]["image"]
        assert np.array_equal(image, wanted)
        for _ in range(15):
            action = walk(rng)
            image, reward, terminated, truncated, _ = ours.step(action)
            told = theirs.step(action)
            assert np.array_equal(image, told[0]["image"]) and (reward, terminated, truncated) == told[1:4]
            if terminated or truncated:
                break
    assert set(numbers) == set(range(6))


def test_layout_numbers_follow_the_seed_and_can_be_chosen() -> None:
    env = MiniGridMemory(layouts=50)

    def draw(seed: int) -> list[int]:
        return [env.reset(seed=seed)[1]["layout"]] + [env.reset()[1]["layout"] for _ in range(8)]

    assert draw(1) == draw(1) != draw(2)
    assert env.reset(options={"layout": 17})[1]["layout"] == 17


def test_returned_views_are_the_callers_own() -> None:
    env = MiniGridMemory()
    first = env.reset(seed=5)[0]
    kept = first.copy()
    first[:] = 9
    assert np.array_equal(env.reset(seed=5)[0], kept)


def test_time_runs_out_as_truncation_without_success() -> None:
    env = MiniGridMemory(level="S7")
    env.reset(seed=0)
    told = [env.step(0) for _ in range(5 * 7**2)]
    assert not any(row[3] for row in told[:-1])
    assert told[-1][2:] == (False, True, {"is_success": False})


def test_gymnasium_accepts_it_and_bad_options_are_refused() -> None:
    check_env(gym.make("rlmin/MiniGridMemory-v0", level="S7").unwrapped, skip_render_check=True)
    assert gym.make("rlmin/MiniGridMemory-v0").action_space.n == 3  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="level='S8': expected S7, S9"):
        MiniGridMemory(level="S8")
    with pytest.raises(ValueError, match="view_size=4"):
        MiniGridMemory(view_size=4)
    with pytest.raises(ValueError, match="layouts=0"):
        MiniGridMemory(layouts=0)
    env = MiniGridMemory()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="got 5"):
        env.step(5)
