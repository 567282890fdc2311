"""Shift: noise, lost frames and sticky actions, the same in every form and autoreset mode, and as much as is said.

What holds of every wrapper (vector form row by row, tensors, saved state) is tested in test_wrappers.py, which has
these among its forms.
"""

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlmin import make_vec, wrappers
from rlmin.wrappers import vector
from rlmin.wrappers.shift import Shift


class Echo(gym.Env[Any, Any]):
    """Shows the action carried out last, -1 at the start of an episode of five steps, among parts of other kinds."""

    parts = (spaces.Box(-1, 1, (2, 3), np.float64), spaces.Discrete(3))
    observation_space = spaces.Dict(
        {
            "action": spaces.Box(-1, 3, (1,), np.float32),
            "action_mask": spaces.MultiBinary(4),
            "inner": spaces.Tuple(parts),
            "picture": spaces.Box(0, 255, (2, 2), np.uint8),
        }
    )
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.seen(-1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.seen(action), 0.0, self.t == 5, False, {}

    def seen(self, action: Any) -> dict[str, Any]:
        return {
            "action": np.array([action], dtype=np.float32),
            "action_mask": np.ones(4, dtype=np.int8),
            "inner": (np.zeros((2, 3)), np.int64(2)),
            "picture": np.full((2, 2), 200, dtype=np.uint8),
        }


def executed(probability: float, mode: AutoresetMode, rows: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Actions asked for and carried out, [steps, rows]; -1 where none was carried out (NEXT_STEP's resets)."""
    env = vector.StickyAction(SyncVectorEnv([Echo] * rows, autoreset_mode=mode), probability)
    env.reset(seed=3)
    random, asked, done = np.random.default_rng(1), [], []
    for _ in range(steps):
        action = random.integers(0, 4, rows)
        seen, _, terminated, _, infos = env.step(action)
        shown = seen["action"][:, 0].copy()
        if mode is AutoresetMode.SAME_STEP and terminated.any():
            shown = np.array([final["action"][0] for final in infos["final_obs"]])
        if mode is AutoresetMode.DISABLED and terminated.any():
            env.reset(options={"reset_mask": terminated})
        asked.append(action)
        done.append(shown)
    return np.array(asked), np.array(done)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_sticky_action_is_the_one_carried_out_before_and_never_one_of_another_episode(mode: AutoresetMode) -> None:
    asked, done = executed(0.3, mode, rows=400, steps=17)
    length = 6 if mode is AutoresetMode.NEXT_STEP else 5  # calls from one start to the next
    kept = differing = 0
    for t in range(17):
        if t % length == 5:
            assert (done[t] == -1).all(), "a reset"
        elif t % length == 0:
            assert (done[t] == asked[t]).all(), "nothing to repeat yet"
        else:
            stuck = done[t] != asked[t]
            assert (done[t] == np.where(stuck, done[t - 1], asked[t])).all()
            kept, differing = kept + int(stuck.sum()), differing + int((asked[t] != done[t - 1]).sum())
    assert abs(kept / differing - 0.3) < 4 * math.sqrt(0.21 / differing)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_never_and_always_sticky(probability: float) -> None:
    asked, done = executed(probability, AutoresetMode.SAME_STEP, rows=7, steps=5)
    assert (done == (asked if probability == 0 else asked[:1])).all()


def test_a_continuous_action_sticks_whole() -> None:
    env = wrappers.StickyAction(gym.make("Pendulum-v1"), 1.0)
    plain = gym.make("Pendulum-v1")
    env.reset(seed=0)
    plain.reset(seed=0)
    for t in range(4):
        seen = env.step(np.array([0.5 * t + 0.25], dtype=np.float32))[0]
        assert np.array_equal(seen, plain.step(np.array([0.25], dtype=np.float32))[0])


def test_noise_has_the_stated_spread_on_floats_and_leaves_all_else_alone() -> None:
    rows = 3000
    env = vector.ObservationNoise(SyncVectorEnv([Echo] * rows), 0.2)
    seen, _ = env.reset(seed=0)
    noise = np.concatenate([seen["action"] + 1, seen["inner"][0].reshape(rows, 6)], axis=1)
    assert seen["action"].dtype == np.float32 and seen["inner"][0].dtype == np.float64
    assert (seen["picture"] == 200).all() and (seen["inner"][1] == 2).all() and (seen["action_mask"] == 1).all()
    spread = np.corrcoef(noise, rowvar=False)
    assert np.abs(noise.std(0) / 0.2 - 1).max() < 4 / math.sqrt(2 * rows) and np.abs(noise.mean(0)).max() < 0.2 * 0.08
    assert np.abs(spread - np.eye(7)).max() < 4.5 / math.sqrt(rows), "every number has noise of its own"
    after = env.step(np.zeros(rows, dtype=np.int64))[0]
    later = after["inner"][0].reshape(rows, 6)
    assert np.abs(np.corrcoef(later[:, 0], noise[:, 1])[0, 1]) < 4.5 / math.sqrt(rows), "and every step"


def test_dropped_frames_keep_the_action_mask() -> None:
    env = wrappers.FrameFlicker(Echo(), 1.0)
    seen, _ = env.reset(seed=0)
    assert (seen["action_mask"] == 1).all() and not seen["picture"].any() and not seen["inner"][1]


def test_of_a_choice_the_first_value_is_what_is_seen_when_nothing_is() -> None:
    space = spaces.Dict({"one": spaces.Discrete(3, start=2), "many": spaces.MultiDiscrete([2, 4], start=[5, -1])})

    class Choices(gym.Env[Any, Any]):
        observation_space, action_space = space, spaces.Discrete(2)

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict[str, Any]]:
            return {"one": np.int64(4), "many": np.array([6, 2])}, {}

    seen, _ = wrappers.FrameFlicker(Choices(), 1.0).reset(seed=0)
    assert seen["one"] == 2 and seen["many"].tolist() == [5, -1] and space.contains(seen)
    kept, _ = wrappers.FrameFlicker(Choices(), 0.0).reset(seed=0)
    assert kept["one"] == 4 and kept["many"].tolist() == [6, 2]


def test_the_kinds_draw_apart_from_each_other_and_from_the_game() -> None:
    """One seed for all: a frame must not be lost just where an action sticks, nor a goal lie where frames are lost."""
    rows = 4000

    def maze() -> Any:
        return make_vec("rlmin/TMaze-v0", rows, length=3)

    def after(env: Any, *actions: int) -> Any:
        env.reset(seed=0)
        return [env.step(torch.full((rows,), action))[0] for action in actions][-1]

    timed: Any = lambda: vector.FrameFlicker(vector.TimeStep(maze()), 0.5)  # noqa: E731
    inside = maze()
    after(vector.StickyAction(inside, 0.5), 1, 0)
    flags = {
        "goal": inside.unwrapped.state["goal"] > 0,
        "lost": after(timed(), 0)["time_step"][:, 0] == 0,
        "above": after(vector.ObservationNoise(maze(), 1.0), 0)[:, 0] > 0,
        "stuck": inside.unwrapped.state["x"] == 0,
    }

    def correlated(flags: list[torch.Tensor]) -> float:
        table = torch.corrcoef(torch.stack([flag.double() for flag in flags]))
        return float((table - torch.eye(len(flags))).abs().max())

    assert correlated(list(flags.values())) < 4.5 / math.sqrt(rows)
    assert correlated([flags["lost"], after(timed(), 0)["time_step"][:, 0] == 0]) > 0.99, "two of a kind do not"


def test_a_shift_stands_in_one_order_around_one_environment_and_around_many() -> None:
    shift = Shift(noise=0.1, drop=0.2, sticky=0.3)
    assert str(shift) == "noise 0.1, drop 0.2, sticky 0.3" and str(Shift()) == ""
    alone, many = shift.single(Echo()), shift.vector(SyncVectorEnv([Echo] * 3, autoreset_mode=AutoresetMode.SAME_STEP))
    one, _ = alone.reset(seed=6)
    seen, _ = many.reset(seed=5)
    for t in range(4):
        assert np.array_equal(one["inner"][0], seen["inner"][0][1]) and one["action"] == seen["action"][1]
        one = alone.step(t % 4)[0]
        seen = many.step(np.full(3, t % 4))[0]
    plain = Echo()
    assert Shift().single(plain) is plain


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: wrappers.ObservationNoise(Echo(), -0.1), r"sigma: expected a number of at least 0, got -0\.1"),
        (lambda: wrappers.ObservationNoise(Echo(), math.nan), "sigma: expected a number of at least 0, got nan"),
        (lambda: wrappers.ObservationNoise(gym.make("FrozenLake-v1"), 0.1), "no part is a Box of floats: Discrete"),
        (lambda: wrappers.StickyAction(Echo(), 1.5), r"probability: expected a number from 0 to 1, got 1\.5"),
    ],
)
def test_bad_values_are_refused(broken: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        broken()
