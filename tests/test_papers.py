"""The page of papers: each of its lines of options trains an agent, and what it calls by name exists."""

import importlib
import re
import shlex
from pathlib import Path

import gymnasium as gym
import pytest

from rlmin.agents.decision_config import DecisionConfig
from rlmin.agents.ppo_config import PPOConfig
from rlmin.cli import main
from rlmin.settings import from_text

PAGE = (Path(__file__).parent.parent / "docs/reference/papers.md").read_text()
LINES = sorted({found[1] for found in re.finditer(r"`(--[a-z][^`]*)`", PAGE)})


def settings_of(line: str) -> dict[str, object]:
    """Options of a command line as settings."""
    words = shlex.split(line)
    names = [word.removeprefix("--").replace("-", "_") for word in words[::2]]
    return {name: from_text(word, float | bool) for name, word in zip(names, words[1::2], strict=True)}


def make_config(line: str) -> PPOConfig | DecisionConfig:
    settings = settings_of(line)
    kind = DecisionConfig if settings.pop("algorithm", "ppo") == "decision" else PPOConfig
    return kind().with_settings(settings)


@pytest.mark.parametrize("line", LINES)
def test_options_are_those_of_an_agent(line: str) -> None:
    config = make_config(line)
    saved = config.to_saved() | config.cell_options
    for name, value in settings_of(line).items():
        assert name == "algorithm" or saved[name] == value
    with pytest.raises(ValueError, match="of_no_paper"):
        make_config(f"{line} --of-no-paper 1")


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in LINES if "--algorithm" not in line])
def test_options_train_an_agent(line: str, tmp_path: Path) -> None:
    sizes = "--num-envs 2 --horizon 8 --width 8 --total-timesteps 32 --eval-episodes 2"
    command = f"train --env rlmin/TMaze-v0 {line} {sizes} --folder {tmp_path / 'run'}"
    main(shlex.split(command))
    assert (tmp_path / "run").is_dir()


def test_environments_and_modules_that_are_named_exist() -> None:
    ids = sorted(set(re.findall(r"`(rlmin/[A-Za-z0-9]+-v0)`", PAGE)))
    assert len(ids) > 8
    for id in ids:
        assert gym.spec(id).id == id
    for name in sorted(set(re.findall(r"`(rlmin\.[a-z_.]+)`", PAGE))):
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name
