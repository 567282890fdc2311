"""Settings: one check of types and ranges, whatever way a setting is given."""

import enum
import importlib
import math
import pkgutil
from dataclasses import MISSING, asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch

import rlmin
from rlmin import PPO, DecisionConfig, PPOConfig
from rlmin.cli import main
from rlmin.commands.parse import parse
from rlmin.settings import (
    Count,
    CountOrZero,
    Known,
    NonNegative,
    Positive,
    Range,
    Settings,
    Share,
    ShareBelowOne,
    check_setting,
    describe_settings,
    limits,
    words,
)

NAMES = {"gru", "lstm"}


class Loss(enum.StrEnum):
    MSE = "mse"


class Level(enum.IntEnum):
    TWO = 2


FITS: list[tuple[Any, Any, Any]] = [
    (float, 3, 3.0),
    (float, np.float32(1e-3), float(np.float32(1e-3))),
    (float, np.float64(0.1), 0.1),
    (float, np.int64(2), 2.0),
    (float, np.array(0.5), 0.5),
    (float, torch.tensor(0.5), 0.5),
    (int, np.int8(3), 3),
    (int, 2**60, 2**60),
    (int, 1e6, 1_000_000),
    (int, Level.TWO, 2),
    (bool, np.bool_(True), True),
    (str, np.str_("a"), "a"),
    (str, Loss.MSE, "mse"),
    (Path, "a/b", Path("a/b")),
    (Path | None, None, None),
    (Positive | None, None, None),
    (Count, 1, 1),
    (CountOrZero, 0, 0),
    (NonNegative, 0, 0.0),
    (Share, 1, 1.0),
    (tuple[float, ...], [1, np.float32(2)], (1.0, 2.0)),
    (tuple[float, ...], np.array([1.0, 2.0]), (1.0, 2.0)),
    (tuple[str, ...], [], ()),
    (tuple[Positive, Positive] | None, [1, 2], (1.0, 2.0)),
    (Literal["mse", "nll"], Loss.MSE, "mse"),
    (Annotated[Literal["gru"], Known(NAMES)], "lstm", "lstm"),
    (int | str, "a", "a"),
    (Annotated[float, Range(above=0, most=1)], 1, 1.0),
]


@pytest.mark.parametrize(("hint", "given", "wanted"), FITS)
def test_what_fits_becomes_the_plain_value_that_is_declared(hint: Any, given: Any, wanted: Any) -> None:
    found = check_setting("x", given, hint)
    assert found == wanted and type(found) is type(wanted)
    if isinstance(wanted, tuple):
        assert [type(x) for x in found] == [type(x) for x in wanted]


WRONG: list[tuple[Any, Any, str]] = [
    (float, math.nan, "x: expected a number, got nan"),
    (float, -math.inf, "x: expected a number, got -inf"),
    (float, np.float32("nan"), "x: expected a number, got nan"),
    (float, torch.tensor(math.inf), "x: expected a number, got inf"),
    (float, 10**400, "x: expected a number, got 1000"),
    (float, "1e-3", "x: expected a number, got '1e-3'"),
    (float, True, "x: expected a number, got True"),
    (float, np.bool_(True), "x: expected a number, got True"),
    (float, None, "x: expected a number, got None"),
    (float, 1j, "x: expected a number, got 1j"),
    (float, np.array([1.0]), "x: expected a number, got array"),
    (float, [0.1], r"x: expected a number, got \[0.1\]"),
    (int, 1.5, "x: expected a whole number, got 1.5"),
    (int, np.float32(1.5), "x: expected a whole number, got 1.5"),
    (int, math.nan, "x: expected a whole number, got nan"),
    (int, math.inf, "x: expected a whole number, got inf"),
    (int, True, "x: expected a whole number, got True"),
    (int, "3", "x: expected a whole number, got '3'"),
    (Count, 0, "x: expected a whole number of at least 1, got 0"),
    (Count | None, 0, "x: expected a whole number of at least 1 or None, got 0"),
    (Positive, 0, "x: expected a number above 0, got 0"),
    (Positive, np.float32(-1), "x: expected a number above 0, got -1.0"),
    (Share, 1.1, "x: expected a number from 0 to 1, got 1.1"),
    (ShareBelowOne, 1, "x: expected a number from 0 to below 1, got 1"),
    (Annotated[float, Range(above=0, most=1)], 0, "x: expected a number above 0 and at most 1, got 0"),
    (Annotated[float, Range(above=0, below=1)], 1, "x: expected a number above 0 and below 1, got 1"),
    (bool, "no", "x: expected True or False, got 'no'"),
    (bool, 1, "x: expected True or False, got 1"),
    (bool, None, "x: expected True or False, got None"),
    (str, "", "x: expected text, got ''"),
    (str, b"a", "x: expected text, got b'a'"),
    (Path, 3, "x: expected a path, got 3"),
    (tuple[float, ...], 3.0, "x: expected a list, each a number, got 3.0"),
    (tuple[str, ...], "ab", "x: expected a list, each text, got 'ab'"),
    (tuple[float, ...], [1.0, math.nan], r"x\[1\]: expected a number, got nan"),
    (tuple[float, ...], {1.0}, "x: expected a list, each a number, got {1.0}"),
    (tuple[float, ...], np.zeros((2, 2)), "x: expected a list, each a number, got array"),
    (tuple[Positive, Positive], [1.0], r"x: expected a list of 2, each a number above 0, got \[1.0\]"),
    (Literal["mse", "nll"], "msee", "no x 'msee'; did you mean 'mse'"),
    (Literal["mse", "nll"], None, "x: expected one of mse, nll, got None"),
    (Literal["mse", "nll"], ["mse"], r"x: expected one of mse, nll, got \['mse'\]"),
    (Annotated[Literal["gru"], Known(NAMES)], "lstmm", "no x 'lstmm'; did you mean 'lstm'"),
    (int | str, 1.5, "x: expected a whole number or text, got 1.5"),
]


