"""What rlmin is for: real learning runs, minutes each, on the presets a user starts with (`pytest -m slow`).

benchmarks/results/ holds five to twenty seeds of each preset, and all of them reach the score. Rounding differs between
machines, so a test that asks for a solution gives a second seed a chance.
"""

import gc
from pathlib import Path

import pytest

from rlmin import PPO, verify_consistency
from rlmin.cli import main
from rlmin.commands.train import evaluate_run

pytestmark = pytest.mark.slow


def score(preset: str, folder: Path, *arguments: str, seed: int = 0) -> float:
    """Mean greedy return after training the preset."""
    main(["train", preset, "--folder", str(folder), "--seed", str(seed), "--eval-episodes", "0", *arguments])
    return evaluate_run(folder).mean_return


def solved(preset: str, folder: Path, wanted: float) -> bool:
    """Whether one of two seeds reaches the score; the second is trained only if the first does not."""
    return any(score(preset, folder / str(seed), seed=seed) >= wanted for seed in (0, 4))


def test_minigrid_memory_is_solved_by_an_agent_that_remembers_and_not_by_one_that_does_not(tmp_path: Path) -> None:
    assert solved("minigrid-memory", tmp_path, 0.93)
    assert score("minigrid-memory", tmp_path / "control", "--encoder", "mlp", "--total-timesteps", "100_000") < 0.6


def test_tmaze_of_length_50_is_solved(tmp_path: Path) -> None:
    assert solved("tmaze", tmp_path, 0.95)


def test_cartpole_is_balanced_without_seeing_velocities(tmp_path: Path) -> None:
    assert solved("cartpole-novel", tmp_path, 475)


def test_pendulum_is_swung_up_without_seeing_velocities(tmp_path: Path) -> None:
    assert solved("pendulum-novel", tmp_path, -218)


def test_memory_use_is_flat_over_a_million_steps() -> None:
    agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": 20}, num_envs=64, horizon=64, width=32, epochs=1)
    agent.learn(100_000)
    gc.collect()
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    agent.learn(1_000_000, reset_num_timesteps=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024
    assert verify_consistency(agent) <= 1e-5
