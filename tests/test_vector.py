"""The vector adapter: whatever library steps the environments, the same policy sees the same transitions."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack
from torch import Tensor

from rlmin.envs import register
from rlmin.episodes import Episode, EpisodeStatistics
from rlmin.spaces import leaf_spaces, to_observation
from rlmin.types import Observation, Step
from rlmin.vector import Vector, adapt, make_vec

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


class Tensors(VectorEnv[Any, Any, Any]):
    """The same environments as a native one: tensors in, tensors out, SAME_STEP."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], num_envs: int) -> None:
        self.inner = SyncVectorEnv([make] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        self.num_envs = num_envs
        self.single_observation_space = self.inner.single_observation_space
        self.single_action_space = self.inner.single_action_space

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return torch.from_numpy(self.inner.reset(seed=seed)[0]), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert isinstance(actions, Tensor)
        raw, reward, terminated, truncated, infos = self.inner.step(actions.numpy())
        final = raw.copy()
        for row in np.flatnonzero(terminated | truncated):
            final[row] = infos["final_obs"][row]
        out = {"final_obs": torch.from_numpy(final)}
        if "final_info" in infos and "is_success" in infos["final_info"]:
            out["is_success"] = torch.from_numpy(infos["final_info"]["is_success"])
        ends = torch.from_numpy(terminated), torch.from_numpy(truncated)
        return torch.from_numpy(raw), torch.from_numpy(reward), *ends, out


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


# --- spaces ---------------------------------------------------------------------------------------------------------


NESTED = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (4, 3, 2), np.uint8),
        "sensors": spaces.Dict({"left": spaces.Discrete(4, start=-2), "right": spaces.MultiBinary(5)}),
        "pair": spaces.Tuple((spaces.MultiDiscrete([3, 7], start=[1, 10]), spaces.Box(-1, 1, (), np.float64))),
        "counts": spaces.Box(-9, 9, (2,), np.int32),
        "mission": spaces.Text(8),
    }
)


class Sampled(gym.Env[Any, Any]):
    """Observations drawn from `space`; three steps an episode."""

    def __init__(self, space: gym.Space[Any], *, spoil: Callable[[Any, int], Any] = lambda raw, t: raw) -> None:
        self.observation_space, self.action_space = space, spaces.MultiDiscrete([3, 2])
        self.spoil, self.t = spoil, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.spoil(self.observation_space.sample(), self.t), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.t += 1
        return (
            self.spoil(self.observation_space.sample(), self.t),
            float("nan" if self.t == 9 else 0),
            self.t == 3,
            False,
            {},
        )


def check_nested(observation: Observation) -> None:
    sizes = {name: (tuple(leaf.shape), leaf.dtype) for name, leaf in observation.items()}
    assert sizes == {
        "counts": ((2, 2), torch.int64),
        "image": ((2, 4, 3, 2), torch.uint8),
        "pair.0": ((2, 2), torch.int64),
        "pair.1": ((2,), torch.float32),
        "sensors.left": ((2,), torch.int64),
        "sensors.right": ((2, 5), torch.int8),
    }
    assert int(observation["sensors.left"].min()) >= 0 and int(observation["sensors.left"].max()) < 4
    assert (observation["pair.0"] >= 0).all() and (observation["pair.0"] < torch.tensor([3, 7])).all()


@pytest.mark.parametrize("mode", ["next step", "same step", "disabled"])
def test_nested_spaces_become_named_leaves_of_small_types(mode: str) -> None:
    vector = adapt(MODES[mode](lambda: Sampled(NESTED), 2), seed=0)
    step = vector.reset()
    check_nested(step.observation)
    for _ in range(5):
        step = vector.step(torch.tensor([[2, 1], [0, 0]]))
        check_nested(step.observation)
        if step.final_observation is not None:
            check_nested(step.final_observation)


