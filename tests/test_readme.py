"""The README: what it asks a newcomer to type exists and runs, and it stays short."""

import re
import shlex
from pathlib import Path

import pytest

from rlmin import load
from rlmin.cli import COMMANDS, main
from rlmin.commands.train import preset_path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", README)


def shell_lines() -> list[str]:
    """The commands of console blocks."""
    return [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]


def test_there_are_two_commands_to_set_up_and_they_stand_at_the_top() -> None:
    lines = README.splitlines()
    assert sum("pip install -c constraints.txt" in line and "&&" in line for line in lines) == 2
    assert next(i for i, line in enumerate(lines) if "pip install" in line) < 20
    assert "@@" not in README, "a number is still missing"


def test_it_is_read_in_a_few_minutes() -> None:
    assert len(README.splitlines()) <= 150
    assert README.index("![") < README.index("\n## "), "a picture stands on the first screen"


def test_every_command_and_preset_it_names_exists() -> None:
    inline = "\n".join([*re.findall(r"`rlmin [^`]*`", README), *shell_lines(), *README.splitlines()])
    named = re.findall(r"\brlmin (train|evaluate|plot|list|inspect|export|collect) ([\w-]+)", inline)
    assert named
    for command, argument in named:
        assert command in COMMANDS
        assert command != "train" or argument.startswith("--") or preset_path(argument).exists()


def test_the_quick_start_in_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line]) <= 12
    seen: dict[str, object] = {}
    exec(code.replace("50_000, progress_bar=True", "1_024").replace("episodes=200", "episodes=4"), seen)
    assert load("runs/repeat").num_timesteps == 1_024
    assert len(seen["observation"]) == 16  # type: ignore[arg-type]


def test_the_quick_start_in_the_shell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [line.split()[1] for line in shell_lines()] == ["train", "evaluate", "inspect"]
    small = {
        "150_000": "512 --width 8 --eval-episodes 0",
        "500": "4",
        "inspect runs/maze": "inspect runs/maze --episodes 4",
    }
    for line in shell_lines():
        for long, short in small.items():
            line = line.replace(long, short)
        main(shlex.split(line)[1:])
    assert Path("runs/maze/inspection.html").exists()
