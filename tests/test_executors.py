"""Executors: a lost process costs its job a retry and nothing else; what cannot run says so before anything runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_suite import MAZE

from rlmin.cli import main
from rlmin.suite.executors.job import Job
from rlmin.suite.executors.local import Local
from rlmin.suite.executors.marker import Marker, put_marker
from rlmin.suite.executors.on_ray import OnRay
from rlmin.suite.executors.on_slurm import OnSlurm
from rlmin.suite.executors.options import ExecutorOptions
from rlmin.suite.executors.run_jobs import Event, run_jobs


def work(file: Path, *, dies: int = 0, error: str = "") -> None:
    """Count the attempt in a file; the first ones die."""
    with file.open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    if len(file.read_text().splitlines()) <= dies:
        os.kill(os.getpid(), signal.SIGKILL)
    if error:
        raise ValueError(error)


def job(folder: Path, name: str, **options: Any) -> Job:
    return Job(name, partial(work, folder / name, **options))


def attempts(folder: Path, name: str) -> int:
    return len((folder / name).read_text().splitlines())


def test_a_killed_process_costs_its_job_a_retry_and_nothing_else(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "whole"), job(tmp_path, "killed", dies=1), job(tmp_path, "wrong", error="no\ngood")]
    events = list(run_jobs(jobs, Local(2), folder=tmp_path, retries=1))
    ended = {event.job.name: event.error for event in events if not event.again}
    assert ended == {"whole": None, "killed": None, "wrong": "no good"}
    (lost,) = (event for event in events if event.again)
    assert lost.job.name == "killed" and lost.error is not None and "retry 1 of 1" in lost.error
    names = ("whole", "killed", "wrong")
    assert [attempts(tmp_path, name) for name in names] == [1, 2, 1], "an error is no reason to try again"
    assert not list(tmp_path.glob(".marker*"))


def write_variable(file: Path, name: str) -> None:
    file.write_text(os.environ.get(name, ""))


def test_a_process_sees_the_environment_of_its_command_not_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("first", "second"):  # the server of new processes was started with the first one at the latest
        monkeypatch.setenv("RLMIN_TEST", value)
        file = tmp_path / value
        jobs = [Job(value, partial(write_variable, file, "RLMIN_TEST"))]
        assert [event.error for event in run_jobs(jobs, Local(), folder=tmp_path, retries=0)] == [None]
        assert file.read_text() == value


@pytest.mark.slow
def test_a_job_that_always_dies_ends_after_its_retries(tmp_path: Path) -> None:
    events = list(run_jobs([job(tmp_path, "dying", dies=9)], Local(), folder=tmp_path, retries=2))
    assert [event.again for event in events] == [True, True, False] and attempts(tmp_path, "dying") == 3
    assert events[-1].error is not None and "3 times; see --retries" in events[-1].error


def test_a_marker_is_seen_where_it_is_and_nowhere_else(tmp_path: Path) -> None:
    with put_marker(tmp_path / "here") as marker:
        marker.check(seconds=0)
        for other in (Marker(tmp_path / marker.path.name, marker.token), Marker(marker.path, "another")):
            with pytest.raises(
                ValueError, match=r"does not see the files .* name a folder by --out that all nodes share"
            ):
                other.check(seconds=0)
    with pytest.raises(ValueError, match="does not see"):
        marker.check(seconds=0)


def run_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line of a command that is refused."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    printed = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    return printed[-1]


@pytest.mark.needs("ray")
@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:1", "no cluster answers there"), ("nowhere", "expected HOST:PORT, such as 10.0.0.1:6379")],
)
def test_a_ray_address_that_nobody_answers_is_one_line(
    address: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    (tmp_path / "small.yaml").write_text(MAZE)
    line = run_line(capsys, "bench", "memory", "--suite", str(tmp_path / "small.yaml"), "--on", "ray")
    assert line.startswith(f"rlmin: RAY_ADDRESS={address}: ") and message in line


def test_slurm_that_is_missing_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "small.yaml").write_text(MAZE)
    out = ("--out", str(tmp_path / "out"))
    line = run_line(capsys, "bench", "memory", "--suite", str(tmp_path / "small.yaml"), "--on", "slurm", *out)
    assert "expected the command sbatch on this machine, found none" in line
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def test_resources_are_checked() -> None:
    with pytest.raises(ValueError, match="expected none on this machine"):
        ExecutorOptions(resources=("num_gpus=1",))
    with pytest.raises(ValueError, match="no resource of Ray 'num_gpu'; did you mean 'num_gpus'"):
        ExecutorOptions(on="ray", resources=("num_gpu=1",)).make_executor()
    ray = ExecutorOptions(on="ray", resources=("num_gpus=0.5",)).make_executor()
    assert isinstance(ray, OnRay) and ray.resources == {"num_cpus": 1, "num_gpus": 0.5}


def test_a_resource_that_slurm_does_not_have_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    executor = OnSlurm(resources={"partitoin": "gpu"}, cluster="local")
    with pytest.raises(ValueError, match="partitoin"):
        list(run_jobs([job(tmp_path, "one")], executor, folder=tmp_path, retries=0))
    assert not (tmp_path / "one").exists()


@pytest.mark.slow
def test_submitit_runs_jobs_and_retries_what_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    (elsewhere,) = run_jobs([job(tmp_path, "elsewhere")], OnSlurm(cluster="local"), folder=tmp_path, retries=0)
    assert elsewhere.error == "ModuleNotFoundError: No module named 'test_executors'"
    root = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{root.parent}{os.pathsep}{root}")
    jobs = [job(tmp_path, "whole"), job(tmp_path, "killed", dies=1), job(tmp_path, "wrong", error="no good")]
    events = list(run_jobs(jobs, OnSlurm(2, cluster="local"), folder=tmp_path, retries=1))
    check_three(events, tmp_path)


RAY = """
import sys, os
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_executors import check_three, job
from rlmin.suite.executors.on_ray import OnRay
from rlmin.suite.executors.run_jobs import run_jobs
folder = Path({folder!r})
jobs = [job(folder, "whole"), job(folder, "killed", dies=1), job(folder, "wrong", error="no good")]
check_three(list(run_jobs(jobs, OnRay(2), folder=folder, retries=1)), folder)
"""


@pytest.mark.slow
@pytest.mark.needs("ray")
def test_ray_runs_jobs_and_retries_what_was_killed(tmp_path: Path) -> None:
    root = Path(__file__).parent
    program = RAY.format(tests=str(root), folder=str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": f"{root.parent}{os.pathsep}{root}", "RAY_ADDRESS": "local"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]


def check_three(events: list[Event], folder: Path) -> None:
    """Of three jobs one was whole, one killed and one wrong."""
    ended = {event.job.name: event.error for event in events if not event.again}
    assert ended == {"whole": None, "killed": None, "wrong": "no good"}
    assert [event.job.name for event in events if event.again] == ["killed"]
    assert [attempts(folder, name) for name in ended] == [2 if name == "killed" else 1 for name in ended]


@pytest.mark.slow
def test_workers_stop_when_their_command_was_killed(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(MAZE.replace("steps: 512", "steps: 10_000_000"))
    out = tmp_path / "out"
    command = ["bench", "memory", "--suite", str(tmp_path / "long.yaml"), "--out", str(out), "--jobs", "1"]
    program = [sys.executable, "-c", f"from rlmin.cli import main; main({command!r})"]
    folder = out / "long" / "rlmin-TMaze-v0" / "min_gru-0"
    with subprocess.Popen(program, stderr=subprocess.DEVNULL) as running:
        try:
            wait_for(lambda: (folder / ".lock").exists() and (folder / "learner.safetensors").is_file())
        finally:
            running.kill()
    wait_for(lambda: not (folder / ".lock").exists())  # the worker has saved, and gone


def wait_for(happens: Callable[[], bool], *, seconds: float = 300.0) -> None:
    """Wait until something happens."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.1)