def test_a_start_is_subtracted_and_nothing_else_changes() -> None:
    raw = {"a": np.array([-2, 1]), "b": np.array([[1, 10], [3, 16]])}
    space = spaces.Dict({"a": spaces.Discrete(4, start=-2), "b": spaces.MultiDiscrete([3, 7], start=[1, 10])})
    observation = to_observation(raw, space)
    assert observation["a"].tolist() == [0, 3]
    assert observation["b"].tolist() == [[0, 0], [2, 6]]


def test_sb3_dict_and_image_spaces_arrive_whole() -> None:
    space = spaces.Dict(
        {"image": spaces.Box(0, 255, (4, 3, 2), np.uint8), "speed": spaces.Box(-1, 1, (3,), np.float32)}
    )
    vector = adapt(DummyVecEnv([lambda: Sampled(space), lambda: Sampled(space)]), seed=0)
    step = vector.reset()
    for _ in range(3):
        step = vector.step(torch.zeros(2, 2, dtype=torch.int64))
    assert step.final_observation is not None
    assert step.final_observation["image"].shape == (2, 4, 3, 2)
    assert not torch.equal(step.final_observation["speed"], step.observation["speed"])


def test_sb3_wrappers_are_part_of_the_environment() -> None:
    vector = adapt(VecFrameStack(DummyVecEnv([Climb, Climb]), n_stack=3), seed=0)
    step = vector.reset()
    for _ in range(LIMIT):
        step = vector.step(torch.ones(2, dtype=torch.int64))
    assert step.observation["observation"].shape == (2, 6)
    assert step.final_observation is not None and int(step.final_observation["observation"][0, -1]) == 10 * LIMIT


@pytest.mark.parametrize(
    "space",
    [
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Box(0, 1, (2,)), None),
        spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]),
        spaces.Dict({"inner": spaces.Sequence(spaces.Discrete(2))}),
    ],
    ids=["sequence", "graph", "one of", "nested"],
)
def test_spaces_that_cannot_be_read_are_named(space: gym.Space[Any]) -> None:
    with pytest.raises(ValueError, match=r"(Sequence|Graph|OneOf).* not supported; use Box"):
        leaf_spaces(space)


def test_two_leaves_of_one_name_and_no_leaf_at_all_are_refused() -> None:
    twice = spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(2)})})
    with pytest.raises(ValueError, match=r"two leaves called \['a.b'\]"):
        leaf_spaces(twice)
    with pytest.raises(ValueError, match="no leaf"):
        leaf_spaces(spaces.Dict({"mission": spaces.Text(4)}))


def test_what_a_user_passes_to_predict_is_checked_and_converted() -> None:
    space = spaces.Dict(
        {"x": spaces.Box(-1, 1, (3,)), "k": spaces.Discrete(5), "pixels": spaces.Box(0, 255, (2,), np.uint8)}
    )
    raw = {"x": [[0.0, 0.5, 1.0]], "k": [4], "pixels": [[0, 255]]}
    observation = to_observation(raw, space)
    assert observation["x"].dtype == torch.float32 and observation["pixels"].tolist() == [[0, 255]]
    with pytest.raises(ValueError, match=r"'x': the space declares \[B=1, 3\] float32, got \[1, 2\]"):
        to_observation(raw | {"x": [[0.0, 0.5]]}, space)
    with pytest.raises(ValueError, match="'k' is missing"):
        to_observation({"x": raw["x"], "pixels": raw["pixels"]}, space)
    with pytest.raises(ValueError, match=r"'pixels': .*\[B=2, 2\] uint8, got \[1, 2\]"):
        to_observation(raw | {"k": [4, 0]}, space)


# --- masks ----------------------------------------------------------------------------------------------------------


