"""`torchrun -m rlmin train`: one run, one folder, one log; a fault ends it with one line, and nothing is lost.

Each run is of real processes that torchrun starts, so these tests take tens of seconds.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlmin.cli import main
from rlmin.commands.training_run import METRICS
from rlmin.runs.checkpoint import LEARNER, read
from rlmin.runs.logs import read_rows

pytestmark = pytest.mark.slow

SIZES = {"num-envs": 8, "shards": 4, "horizon": 16, "width": 16, "minibatches": 2, "epochs": 2, "lr-final": None}
SMALL = ["tmaze", *(word for name, x in SIZES.items() for word in (f"--{name}", str(x))), "--env-kwargs", "length=5"]
QUIET = ["--evaluations", "0", "--eval-episodes", "0", "--save-interval", "512"]
ENDLESS = ["--total-timesteps", "10_000_000"]
WAIT = 300
"""Seconds for what takes one or two on a free machine."""


class Torchrun:
    """A run that torchrun starts, and what it prints."""

    def __init__(self, size: int, arguments: list[str], out: Path) -> None:
        self.out = out
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
        with out.open("w") as file:
            self.process = subprocess.Popen(
                [*command, "-m", "rlmin", "train", *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)},
            )

    def ranks(self) -> list[int]:
        """Process numbers of the ranks, by rank."""
        command = ["ps", "-o", "pid=", "--ppid", str(self.process.pid)]
        return sorted(int(line) for line in subprocess.run(command, capture_output=True, text=True).stdout.split())

    def wait_until(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT
        while not ready():
            assert self.process.poll() is None, self.out.read_text()
            assert time.monotonic() < end, self.out.read_text()
            time.sleep(0.2)

    def end(self, seconds: float = WAIT) -> tuple[int, list[str]]:
        """Wait for the end; the exit code, and rlmin's lines of error."""
        try:
            code = self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        return code, [line for line in self.out.read_text().splitlines() if line.startswith("rlmin: ")]


def rows(folder: Path) -> list[dict[str, Any]]:
    return read_rows(folder / METRICS)[1] if (folder / METRICS).exists() else []


def state(folder: Path) -> tuple[int, dict[str, torch.Tensor]]:
    header, tensors = read(folder, LEARNER)
    return header["num_timesteps"], tensors


def assert_close(folder: Path, other: Path) -> None:
    """Two checkpoints are of the same step, and the same up to rounding."""
    (step, tensors), (there, others) = state(folder), state(other)
    assert step == there and tensors.keys() == others.keys()
    for name, x in tensors.items():
        assert torch.allclose(others[name].double(), x.double(), rtol=1e-3, atol=1e-3), name


