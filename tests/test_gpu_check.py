"""The check for machines with a GPU, tried on the CPU at tiny sizes, so that it is in order on the day there is one."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ["A", "B0", "C", "D1", "D2", "D4", "F", "E1", "G"]
CHECK = ROOT / "benchmarks" / "gpu" / "check.sh"

BROKEN = """
import rlmin.evaluation.evaluate as module

def evaluate(*args, **kwargs):
    raise ValueError("broken")

module.evaluate = evaluate
"""


def run_check(out: Path, stages: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DRY": "1", "OUT": str(out), "STAGES": stages, "PY": sys.executable}
    return subprocess.run(["bash", str(CHECK)], env=env, capture_output=True, text=True, timeout=1500, check=False)


@pytest.mark.slow
def test_every_stage_runs_on_the_cpu_at_tiny_sizes(tmp_path: Path) -> None:
    found = run_check(tmp_path, " ".join(STAGES))
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-1000:]
    stages = [line.split("|")[:2] for line in (tmp_path / "stages.txt").read_text().splitlines()]
    assert stages == [[name, "0"] for name in STAGES]
    with (tmp_path / "results.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert {row["stage"] for row in rows} == set(STAGES) - {"B0"}
    assert not [row for row in rows if row["what"].startswith("FAILED")]


@pytest.mark.slow
def test_a_check_that_fails_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    broken = (
        "import rlmin.evaluation.evaluate as module\n\ndef evaluate(*args, **kwargs):\n    raise ValueError('broken')\n"
    )
    (tmp_path / "sitecustomize.py").write_text(broken + "\nmodule.evaluate = evaluate\n")
    found = run_check(tmp_path / "out", "D2")
    assert found.returncode != 0
    assert "ValueError: broken" in (tmp_path / "out" / "results.csv").read_text()
