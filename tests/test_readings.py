"""How leaves are read: guessed where it is plain, asked about where it is not, set by name, kept with the run."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlmin import PPO, load
from rlmin.cli import main
from rlmin.evaluation.evaluate import evaluate
from rlmin.export.agreement import largest_difference
from rlmin.export.numpy_export import pack_numpy
from rlmin.export.numpy_policy import NumpyPolicy
from rlmin.policy import Policy, PolicyConfig
from rlmin.policy.inputs import Inputs, Numbers, Picture, Symbols
from rlmin.policy.readings import Reading, read_as
from rlmin.vector import adapt

SMALL: dict[str, Any] = {"width": 8, "layers": 1, "horizon": 8, "minibatches": 1, "epochs": 1}


def box(low: float, high: float, *shape: int, dtype: Any = np.uint8) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


class Shown(gym.Env[Any, Any]):
    """Shows samples of a space."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: gym.Space[Any]) -> None:
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 1.0, bool(self.np_random.random() < 0.2), False, {}


def reading(space: gym.Space[Any], **told: Any) -> Reading:
    return read_as({"observation": space}, **told)["observation"]


GUESSED: list[tuple[spaces.Box, str, tuple[Any, ...] | None]] = [
    (box(0, 255, 4, 64, 64, 3), "picture", (0, 3, 1, 2)),
    (box(0, 255, 4, 3, 64, 48), "picture", (0, 1, 2, 3)),
    (box(0, 255, 2, 64, 64, 1), "picture", (0, 3, 1, 2)),
    (box(-1, 1, 64, 64, 3, dtype=np.float32), "picture", (None, 2, 0, 1)),
    (box(-1, 1, 4, 3, 20, 20, dtype=np.float64), "picture", (0, 1, 2, 3)),
    (box(0, 255, 64, 64, 3, dtype=np.int32), "picture", (None, 2, 0, 1)),
    (box(0, 65535, 1, 64, 64, dtype=np.uint16), "picture", (None, 0, 1, 2)),
    (box(0, 255, 3, 7, 7), "symbols", (None, 0, 1, 2)),
    (box(0, 255, 7, 7, 3), "symbols", (None, 2, 0, 1)),
    (box(0, 255, 3, 3, 3), "symbols", (None, 2, 0, 1)),
    (box(0, 255, 2, 3, 3), "symbols", (None, 2, 0, 1)),
    (box(0, 255, 3, 9, 5), "symbols", (None, 2, 0, 1)),
    (box(0, 255, 4, 8, 8, 3), "numbers", None),
    (box(-np.inf, np.inf, 64, 64, 3, dtype=np.float32), "numbers", None),
    (box(-5, 5, 64, 64, 3, dtype=np.int32), "numbers", None),
    (box(0, 1, 64, 64, 7, dtype=np.float32), "numbers", None),
    (box(0, 1, 64, 64, dtype=np.float32), "numbers", None),
    (box(0, 255, 2, 4, 64, 64, 3), "numbers", None),
    (box(0, 1, 5, dtype=np.float32), "numbers", None),
]


@pytest.mark.parametrize(("space", "kind", "axes"), GUESSED, ids=lambda x: str(x))
def test_what_a_box_is_taken_for(space: spaces.Box, kind: str, axes: Any) -> None:
    found = reading(space)
    assert (found.kind, found.axes) == (kind, axes)
    kinds = {"picture": Picture, "symbols": Symbols, "numbers": Numbers}
    assert type(Inputs(space, 4).embed[0]) is kinds[kind]


DOUBTFUL = [
    box(-np.inf, np.inf, 64, 64, 3, dtype=np.float32),
    box(0, 1, 64, 64, 7, dtype=np.float32),
    box(0, 1, 64, 64, dtype=np.float32),
    box(0, 4, 40, 40, dtype=np.int64),
    box(0, 255, 2, 4, 64, 64, 3),
    box(-9, 9, 3, 64, 64, dtype=np.int32),
    box(0, 255, 15, 15, 3),
    box(0, 255, 3, 11, 11),
]
PLAIN = [
    box(0, 255, 7, 7, 3),
    box(0, 255, 64, 64, 3),
    box(0, 1, 20, 20, dtype=np.float32),
    box(0, 1, 400, dtype=np.float32),
    box(0, 1, 8, 17, dtype=np.float32),
    spaces.Discrete(5000),
]