@pytest.mark.parametrize(("hint", "given", "message"), WRONG)
def test_what_does_not_fit_is_one_error_that_names_the_setting(hint: Any, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        check_setting("x", given, hint)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError) as caught:
        check_setting("x", "a" * 10_000, float)
    assert len(str(caught.value)) < 120


# every class of settings


def all_settings() -> list[Any]:
    """Every class of settings in the package."""
    for module in pkgutil.walk_packages(rlmin.__path__, "rlmin."):
        if not module.name.startswith(("rlmin.interop", "rlmin.scan.gpu", "rlmin.__main__")):
            importlib.import_module(module.name)
    importlib.import_module("rlmin.interop.hub_command")

    def below(kind: type) -> list[type]:
        kinds: list[type] = kind.__subclasses__()
        return kinds + [each for one in kinds for each in below(one)]

    # a recipe's errors begin with its name: test_offline_suite.py
    ours = [kind for kind in below(Settings) if kind.__module__.startswith("rlmin.")]
    return [kind for kind in ours if kind.__name__ != "Recipe"]


KINDS = all_settings()
REQUIRED = {"env": "a", "dataset": "a", "run": "a", "runs": ["a"], "what": "a", "episodes": 4, "resume": "a"}
REQUIRED |= {"algorithm": "ppo", "repo_id": "a/b", "kind": "env", "name": "a", "source": "a", "to": "a", "seeds": 2}


def made(kind: Any, /, **given: Any) -> Any:
    needed = {name: REQUIRED[name] for name, about in describe_settings(kind).items() if about.default is MISSING}
    return kind(**{**needed, **given})


