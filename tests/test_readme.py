"""The README: what it tells a newcomer to type exists and runs."""

import re
from pathlib import Path

import pytest

from rlmin import load
from rlmin.cli import COMMANDS
from rlmin.commands.train import preset_path, train

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", README)]


def block(part: str) -> str:
    """The code block that contains `part`."""
    (found,) = [text for text in BLOCKS if part in text]
    return found


def test_there_are_two_commands_to_set_up_and_they_stand_at_the_top() -> None:
    lines = README.splitlines()
    assert sum("pip install -c constraints.txt" in line and "&&" in line for line in lines) == 2
    assert next(i for i, line in enumerate(lines) if "pip install" in line) < 20
    assert "@@" not in README, "a number is still missing"


def test_every_command_and_preset_it_names_exists() -> None:
    named = re.findall(
        r"rlmin (train|evaluate|plot|list|\w+) ([\w-]+)", "\n".join(re.findall(r"`rlmin [^`]*`", README))
    )
    assert named
    for command, argument in named:
        assert command in COMMANDS
        assert command != "train" or argument.startswith("--") or preset_path(argument).exists()


def test_the_example_with_an_environment_of_one_s_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(block("verify_consistency(agent)").replace("100_000", "1_000").replace("progress_bar=True", ""), {})
    assert load("my-run").num_timesteps >= 1_000


def test_the_example_with_logged_data_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(block("Episode(observations").replace("1_000_000", "4_000").replace("progress_bar=True", ""), {})
    assert load("my-student").num_timesteps >= 4_000


def test_the_example_that_loads_a_run_plays_an_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlmin.commands.train import TrainConfig

    monkeypatch.chdir(tmp_path)
    small = TrainConfig(
        env="rlmin/MiniGridMemory-v0", total_timesteps=32, num_envs=2, horizon=16, width=8, eval_episodes=0
    )
    train(small, name="minigrid-memory", progress_bar=False)
    seen: dict[str, object] = {}
    exec(block("rlmin.load("), seen)
    assert seen["start"] is True, "the episode has ended"