class OnLocalCluster(ExecutorOptions):
    """SLURM's executor, on submitit's cluster of this machine."""

    def make_executor(self) -> OnSlurm:
        return OnSlurm(2, cluster="local")


TABLE = """
from pathlib import Path
from rlmin.suite import SuiteOptions
from rlmin.suite.executors.options import ExecutorOptions
from rlmin.suite.report import write_report
from rlmin.suite.run import run_cells
from test_executors import OnLocalCluster

root = Path({root!r})
suite = SuiteOptions(suite=str(root / "small.yaml"), seeds=1).select()
places = {{"local": ExecutorOptions(jobs=2), "slurm": OnLocalCluster()}}
if {ray}:
    places["ray"] = ExecutorOptions(on="ray", jobs=2)
for place, options in places.items():
    out = root / place
    print("TABLE", repr(write_report(run_cells(suite.cells(), out, options), suite.cells(), out, out, name="small")))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ray", [False, pytest.param(True, marks=pytest.mark.needs("ray"))])
def test_the_table_is_the_same_wherever_cells_are_trained(ray: bool, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    (tmp_path / "small.yaml").write_text(MAZE)
    root = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{root.parent}{os.pathsep}{root}", "RAY_ADDRESS": "local"}
    program = [sys.executable, "-c", TABLE.format(root=str(tmp_path), ray=ray)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=2400)
    tables = [line for line in done.stdout.splitlines() if line.startswith("TABLE")]
    assert len(tables) == 2 + ray and len(set(tables)) == 1, done.stderr[-3000:]
    assert "rlmin/TMaze-v0" in tables[0] and "mlp" in tables[0]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes of a command are read from /proc")
def test_killed_workers_leave_no_difference() -> None:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "tests.kill_workers", "--kills", "4"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
