"""The vector adapter: whatever library steps the environments, the same policy sees the same transitions."""

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from native_tensors import Tensors
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from rlmin.envs import register
from rlmin.envs.t_maze import TMaze
from rlmin.spaces import leaf_spaces
from rlmin.types import Step
from rlmin.vector import Vector, adapt, make_vec
from rlmin.vector.episodes import Episode, EpisodeStatistics

register()

SEED, LIMIT = 5, 6


class Climb(gym.Env[Any, Any]):
    """Sum up actions: above 9 the episode terminates, after LIMIT steps it is truncated, sometimes both at once."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-100, 100, (2,), np.float32)
        self.action_space = spaces.Discrete(3, start=1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.sum, self.t = int(self.np_random.integers(0, 5)), 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.sum, self.t = self.sum + int(action) - 1, self.t + 1
        terminated, truncated = self.sum > 9, self.t >= LIMIT
        info = {"is_success": terminated} if terminated or truncated else {}
        return self.look(), 0.25 * self.sum - 0.1 * self.t, terminated, truncated, info

    def look(self) -> Any:
        return np.array([self.sum, 10 * self.t], dtype=np.float32)


def cart_pole() -> gym.Env[Any, Any]:
    return gym.make("CartPole-v1", max_episode_steps=11)


def climb_policy(observation: Tensor) -> Tensor:
    return 1 + (observation.sum(1).long() % 5).clamp(max=2)


def pole_policy(observation: Tensor) -> Tensor:
    return (torch.sin(40 * observation).sum(1) > -1.2).long()


TASKS: dict[str, tuple[Callable[[], gym.Env[Any, Any]], Callable[[Tensor], Tensor]]] = {
    "climb": (Climb, climb_policy),
    "cart pole": (cart_pole, pole_policy),
}

MODES: dict[str, Callable[[Callable[[], gym.Env[Any, Any]], int], Any]] = {
    "next step": lambda make, num: SyncVectorEnv([make] * num, autoreset_mode=AutoresetMode.NEXT_STEP),
    "same step": lambda make, num: SyncVectorEnv([make] * num, autoreset_mode=AutoresetMode.SAME_STEP),
    "disabled": lambda make, num: SyncVectorEnv([make] * num, autoreset_mode=AutoresetMode.DISABLED),
    "shared buffers": lambda make, num: SyncVectorEnv([make] * num, copy=False, autoreset_mode=AutoresetMode.DISABLED),
    "wrapped": lambda make, num: gym.wrappers.vector.RecordEpisodeStatistics(SyncVectorEnv([make] * num)),
    "async": lambda make, num: AsyncVectorEnv([make] * num, autoreset_mode=AutoresetMode.SAME_STEP),
    "async next step": lambda make, num: AsyncVectorEnv([make] * num),
    "async disabled": lambda make, num: AsyncVectorEnv([make] * num, autoreset_mode=AutoresetMode.DISABLED),
    "sb3": lambda make, num: DummyVecEnv([make] * num),
    "single": lambda make, num: make(),
    "native": lambda make, num: Tensors(make, num),
}


class Transition(NamedTuple):
    observation: tuple[float, ...]
    action: int
    reward: float
    terminated: bool
    truncated: bool
    reached: tuple[float, ...]


def numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def alone(make: Callable[[], gym.Env[Any, Any]], policy: Callable[[Tensor], Tensor], seed: int) -> list[Transition]:
    """The reference: one environment, stepped by hand."""
    env = make()
    seen, _ = env.reset(seed=seed)
    result = []
    for _ in range(40):
        action = int(policy(torch.as_tensor(seen)[None])[0])
        reached, reward, terminated, truncated, _ = env.step(np.int64(action))
        row = (float(np.float32(reward)), terminated, truncated and not terminated, numbers(reached))
        result.append(Transition(numbers(seen), action, *row))
        seen = env.reset()[0] if terminated or truncated else reached
    env.close()
    return result


def episodes_of(transitions: list[Transition]) -> list[tuple[float, int]]:
    total, length, result = 0.0, 0, []
    for row in transitions:
        total, length = total + row.reward, length + 1
        if row.terminated or row.truncated:
            result.append((total, length))
            total, length = 0.0, 0
    return result


def through(vector: Vector, policy: Callable[[Tensor], Tensor], *, fault: str = "") -> list[list[Transition]]:
    """The transitions of every environment, fillers dropped; `fault` is one way to read the records wrongly."""
    rows: list[list[Transition]] = [[] for _ in range(vector.num_envs)]
    now = vector.reset()
    assert now.start.all() and not now.reward.any()
    for _ in range(40):
        action = policy(now.observation["observation"])
        then = vector.step(action)
        ended = then.terminated | then.truncated
        assert not (then.terminated & then.truncated).any()
        for i in range(vector.num_envs):
            if then.filler[i] and fault != "fillers kept":
                assert then.start[i] and then.reward[i] == 0 and not ended[i]
                continue
            final = then.final_observation if ended[i] and fault != "reset observation as the final one" else None
            reached = numbers((final or then.observation)["observation"][i])
            flags = (bool(then.terminated[i]), bool(then.truncated[i]))
            flags = (any(flags), False) if fault == "ends merged" else flags
            before = numbers(now.observation["observation"][i])
            rows[i].append(Transition(before, int(action[i]), float(then.reward[i]), *flags, reached))
        now = then
    return rows


@pytest.fixture
def opened() -> Iterator[list[Vector]]:
    vectors: list[Vector] = []
    yield vectors
    for vector in vectors:
        vector.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", TASKS)
def test_every_mode_tells_the_same_story(task: str, mode: str, opened: list[Vector]) -> None:
    make, policy = TASKS[task]
    vector = adapt(MODES[mode](make, 3), seed=SEED)
    opened.append(vector)
    found = through(vector, policy)
    for i, rows in enumerate(found):
        wanted = alone(make, policy, SEED + i)[: len(rows)]
        assert len(rows) >= 25
        assert rows == wanted
    ends = [row for rows in found for row in rows if row.terminated or row.truncated]
    assert {row.terminated for row in ends} == {True, False} or vector.num_envs == 1, "both kinds of end occur"


@pytest.mark.parametrize(
    ("mode", "fault"),
    [
        ("same step", "ends merged"),
        ("same step", "reset observation as the final one"),
        ("disabled", "reset observation as the final one"),
        ("sb3", "reset observation as the final one"),
        ("native", "reset observation as the final one"),
        ("next step", "fillers kept"),
    ],
)
def test_reading_the_records_wrongly_tells_another_story(mode: str, fault: str, opened: list[Vector]) -> None:
    vector = adapt(MODES[mode](Climb, 3), seed=SEED)
    opened.append(vector)
    rows = through(vector, climb_policy, fault=fault)[0]
    assert rows != alone(Climb, climb_policy, SEED)[: len(rows)]


@pytest.mark.parametrize("mode", ["next step", "same step", "disabled", "async", "sb3", "single", "native"])
def test_episode_statistics_and_successes_are_the_same_in_every_mode(mode: str, opened: list[Vector]) -> None:
    vector = adapt(MODES[mode](Climb, 2), seed=SEED)
    opened.append(vector)
    statistics = EpisodeStatistics(vector.num_envs)
    first: list[Episode] = []
    step = vector.reset()
    statistics.update(step)
    for _ in range(40):
        step = vector.step(climb_policy(step.observation["observation"]))
        ended = step.terminated | step.truncated
        finished = statistics.update(step)
        first += finished[:1] if ended[0] else []
        assert not ended.any() or (
            step.success is not None and bool(step.success[ended].eq(step.terminated[ended]).all())
        )
    wanted = episodes_of(alone(Climb, climb_policy, SEED))
    assert len(first) >= 5
    for episode, (total, length) in zip(first, wanted, strict=False):
        assert episode.length == length
        assert episode.return_ == pytest.approx(total, abs=1e-6)


def test_two_vectors_with_one_seed_agree_and_another_seed_differs() -> None:
    a, b, c = (through(adapt(MODES["same step"](Climb, 3), seed=s), climb_policy) for s in (1, 1, 2))
    assert a == b != c


def test_a_vector_entry_point_of_gymnasium_is_read_in_next_step_mode() -> None:
    vector = adapt(gym.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point", max_episode_steps=9), seed=0)
    assert "NEXT_STEP" in vector.mode
    step, ends, fillers = vector.reset(), 0, 0
    for _ in range(30):
        ended = step.terminated | step.truncated
        step = vector.step(torch.ones(4, dtype=torch.int64))
        assert torch.equal(step.filler, ended)
        ends, fillers = ends + int(ended.sum()), fillers + int(step.filler.sum())
    assert ends == fillers > 0


def test_an_unknown_id_names_the_nearest_and_other_things_are_refused() -> None:
    with pytest.raises(ValueError, match="no environment 'CartPool-v1'; did you mean 'CartPole-v1'"):
        make_vec("CartPool-v1", 2)
    with pytest.raises(ValueError, match=r"did you mean 'rlmin/TMaze-v0'"):
        make_vec("rlmin/TMaz-v0", 2)
    with pytest.raises(ValueError, match=r"no environment 'nope'; `rlmin list envs` and gymnasium.pprint_registry"):
        make_vec("nope", 2)
    with pytest.raises(TypeError, match="expected an id, a gymnasium Env"):
        adapt(3)
    with pytest.raises(ValueError, match=r"remove gymnasium.wrappers.Autoreset"):
        adapt(gym.wrappers.Autoreset(Climb()))
    with pytest.raises(ValueError, match="action space"):
        env = Climb()
        env.action_space = spaces.Dict({"a": spaces.Discrete(2)})
        adapt(env)


def test_a_missing_package_and_a_missing_device_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "popgym", None)  # as if it were not installed
    with pytest.raises(ValueError, match="'popgym-X-v0': needs the package popgym: pip install popgym"):
        make_vec("popgym-X-v0", 2)
    with pytest.raises(ValueError, match="'no_such_module:X-v0': No module named 'no_such_module'"):
        make_vec("no_such_module:X-v0", 2)
    for env in ("rlmin/TMaze-v0", "CartPole-v1", Climb()):
        for device in ("cuda:99", "no such device"):
            with pytest.raises(ValueError, match=f"^device: expected a device that is here, got '{device}'"):
                adapt(env, device=device)
    adapt("rlmin/TMaze-v0", device="cpu").close()


def test_a_time_limit_is_an_argument_of_any_id() -> None:
    for id in ("CartPole-v1", "rlmin/TMaze-v0"):
        vector = adapt(id, num_envs=2, env_kwargs={"max_episode_steps": 3})
        vector.reset()
        for t in range(3):
            step = vector.step(torch.full((2,), t % 2))
            assert step.truncated.all() == (t == 2)


def test_make_vec_opens_ids_of_every_kind() -> None:
    assert make_vec("CartPole", 2).metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    for id in ("minigrid:MiniGrid-MemoryS7-v0", "MiniGrid-MemoryS7-v0"):
        env = make_vec(id, 2, agent_view_size=3)
        assert leaf_spaces(env.single_observation_space)["image"].shape == (3, 3, 3)
    native = make_vec("rlmin/TMaze-v0", 4, length=3)
    assert isinstance(native.reset(seed=0)[0], Tensor)
    a, b = (make_vec("CartPole-v1", 2, seed=7) for _ in range(2))
    assert np.array_equal(a.reset()[0], b.reset()[0]), "a seeded environment stays reproducible without further seeds"
    workers = make_vec("CartPole-v1", 2, workers=2)
    assert isinstance(workers, AsyncVectorEnv)
    workers.close()


class Keeps(TMaze):
    """A maze that knows what it handed out."""

    def observe(self, game: dict[str, torch.Tensor]) -> torch.Tensor:
        self.kept = super().observe(game)
        return self.kept


def test_a_tensor_environment_is_not_copied_through_numpy() -> None:
    env = Keeps(4, length=3)
    vector = adapt(env, seed=0)
    step: Step = vector.reset()
    assert step.observation["observation"] is env.kept