def test_the_classes_that_a_user_gives_settings_to_are_found() -> None:
    names = {kind.__name__ for kind in KINDS}
    assert names >= {"PolicyConfig", "PPOConfig", "DecisionConfig", "TrainConfig", "DecisionTrainConfig"}
    assert names >= {"Evaluate", "Collect", "Export", "Inspect", "Plot", "Resume", "Card", "Push", "Shift"}
    assert names >= {"SuiteOptions", "OfflineOptions", "Options"}
    assert all(is_dataclass(kind) for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_setting_is_checked_and_explained(kind: Any) -> None:
    config = made(kind)
    for name, about in describe_settings(kind).items():
        assert about.help[:1].isupper(), f"{name}: a comment beside it that begins with a noun is its help"
        assert words(about.hint)
        if about.default is not MISSING:
            assert getattr(config, name) == about.default and type(getattr(config, name)) is type(about.default)
        for wrong in (object(), math.nan, [math.nan], *({} for _ in range(get_origin(about.hint) is not dict))):
            with pytest.raises(ValueError, match=rf"^{name}(\[0\])?: expected "):
                made(kind, **{name: wrong})
        with pytest.raises(ValueError, match=name):
            replace(config, **{name: object()})


@pytest.mark.parametrize("kind", [PPOConfig, DecisionConfig])
def test_every_number_has_a_bound_and_none_is_silently_out_of_it(kind: Any) -> None:
    for name, about in describe_settings(kind).items():
        if type(about.default) in (int, float):
            with pytest.raises(ValueError, match=rf"^{name}: expected "):
                kind(**{name: -1e9})


UNBOUNDED = {
    **{(kind, "target_return"): "a return is any number" for kind in ("Evaluate", "Collect", "Export", "Inspect")},
    ("Evaluate", "target_score"): "a score is any number",
    **{(kind, "reference"): "a return is any number" for kind in ("Evaluate", "Collect")},
    ("Compare", "threshold"): "a return is any number",
}
"""Numbers in settings without a bound, and why."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_number_of_a_command_has_a_bound(kind: Any) -> None:
    numbers = {name for name, about in describe_settings(kind).items() if {int, float} & set(plain_types(about.hint))}
    free = {name for name in numbers if not limits(describe_settings(kind)[name].hint)}
    assert {name for name in free if (kind.__name__, name) not in UNBOUNDED} == set()


def plain_types(hint: Any) -> list[Any]:
    """The types that a declaration is made of."""
    inner = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return [part for each in inner for part in plain_types(each)] if inner else [hint]


def test_numbers_of_numpy_leave_settings_that_can_be_written() -> None:
    config = PPOConfig(lr=np.float32(1e-3), num_envs=np.int64(4), compile=np.bool_(False), time_scales=np.array([2, 9]))  # type: ignore[arg-type]
    kinds = {type(value) for value in asdict(config).values()}
    assert kinds <= {int, float, bool, str, tuple, dict, type(None)}
    assert config.lr == float(np.float32(1e-3))


# every way a setting is given


@pytest.mark.parametrize(
    "arguments",
    [
        ["--target-kl", "nan"], ["--target-kl=nan"], ["--lr", "inf"], ["--value-weight", "-1"], ["--entropy", "-5"],
        ["--lr-final", "-1"], ["--width", "1.5"], ["--width", "wide"], ["--normalize-return", "no"], ["--lr"],
        ["--encoder", "min_gur"], ["--time-scales", "2", "nan"], ["--time-scales", "2"], ["--seed", "-1"],
        ["--no-such-option", "1"], ["--threads", "0"], ["--device", ""],
    ],
)  # fmt: skip
def test_the_command_line_answers_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "tmaze", *arguments])
    said = capsys.readouterr()
    option = arguments[0].split("=")[0][2:]
    assert said.out == "" and said.err.count("\n") == 1
    assert option in said.err.replace("_", "-")


def test_what_is_missing_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, wanted in ((["evaluate"], "run is missing"), (["collect", "a", "--episodes", "3"], "--dataset is")):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        said = capsys.readouterr()
        assert wanted in said.err and said.err.count("\n") == 1


def test_help_shows_ranges(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    said = capsys.readouterr().out
    assert "Learning rate at the start of training [above 0] (default: 0.001)" in said


@dataclass(frozen=True, kw_only=True)
class Example(Settings):
    """An example."""

    steps: Count = 3  # Steps to take
    loud: bool = False  # Whether it speaks
    tags: tuple[str, ...] = ()  # Words
    pair: tuple[Positive, Positive] | None = None  # Two numbers


def test_arguments_become_settings() -> None:
    assert parse(Example, ["--steps", "1e3", "--tags", "a", "b"], prog="x") == Example(steps=1000, tags=("a", "b"))
    assert parse(Example, ["--loud", "True", "--pair", "1", "2"], prog="x") == Example(loud=True, pair=(1.0, 2.0))
    assert parse(Example, ["--loud"], prog="x", switches=True) == Example(loud=True)
    assert parse(Example, ["--loud", "--steps", "2"], prog="x") == Example(loud=True, steps=2)
    assert parse(Example, ["--loud=False"], prog="x") == Example()
    assert parse(Example, ["--no-loud", "--pair", "None"], prog="x", switches=True) == Example()
    with pytest.raises(ValueError, match=r"steps: expected a whole number of at least 1, got 1\.5"):
        parse(Example, ["--steps=1.5"], prog="x")
    with pytest.raises(ValueError, match=r"pair\[1\]: expected a number above 0, got -2"):
        parse(Example, ["--pair", "1", "-2"], prog="x")


def test_a_preset_passes_the_same_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("env: rlmin/TMaze-v0\nentropy: .nan\n")
    with pytest.raises(SystemExit, match="2"):
        main(["train", str(tmp_path / "mine.yaml")])
    assert "entropy: expected a number of at least 0, got nan" in capsys.readouterr().err


def test_an_agent_passes_the_same_check() -> None:
    with pytest.raises(ValueError, match="target_kl: expected a number above 0 or None, got nan"):
        PPO("rlmin/TMaze-v0", target_kl=math.nan)
    with pytest.raises(ValueError, match="width: expected a whole number from 1 to 65536, got True"):
        PPO("rlmin/TMaze-v0", width=True)
    with pytest.raises(ValueError, match=r"encoder: expected one of min_gru, .*, got None"):
        PPO("rlmin/TMaze-v0", encoder=None)


def test_a_whole_number_has_a_largest_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_setting("x", 2**63 - 1, Count) == 2**63 - 1
    for large in (2**63, 10**400, "9" * 400):
        with pytest.raises(ValueError, match=r"^x: expected a whole number of at least 1(, below 2\*\*63)?, got"):
            check_setting("x", large, Count)
    with pytest.raises(SystemExit):
        main(["train", "--env", "CartPole-v1", "--total-timesteps", "9" * 400])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "total_timesteps: expected a whole number of at least 1, below 2**63" in said
