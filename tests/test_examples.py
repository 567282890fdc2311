"""The scripts of examples/: each runs as a reader would start it, for a few steps."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))

NEEDS = {"torchrl_collector": "torchrl"}
RUN = [pytest.param(x, marks=[pytest.mark.needs(NEEDS[x.stem])] if x.stem in NEEDS else []) for x in SCRIPTS]

LINES = {"ppo_min_gru_one_file": 250}
"""Lines of a script, where 60 are too few."""
STEPS: dict[str, int] = {}
"""Steps of a script, where 256 are too few or too many."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_short_and_says_how_it_is_started(script: Path) -> None:
    text = script.read_text()
    assert len(text.splitlines()) <= LINES.get(script.stem, 60)
    assert f"python examples/{script.name} --steps" in (ast.get_docstring(ast.parse(text)) or "")


@pytest.mark.filterwarnings("default", "error:::rlmin", "default::UserWarning")  # others', and of tiny budgets
@pytest.mark.parametrize("script", RUN, ids=lambda script: script.stem)
def test_a_script_runs(
    script: Path, reader: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "--steps", str(STEPS.get(script.stem, 256))])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip(), "it says what it found"
