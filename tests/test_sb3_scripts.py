"""Scripts written for sb3-contrib's RecurrentPPO run after changing their import, and are scripts that run there."""

import gc
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parent / "sb3_scripts").glob("*.py"))
SCRIPTS = [
    pytest.param(file, id=file.stem, marks=[pytest.mark.needs("pandas")] if "load_results" in file.read_text() else [])
    for file in FILES
]
THEIRS, OURS = "from sb3_contrib import RecurrentPPO", "from rlmin import PPO as RecurrentPPO"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # scripts leave their logs open
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_runs_after_changing_its_import(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = script.read_text()
    assert text.count(THEIRS) == 1
    Path("script.py").write_text(text.replace(THEIRS, OURS))
    runpy.run_path("script.py")
    gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_one_of_theirs(script: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, script], cwd=tmp_path, check=True)