def test_a_run_stopped_on_two_ranks_goes_on_with_one_and_with_four(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "parts"
    for place, steps in ((whole, "1920"), (folder, "640")):
        arguments = [*SMALL, *QUIET, "--total-timesteps", steps, "--folder", str(place)]
        assert Torchrun(2, arguments, tmp_path / "out").end()[0] == 0, (tmp_path / "out").read_text()
    with pytest.raises(AssertionError):
        assert_close(whole, folder)
    main(["train", "--resume", str(folder), "--total-timesteps", "1280"])
    rest = ["--resume", str(folder), "--total-timesteps", "1920"]
    code, lines = Torchrun(3, rest, tmp_path / "out").end()
    assert code != 0 and lines == ["rlmin: shards=4: 3 processes need a multiple of 3, for example shards=6"]
    assert Torchrun(4, rest, tmp_path / "out").end() == (0, [])
    assert [float(row["time/total_timesteps"]) for row in rows(folder)] == [128.0 * i for i in range(1, 16)]
    assert_close(whole, folder)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_run_with_one_line_and_the_last_checkpoint_is_whole(victim: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = Torchrun(2, [*SMALL, *QUIET, *ENDLESS, "--folder", str(folder)], tmp_path / "out")
    run.wait_until(lambda: len(rows(folder)) > 5)
    ranks = run.ranks()
    os.kill(ranks[victim], signal.SIGKILL)
    code, lines = run.end()
    assert code != 0 and len(lines) == 1, run.out.read_text()
    assert "another process of this run has ended; the last checkpoint, of step" in lines[0]
    assert f"rlmin train --resume {folder}" in lines[0]
    assert not any(Path(f"/proc/{number}").exists() for number in ranks)
    step = state(folder)[0]
    assert step >= 512
    main(["train", "--resume", str(folder), "--total-timesteps", str(step + 128)])
    assert state(folder)[0] == step + 128


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun_stops_all_ranks_after_a_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = Torchrun(2, [*SMALL, *QUIET, *ENDLESS, "--folder", str(folder)], tmp_path / "out")
    run.wait_until(lambda: len(rows(folder)) > 2)
    run.process.send_signal(number)
    _, lines = run.end()
    assert lines == []
    said = [line for line in run.out.read_text().splitlines() if line.startswith("stopped at ")]
    assert len(said) == 1, run.out.read_text()
    assert state(folder)[0] == int(float(rows(folder)[-1]["time/total_timesteps"])), "nothing was lost"


def test_a_signal_to_one_rank_stops_all(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = Torchrun(2, [*SMALL, *QUIET, *ENDLESS, "--folder", str(folder)], tmp_path / "out")
    run.wait_until(lambda: len(rows(folder)) > 2)
    os.kill(run.ranks()[1], signal.SIGTERM)
    run.end()
    assert run.out.read_text().count("stopped at ") == 1
    assert state(folder)[0] == int(float(rows(folder)[-1]["time/total_timesteps"]))


def test_a_rank_that_hangs_is_given_up(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    limit = ["--rank-timeout", "10"]
    run = Torchrun(2, [*SMALL, *QUIET, *ENDLESS, *limit, "--folder", str(folder)], tmp_path / "out")
    run.wait_until(lambda: len(rows(folder)) > 5)
    ranks = run.ranks()
    os.kill(ranks[1], signal.SIGSTOP)
    code, lines = run.end()
    assert code != 0 and len(lines) == 1, run.out.read_text()
    assert "another process of this run has not answered in time" in lines[0]
    assert not any(Path(f"/proc/{number}").exists() for number in ranks)
    assert state(folder)[0] >= 512


FAULTY = '''
import gymnasium as gym
import numpy as np


class Faulty(gym.Env):
    """Rewards are NaN in one of the environments, from some step on."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    made = 0

    def __init__(self):
        Faulty.made += 1
        self.number, self.count = Faulty.made, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = self.seed if seed is None else seed
        return self.observation_space.sample(), {}

    seed = 0

    def step(self, action):
        self.count += 1
        reward = float("nan") if self.seed == 5 and self.count > 40 else 1.0
        return np.zeros(2, np.float32), reward, self.count % 9 == 0, False, {}


gym.register("Faulty-v0", Faulty)
'''


def test_nan_on_one_rank_is_one_line_that_names_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.chdir(tmp_path)
    arguments = ["--env", "faulty:Faulty-v0", *SMALL[1:-2], *QUIET, *ENDLESS, "--folder", "run"]
    run = Torchrun(2, arguments, tmp_path / "out")
    code, lines = run.end()
    assert code != 0 and len(lines) == 1, run.out.read_text()
    assert "environment 5" in lines[0] or "reward" in lines[0]
    assert state(tmp_path / "run")[0] == 0, "the first checkpoint is whole"


@pytest.mark.parametrize(
    ("arguments", "name"), [(["train", "tmaze", "--seeds", "2"], "train --seeds"), (["list", "envs"], "list")]
)
def test_what_every_process_would_do_alone_is_refused(
    arguments: list[str], name: str, refuse: Callable[[list[str], str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {"WORLD_SIZE": "3", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(variable, value)
    refuse(arguments, f"{name}: expected one process, torchrun started 3, which would each do all of it; run it")
    monkeypatch.delenv("MASTER_PORT")  # another program's variable WORLD_SIZE means nothing
    main(["list", "encoders"])


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    for arguments, message in (
        ([*SMALL, "--num-envs", "9"], "num_envs=9: 2 processes need a multiple of 2, for example num_envs=10"),
        ([*SMALL, "--shards", "1"], "shards=1: 2 processes need a multiple of 2, for example shards=2"),
        ([*SMALL, "--shrads", "2"], "no option '--shrads'"),
        (["--resume", str(tmp_path / "nowhere")], "no such run folder"),
    ):
        folder = [] if "--resume" in arguments else ["--folder", str(tmp_path / "run")]
        run = Torchrun(2, [*arguments, *folder], tmp_path / "out")
        code, lines = run.end()
        assert code != 0 and len(lines) == 1, run.out.read_text()
        assert message in lines[0]
        assert not (tmp_path / "run").exists()