@pytest.mark.parametrize("space", DOUBTFUL, ids=str)
def test_what_may_be_a_picture_is_asked_about(space: spaces.Box) -> None:
    with pytest.warns(UserWarning, match=r"^observation: .* read as (numbers|symbols)"):
        PPO(Shown(space), **SMALL)
    how: dict[str, Any] = {reading(space).kind: ["observation"]}
    PPO(Shown(space), **SMALL, **how)  # a warning would be an error here


@pytest.mark.parametrize("space", PLAIN, ids=str)
def test_what_is_plain_is_not(space: gym.Space[Any]) -> None:
    assert not reading(space).doubt


def test_a_box_without_entries_is_no_picture() -> None:
    for shape in ((0, 16), (1, 0, 4), (16, 16, 0)):
        assert read_as({"x": spaces.Box(0, 9, shape, np.int64)})["x"].kind == "numbers"


def test_a_stack_of_frames_is_a_picture_of_as_many_channels() -> None:
    torch.manual_seed(0)
    first = torch.randint(256, (5, 4, 20, 24, 3), dtype=torch.uint8)
    layouts = {
        (4, 20, 24, 3): first,
        (4, 3, 20, 24): first.permute(0, 1, 4, 2, 3),
        (12, 20, 24): first.permute(0, 1, 4, 2, 3).flatten(1, 2),
    }
    found = []
    for shape, x in layouts.items():
        torch.manual_seed(1)
        picture = Picture(reading(box(0, 255, *shape)), 6)
        assert sum(p.numel() for p in picture.parameters()) < 100_000
        found.append(picture(x))
        assert picture(x[None].expand(2, -1, *x.shape[1:])).shape == (2, 5, 6)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])
    assert not torch.allclose(found[0], found[0].flip(0))


def test_symbols_are_the_same_with_channels_first() -> None:
    x = torch.randint(256, (5, 7, 7, 3), dtype=torch.uint8)
    torch.manual_seed(1)
    last = Symbols((7, 7, 3), 6)
    torch.manual_seed(1)
    first = Symbols((3, 7, 7), 6, channels_first=True)
    torch.testing.assert_close(last(x), first(x.movedim(-1, 1)))


def test_units_of_pictures_do_not_matter() -> None:
    x = torch.randint(256, (5, 20, 20, 3))
    found = []
    for low, high, dtype, scale in ((0, 255, np.int32, 1), (0, 255, np.uint8, 1), (0, 1, np.float32, 255)):
        torch.manual_seed(1)
        given = (x / scale).float() if dtype == np.float32 else x
        found.append(Inputs(box(low, high, 20, 20, 3, dtype=dtype), 6)({"observation": given}, torch.zeros(5)))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])
    assert reading(box(-1, 1, 20, 20, 3, dtype=np.float32)).largest == 1
    unbounded = box(-np.inf, np.inf, 20, 20, 3, dtype=np.float32)
    assert reading(unbounded, pictures=["observation"]).largest == 1


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"pictures": ["camra"]}, r"^pictures: no leaf of the observation 'camra'; did you mean 'camera'\?"),
        ({"pictures": ["camera"], "numbers": ["camera"]}, "named by two of"),
        ({"pictures": ["step"]}, "only a Box is read as picture"),
        ({"symbols": ["speed"]}, r"symbols are whole numbers in 0..255 on three axes"),
        ({"pictures": ["speed"]}, r"a picture has two to four axes"),
        ({"pictures": ["small"]}, r"at least 7 x 7 pixels"),
        ({"symbols": ["signed"]}, r"symbols are whole numbers in 0..255"),
    ],
)
def test_what_cannot_be_is_said(told: dict[str, Any], message: str) -> None:
    space = spaces.Dict(
        camera=box(0, 255, 20, 20, 3),
        speed=box(0, 1, 3, dtype=np.float32),
        step=spaces.Discrete(3),
        small=box(0, 255, 5, 5, 3),
        signed=box(-1, 5, 5, 5, 3, dtype=np.int64),
    )
    with pytest.raises(ValueError, match=message):
        Policy(space, spaces.Discrete(2), PolicyConfig(width=8, **told))


