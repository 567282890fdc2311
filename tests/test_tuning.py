"""`rlmin tune`: bad spaces are one line, a trial is an ordinary training in parts, and the search finds and goes on."""

import csv
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from rlmin import PPO, load
from rlmin.cli import main
from rlmin.commands.train_config import DecisionTrainConfig, TrainConfig
from rlmin.commands.typed_run import read_typed_run
from rlmin.suite.tuning.options import TuneOptions
from rlmin.suite.tuning.report import find_differences, write_report
from rlmin.suite.tuning.space import Choices, Numbers, change_settings, read_space
from rlmin.suite.tuning.trial import STOP, Trial, read_returns, summarise

SMALL: dict[str, Any] = {"num_envs": 8, "width": 8, "layers": 1, "mlp": 0, "horizon": 16, "epochs": 2}
CONFIG = TrainConfig(env="rlmin/TMaze-v0", env_kwargs=("length=3",), total_timesteps=1024, **SMALL)
SPACE = """
lr: {low: 1e-3, high: 1e-2, log: true}
lam: [0.9, 0.95]
"""


def test_the_spaces_of_the_library_fit_the_default_settings() -> None:
    for config in (CONFIG, DecisionTrainConfig(dataset="any/data-v0")):
        space = read_space(config.algorithm, config)
        assert "lr" in space and all(len(dimension.examples) >= 2 for dimension in space.values())


def test_a_space_is_read_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"{SPACE}layers: {{low: 1, high: 3}}\nencoder: [min_gru, gru]")
    space = read_space(str(tmp_path / "mine.yaml"), CONFIG)
    assert space["lr"] == Numbers(1e-3, 1e-2, log=True) and space["layers"] == Numbers(1, 3)
    assert space["lam"] == Choices((0.9, 0.95)) and space["encoder"] == Choices(("min_gru", "gru"))


