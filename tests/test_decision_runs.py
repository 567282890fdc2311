"""`rlmin train --dataset`: a run on logged data has the folder, the logs and the resuming of every other run."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from unix import SIGNALS

from rlmin import DecisionAgent, load
from rlmin.cli import main
from rlmin.commands.train_config import DecisionTrainConfig
from rlmin.runs.checkpoint import LEARNER, read

h5py = pytest.importorskip("h5py")

SMALL = ["--width", "8", "--layers", "1", "--rows", "4", "--horizon", "32", "--held-out", "0.2"]
SMALL += ["--eval-episodes", "2", "--warmup-steps", "2"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in a folder of its own that holds data of a pendulum."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    random, steps = np.random.default_rng(0), 1000
    with h5py.File("swing.hdf5", "w") as file:
        file["observations"] = random.uniform(-1, 1, (steps, 3)).astype(np.float32)
        file["actions"] = random.uniform(-2, 2, (steps, 1)).astype(np.float32)
        file["rewards"] = random.uniform(-2, 0, steps).astype(np.float32)
        file["terminals"] = np.zeros(steps, bool)
        file["timeouts"] = np.arange(steps) % 100 == 99
    return tmp_path


def test_training_on_data_leaves_a_run_that_is_evaluated_and_resumes(capfd: pytest.CaptureFixture[str]) -> None:
    main(["train", "--dataset", "swing.hdf5", "--env", "Pendulum-v1", *SMALL, "--total-timesteps", "9000"])
    said = capfd.readouterr().out
    assert said.startswith("run: runs/swing-0\n")
    assert re.search(r"9,088/9,000 steps  loss [\d.]+  [\d,]+ steps/s  0 s left", said)
    assert re.search(r"open loop, held out loss: [\d.]+", said) and "greedy on Pendulum-v1" in said
    run = Path("runs/swing-0")
    names = {path.name for path in run.iterdir() if "tfevents" not in path.name}
    assert {"config.yaml", "policy.safetensors", "learner.safetensors", "metrics.csv", "curve.png"} <= names
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    columns = "train/loss train/held_out_loss train/learning_rate train/grad_norm time/fps time/total_timesteps"
    assert len(rows) >= 20 and set(columns.split()) <= set(rows[0])
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["agent"] == "decision" and settings["dataset"]["episodes"] == 10
    assert settings["env"]["id"] == "Pendulum-v1"

    main(["train", "--resume", str(run), "--total-timesteps", "10000"])
    assert load(run).num_timesteps == 10_112
    with pytest.raises(SystemExit):
        main(["train", "--resume", str(run)])
    assert "finished at 10,112 steps" in capfd.readouterr().err


def test_a_run_in_two_parts_is_the_run_in_one(capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--dataset", "swing.hdf5", *SMALL, "--eval-episodes", "0", "--lr", "1e-3", "--lr-final", "1e-3"]
    main(["train", *options, "--folder", "whole", "--total-timesteps", "2560"])
    main(["train", *options, "--folder", "parts", "--total-timesteps", "1280"])
    Path("swing.hdf5").rename("moved.hdf5")
    with pytest.raises(SystemExit):
        main(["train", "--resume", "parts", "--total-timesteps", "2560"])
    assert "swing.hdf5" in capfd.readouterr().err
    main(["train", "--resume", "parts", "--total-timesteps", "2560", "--dataset", "moved.hdf5"])
    whole, parts = (read(Path(folder), LEARNER)[1] for folder in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_preset_with_a_dataset_trains_a_decision_agent() -> None:
    own = "# mine\ndataset: swing.hdf5\nlr: 1e-4\nwindows: 5\nencoder: attention\nheads: 2\ncontext: 5\n"
    Path("mine.yaml").write_text(own)
    main(["train", "mine.yaml", *SMALL, "--total-timesteps", "64", "--lr", "2e-4"])
    agent = load("runs/mine-0")
    assert isinstance(agent, DecisionAgent) and agent.config.lr == 2e-4 and agent.config.windows == 5


def test_data_without_an_environment_are_trained_on_and_played_in_one_named_later(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with h5py.File("swing.hdf5") as file, h5py.File("cart.hdf5", "w") as other:
        for key in file:
            other[key] = file[key][:]
        del other["observations"], other["actions"]
        other["observations"], other["actions"] = np.zeros((1000, 4), np.float32), np.arange(1000) % 2
    settings = [*SMALL, "--warmup-steps", "9", "--total-timesteps", "1280", "--folder", "run"]
    main(["train", "--dataset", "cart.hdf5", *settings])
    said = capfd.readouterr().out
    assert "not evaluated: the data do not name their environment; name it with rlmin evaluate --env ID" in said
    main(["evaluate", "run", "--env", "CartPole-v1", "--episodes", "2", "--target-return", "-100"])
    assert "targets on CartPole-v1" in capfd.readouterr().out, "its observation space has bounds, that of a file none"
    with h5py.File("swing.hdf5", "r+") as file:
        file["actions"][:] = 3 * file["actions"][:]
    main(["train", "--dataset", "swing.hdf5", "--env", "Pendulum-v1", *SMALL, "--total-timesteps", "1280"])
    warned = capfd.readouterr().err
    assert re.fullmatch(r"rlmin: warning: dataset 'swing': \d+ actions lie outside Box.*\n", warned)


def test_a_package_that_is_missing_is_named_in_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    for command in (["inspect", "swing.hdf5"], ["train", "--dataset", "swing.hdf5"]):
        with pytest.raises(SystemExit) as stopped:
            main(command)
        said = capfd.readouterr().err
        assert stopped.value.code == 2 and said.count("\n") == 1
        assert 'h5py is not installed; install it with `pip install "rlmin[offline]"`' in said


def test_the_help_of_both_kinds_of_training_tells_of_data(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, told in ((["train"], "rlmin train --dataset ID|FILE.hdf5"), (["train", "--dataset", "x"], "Minari")):
        with pytest.raises(SystemExit):
            main([*arguments, "--help"])
        said = " ".join(capfd.readouterr().out.split())
        assert told in said and ("usage: rlmin train PRESET" in said) == (arguments == ["train"])
        assert ("--warmup-steps" in said) != ("--num-envs" in said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "swing.hdf5", "--num-envs", "4"], "no option '--num-envs'"),
        (["--datset", "gone.hdf5"], "no option '--datset'; did you mean '--dataset'?"),
        (["--dataset", "gone.hdf5"], "gone.hdf5"),
        (["--dataset", "swing.hdf5", "--env", "CartPole-v1"], "dataset 'swing': observation 'observation': the space"),
        (["--dataset", "swing.hdf5", "--encoder", "min_gro"], "no encoder 'min_gro'; did you mean 'min_gru'"),
        (["tmaze", "--dataset", "swing.hdf5"], "tmaze: a preset for an environment, not for data"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", *arguments])
    said = capfd.readouterr().err
    assert stopped.value.code == 2 and message in said and said.count("\n") == 1
    assert not Path("runs").exists()


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="env_kwargs belong to an environment; name it with env"):
        DecisionTrainConfig(dataset="swing.hdf5", env_kwargs=("g=9.8",))
    with pytest.raises(ValueError, match="save_interval: expected a whole number of at least 1, got 0"):
        DecisionTrainConfig(dataset="swing.hdf5", save_interval=0)


@SIGNALS
def test_ctrl_c_saves_and_the_run_goes_on() -> None:
    command = [sys.executable, "-c", "from rlmin.cli import main; main()", "train", "--dataset", "swing.hdf5", *SMALL]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    more = ["--total-timesteps", "90000000", "--folder", "run"]
    process = subprocess.Popen([*command, *more], env=environment, stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (Path("run/metrics.csv").exists() and Path("run/metrics.csv").read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    found = re.search(r"stopped at ([\d,]+) steps and saved; resume with: rlmin train --resume run", said)
    assert found and load("run").num_timesteps == int(found[1].replace(",", ""))
