"""Whatever an agent can be made with can be saved: it comes back equal, or a warning says how to load the agent."""

import enum
import json
import math
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlmin import PPO, load
from rlmin.commands.train import TrainConfig, resume, train
from rlmin.files.plain import decode, encode

SMALL: dict[str, Any] = {"width": 8, "horizon": 8, "num_envs": 4, "minibatches": 1, "epochs": 1}
ALONE = {name: x for name, x in SMALL.items() if name != "num_envs"}


class Echo(gym.Env[np.ndarray, np.int64]):
    """A game that is made with anything."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, thing: Any = None, render_mode: str | None = None) -> None:
        self.thing, self.render_mode = thing, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), float(action), bool(self.np_random.random() < 0.2), False, {}


gym.register("tests/Echo-v0", entry_point=f"{__name__}:Echo")


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    A = "a"


PLAIN: dict[str, Any] = {
    "none": None,
    "numbers": [1, -2.5, True, 10**30, math.inf, -0.0, 5e-324],
    "text": "Ünïcode \ud800 'and' \"quotes\"\n",
    "tuple": (1, (2.0, ("x",)), []),
    "int keys": {1: "a", 2: {3: (4,)}},
    "mixed keys": {2: 1, "1": 2, (1, 2): 3, None: 4},
    "keys of the format": {"$tuple": [1], "$": {"$dict": 2}},
    "set": {1, "a", (2, 3)},
    "frozenset": frozenset({1}),
    "bytes": b"\x00\xff",
    "path": Path("a") / "b",
    "date": date(2020, 2, 29),
    "datetime": datetime(2020, 2, 29, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2))),
    "array": np.arange(6, dtype=np.float32).reshape(2, 3) / 3,
    "array of bool": np.array([True, False]),
    "array without numbers": np.zeros((0, 3), np.int8),
    "array without axes": np.array(2.5),
    "numpy numbers": [np.float32(1e-3), np.int64(3), np.bool_(True), np.float64(0.1), np.uint8(200)],
    "numpy text": np.str_("a"),
    "arrays inside": {"x": (np.ones(2), {"y": np.zeros(1, np.int32)})},
}

OTHER: dict[str, Any] = {
    "function": lambda: 1,
    "class": Echo,
    "object": object(),
    "enum": Colour.RED,
    "int enum": Number.ONE,
    "str enum": Word.A,
    "array of objects": np.array([{}], dtype=object),
    "array of text": np.array(["a"]),
    "complex": 1j,
    "year of numpy": np.datetime64("2020"),  # whose item() is a date
    "nanoseconds of numpy": np.datetime64(1, "ns"),  # a number
    "span of numpy": np.timedelta64(1, "s"),
    "tensor": torch.zeros(2),
    "generator": np.random.default_rng(0),
    "large array": np.zeros(200_000),
    "long list": [0] * 200_000,
    "long text": "x" * 300_000,
    "long number": 10**5000,
    "deep inside": {"a": [1, (2, {"b": lambda: 0})]},
    "key": {Colour.RED: 1},
    "dict of another class": type("D", (dict,), {})(a=1),
}


def loop() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def equal(a: Any, b: Any) -> bool:
    """Equal in value and, but for numpy scalars, in type."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, np.generic):
        return type(b) in (bool, int, float, str) and bool(a == b)
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(x, b[key]) for key, x in a.items())
    return bool(a == b)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("make", ["id", "env"])
def test_arguments_come_back_equal_and_make_the_same_environment(name: str, make: str, tmp_path: Path) -> None:
    thing = PLAIN[name]
    if make == "id":
        agent = PPO("tests/Echo-v0", env_kwargs={"thing": thing}, **SMALL)
    else:
        agent = PPO(gym.make("tests/Echo-v0", thing=thing), **ALONE)
    agent.learn(32).save(tmp_path)
    again = load(tmp_path)
    assert equal(thing, again.env_spec["kwargs"]["thing"])
    assert equal(thing, again.get_env().envs[0].unwrapped.thing)
    again.save(tmp_path)
    assert equal(again.env_spec["kwargs"]["thing"], load(tmp_path).env_spec["kwargs"]["thing"])


