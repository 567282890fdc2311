"""Algorithms: a class with a name is found by it, from outside the package too."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

import rlmin
from rlmin import PPO, DecisionAgent, PPOConfig
from rlmin.agents import AGENTS
from rlmin.cli import main
from rlmin.commands.train_config import DecisionTrainConfig, TrainConfig, run_class
from rlmin.runs.checkpoint import read_header
from rlmin.settings import Count

ENV = "rlmin/RepeatFirstEasy-v0"
SIZES = ["--width", "8", "--layers", "1", "--num-envs", "2", "--horizon", "8", "--eval-episodes", "2"]


@pytest.fixture
def patient() -> Iterator[type[PPO]]:
    """An algorithm with a setting of its own: it learns from every so many rollouts only."""

    @dataclass(frozen=True, kw_only=True)
    class PatientConfig(PPOConfig):
        """Settings of the patient algorithm."""

        patience: Count = 2  # Number of rollouts that an update waits for

    class Patient(PPO):
        name: ClassVar[str] = "patient"
        about: ClassVar[str] = "A patient PPO"
        settings: ClassVar[Any] = PatientConfig
        waited = 0

        def update(self, rollout: Any, *, done: float = 0.0) -> dict[str, float]:
            self.waited += 1
            config: Any = self.config
            return super().update(rollout, done=done) if self.waited % config.patience == 0 else {}

    yield Patient
    AGENTS.pop("patient", None)
    run_class.cache_clear()


def test_the_built_in_algorithms_are_registered_by_their_names() -> None:
    assert {"ppo": PPO, "decision": DecisionAgent} == AGENTS
    assert run_class("ppo") is TrainConfig and run_class("decision") is DecisionTrainConfig


def test_a_subclass_without_a_name_of_its_own_takes_nobodys_place() -> None:
    class Other(PPO):
        pass

    assert AGENTS["ppo"] is PPO


def test_an_algorithm_of_ones_own_is_trained_saved_and_gone_on_with(patient: type[PPO], tmp_path: Path) -> None:
    run = tmp_path / "run"
    steps = ["--total-timesteps", "64", "--folder", str(run)]
    main(["train", "--env", ENV, "--algorithm", "patient", "--patience", "4", *SIZES, *steps])
    header = read_header(run)
    assert (header["agent"], header["config"]["patience"], header["num_updates"]) == ("patient", 4, 1)
    assert type(rlmin.load(run)) is patient
    main(["train", "--resume", str(run), "--total-timesteps", "128"])
    assert read_header(run)["num_timesteps"] == 128


def test_what_does_not_fit_an_algorithm_is_refused(
    patient: type[PPO], tmp_path: Path, refuse: Callable[[list[str], str], None]
) -> None:
    refused = {
        "--algorithm pateint": "no algorithm 'pateint'; did you mean 'patient'?",
        "--patience 3": "no option '--patience'",
        "--algorithm patient --patience 0": "patience: expected a whole number of at least 1, got 0",
    }
    for words, message in refused.items():
        refuse(["train", "--env", ENV, *words.split(), "--folder", str(tmp_path / "run")], message)
    with pytest.raises(ValueError, match="algorithm='patient': TrainConfig does not have its settings"):
        _ = TrainConfig(env=ENV, algorithm="patient").agent_settings


def test_a_run_of_an_algorithm_that_is_not_imported_says_so(patient: type[PPO], tmp_path: Path) -> None:
    patient(ENV, num_envs=2, horizon=8, width=8).save(tmp_path / "run")
    del AGENTS["patient"]
    with pytest.raises(ValueError, match="no agent 'patient'"):
        rlmin.load(tmp_path / "run")
