"""Callbacks: stable-baselines3's own classes run unchanged in rlmin's training loop."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from rlmin import PPO, load
from rlmin.runs.callbacks import Hook

T, B = 16, 2


def poles(num: int = B) -> VecMonitor:
    return VecMonitor(DummyVecEnv([lambda: gym.make("CartPole-v1")] * num))


def make(**settings: Any) -> PPO:
    return PPO(poles(), **{"width": 8, "horizon": T, "epochs": 1, **settings})


class Record(BaseCallback):
    """Writes down what is called, and what a callback can see then."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.dones = 0

    def _on_training_start(self) -> None:
        self.calls.append("training start")
        assert self.locals["total_timesteps"] == 3 * T * B

    def _on_rollout_start(self) -> None:
        self.calls.append("rollout start")

    def _on_step(self) -> bool:
        assert self.num_timesteps == self.model.num_timesteps == self.n_calls * B
        assert self.locals["rewards"].shape == self.locals["dones"].shape == (B,) and len(self.locals["infos"]) == B
        assert self.training_env is self.model.get_env()
        self.dones += int(self.locals["dones"].sum())
        return True

    def _on_rollout_end(self) -> None:
        self.calls.append("rollout end")

    def _on_training_end(self) -> None:
        self.calls.append("training end")


def test_a_callback_is_called_in_the_order_of_stable_baselines() -> None:
    record, agent = Record(), make()
    agent.learn(3 * T * B, record)
    assert record.calls == ["training start", *["rollout start", "rollout end"] * 3, "training end"]
    assert record.n_calls == 3 * T and record.dones == agent.collector.statistics.episodes > 0


def test_eval_callback_scores_keeps_the_best_and_stops(tmp_path: Path) -> None:
    enough = StopTrainingOnRewardThreshold(reward_threshold=1.0)
    callback = EvalCallback(
        poles(1),
        callback_on_new_best=enough,
        n_eval_episodes=2,
        eval_freq=8,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    agent = make()
    agent.learn(10_000, callback)
    assert agent.num_timesteps == 8 * B, "the first evaluation was above the threshold"
    assert callback.best_mean_reward >= 8
    assert load(tmp_path / "best_model").num_timesteps == 8 * B
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (1, 2)


def test_checkpoint_callback_writes_folders_that_load(tmp_path: Path) -> None:
    make().learn(4 * T * B, CheckpointCallback(save_freq=2 * T, save_path=str(tmp_path), name_prefix="agent"))
    assert {path.name for path in tmp_path.iterdir()} == {f"agent_{n * T * B}_steps.zip" for n in (2, 4)}
    assert load(tmp_path / f"agent_{2 * T * B}_steps.zip").num_timesteps == 2 * T * B


def test_training_stops_after_so_many_episodes() -> None:
    agent = make()
    agent.learn(100_000, StopTrainingOnMaxEpisodes(max_episodes=3))
    assert agent.collector.statistics.episodes in (3 * B, 3 * B + 1) and agent.num_timesteps < 2000


def test_a_function_and_a_list_are_callbacks_too() -> None:
    agent, seen = make(), []

    def count(local: dict[str, Any], other: dict[str, Any]) -> bool:
        seen.append(local["dones"].copy())
        return len(seen) < 5

    record = Record()
    agent.learn(3 * T * B, [record, EveryNTimesteps(2, CallbackList([])), count])
    assert len(seen) == 5 == record.n_calls and agent.num_timesteps == 5 * B
    agent.learn(2 * T * B, lambda *_: True)
    assert agent.num_timesteps == 2 * T * B, "one that is content changes nothing"


def test_success_reaches_a_callback_where_the_environment_tells() -> None:
    agent = PPO("rlmin/TMaze-v0", num_envs=B, env_kwargs={"length": 2}, width=8, horizon=T)
    told: list[bool] = []

    def look(local: dict[str, Any], _: dict[str, Any]) -> bool:
        told.extend(info["is_success"] for info, done in zip(local["infos"], local["dones"], strict=True) if done)
        return True

    agent.learn(T * B, look)
    assert len(told) == T // 3 * B and set(told) <= {True, False}
    assert np.mean(told) == pytest.approx(agent.collector.statistics.success_rate)


def test_a_hook_of_our_own_is_called_without_stable_baselines() -> None:
    class Stop(Hook):
        def on_step(self, step: Any) -> bool:
            return False

    agent = make()
    agent.learn(1000, Stop())
    assert agent.num_timesteps == B


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="callback: expected a stable-baselines3 callback, a list or a function, got 3"):
        make().learn(10, 3)


def test_stable_baselines_logger_and_evaluation_take_the_agent(tmp_path: Path) -> None:
    agent = make()
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.learn(2 * T * B)
    agent.logger.close()
    assert "train/approx_kl" in (tmp_path / "progress.csv").read_text().splitlines()[0]
    mean, _ = evaluate_policy(agent, poles(1), n_eval_episodes=2)  # type: ignore[arg-type]
    assert float(np.mean(mean)) >= 8
