"""Wrappers: the vector form is the scalar form row by row, in every autoreset mode, of arrays and of tensors."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor

from rlmin import PPO, make_vec, wrappers
from rlmin.wrappers import vector

ROWS, STEPS = 3, 40


class Walk(gym.Env[Any, Any]):
    """Shows (episode, t, last action) and pays t; episodes are of 2 to 5 steps; every third is cut short."""

    observation_space = spaces.Box(-99, 99, (3,), np.float32)
    action_space = spaces.Discrete(4, start=1)

    def __init__(self) -> None:
        self.episode = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.t = (0 if seed is not None else self.episode + 1), 0
        self.length = 2 + int(self.np_random.integers(4))
        return np.array([self.episode, 0, 7], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        over = self.t == self.length
        seen = np.array([self.episode, self.t, action], dtype=np.float32)
        return seen, float(self.t), over and self.episode % 3 != 2, over and self.episode % 3 == 2, {}


FORMS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "previous action": (wrappers.PreviousAction, vector.PreviousAction),
    "previous reward": (wrappers.PreviousReward, vector.PreviousReward),
    "time step": (lambda e: wrappers.TimeStep(e, 5), lambda e: vector.TimeStep(e, 5)),
    "hidden velocity": (lambda e: wrappers.HiddenVelocity(e, [0, 2]), lambda e: vector.HiddenVelocity(e, [0, 2])),
    "flicker": (lambda e: wrappers.FrameFlicker(e, 0.4), lambda e: vector.FrameFlicker(e, 0.4)),
    "noise": (lambda e: wrappers.ObservationNoise(e, 0.4), lambda e: vector.ObservationNoise(e, 0.4)),
    "sticky": (lambda e: wrappers.StickyAction(e, 0.4), lambda e: vector.StickyAction(e, 0.4)),
    "delayed": (wrappers.DelayedReward, vector.DelayedReward),
    "delayed by 2": (lambda e: wrappers.DelayedReward(e, 2), lambda e: vector.DelayedReward(e, 2)),
    "return to go": (lambda e: wrappers.ReturnToGo(e, 9, scale=3), lambda e: vector.ReturnToGo(e, 9, scale=3)),
    "two of them": (
        lambda e: wrappers.PreviousReward(wrappers.DelayedReward(e, 3)),
        lambda e: vector.PreviousReward(vector.DelayedReward(e, 3)),
    ),
}
every = pytest.mark.parametrize("name", FORMS)
modes = pytest.mark.parametrize("mode", list(AutoresetMode))


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return set(a) == set(b) and all(equal(a[name], b[name]) for name in a)
    return np.shape(a) == np.shape(b) and bool(np.all(np.asarray(a) == np.asarray(b)))


def row(observation: Any, i: int) -> Any:
    return {name: part[i] for name, part in observation.items()} if isinstance(observation, dict) else observation[i]


def played(scalar: Callable[[Any], Any], vectored: Callable[[Any], Any], mode: AutoresetMode) -> None:
    """Walk through both forms with the same actions; an AssertionError where they part."""
    many = vectored(SyncVectorEnv([Walk] * ROWS, autoreset_mode=mode))
    alone = [scalar(Walk()) for _ in range(ROWS)]
    observation, _ = many.reset(seed=5)
    seen = [one.reset(seed=5 + i)[0] for i, one in enumerate(alone)]
    over, actions = np.zeros(ROWS, dtype=bool), np.random.default_rng(0)
    for _ in range(STEPS):
        assert all(equal(row(observation, i), seen[i]) for i in range(ROWS))
        if mode is AutoresetMode.DISABLED and over.any():
            observation, _ = many.reset(options={"reset_mask": over})
            seen = [alone[i].reset()[0] if over[i] else seen[i] for i in range(ROWS)]
            over = np.zeros(ROWS, dtype=bool)
            continue
        action = actions.integers(1, 5, ROWS)
        observation, reward, terminated, truncated, infos = many.step(action)
        for i, one in enumerate(alone):
            if mode is AutoresetMode.NEXT_STEP and over[i]:
                seen[i] = one.reset()[0]
                assert reward[i] == 0 and not (terminated | truncated)[i]
                continue
            seen[i], gain, ended, cut, _ = one.step(action[i])
            assert (reward[i], terminated[i], truncated[i]) == (pytest.approx(gain), ended, cut)
            if mode is AutoresetMode.SAME_STEP and (ended or cut):
                assert equal(infos["final_obs"][i], seen[i])
                seen[i] = one.reset()[0]
        over = terminated | truncated


@every
@modes
def test_the_vector_form_is_the_scalar_form_row_by_row(name: str, mode: AutoresetMode) -> None:
    played(*FORMS[name], mode)


@modes
def test_two_wrappers_that_differ_are_told_apart(mode: AutoresetMode) -> None:
    with pytest.raises(AssertionError):
        played(FORMS["delayed"][0], FORMS["delayed by 2"][1], mode)
    with pytest.raises(AssertionError):
        played(FORMS["flicker"][0], lambda e: e, mode)
    with pytest.raises(AssertionError):
        played(FORMS["sticky"][0], lambda e: vector.StickyAction(e, 0.2), mode)


NATIVE = {name: forms for name, forms in FORMS.items() if name != "hidden velocity"}


@pytest.mark.parametrize("name", NATIVE)
def test_tensors_stay_tensors_and_mean_the_same(name: str) -> None:
    scalar, vectored = NATIVE[name]
    many, alone = vectored(make_vec("rlmin/TMaze-v0", 2, length=2)), scalar(gym.make("rlmin/TMaze-v0", length=2))
    observation, _ = many.reset(seed=[4, 8])
    seen, _ = alone.reset(seed=8)
    for t in range(14):
        assert equal(row(observation, 1), seen)
        action = torch.tensor([3, (t * 7) % 4])
        observation, reward, terminated, _, infos = many.step(action)
        assert isinstance(reward, Tensor)
        seen, gain, over, _, _ = alone.step(np.int64(action[1]))
        assert float(reward[1]) == pytest.approx(gain) and over == bool(terminated[1])
        if over:
            assert equal(row(infos["final_obs"], 1), seen)
            seen, _ = alone.reset()


@pytest.mark.parametrize("name", NATIVE)
def test_a_wrapped_native_environment_resumes_bit_for_bit(name: str) -> None:
    def make() -> Any:
        return NATIVE[name][1](make_vec("rlmin/TMaze-v0", 4, length=3))

    env, other = make(), make()
    env.reset(seed=3)
    actions = torch.randint(0, 4, (20, 4), generator=torch.Generator().manual_seed(0))
    for action in actions[:6]:
        seen = env.step(action)[0]
    other.reset(seed=50)
    assert equal(other.set_state(env.get_state()), seen)
    for action in actions[6:]:
        for a, b in zip(env.step(action)[:4], other.step(action)[:4], strict=True):
            assert equal(a, b)


@pytest.mark.parametrize("id", ["CartPole-v1", "rlmin/TMaze-v0"])
def test_a_first_reset_needs_no_seed(id: str) -> None:
    for mode in (None, "sync") if id == "CartPole-v1" else (None,):
        env = make_vec(id, 2) if mode is None else gym.make_vec(id, 2, vectorization_mode=mode)
        observation, _ = vector.TimeStep(vector.FrameFlicker(env, 0.5)).reset()
        assert observation["time_step"].tolist() == [[0.0], [0.0]]


def test_only_what_can_be_saved_says_so() -> None:
    assert not hasattr(vector.TimeStep(gym.make_vec("CartPole-v1", 2, vectorization_mode="sync")), "get_state")


@every
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")  # it is, on purpose
@pytest.mark.filterwarnings("ignore:.*Box observation space m..imum value is")  # rewards and time have no bounds
def test_gymnasium_accepts_the_scalar_form(name: str) -> None:
    check_env(FORMS[name][0](Walk()), skip_render_check=True)


def test_previous_action_and_reward_by_hand() -> None:
    env = wrappers.PreviousReward(wrappers.PreviousAction(Walk()))
    seen, _ = env.reset(seed=0)
    assert seen["previous_action"] == 4 and seen["previous_reward"].tolist() == [0.0], "none is the value past the last"
    seen, *_ = env.step(3)
    assert seen["previous_action"] == 2 and seen["previous_reward"].tolist() == [1.0], "counted from 0"
    assert env.observation_space["previous_action"] == spaces.Discrete(5)  # type: ignore[index]


@pytest.mark.parametrize(
    ("space", "leaf"),
    [
        (spaces.MultiDiscrete([3, 2]), spaces.MultiDiscrete([4, 3])),
        (spaces.MultiBinary(3), spaces.MultiDiscrete([3, 3, 3])),
        (spaces.Box(-2, 2, (2,)), spaces.Box(-2, 2, (2,))),
    ],
)
def test_previous_actions_of_other_spaces(space: spaces.Space[Any], leaf: spaces.Space[Any]) -> None:
    class Other(Walk):
        action_space = space  # type: ignore[assignment]

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return super().step(0)

    env = wrappers.PreviousAction(Other())
    assert env.observation_space["previous_action"] == leaf  # type: ignore[index]
    assert env.observation_space.contains(env.reset(seed=0)[0])
    action = space.sample()
    seen = env.step(action)[0]
    assert env.observation_space.contains(seen) and (seen["previous_action"] == action).all()


def test_delays_keep_the_return() -> None:
    for delay in (None, 1, 2, 3):
        env = wrappers.DelayedReward(Walk(), delay)
        for _ in range(6):
            env.reset()
            rewards, over = [], False
            while not over:
                _, reward, terminated, truncated, _ = env.step(1)
                rewards.append(reward)
                over = terminated or truncated
            assert sum(rewards) == sum(range(1, len(rewards) + 1))
            wanted = [t for t in range(1, len(rewards)) if delay and t % delay == 0]
            assert [t for t, x in enumerate(rewards[:-1], 1) if x] == wanted and rewards[-1] > 0


def test_return_to_go_counts_down_and_takes_a_target_per_row() -> None:
    env = vector.ReturnToGo(make_vec("rlmin/TMaze-v0", 2, length=2), [1.0, 0.5], scale=0.5)
    seen, _ = env.reset(seed=0)
    assert seen["return_to_go"].tolist() == [[2.0], [1.0]]
    seen, reward, *_ = env.step(torch.tensor([2, 0]))  # left lags behind, right does not
    assert reward.tolist() == [-0.5, 0.0] and seen["return_to_go"].tolist() == [[3.0], [1.0]]


def test_flicker_loses_the_stated_share_and_says_nothing_of_it() -> None:
    env = vector.FrameFlicker(make_vec("rlmin/TMaze-v0", 2000, length=30, active=False), 0.3)
    plain = make_vec("rlmin/TMaze-v0", 2000, length=30)
    seen, _ = env.reset(seed=0)
    whole, _ = plain.reset(seed=0)
    lost = (seen == 0).all(1)
    assert torch.equal(seen[~lost], whole[~lost]) and abs(float(lost.float().mean()) - 0.3) < 4 * (0.21 / 2000) ** 0.5


@pytest.mark.parametrize(
    ("id", "size"), [("CartPole-v1", 2), ("Pendulum-v1", 2), ("MountainCar-v0", 1), ("Acrobot-v1", 4)]
)
def test_velocities_of_classic_control_are_known(id: str, size: int) -> None:
    assert wrappers.HiddenVelocity(gym.make(id)).observation_space.shape == (size,)
    many: VectorEnv[Any, Any, Any] = gym.make_vec(id, 2, vectorization_mode="sync")
    assert vector.HiddenVelocity(many).single_observation_space.shape == (size,)


@pytest.mark.needs("mujoco")
def test_mujoco_positions_come_from_its_own_layout() -> None:
    env = gym.make("Hopper-v5")
    shown = wrappers.HiddenVelocity(env)
    seen, _ = shown.reset(seed=0)
    assert seen.shape == (5,) and np.array_equal(seen, env.unwrapped.data.qpos[1:])  # type: ignore[attr-defined]


def test_a_wrapped_environment_trains() -> None:
    env = vector.PreviousAction(vector.PreviousReward(make_vec("rlmin/TMaze-v0", 4, length=3)))
    agent = PPO(env, horizon=8, width=8, layers=1)
    agent.learn(64)
    assert agent.num_timesteps == 64


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: wrappers.HiddenVelocity(Walk()), "name those to show"),
        (lambda: wrappers.HiddenVelocity(Walk(), [3]), r"expected entries of 0\.\.2"),
        (lambda: wrappers.FrameFlicker(Walk(), 1.5), "probability: expected a number from 0 to 1"),
        (lambda: wrappers.DelayedReward(Walk(), 0), "every: expected a whole number"),
        (lambda: wrappers.TimeStep(Walk(), 0), "limit: expected a whole number"),
        (lambda: wrappers.ReturnToGo(Walk(), float("nan")), "target: expected a number, got nan"),
        (lambda: wrappers.TimeStep(wrappers.TimeStep(Walk())), "'time_step' already"),
        (lambda: vector.ReturnToGo(make_vec("rlmin/TMaze-v0", 2), [1, 2, 3]), "1 or 2 targets, got 3"),
    ],
)
def test_bad_options_are_refused(broken: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        broken()