def test_another_encoder_is_tried_without_the_options_of_the_first() -> None:
    signed = replace(CONFIG, encoder_options={"signed": True})
    assert change_settings(signed, {"encoder": "gru"}).encoder_options == {}
    assert change_settings(signed, {"lr": 1e-3}).encoder_options["signed"] is True
    with pytest.raises(ValueError, match="gru"):
        signed.with_settings({"encoder": "gru"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lrr: [1e-3, 1e-2]", "no setting of the agent 'lrr'; did you mean 'lr'"),
        ("total_timesteps: [1000, 2000]", "no setting of the agent 'total_timesteps'"),
        ("lr: {low: 1e-2, high: 1e-3}", "lr: expected numbers low < high"),
        ("lr: {lo: 1e-3, high: 1e-2}", "no entry of lr 'lo'; did you mean 'low'"),
        ("lr: {low: 0, high: 1e-2, log: true}", "lr: expected log: true with low > 0"),
        ("lr: {low: -1, high: 1e-2}", "lr: expected a number above 0, got -1"),
        ("lr: {low: 1e-3, high: 1e-2, step: 0}", "lr: expected a step above 0"),
        ("lr: 1e-3", "lr: expected {low: .., high: ..} or a list of at least two values"),
        ("lam: [0.9, 1.5]", "lam: expected a number from 0 to 1, got 1.5"),
        ("encoder: [min_gru, mingru]", "mingru"),
        ("decay: [stable, free]", "decay"),
        ("- lr", "expected settings as"),
        ("lr: {", "not readable as YAML"),
    ],
)
def test_a_bad_space_is_one_line_before_anything_runs(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["tune", "tmaze", "--space", "mine.yaml"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and message in lines[0] and "mine.yaml" in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_cluster_needs_a_number_of_jobs() -> None:
    with pytest.raises(ValueError, match="name --jobs N, since a trial learns from those that ended before"):
        TuneOptions(on="ray")
    assert TuneOptions(on="ray", jobs=4).jobs == 4


def test_scores_are_worst_mean_and_middle_half() -> None:
    returns = [0.0, 1.0, 2.0, 9.0]
    assert [summarise(returns, name) for name in ("worst", "mean", "iqm")] == [0.0, 3.0, 1.5]


def trial(folder: Path, **changes: Any) -> Trial:
    facts: dict[str, Any] = {"seeds": 2, "checks": 4, "episodes": 4, **changes}
    return Trial(CONFIG, {"lr": 5e-3}, folder, **facts)


def test_a_trial_in_parts_is_one_training(tmp_path: Path) -> None:
    trial(tmp_path / "whole")()
    returns = read_returns(tmp_path / "whole")
    assert np.shape(returns) == (4, 2)
    agent = PPO(CONFIG.env, config=CONFIG.with_settings({"lr": 5e-3}).agent_settings, env_kwargs={"length": 3}, seed=1)
    agent.learn(1024)
    for folder, same in (("seed-1", True), ("seed-0", False)):
        found = load(tmp_path / "whole" / folder)
        weights = found.policy.state_dict()
        assert found.num_timesteps == found.total_timesteps == 1024
        assert all(torch.equal(x, weights[name]) for name, x in agent.policy.state_dict().items()) == same


def test_a_trial_stops_when_it_is_asked_to_and_goes_on_where_it_was(tmp_path: Path) -> None:
    trial(tmp_path / "whole")()
    half = tmp_path / "half"
    trial(half, checks=4)._advance([trial(half)._make_agent(number) for number in range(2)], 1)
    (half / STOP).touch()
    trial(half)()
    assert len(read_returns(half)) == 1, "it was asked to stop"
    (half / STOP).unlink()
    trial(half)()
    assert read_returns(half) == read_returns(tmp_path / "whole")


def test_the_preset_of_the_best_is_the_run_that_was_tuned(tmp_path: Path) -> None:
    config = replace(CONFIG, encoder="rg_lru", encoder_options={"decay": "stable"}, threads=1)
    (tmp_path / "best.yaml").write_text(yaml.safe_dump({**find_differences(config), "lr": 2e-3}))
    again, name = read_typed_run(str(tmp_path / "best.yaml"), [], command="train")
    assert name == "best" and again.agent_settings.cell_options["decay"] == "stable"
    assert replace(again, encoder_options={}) == replace(config, lr=2e-3, encoder_options={})


@pytest.mark.needs("optuna")
def test_the_report_names_the_best_and_what_mattered(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        one = study.ask()
        lr, _ = one.suggest_float("lr", 1e-4, 1e-2, log=True), one.suggest_float("lam", 0.8, 0.99)
        one.report(0.0, 1)
        study.tell(one, -abs(np.log(lr / 1e-3)))
    pruned = study.ask()
    pruned.suggest_float("lr", 1e-4, 1e-2, log=True)
    study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
    text = write_report(study, CONFIG, tmp_path, objective="worst")
    assert 5e-4 < yaml.safe_load((tmp_path / "best.yaml").read_text())["lr"] < 2e-3
    assert "importance: lr 0." in text and text.index("lr 0.") < text.index("lam 0.")
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert len(rows) == 31 and rows[-1]["state"] == "pruned" and rows[-1]["score"] == ""
    assert (tmp_path / "importance.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.needs("optuna")
def test_a_search_finds_the_better_setting_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("lr: [1e-8, 5e-3]")
    command = ["tune", "--env", "rlmin/TMaze-v0", "--env-kwargs", "length=3", "--total-timesteps", "8_192"]
    command += ["--num-envs", "16", "--width", "16", "--layers", "1", "--horizon", "16", "--minibatches", "2"]
    command += ["--space", "mine.yaml", "--trials", "6", "--seeds", "2", "--checks", "4", "--folder", "out"]
    program = [sys.executable, "-m", "rlmin", *command, "--startup", "4"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment}
    with subprocess.Popen(program, stderr=subprocess.DEVNULL, **options) as running:
        try:
            end = time.monotonic() + 1200
            while not list((tmp_path / "out").glob("trial-1/returns.json")):
                assert time.monotonic() < end and running.poll() is None
                time.sleep(0.1)
        finally:
            running.kill()
    done = subprocess.run(program, capture_output=True, text=True, timeout=2400, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "1 done before" in done.stderr or "2 done before" in done.stderr
    rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").read_text().splitlines()))
    assert len(rows) == 6 and {row["state"] for row in rows} <= {"complete", "pruned"}
    assert yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())["lr"] == 5e-3
    scores = {lr: [float(row["score"]) for row in rows if float(row["lr"]) == lr] for lr in (1e-8, 5e-3)}
    assert max(scores[5e-3]) > max(scores[1e-8], default=-1.0)
    again = subprocess.run(program, capture_output=True, text=True, timeout=1200, **options)
    assert again.stdout == done.stdout and "6 done before" in again.stderr
