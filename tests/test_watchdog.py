"""The watchdog: evaluations on environments of their own, the best policy kept, training unchanged by either."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlmin import PPO, load
from rlmin.agents.agent import Agent
from rlmin.commands.train import TrainConfig, resume, train
from rlmin.commands.watchdog import BEST, EPISODES, SEED, Score, Watchdog, read_best
from rlmin.evaluation.evaluate import evaluate
from rlmin.runs.callbacks import Hook, Hooks
from rlmin.runs.curves import read_curve
from rlmin.types import Step
from rlmin.vector import adapt

STEPS = 1600


def config(folder: Path, **settings: Any) -> TrainConfig:
    usual: dict[str, Any] = {"width": 8, "horizon": 5, "num_envs": 8, "lr": 0.02, "epochs": 1, "eval_episodes": 0}
    usual |= {"evaluations": 4, "total_timesteps": STEPS, "folder": folder}
    usual |= {"env": "rlmin/TMaze-v0", "env_kwargs": ("length=4",)}
    return TrainConfig(**{**usual, **settings})


def weights(agent: Agent) -> torch.Tensor:
    return torch.cat([x.detach().flatten() for x in agent.policy.parameters()])


def test_evaluations_are_rows_of_the_log_and_the_best_policy_is_a_run_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(config(tmp_path / "run"), progress_bar=False)
    steps, returns = read_curve(folder, "eval/mean_reward")
    assert steps == [400, 800, 1200, 1600] and len(returns) == 4
    best = read_best(folder)
    assert best is not None and best.mean_return == pytest.approx(max(returns))
    kept = load(folder / BEST)
    again = evaluate(
        kept.policy, adapt("rlmin/TMaze-v0", num_envs=EPISODES, env_kwargs={"length": 4}), seed=SEED, episodes=EPISODES
    )
    assert kept.num_timesteps == best.num_timesteps and again.mean_return == pytest.approx(best.mean_return)
    text = capsys.readouterr().out
    assert ("the last policy is the best" in text) == (returns[-1] >= best.mean_return)


def test_training_is_the_same_with_and_without_a_watchdog(tmp_path: Path) -> None:
    seen, alone = (
        train(config(tmp_path / name, evaluations=n), progress_bar=False) for name, n in (("a", 4), ("b", 0))
    )
    assert torch.equal(weights(load(seen)), weights(load(alone)))
    assert not (alone / BEST).exists()


class Falling(gym.Env[Any, Any]):
    """Returns what `quality` says, whatever is done: the policy that is trained gets worse on the way."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    quality: float = 1.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), type(self).quality, True, False, {}


@pytest.fixture
def falling() -> Any:
    gym.register("Falling-v0", entry_point=lambda **kwargs: Falling())
    yield "Falling-v0"
    del gym.registry["Falling-v0"]
    Falling.quality = 1.0


def test_a_policy_that_got_worse_is_named_and_the_better_one_is_still_there(
    falling: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Watchdog.evaluate

    def worse(self: Watchdog) -> None:
        counted(self)
        Falling.quality -= 0.25

    monkeypatch.setattr(Watchdog, "evaluate", worse)
    folder = train(config(tmp_path / "run", env=falling, env_kwargs=()), progress_bar=False)
    assert read_best(folder) == (1.0, 400, 0.0)
    assert "is worse than the best: it returned 0.250 in evaluations, the best 1.000" in capsys.readouterr().out
    assert load(folder / BEST).num_timesteps == 400 and load(folder).num_timesteps == STEPS


def test_a_difference_within_the_error_is_no_fall() -> None:
    best = Score(10.0, 400, error=1.0)
    assert best.beats(Score(7.0, 800, error=1.0)) and best.beats(Score(9.0, 800)) is False
    assert not best.beats(Score(7.5, 800, error=1.0)) and not Score(7.0, 800).beats(best)


def test_a_run_that_goes_on_keeps_its_best(tmp_path: Path) -> None:
    folder = train(config(tmp_path / "run", total_timesteps=STEPS // 2), progress_bar=False)
    first = read_best(folder)
    assert first is not None
    resume(folder, total_timesteps=STEPS, progress_bar=False)
    second = read_best(folder)
    assert second is not None and second.mean_return >= first.mean_return
    assert read_curve(folder, "eval/mean_reward")[0][-1] == STEPS


def test_a_run_that_was_killed_is_evaluated_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(folder: Path) -> list[list[float]]:
        columns = ("eval/mean_reward", "eval/mean_ep_length", "rollout/ep_rew_mean", "train/loss")
        return [values for column in columns for values in read_curve(folder, column)]

    often = {"save_interval": 200, "evaluations": 10}  # some evaluations have to wait for their share of the steps
    whole = train(config(tmp_path / "whole", **often), progress_bar=False)
    record = Watchdog._log

    def dying(self: Watchdog, found: Any) -> None:
        record(self, found)
        if self.agent.num_timesteps >= 1000:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Watchdog, "_log", dying)
        train(config(tmp_path / "killed", **often), progress_bar=False)
    assert load(tmp_path / "killed").num_timesteps < STEPS
    resume(tmp_path / "killed", progress_bar=False)
    assert rows(tmp_path / "killed") == rows(whole) and read_best(tmp_path / "killed") == read_best(whole)


class Endless(Falling):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 1.0, False, False, {}


def test_an_episode_that_does_not_end_stops_the_evaluations_and_not_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gym.register("Endless-v0", entry_point=lambda **kwargs: Endless())
    try:
        folder = train(config(tmp_path / "run", env="Endless-v0", env_kwargs=()), progress_bar=False)
    finally:
        del gym.registry["Endless-v0"]
    assert load(folder).num_timesteps == STEPS and read_best(folder) is None
    said = "no more evaluations while training: environment 0 has not ended its episode after 20 steps"
    assert capsys.readouterr().out.count(said) == 1, "a quarter of the steps of training, over 20 episodes"


def test_evaluations_take_at_most_a_quarter_of_the_steps_and_the_last_one(tmp_path: Path) -> None:
    folder = train(config(tmp_path / "run", evaluations=40), progress_bar=False)
    steps, _ = read_curve(folder, "eval/mean_reward")
    assert 20 * 5 * (len(steps) - 2) <= STEPS / 4 and len(steps) > 3


def test_several_hooks_are_one() -> None:
    class Counting(Hook):
        def __init__(self, answer: bool) -> None:
            self.answer, self.calls = answer, list[str]()

        def on_step(self, step: Step | None) -> bool:
            self.calls.append("step")
            return self.answer

    no, yes = Counting(False), Counting(True)
    hooks = Hooks([no, yes, Hook()])
    assert hooks.wants_steps and not Hooks([Hook()]).wants_steps
    PPO("rlmin/TMaze-v0", env_kwargs={"length": 4}, width=8, horizon=5, num_envs=2).learn(100, hooks)
    assert no.calls == yes.calls == ["step"], "both are called, and either can stop training"