SET: dict[str, tuple[gym.Space[Any], dict[str, Any]]] = {
    "stack": (box(0, 255, 4, 20, 20, 3), {}),
    "stack, channels first": (box(0, 255, 2, 3, 20, 20), {}),
    "small picture": (box(0, 255, 11, 11, 3), {"pictures": ["observation"]}),
    "symbols, channels first": (box(0, 255, 3, 7, 7), {}),
    "symbols of int64": (box(0, 9, 5, 5, 2, dtype=np.int64), {"symbols": ["observation"]}),
    "numbers": (box(0, 255, 20, 20, 3), {"numbers": ["observation"]}),
    "int picture": (box(0, 255, 20, 20, 3, dtype=np.int32), {}),
    "nested": (
        spaces.Dict(a=spaces.Dict(left=box(0, 255, 9, 9, 3)), b=box(0, 1, 3, dtype=np.float32)),
        {"pictures": ["a.left"]},
    ),
}


@pytest.mark.parametrize("name", SET)
def test_a_run_keeps_it_and_exports_agree(name: str, tmp_path: Path) -> None:
    space, told = SET[name]
    agent = PPO(Shown(space), **SMALL, **told).learn(8)
    agent.save(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load(tmp_path / "run")
    assert again.policy.input_lines() == agent.policy.input_lines()
    vector = adapt(Shown(space), seed=3)
    assert evaluate(again.policy, vector, episodes=2).lengths.min() > 0
    numpy = NumpyPolicy(pack_numpy(again.policy, run={}))
    found = largest_difference(again.policy, numpy, vector, steps=12, seed=1, where="here")
    assert found.size < 1e-4
    other: dict[str, Any] = {} if name == "numbers" else {"numbers": ["observation"]}
    with pytest.raises(ValueError, match=r"another policy|no leaf"):
        PPO(Shown(space), **SMALL, **other).resume(tmp_path / "run")


def test_tokens_and_a_critic_of_its_own_are_counted_and_read_alike() -> None:
    space, told = SET["nested"]
    counts = []
    several: list[dict[str, Any]] = [{}, {"share_memory": False}, {"tokens": "triple", "previous_action": True}]
    for settings in several:
        policy = Policy(space, spaces.Discrete(2), PolicyConfig(width=8, **told, **settings))
        lines = policy.input_lines()
        assert "a.left: 9x9x3 uint8, read as picture, 9 x 9, 3 channels on axis 2" in lines[0]
        assert "b: 3 float32, read as numbers" in lines[1]
        counts.append(int(lines[0].split()[-2].replace(",", "")))
    assert counts[1] == 2 * counts[0] and counts[2] == counts[0]


def test_training_says_how_each_leaf_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--width", "8", "--horizon", "8", "--num-envs", "2", "--minibatches", "1", "--eval-episodes", "0"]
    command = ["train", "--env", "MiniGrid-Empty-5x5-v0", *small, "--total-timesteps", "16", "--folder", "run"]
    main(command)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run: run"
    assert "direction: one int64, read as choices, 40 weights" in lines
    assert any(line.startswith("image: 7x7x3 uint8, read as symbols, 7 x 7, 3 channels on axis 2") for line in lines)
    main([*command[:-1], "other", "--pictures", "image"])
    assert "read as picture, 7 x 7" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command[:-1], "third", "--pictures", "imag"])
    assert "did you mean 'image'?" in capsys.readouterr().err and not Path("third").exists()
