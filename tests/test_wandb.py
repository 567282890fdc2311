"""W&B beside TensorBoard and metrics.csv: the real package, offline. A resumed run is the same one there."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from large import need
from stable_baselines3.common.logger import Logger

from rlmin import DecisionAgent
from rlmin.cli import main
from rlmin.data import Episode
from rlmin.runs.logs import METRICS, WandbOutput, make_logger

need("wandb")
pytestmark = pytest.mark.needs("wandb")

ROOT = Path(__file__).parent.parent
SMALL = ["--width", "8", "--horizon", "10", "--num-envs", "4", "--minibatches", "2", "--eval-episodes", "0"]
SMALL += ["--env-kwargs", "length=4"]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    package: Any = sys.modules.get("wandb")
    if package is not None:
        package.teardown()  # ends its process


def written(folder: Path) -> bytes:
    (file,) = folder.rglob("*.wandb")
    return file.read_bytes()


def test_rows_go_to_all_three_numbers_as_they_are_and_tensors_as_histograms() -> None:
    folder = Path("run")
    folder.mkdir()
    logger: Logger = make_logger(folder, {"lr": 0.5}, wandb=("project", "run-id"))
    (output,) = [one for one in logger.output_formats if isinstance(one, WandbOutput)]
    for step, loss in ((10, 3.0), (20, 1.5)):
        logger.record("time/total_timesteps", step)
        logger.record("train/loss", loss)
        logger.record("memory/log10_time_scale/x", torch.arange(5.0), exclude=("csv", "stdout", "log"))
        logger.dump(step)
    assert output.run.id == "run-id" and output.run.project == "project" and output.run.config["lr"] == 0.5
    summary = dict(output.run.summary)
    assert summary["train/loss"] == 1.5 and summary["time/total_timesteps"] == 20
    assert sum(summary["memory/log10_time_scale/x"]["values"]) == 5
    logger.close()
    output.wandb.teardown()  # after which all is written
    assert b"train/loss" in written(folder) and b"never recorded" not in written(folder)
    with (folder / METRICS).open(newline="") as lines:
        rows = [dict(row) for row in csv.DictReader(lines)]
    assert rows == [{"time/total_timesteps": step, "train/loss": x} for step, x in (("10", "3.0"), ("20", "1.5"))]
    assert list(folder.glob("events*"))


def test_a_run_that_is_gone_on_with_is_the_same_one() -> None:
    main(["train", "tmaze", *SMALL, "--total-timesteps", "80", "--wandb", "project"])
    run = Path("runs/tmaze-0")
    settings: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())["run"]
    assert settings["wandb"] == "project"
    main(["train", "--resume", str(run), "--total-timesteps", "120"])
    files = sorted(run.rglob("*.wandb"))
    assert [file.stem for file in files] == [f"run-{settings['wandb_id']}"] * 2
    assert all(b"rollout/ep_rew_mean" in file.read_bytes() for file in files)
    assert len((run / METRICS).read_text().splitlines()) == 1 + 3
    main(["train", "tmaze", *SMALL, "--total-timesteps", "80"])
    assert not list(Path("runs/tmaze-1").rglob("*.wandb")), "only where it is asked for"


def test_a_decision_agent_logs_too() -> None:
    agent = DecisionAgent([Episode(np.zeros((8, 2), np.float32), [0] * 7, [1.0] * 7, True)] * 3, width=8, rows=2)
    Path("run").mkdir()
    agent.set_logger(make_logger(Path("run"), {}, wandb=("project", "other")))
    agent.learn(600)
    agent.logger.close()
    (output,) = [one for one in agent.logger.output_formats if isinstance(one, WandbOutput)]
    output.wandb.teardown()
    assert b"train/loss" in written(Path("run"))


@pytest.mark.slow
def test_the_command_line_leaves_no_process_and_does_not_warn() -> None:
    mark = str(Path.cwd())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MARK": mark}
    command = [sys.executable, "-c", "from rlmin.cli import main; main()", "train", "tmaze", *SMALL]
    command += ["--total-timesteps", "80", "--wandb", "project"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "warn" not in done.stderr.lower(), done.stderr
    left = [place for place in Path("/proc").glob("[0-9]*/environ") if mark.encode() in content(place)]
    assert left == [], "processes are left behind"


def content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""


def test_where_wandb_refuses_the_run_can_be_started_again_or_gone_on_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = ["train", "tmaze", *SMALL, "--total-timesteps", "80", "--folder", "run", "--wandb"]
    own = Path("run/own.txt")
    for _ in range(2):
        with pytest.raises(SystemExit):
            main([*start, "not/allowed"])
        assert "W&B: Invalid project name" in capsys.readouterr().err
        assert [str(path) for path in Path().rglob("*")] == ([] if not own.parent.exists() else ["run", str(own)])
        own.parent.mkdir(exist_ok=True)  # a file of the user's stays
        own.write_text("mine")
    main([*start, "project"])

    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    again = ["train", "--resume", "run", "--total-timesteps", "120", "--wandb"]
    with pytest.raises(SystemExit):
        main([*again, "not/allowed"])
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    main([*again, "other"])
    assert yaml.safe_load(Path("run/config.yaml").read_text())["run"]["wandb"] == "other"


def test_without_the_package_a_run_is_gone_on_with_when_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["train", "tmaze", *SMALL, "--total-timesteps", "80", "--folder", "run", "--wandb", "project"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    again = ["train", "--resume", "run", "--total-timesteps", "120"]
    with pytest.raises(SystemExit):
        main(again)
    said = capsys.readouterr().err
    assert 'pip install "rlmin[wandb]"' in said and "--wandb none" in said
    main([*again, "--wandb", "none"])
    assert len(list(Path("run").rglob("*.wandb"))) == 1
    assert yaml.safe_load(Path("run/config.yaml").read_text())["run"]["wandb"] is None
    assert len(Path("run", METRICS).read_text().splitlines()) == 1 + 3


def test_without_the_package_the_extra_is_named_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SystemExit):
        main(["train", "tmaze", *SMALL, "--total-timesteps", "80", "--wandb", "project"])
    assert 'pip install "rlmin[wandb]"' in capsys.readouterr().err
    assert list(Path().iterdir()) == []