@pytest.mark.parametrize("name", [*OTHER, "endless"])
def test_what_has_no_plain_form_is_a_warning_at_once_and_the_agent_can_be_saved(name: str, tmp_path: Path) -> None:
    thing = loop() if name == "endless" else OTHER[name]
    with pytest.warns(
        UserWarning, match=r"env_kwargs.*: (cannot be written|nested).* rlmin\.load\(folder, env=env\)"
    ) as told:
        agent = PPO("tests/Echo-v0", env_kwargs={"thing": thing}, **SMALL)
    assert len(told) == 1 and told[0].filename == __file__
    agent.learn(32).save(tmp_path)
    again = load(tmp_path)
    assert again.env_spec["id"] is None
    with pytest.raises(ValueError, match=r"give it one with set_env\(env\)"):
        again.learn(32)
    load(tmp_path, env=gym.make("tests/Echo-v0")).learn(32)


def test_numbers_of_numpy_are_taken_wherever_a_number_is(tmp_path: Path) -> None:
    seed, steps = cast(int, np.int64(3)), cast(int, np.int64(40))
    agent = PPO("tests/Echo-v0", seed=seed, lr=np.float32(1e-3), gamma=np.float64(0.9), **SMALL)
    agent.learn(steps).save(tmp_path)
    again = PPO.load(tmp_path)
    assert (again.seed, again.total_timesteps, again.config.lr) == (3, 40, float(np.float32(1e-3)))
    plain = PPO("tests/Echo-v0", seed=3, lr=float(np.float32(1e-3)), gamma=0.9, **SMALL).learn(40)
    weights = plain.policy.state_dict()
    assert all(torch.equal(x, weights[key]) for key, x in again.policy.state_dict().items())
    for wrong in (-5, 1.5, "40", None, True):
        with pytest.raises(ValueError, match="total_timesteps: expected a whole number"):
            agent.learn(wrong)  # type: ignore[arg-type]
    for wrong in (-1, "x", 0.5):
        with pytest.raises(ValueError, match="seed: expected a whole number"):
            PPO("tests/Echo-v0", seed=wrong, **SMALL)  # type: ignore[arg-type]


def test_spaces_with_numbers_for_keys_come_back(tmp_path: Path) -> None:
    class Keyed(Echo):
        observation_space = gym.spaces.Dict({1: gym.spaces.Box(-1, 1, (2,)), 0: gym.spaces.Discrete(3)})  # type: ignore

        def reset(self, **given: Any) -> Any:
            return {1: np.zeros(2, np.float32), 0: 1}, super().reset(**given)[1]

        def step(self, action: np.int64) -> Any:
            return {1: np.zeros(2, np.float32), 0: 1}, *super().step(action)[1:]

    agent = PPO(Keyed(), **ALONE).learn(32)
    agent.save(tmp_path)
    again = load(tmp_path, env=Keyed())
    assert again.policy.observation_space == agent.policy.observation_space
    seen = {1: np.ones((1, 2), np.float32), 0: np.array([2])}
    assert np.array_equal(agent.predict(seen, deterministic=True)[0], again.predict(seen, deterministic=True)[0])
    again.learn(32)


@pytest.mark.parametrize(
    "text", ["[1, (2)]", "2001-12-14", "{1: a, 2: [3]}", "!!binary aGVsbG8=", "!!set {a, b}", ".inf"]
)
def test_what_the_command_line_can_say_is_kept(text: str, tmp_path: Path) -> None:
    settings = {**SMALL, "total_timesteps": 32, "eval_episodes": 2}
    config = TrainConfig(env="tests/Echo-v0", env_kwargs=(f"thing={text}",), folder=tmp_path / "run", **settings)
    run = train(config, progress_bar=False)
    thing = load(run).env_spec["kwargs"]["thing"]
    resume(run, total_timesteps=64, progress_bar=False)
    assert equal(thing, load(run).env_spec["kwargs"]["thing"]) and thing is not None


@pytest.mark.parametrize(
    "bad", [{"$code": 1}, {"$array": ["object", [1], [0]]}, {"$path": 3}, {"$bytes": "!"}, {"$dict": [1]}]
)
def test_a_form_that_was_never_written_is_an_error(bad: Any) -> None:
    with pytest.raises(ValueError, match="expected a value that rlmin wrote"):
        decode(bad)


def test_the_form_is_strict_json_but_for_infinities() -> None:
    for name, thing in PLAIN.items():
        text = json.dumps(encode(thing), allow_nan=name == "numbers")
        assert equal(thing, decode(json.loads(text))), name
