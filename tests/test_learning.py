"""What rlmin is for: real learning runs, minutes each, on the presets a user starts with (`pytest -m slow`).

Thresholds leave room for the spread over machines; benchmarks/results/ holds five seeds of each.
"""

import gc
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rlmin import PPO, verify_consistency
from rlmin.cli import main
from rlmin.train import evaluate_run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(preset: str, folder: Path, *arguments: str) -> Path:
    main(["train", preset, "--folder", str(folder), "--seed", "0", "--eval-episodes", "0", *arguments])
    return folder


def test_minigrid_memory_is_solved_by_an_agent_that_remembers_and_not_by_one_that_does_not(tmp_path: Path) -> None:
    agent = evaluate_run(trained("minigrid-memory", tmp_path / "agent"))
    control = evaluate_run(trained("minigrid-memory", tmp_path / "control", "--encoder", "mlp"))
    assert agent.mean_return >= 0.93
    assert control.mean_return < 0.6


def test_tmaze_of_length_50_is_solved(tmp_path: Path) -> None:
    assert evaluate_run(trained("tmaze", tmp_path / "run")).mean_return >= 0.95


def test_cartpole_is_balanced_without_seeing_velocities(tmp_path: Path) -> None:
    assert evaluate_run(trained("cartpole-novel", tmp_path / "run")).mean_return >= 475


def test_pendulum_is_swung_up_without_seeing_velocities(tmp_path: Path) -> None:
    assert evaluate_run(trained("pendulum-novel", tmp_path / "run")).mean_return >= -250


def test_memory_use_is_flat_over_a_million_steps() -> None:
    agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": 20}, num_envs=64, horizon=64, width=32, epochs=1)
    agent.learn(100_000)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    agent.learn(1_000_000, reset_num_timesteps=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024
    assert verify_consistency(agent) <= 1e-5
