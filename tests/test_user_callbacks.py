"""Callbacks as users write them for stable-baselines3: each runs under rlmin's PPO and sees what it would see there."""

import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback, EveryNTimesteps
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Figure, HParam, Video, configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from rlmin import PPO
from rlmin.runs.callback_locals import Locals

matplotlib.use("Agg")
T, B = 16, 3


class Walk(gym.Env[Any, Any]):
    """A walk along a line; the episode ends at its goal, or after 10 steps."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-20, 20, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.goal, self.render_mode = 3, "rgb_array"

    def set_goal(self, goal: int) -> None:
        self.goal = goal

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x, self.t = 0, 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.x, self.t = self.x + (1 if action else -1), self.t + 1
        there, late = abs(self.x) >= self.goal, self.t >= 10
        info = {"distance": abs(self.x)} | ({"is_success": there} if there or late else {})
        return np.full(1, self.x, np.float32), 1.0, there, late and not there, info

    def render(self) -> Any:
        return np.full((16, 16, 3), 8 * abs(self.x), np.uint8)


def walks() -> DummyVecEnv:
    return DummyVecEnv([lambda: Monitor(Walk())] * B)


def make(**settings: Any) -> PPO:
    return PPO("MinGruPolicy", walks(), **{"n_steps": T, "n_epochs": 1, "width": 8, **settings})


class Callback(BaseCallback):
    model: Any
    training_env: Any
    locals: Any

    def _on_step(self) -> bool:
        return True


class Shapes(Callback):
    """The form of everything that callbacks read."""

    NAMES = ("infos", "rewards", "dones", "actions", "new_obs", "values", "log_probs", "clipped_actions", "n_steps")

    def _on_step(self) -> bool:
        self.seen = {}
        for name in self.NAMES:
            x = self.locals[name]
            self.seen[name] = (type(x).__name__, getattr(x, "dtype", None), np.shape(x))
        self.ends = getattr(self, "ends", []) + [sorted(x) for x in self.locals["infos"] if "episode" in x]
        assert self.locals["self"] is self.model and self.locals["env"] is self.training_env is self.model.env
        assert (self.model.n_envs, self.model.action_space.n, self.model.observation_space.shape) == (B, 2, (1,))
        return True


def test_everything_has_the_form_that_recurrent_ppo_gives_it() -> None:
    theirs, ours = Shapes(), Shapes()
    RecurrentPPO("MlpLstmPolicy", walks(), n_steps=T, n_epochs=1).learn(T * B, theirs)
    make().learn(T * B, ours)
    assert ours.seen == theirs.seen
    assert ours.ends[0] == theirs.ends[0] and {"episode", "terminal_observation"} < set(ours.ends[0])


def test_a_loop_of_gymnasium_tells_the_same() -> None:
    """Without a Monitor too, in every autoreset mode's place of the final observation."""

    class Look(Callback):
        def _on_training_start(self) -> None:
            self.said: list[Any] = []

        def _on_step(self) -> bool:
            for info, obs, done in zip(*(self.locals[name] for name in ("infos", "new_obs", "dones")), strict=True):
                if done:
                    self.said.append((info["distance"], float(info["terminal_observation"][0]), float(obs[0])))
                    assert info["episode"]["l"] == info["episode"]["r"] and info["is_success"] == (info["distance"] > 2)
                    assert info["TimeLimit.truncated"] == (info["distance"] <= 2)
                else:
                    assert "episode" not in info and info["distance"] == abs(obs[0])
            return True

    env = gym.vector.SyncVectorEnv([Walk] * B, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    PPO(env, horizon=T, epochs=1, width=8).learn(4 * T * B, look := Look())
    assert len(look.said) > 5 and all(abs(last) == distance and first == 0 for distance, last, first in look.said)


def test_a_custom_info_is_logged(tmp_path: Path) -> None:
    class Distances(Callback):
        def _on_step(self) -> bool:
            self.logger.record_mean(
                "custom/distance", float(np.mean([one["distance"] for one in self.locals["infos"]]))
            )
            return True

    agent = make()
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.learn(2 * T * B, Distances())
    agent.logger.close()
    header, *rows = (tmp_path / "progress.csv").read_text().splitlines()
    column = header.split(",").index("custom/distance")
    assert len(rows) == 2 and all(0.5 < float(row.split(",")[column]) < 3 for row in rows)


def test_training_stops_on_success() -> None:
    class Enough(Callback):
        def _on_step(self) -> bool:
            return not (len(self.model.ep_success_buffer) >= 5 and np.mean(self.model.ep_success_buffer) > 0.3)

    agent = make().learn(100 * T * B, Enough())
    assert 5 <= len(agent.ep_success_buffer) < 50 and agent.num_timesteps < 100 * T * B


def test_a_curriculum_calls_the_environments() -> None:
    class Harder(Callback):
        def _on_rollout_end(self) -> None:
            if np.mean([one["l"] for one in self.model.ep_info_buffer]) > 1:
                goal = self.training_env.get_attr("goal")[0] + 1
                self.training_env.env_method("set_goal", goal)

    agent = make().learn(3 * T * B, Harder())
    assert agent.get_env().get_attr("goal") == [6] * B


def test_the_best_is_saved(tmp_path: Path) -> None:
    class Best(Callback):
        def _on_rollout_end(self) -> None:
            mean = np.mean([one["r"] for one in self.model.ep_info_buffer])
            if mean > getattr(self, "best", -np.inf):
                self.best, self.at = mean, self.num_timesteps
                self.model.save(tmp_path / "best_model")

    make().learn(4 * T * B, best := Best())
    assert PPO.load(tmp_path / "best_model.zip").num_timesteps == best.at


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")  # moviepy's
def test_a_video_and_a_figure_go_to_tensorboard(tmp_path: Path) -> None:
    class Film(Callback):
        def _on_step(self) -> bool:
            if self.n_calls % 8 == 0:
                screens: list[Any] = []
                evaluate_policy(
                    self.model, walks(), n_eval_episodes=1, callback=lambda own, _: screens.append(own["env"].render()),
                )  # fmt: skip
                film = torch.from_numpy(np.stack(screens)).permute(0, 3, 1, 2)[None]
                assert film.ndim == 5 and film.shape[2] == 3
                self.logger.record("trajectory/video", Video(film, fps=8), exclude=("stdout", "csv"))
                figure = plt.figure()
                figure.add_subplot().plot(np.random.default_rng(0).random(3))
                self.logger.record("trajectory/figure", Figure(figure, close=True), exclude=("stdout", "csv"))
                self.logger.dump(self.num_timesteps)
                plt.close()
            return True

    agent = make(tensorboard_log=str(tmp_path))
    agent.learn(T * B, Film(), tb_log_name="film")
    agent.logger.close()
    events = EventAccumulator(str(tmp_path / "film_1"))
    events.Reload()
    assert "trajectory/figure" in events.Tags()["images"]  # torch writes the film only where there is moviepy 1


def test_the_learning_rate_and_the_entropy_bonus_change() -> None:
    class Slower(Callback):
        rates: list[float]

        def _on_training_start(self) -> None:
            self.rates = []

        def _on_rollout_end(self) -> None:
            self.rates.append(self.model.optimizer.param_groups[0]["lr"])
            self.model.learning_rate = 0.5 * self.model.learning_rate
            self.model._setup_lr_schedule()
            self.model.ent_coef = 0.1 * self.model._current_progress_remaining
            self.model.clip_range = lambda left: 0.3 * left**2

    agent = make(learning_rate=4e-3)
    agent.learn(4 * T * B, slower := Slower())
    assert slower.rates == [4e-3, 2e-3, 1e-3, 5e-4] and agent.config.entropy == 0.0
    assert agent.clip_range(0.5) == 0.3 * 0.25 and agent.config.lr_final is None
    with pytest.raises(AttributeError, match="n_steps: a rollout keeps its size"):
        agent.n_steps = 8
    with pytest.raises(AttributeError, match=r"has no attribute 'rollout_buffer': the last rollout is"):
        _ = agent.rollout_buffer
    with pytest.raises(ValueError, match="width=16: the weights were made with width=8"):
        agent.change_settings({"policy_kwargs": {"lstm_hidden_size": 16}})


def test_training_pauses() -> None:
    class Pause(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.waiting, self.go = threading.Event(), threading.Event()

        def _on_step(self) -> bool:
            if self.n_calls == 5:
                self.waiting.set()
                self.go.wait()
            return True

    agent, pause = make(), Pause()
    thread = threading.Thread(target=agent.learn, args=(T * B, pause))
    thread.start()
    assert pause.waiting.wait(60) and agent.num_timesteps == 5 * B
    pause.go.set()
    thread.join()
    assert agent.num_timesteps == T * B


def test_hyperparameters_are_logged_and_rows_are_dumped_when_a_callback_says(tmp_path: Path) -> None:
    class Params(Callback):
        def _on_training_start(self) -> None:
            told = {"algorithm": type(self.model).__name__, "lr": self.model.learning_rate, "gamma": self.model.gamma}
            self.logger.record("hparams", HParam(told, {"train/loss": 0.0}), exclude=("csv",))

    class Dump(Callback):
        def _on_step(self) -> bool:
            self.model.dump_logs()
            return True

    agent = make()
    agent.set_logger(configure(str(tmp_path), ["csv", "tensorboard"]))
    agent.learn(2 * T * B, [Params(), EveryNTimesteps(8 * B, Dump())], log_interval=None)
    agent.logger.close()
    assert len((tmp_path / "progress.csv").read_text().splitlines()) == 1 + 4


def test_what_is_recorded_of_every_step_is_what_ppo_learns_from() -> None:
    class Trajectories(Callback):
        def _on_training_start(self) -> None:
            self.kept: dict[str, list[Any]] = {}

        def _on_step(self) -> bool:
            for name in ("actions", "rewards", "values", "log_probs", "episode_starts", "new_obs"):
                self.kept.setdefault(name, []).append(torch.as_tensor(self.locals[name]).numpy())
            return True

    agent = make()
    agent.learn(T * B, kept := Trajectories())
    found, buffer = {name: np.stack(x) for name, x in kept.kept.items()}, agent.collector.buffer
    np.testing.assert_allclose(found["log_probs"], buffer["log_prob"], atol=1e-6)
    np.testing.assert_allclose(found["values"][..., 0], buffer["value"], atol=1e-6)
    assert np.array_equal(found["actions"], buffer["action"][..., 0])
    assert np.array_equal(found["rewards"], buffer["reward"])
    assert np.array_equal(found["episode_starts"], buffer["start"])
    assert np.array_equal(found["new_obs"][:-1], agent.collector.observed["observation"][1:])


def test_what_the_last_update_measured_is_there_in_the_next_rollout(tmp_path: Path) -> None:
    """As under stable-baselines3, where a name that nobody recorded reads as 0."""

    class Look(Callback):
        def _on_step(self) -> bool:
            seen.append(self.logger.name_to_value["train/value_loss"])
            return True

    seen: list[float] = []
    agent = make()
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.learn(2 * T * B, Look(), log_interval=None)
    agent.logger.close()
    first, second = set(seen[:T]), set(seen[T:])
    assert first == {0.0} and len(second) == 1 and second.pop() > 0
    assert (tmp_path / "progress.csv").read_text() == ""


def test_callbacks_come_in_a_list_or_a_tuple_and_are_made() -> None:
    called: list[str] = []

    def note(_: Any, __: Any) -> bool:
        called.append("function")
        return True

    make().learn(T * B, (Shapes(), note))
    assert called == ["function"] * T
    with pytest.raises(TypeError, match=r"got the class Shapes; make one, Shapes\(\.\.\.\)"):
        make().learn(T * B, Shapes)


def test_an_entry_that_nobody_asks_for_is_not_computed() -> None:
    def fail() -> None:
        raise AssertionError("it was asked for")

    entries = Locals({"self": 1}, {"infos": fail, "dones": lambda: [True]})
    assert "infos" in entries and entries.get("missing") is None and entries["dones"] == [True]
    assert sorted(entries) == ["dones", "infos", "self"] and len(entries) == 3
    entries.update({"own": 2})
    with pytest.raises(KeyError, match=r"rollout_buffer: it is `self\.model\.collector\.buffer`"):
        entries["rollout_buffer"]
    with pytest.raises(KeyError, match="reward: rlmin's callbacks have self, infos"):
        entries["reward"]
    with pytest.raises(AssertionError, match="it was asked for"):
        entries["infos"]
