"""Stable-baselines3's callbacks, wrappers, evaluation and logger take both kinds of agent as one of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    ProgressBarCallback,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecVideoRecorder
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from rlmin import PPO, DecisionAgent, load
from rlmin.agents import Agent
from rlmin.data import Episode
from rlmin.wrappers import ReturnToGo

T, B, TARGET = 16, 3, 25.0


def episodes() -> list[Episode]:
    """Of lengths that differ, so that the logged steps of two gradient steps would not add up by chance."""
    random = np.random.default_rng(0)
    lengths = [20, 31, 27, 22]
    return [
        Episode(
            observations=random.normal(size=(n + 1, 4)).astype(np.float32),
            actions=random.integers(2, size=n),
            rewards=np.ones(n),
            terminated=True,
        )
        for n in lengths
    ]


def online(env: Any = None, **settings: Any) -> PPO:
    return PPO(plain(B) if env is None else env, **{"width": 8, "horizon": T, "epochs": 1, **settings})


def offline(env: Any = "CartPole-v1", **settings: Any) -> DecisionAgent:
    return DecisionAgent(episodes(), env=env, **{"width": 8, "rows": B, "horizon": T, **settings})


def plain(num: int = 1, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: gym.make("CartPole-v1", **kwargs)] * num)


def aiming(num: int = 1, **kwargs: Any) -> DummyVecEnv:
    """What a decision agent is evaluated in: it is told the return to reach, in the unit it was trained with."""
    scale = offline().config.return_scale or 1.0
    return DummyVecEnv([lambda: ReturnToGo(gym.make("CartPole-v1", **kwargs), TARGET, scale=scale)] * num)


Make: TypeAlias = Callable[..., Any]
Env: TypeAlias = Callable[..., DummyVecEnv]
BOTH = pytest.mark.parametrize(("make", "env"), [(online, plain), (offline, aiming)], ids=["ppo", "decision"])


@BOTH
def test_evaluate_policy_plays_whole_episodes(make: Make, env: Env) -> None:
    returns, lengths = evaluate_policy(make(), env(2), n_eval_episodes=5, return_episode_rewards=True, warn=False)
    assert isinstance(returns, list) and len(returns) == 5 and min(returns) >= 8 and returns == lengths


@BOTH
def test_eval_callback_keeps_the_best_logs_and_stops(make: Make, env: Env, tmp_path: Path) -> None:
    enough = StopTrainingOnRewardThreshold(reward_threshold=1.0)
    folder = str(tmp_path)
    callback = EvalCallback(
        env(), callback_on_new_best=enough, n_eval_episodes=2, eval_freq=3, log_path=folder,
        best_model_save_path=folder, verbose=0, warn=False,
    )  # fmt: skip
    agent = make()
    agent.set_logger(configure(folder, ["csv"]))
    agent.learn(100_000, callback)
    agent.logger.close()
    assert agent.num_timesteps == (3 * B if make is online else 3 * B * T), "the third step was evaluated and enough"
    assert "eval/mean_reward" in (tmp_path / "progress.csv").read_text()
    best = load(tmp_path / "best_model")
    assert best.num_timesteps == agent.num_timesteps
    pairs = zip(best.policy.parameters(), agent.policy.parameters(), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [agent.num_timesteps]


def test_eval_callback_takes_an_environment_of_another_kind_without_a_warning() -> None:
    agent = PPO("CartPole-v1", num_envs=B, width=8, horizon=T)
    agent.learn(T * B, EvalCallback(plain(), n_eval_episodes=1, eval_freq=T, verbose=0, warn=False))


@BOTH
def test_checkpoints_load(make: Make, env: Env, tmp_path: Path) -> None:
    make().learn(4 * T * B, CheckpointCallback(save_freq=2, save_path=str(tmp_path)))
    steps = sorted(int(path.name.split("_")[2]) for path in tmp_path.iterdir())
    assert len(steps) == (2 * T if make is online else 2)
    assert load(tmp_path / f"rl_model_{steps[-1]}_steps.zip").num_timesteps == steps[-1] == 4 * T * B


@pytest.mark.filterwarnings("ignore:rich is experimental/alpha")  # tqdm's own
@BOTH
def test_the_progress_bar_counts_what_is_learnt_from(make: Make, env: Env) -> None:
    agent = make()
    for again in (False, True):
        bar, before = ProgressBarCallback(), agent.num_timesteps if again else 0
        agent.learn(5 * T * B, bar, reset_num_timesteps=not again)
        assert bar.pbar.n == agent.num_timesteps - before == 5 * T * B


@pytest.mark.filterwarnings("ignore:rich is experimental/alpha")  # tqdm's own
def test_the_progress_bar_counts_logged_steps_and_not_their_padding() -> None:
    agent, bar = offline(None, windows=T), ProgressBarCallback()  # windows of episodes, padded at their beginning
    agent.learn(5 * T * B, bar)
    assert bar.pbar.n == agent.num_timesteps
    assert agent.num_timesteps % (T * B), "some windows were padded"


def test_callbacks_need_no_environment_where_none_is_known() -> None:
    agent = offline(None)
    agent.learn(T * B, EvalCallback(aiming(), n_eval_episodes=1, eval_freq=1, verbose=0, warn=False))
    assert agent.get_env() is None


def test_the_environment_is_there_again_after_training() -> None:
    class Look(BaseCallback):
        def _on_step(self) -> bool:
            env: Any = self.training_env
            assert env.num_envs == T * B and env.single_action_space.n == 2
            return True

    agent = offline()
    env = agent.get_env()
    agent.learn(T * B, Look())
    assert agent.get_env() is env and env.num_envs == 1


@BOTH
def test_stable_baselines_logger_is_written_to(make: Make, env: Env, tmp_path: Path) -> None:
    agent = make()
    agent.set_logger(configure(str(tmp_path), ["csv", "tensorboard"]))
    agent.learn(2 * T * B)
    agent.logger.close()
    names = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert {"time/total_timesteps", "time/fps", "train/loss"} <= set(names)
    assert list(tmp_path.glob("events*"))


@BOTH
@pytest.mark.needs("moviepy")
def test_a_video_is_recorded(make: Make, env: Env, tmp_path: Path) -> None:
    recorded = VecVideoRecorder(
        env(render_mode="rgb_array"), str(tmp_path), record_video_trigger=lambda step: step == 0, video_length=4
    )
    evaluate_policy(make(), recorded, n_eval_episodes=1, warn=False)
    recorded.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [".mp4"]


@pytest.mark.needs("moviepy")
def test_training_itself_can_be_recorded(tmp_path: Path) -> None:
    env = VecVideoRecorder(plain(render_mode="rgb_array"), str(tmp_path), lambda step: step == 3, video_length=4)
    online(env).learn(T)
    env.close()
    assert [path.name for path in tmp_path.iterdir()] == ["rl-video-step-3-to-step-7.mp4"]


def test_monitor_writes_every_episode(tmp_path: Path) -> None:
    env = DummyVecEnv([lambda: Monitor(gym.make("CartPole-v1"), str(tmp_path / "one"))])
    agent = online(env)
    agent.learn(8 * T)
    env.close()
    rows = (tmp_path / "one.monitor.csv").read_text().splitlines()[2:]
    assert len(rows) == agent.collector.statistics.episodes > 0


def test_vec_normalize_is_found_saved_and_synchronised(tmp_path: Path) -> None:
    env = VecNormalize(plain(B), norm_reward=False)
    agent, test = online(env), VecNormalize(plain(), training=False, norm_reward=False)
    agent.learn(
        4 * T * B,
        [
            EvalCallback(test, n_eval_episodes=1, eval_freq=2 * T, verbose=0, warn=False),
            CheckpointCallback(2 * T, str(tmp_path), save_vecnormalize=True),
        ],
    )
    assert agent.get_vec_normalize_env() is env
    assert (tmp_path / f"rl_model_vecnormalize_{4 * T * B}_steps.pkl").exists()
    taken, found = (cast(RunningMeanStd, one.obs_rms) for one in (test, env))
    assert taken.count > 2 * T * B, "EvalCallback took over the statistics"
    np.testing.assert_allclose(taken.mean, found.mean, atol=0.5)
    assert online().get_vec_normalize_env() is None and offline().get_vec_normalize_env() is None


def test_a_decision_agent_reads_what_vec_normalize_leaves_alone() -> None:
    env = VecNormalize(aiming(), training=False, norm_obs_keys=["observation"], norm_reward=False)
    agent: Any = offline()
    returns, _ = evaluate_policy(agent, env, n_eval_episodes=2, return_episode_rewards=True, warn=False)
    assert isinstance(returns, list) and min(returns) >= 8


def test_an_environment_without_the_return_to_go_is_refused() -> None:
    with pytest.raises(ValueError, match="has no return to aim for"):
        evaluate_policy(offline(), plain(), n_eval_episodes=1, warn=False)  # type: ignore[arg-type]


def test_another_environment_is_refused() -> None:
    other: VecEnv = DummyVecEnv([lambda: gym.make("Acrobot-v1")])
    agent: Agent = online()
    with pytest.raises(ValueError, match=r"the space declares \[B=1, 4\] float32, got \[1, 6\]"):
        evaluate_policy(agent, other, n_eval_episodes=1, warn=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="observation space: the policy expects"):
        agent.set_env(other)
