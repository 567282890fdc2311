"""Presets: data only, differences from the defaults, each a run that starts."""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlmin import PPO, verify_consistency
from rlmin.commands.parse import parse
from rlmin.commands.preset_files import describe_presets
from rlmin.commands.train import PRESETS, TrainConfig, parse_pairs, preset_arguments, preset_path, read_preset
from rlmin.settings import describe_settings

NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))


def resolved(name: str, *more: str) -> TrainConfig:
    return parse(TrainConfig, [*preset_arguments(read_preset(name)), *more], prog="rlmin train")


def test_the_promised_presets_are_there() -> None:
    assert {"tmaze", "minigrid-memory", "cartpole", "cartpole-novel", "pendulum-novel"} <= set(NAMES)


VALUES = [None, True, 1, -1.5, 1e-05, 1e30, "9", "null", "a: b", "{", "", "-x", "a\nb", [1, None], {"b": [1e-9]}, "..."]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_arguments_of_an_environment_in_a_preset_come_back_equal(value: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"env": "CartPole-v1", "env_kwargs": {"x": value}}))
    found = parse_pairs(read_preset(str(tmp_path / "a.yaml"))["env_kwargs"])["x"]
    assert type(found) is type(value) and found == value


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_makes_an_agent_that_learns(name: str) -> None:
    config = resolved(name, "--num-envs", "8", "--width", "8", "--horizon", "4")
    agent = PPO(config.env, config=config.agent_settings, env_kwargs=parse_pairs(config.env_kwargs))
    agent.learn(2 * 4 * 8)
    assert agent.num_updates == 2
    assert verify_consistency(agent, steps=8) < 1e-5
    agent.vector.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_time_of_a_preset_is_the_range_that_was_measured(name: str) -> None:
    """Of a seed on one thread, by `python -m benchmarks.learning`; a preset without results states none."""
    file = Path(__file__).parent.parent / "benchmarks" / "results" / f"{name}.csv"
    line = next(line for line in describe_presets() if line.split()[0] == name)
    if not file.exists():
        assert " s on one thread" not in line
        return
    with file.open() as lines:
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        took = [int(row["seconds"]) for row in rows if row["encoder"] == resolved(name).encoder]
    assert f" in {min(took)} to {max(took)} s on one thread" in line
    assert f", {len(took)} seeds." in preset_path(name).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_only_what_differs_from_the_defaults_and_why_it_is_there(name: str) -> None:
    settings, config = read_preset(name), resolved(name)
    config.agent_settings.minibatches_of(config.num_envs)
    assert preset_path(name).read_text().startswith("# ")
    assert {"env", "total_timesteps"} <= set(settings)
    for key, about in describe_settings(TrainConfig).items():
        if key not in settings:
            assert getattr(config, key) == about.default


def test_scientific_notation_is_a_number_and_no_is_not_a_flag(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("env: CartPole-v1\nlr: 1e-4\nminibatches: null\ntarget_kl: 2e-2\nshare_memory: false\n")
    config = resolved(str(path))
    assert (config.lr, config.minibatches, config.target_kl, config.share_memory) == (1e-4, None, 0.02, False)
    assert isinstance(read_preset(str(path))["lr"], str), "YAML itself reads a string: the arm that must fail"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env: CartPole-v1\ngama: 0.9", r"mine\.yaml: no setting 'gama'; did you mean 'gamma'"),
        ("- env", "expected settings as `key: value`, got list"),
        ("env: [", "not readable as YAML"),
    ],
)
def test_a_file_that_is_no_preset_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_preset(str(tmp_path / "mine.yaml"))


def test_a_preset_that_does_not_exist_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no preset 'tmaz'; did you mean 'tmaze'"):
        preset_path("tmaz")
    with pytest.raises(ValueError, match=r"nowhere\.yaml: no such file"):
        preset_path("nowhere.yaml")


def test_of_an_option_given_twice_the_last_counts() -> None:
    assert resolved("tmaze", "--lr", "1e-3", "--lr", "2e-4").lr == 2e-4
