"""Action masks stand beside their observation, and an environment that breaks its word is named."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from native_tensors import Tensors
from test_spaces import Sampled
from test_vector import LIMIT, MODES, Climb

from rlmin.spaces import leaf_spaces
from rlmin.vector import Vector, adapt
from rlmin.vector.faults import EnvError


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


@pytest.mark.parametrize("mode", ["next step", "same step", "disabled", "single", "sb3", "async"])
def test_a_choice_that_does_not_exist_is_named_with_environment_and_step(mode: str) -> None:
    vector = spoiled(lambda raw: {"k": np.int64(7)}, mode=mode)
    with pytest.raises(ValueError, match=r"'k': expected 0\.\.2, got 7 from environment 0 at step 2 since reset"):
        vector.step(torch.zeros(vector.num_envs, 2, dtype=torch.int64))
    vector.close()


LATE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "missing": (lambda raw: {"k": raw["k"]}, r"'speed' is declared by the space but missing .*state reached at step 3"),
    "range": (lambda raw: {**raw, "k": 7}, r"'k': expected 0..2, got 7 from environment 0 \(state reached at step 3"),
    "shape": (lambda raw: {**raw, "speed": np.zeros(4, np.float32)}, r"'speed'.*got \[1, 4\].*state reached"),
    "none": (lambda raw: None, r"environment 0 ended at step 3 .*without infos\['(final_obs|terminal_observation)'\]"),
}


@pytest.mark.parametrize("fault", LATE)
@pytest.mark.parametrize("mode", ["same step", "single", "sb3", "async"])
def test_a_bad_final_observation_is_named(mode: str, fault: str) -> None:
    change, message = LATE[fault]
    for late in (3, 99):  # 99: never, so the same environment is fine
        spoil = partial(lambda late, raw, t: change(raw) if t == late else raw, late)
        vector = adapt(MODES[mode](partial(Sampled, BOX, spoil=spoil), 2), seed=0)
        vector.reset()
        action = torch.zeros(vector.num_envs, 2, dtype=torch.int64)
        for _ in range(2):
            vector.step(action)
        if late == 3:
            with pytest.raises(ValueError, match=message):
                vector.step(action)
        else:
            vector.step(action)
        vector.close()


@pytest.mark.filterwarnings("ignore:.*Worker", "ignore:.*Traceback", "ignore:.*Raising the last")
@pytest.mark.parametrize("mode", ["next step", "same step", "sb3", "async", "async next step"])
def test_a_missing_leaf_and_an_environment_s_own_error_are_both_named(mode: str) -> None:
    class Own(Sampled):
        def step(self, action: Any) -> Any:
            raise KeyError("my own")

    def spoil(raw: Any, t: int) -> Any:
        return {"k": raw["k"]} if t == 1 else raw

    action = torch.zeros(2, 2, dtype=torch.int64)
    vector = adapt(MODES[mode](lambda: Sampled(BOX, spoil=spoil), 2), seed=0)
    vector.reset()
    error = EnvError if "async" in mode else ValueError
    with pytest.raises(error, match=r"'speed'.* at step 1|at step 1.*KeyError: .*'speed'"):
        vector.step(action)
    vector.close()
    vector = adapt(MODES[mode](lambda: Own(BOX), 2), seed=0)
    vector.reset()
    with pytest.raises(error, match=r"step failed .*at step 1 since reset") as found:
        vector.step(action)
    assert "KeyError: 'my own'" in str(found.value)
    vector.close()


class Odd(Climb):
    """Answers the second step of environment 1 with `answer`, made from the right one."""

    def __init__(self, answer: Callable[..., Any], row: int = 1) -> None:
        super().__init__()
        self.answer, self.row = answer, row

    def step(self, action: Any) -> Any:
        right = super().step(action)
        return self.answer(*right) if self.t == 2 and self.row == 1 else right


ODD: dict[str, tuple[Callable[..., Any], str]] = {
    "four": (lambda o, r, e, c, i: (o, r, e, i), "ValueError: not enough values to unpack"),
    "six": (lambda o, r, e, c, i: (o, r, e, c, i, 0), "ValueError: too many values to unpack"),
    "nothing": (lambda *right: None, "TypeError: cannot unpack non-iterable NoneType"),
    "list": (lambda o, r, *rest: (o, [1.0, 2.0], *rest), "ValueError: setting an array element with a sequence"),
}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("mode", ["next step", "same step", "disabled", "single", "sb3"])
def test_a_step_that_returns_something_else_is_told_what_is_expected(mode: str, what: str) -> None:
    answer, message = ODD[what]
    rows = iter([0, 1, 0] if mode != "single" else [1])
    vector = adapt(MODES[mode](lambda: Odd(answer, next(rows)), 3), seed=0)
    vector.reset()
    action = torch.ones(vector.num_envs, dtype=torch.int64)
    vector.step(action)
    with pytest.raises(ValueError, match=rf"step failed at step 2 .*{message}.*a step returns \(observation, reward"):
        vector.step(action)


def test_a_vector_environment_that_gives_no_reward_is_told_so() -> None:
    class NoReward(Tensors):
        def step(self, actions: Any) -> Any:
            raw, reward, *rest = super().step(actions)
            return raw, [None, *reward.tolist()[1:]], *rest

    vector = adapt(NoReward(Climb, 3), seed=0)
    vector.reset()
    with pytest.raises(
        ValueError, match=r"reward: expected one number from each environment, got \[None, .* at step 1"
    ):
        vector.step(torch.ones(3, dtype=torch.int64))


@pytest.mark.parametrize("mode", ["next step", "same step", "disabled", "async", "sb3", "single"])
def test_a_success_told_only_where_it_is_true_is_false_elsewhere_once_it_was_told(mode: str) -> None:
    class Winner(Climb):
        """Ends every second step; of these episodes the second succeeds."""

        ends = 0

        def step(self, action: Any) -> Any:
            raw, reward, *_ = super().step(action)
            over = self.t == 2
            self.ends += over
            return raw, reward, over, False, {"is_success": True} if over and self.ends == 2 else {}

    vector = adapt(MODES[mode](Winner, 2), seed=0)
    vector.reset()
    told: list[Any] = []
    while len(told) < 4:
        step = vector.step(torch.ones(vector.num_envs, dtype=torch.int64))
        if step.terminated.all():
            told.append(None if step.success is None else step.success.tolist())
    row = vector.num_envs
    assert told == [None, [True] * row, [False] * row, [False] * row]
    vector.close()


class Reused(VectorEnv[Any, Any, Any]):
    """A tensor environment without resets of its own that always writes to the same tensors; two steps an episode."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self) -> None:
        self.num_envs, self.single_action_space = 2, spaces.Discrete(2)
        self.single_observation_space = spaces.Box(0, 9, (1,))
        self.clock, self.reward, self.over = torch.zeros(2, 1), torch.zeros(2), torch.zeros(2, dtype=torch.bool)
        self.won = self.over.clone()

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        mask = torch.as_tensor(options["reset_mask"]) if options else torch.ones(2, dtype=torch.bool)
        self.clock[mask], self.reward[mask], self.over[mask], self.won[mask] = 0, 0, False, False
        if not options:
            self.clock[1] = 1  # so that rows end at different times
        return self.clock, {}

    def step(self, actions: Any) -> Any:
        self.clock += 1
        self.reward[:] = self.clock[:, 0]
        self.over[:] = self.clock[:, 0] == 2
        self.won[:] = self.over
        return self.clock, self.reward, self.over, torch.zeros(2, dtype=torch.bool), {"is_success": self.won}


def test_a_tensor_environment_may_reset_in_the_buffers_it_handed_out() -> None:
    vector = adapt(Reused(), seed=0)
    vector.reset()
    for row in (1, 0, 1):
        step = vector.step(torch.zeros(2, dtype=torch.int64))
        assert step.terminated.tolist() == [row == 0, row == 1]
        assert step.final_observation is not None and step.final_observation["observation"][row] == 2
        assert step.observation["observation"][row] == 0, "the buffer was written to"
        assert step.reward[row] == 2 and step.success is not None and step.success[row]


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
        infos = {} if self.what == "final" else infos
        if self.what == "no row":
            infos["_final_obs"] = torch.zeros(3, dtype=torch.bool)
        return raw, reward, terminated, truncated, infos


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("rows", ValueError, r"'observation': the space declares \[B=3, 2\] float32, got \[2, 2\] .* at step 1"),
        ("inf", FloatingPointError, r"'observation': NaN or inf from environment 0 at step 1"),
        ("reward", ValueError, r"reward: expected \[B=3\], got \[3, 1\] at step 1"),
        ("final", ValueError, r"ended at step \d .*without infos\['final_obs'\]"),
        ("no row", ValueError, r"ended at step \d .*without infos\['final_obs'\]"),
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