class Masked(gym.Env[Any, Any]):
    """Only action t % 4 is legal at time t, said in infos or in the observation."""

    def __init__(self, *, place: str) -> None:
        self.place, self.t, self.action_space = place, 0, spaces.Discrete(4)
        here: dict[str, gym.Space[Any]] = {"clock": spaces.Box(0, 99, (1,))}
        here |= {"action_mask": spaces.MultiBinary(4)} if place == "observation" else {}
        self.observation_space = spaces.Dict(here)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.look()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        legal = action == self.t % 4
        self.t += 1
        raw, info = self.look()
        return raw, float(legal), self.t == 3, False, {} if self.place == "forgotten" else info

    def look(self) -> tuple[Any, dict[str, Any]]:
        mask = np.arange(4) == self.t % 4
        raw: dict[str, Any] = {"clock": np.array([self.t], dtype=np.float32)}
        if self.place == "observation":
            return raw | {"action_mask": mask.astype(np.int8)}, {}
        return raw, {"action_mask": mask.tolist() if self.place == "list" else mask}


@pytest.mark.parametrize("place", ["infos", "list", "observation"])
@pytest.mark.parametrize("mode", ["next step", "same step", "disabled", "sb3", "single"])
def test_a_mask_belongs_to_the_observation_beside_it(mode: str, place: str) -> None:
    vector = adapt(MODES[mode](lambda: Masked(place=place), 2), seed=0)
    assert set(leaf_spaces(vector.observation_space)) == {"clock"}
    step = vector.reset()
    for _ in range(9):
        assert step.action_mask is not None and set(step.observation) == {"clock"}
        wanted = torch.arange(4) == step.observation["clock"].long() % 4
        assert torch.equal(step.action_mask, wanted)
        step = vector.step(step.action_mask.long().argmax(1))
        assert (step.reward[~step.filler] == 1).all(), "the masked action was the legal one"


def test_an_env_without_masks_has_none_and_one_that_forgets_is_refused() -> None:
    assert adapt(Climb(), seed=0).reset().action_mask is None
    vector = adapt(Masked(place="forgotten"), seed=0)
    vector.reset()
    with pytest.raises(ValueError, match="every reset and step or never at step 1"):
        vector.step(torch.tensor([0]))


# --- bad input ------------------------------------------------------------------------------------------------------

BOX = spaces.Dict({"speed": spaces.Box(-1, 1, (3,), np.float32), "k": spaces.Discrete(3)})


def spoiled(change: Callable[[Any], Any], *, mode: str = "same step") -> Vector:
    def spoil(raw: Any, t: int) -> Any:
        return raw | change(raw) if t == 2 else raw

    vector = adapt(MODES[mode](lambda: Sampled(BOX, spoil=spoil), 2), seed=0)
    vector.reset()
    vector.step(torch.zeros(vector.num_envs, 2, dtype=torch.int64))
    return vector


@pytest.mark.parametrize("mode", ["next step", "same step", "single"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda raw: {"speed": np.zeros(4, np.float32)}, ValueError, r"'speed'.*3\] float32, got \[1, 4\].*at step 2"),
        (lambda raw: {"k": np.array(0.5)}, ValueError, r"'k'.*int64, got \[1\] float64.*at step 2"),
        (lambda raw: {"speed": raw["speed"] * np.nan}, FloatingPointError, r"'speed': NaN or inf from .* 0 at step 2"),
    ],
    ids=["shape", "type", "nan"],
)
def test_an_observation_against_its_declaration_is_named(mode: str, change: Any, error: Any, message: str) -> None:
    vector = spoiled(change, mode=mode)
    with pytest.raises(error, match=message):
        vector.step(torch.zeros(vector.num_envs, 2, dtype=torch.int64))


@pytest.mark.parametrize("mode", ["next step", "same step", "sb3"])
def test_a_reward_that_is_not_a_number_is_an_error(mode: str) -> None:
    class Bad(Climb):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            raw, _, terminated, truncated, info = super().step(action)
            return raw, float("inf") if self.t == 2 else 0.0, terminated, truncated, info

    vector = adapt(MODES[mode](Bad, 3), seed=0)
    vector.reset()
    vector.step(torch.ones(3, dtype=torch.int64))
    with pytest.raises(FloatingPointError, match="reward: NaN or inf from environment 0 at step 2"):
        vector.step(torch.ones(3, dtype=torch.int64))


