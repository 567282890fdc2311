"""Killed at random moments and gone on with, runs are those that were never killed: `python -m tests.kill`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="its children are forked")
def test_three_kills_leave_no_difference() -> None:
    root = Path(__file__).parent.parent
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tests.kill", "--kills", "3"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