class Broken(Tensors):
    """A vector environment with one fault of `what`."""

    def __init__(self, what: str) -> None:
        super().__init__(Climb, 3)
        self.what = what
        self.metadata = {} if what == "mode" else self.metadata

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        raw, reward, terminated, truncated, infos = super().step(actions)
        raw = raw[:2] if self.what == "rows" else raw.int() if self.what == "type" else raw
        raw = raw + torch.inf if self.what == "inf" else raw
        reward = reward[:, None] if self.what == "reward" else reward
        return raw, reward, terminated, truncated, {} if self.what == "final" else infos


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("rows", ValueError, r"'observation': the space declares \[B=3, 2\] float32, got \[2, 2\] .* at step 1"),
        ("inf", FloatingPointError, r"'observation': NaN or inf from environment 0 at step 1"),
        ("reward", ValueError, r"reward: expected \[B=3\], got \[3, 1\] at step 1"),
        ("final", ValueError, r"ended at step \d .*without infos\['final_obs'\]"),
        ("mode", ValueError, r"metadata\['autoreset_mode'\] is None"),
    ],
)
def test_a_broken_vector_environment_is_named(what: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        vector = adapt(Broken(what), seed=0)
        vector.reset()
        for _ in range(LIMIT):
            vector.step(torch.full((3,), 2))


def test_wrong_actions_and_wrong_order_are_refused() -> None:
    vector = adapt(Climb(), seed=0)
    with pytest.raises(RuntimeError, match="call reset"):
        vector.step(torch.tensor([1]))
    vector.reset()
    with pytest.raises(ValueError, match=r"action: expected \[1\], got \[2\]"):
        vector.step(torch.tensor([1, 1]))


def test_an_unknown_id_names_the_nearest_and_other_things_are_refused() -> None:
    with pytest.raises(ValueError, match="no environment 'CartPool-v1'; did you mean 'CartPole-v1'"):
        make_vec("CartPool-v1", 2)
    with pytest.raises(ValueError, match=r"did you mean 'rlmin/TMaze-v0'"):
        make_vec("rlmin/TMaz-v0", 2)
    with pytest.raises(TypeError, match="expected an id, a gymnasium Env"):
        adapt(3)
    with pytest.raises(ValueError, match=r"wrappers.Autoreset off"):
        adapt(gym.wrappers.Autoreset(Climb()))
    with pytest.raises(ValueError, match="action space"):
        env = Climb()
        env.action_space = spaces.Dict({"a": spaces.Discrete(2)})
        adapt(env)


def test_make_vec_opens_ids_of_every_kind() -> None:
    assert make_vec("CartPole", 2).metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert (
        make_vec("minigrid:MiniGrid-MemoryS7-v0", 2, agent_view_size=3).single_observation_space["image"].shape[0] == 3
    )
    native = make_vec("rlmin/TMaze-v0", 4, length=3)
    assert isinstance(native.reset(seed=0)[0], Tensor)
    a, b = (make_vec("CartPole-v1", 2, seed=7) for _ in range(2))
    assert np.array_equal(a.reset()[0], b.reset()[0]), "a seeded environment stays reproducible without further seeds"
    workers = make_vec("CartPole-v1", 2, workers=2)
    assert isinstance(workers, AsyncVectorEnv)
    workers.close()


def test_a_tensor_environment_is_not_copied_through_numpy() -> None:
    env = make_vec("rlmin/TMaze-v0", 4, length=3)
    vector = adapt(env, seed=0)
    step: Step = vector.reset()
    assert step.observation["observation"] is env.unwrapped._observation  # type: ignore[attr-defined]
