"""Data in other libraries' forms: real buffers of stable-baselines3, and files in the layouts of others."""

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from stable_baselines3 import PPO as Sb3PPO
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback

from rlmin import DecisionAgent
from rlmin.data import (
    Episode,
    episodes_from_buffer,
    episodes_from_columns,
    episodes_from_npz,
    episodes_from_table,
    episodes_from_trajectories,
    load_dataset,
)

N, D = 11, 3
ENDS, CUTS = (3, 10), (6,)
"""Last rows of three episodes: the first and the last terminated, the middle one was cut."""


def columns(**others: Any) -> dict[str, Any]:
    x = np.arange(N * D, dtype=np.float32).reshape(N, D)
    terminals, timeouts = (np.isin(np.arange(N), rows) for rows in (ENDS, CUTS))
    made = {"observations": x, "next_observations": x + 0.5, "actions": np.arange(N) % 2, "rewards": np.arange(N) * 1.0}
    return made | {"terminals": terminals, "timeouts": timeouts} | others


def check(episodes: list[Episode], *, repeats: bool = False, rewards: bool = True) -> None:
    """Whether these are the three episodes of `columns`."""
    assert [len(one.actions) for one in episodes] == [4, 3, 4]
    assert [one.terminated for one in episodes] == [True, False, True]
    last = episodes[0].observations[-1]
    assert np.asarray(last).tolist() == [9, 10, 11] if repeats else [9.5, 10.5, 11.5]
    assert np.ravel(episodes[2].rewards).tolist() == ([7, 8, 9, 10] if rewards else [0] * 4)
    assert load_dataset(episodes).first.tolist() == [0, 4, 7, 11]


def test_columns_may_have_many_names_and_an_axis_too_many() -> None:
    check(episodes_from_columns(columns()))
    given = columns()
    named = {"obs": given["observations"], "acts": given["actions"][:, None], "rew": given["rewards"][:, None]}
    ends = {"done": given["terminals"] | given["timeouts"], "truncated": given["timeouts"][:, None]}
    check(episodes_from_columns(named | ends), repeats=True)
    numbers = {"episode_id": np.repeat([5, 2, 9], [4, 3, 4]), "done": given["terminals"]}
    check(episodes_from_columns(named | numbers), repeats=True)
    with pytest.warns(UserWarning, match="no rewards, so they are 0"):
        check(episodes_from_columns({name: x for name, x in given.items() if name != "rewards"}), rewards=False)


def test_what_columns_lack_is_named() -> None:
    given = columns()
    for name, said in (("actions", "no actions"), ("observations", "no observations")):
        with pytest.raises(ValueError, match=f"{said} .any of"):
            episodes_from_columns({key: x for key, x in given.items() if key not in (name, f"next_{name}")})
    with pytest.raises(ValueError, match="nothing says where episodes end"):
        episodes_from_columns({key: given[key] for key in ("observations", "actions", "rewards")})
    with pytest.raises(ValueError, match="expected 11 rewards, as there are 11 actions, got 3"):
        episodes_from_columns(given | {"rewards": [1.0, 2, 3]})


def test_without_timeouts_the_rule_is_d4rls_or_the_following_states_tell() -> None:
    x = np.arange(N, dtype=np.float32)[:, None]
    given = {"observations": x, "actions": np.zeros(N), "rewards": np.zeros(N), "terminals": np.arange(N) == 2}
    lengths = [len(one.actions) for one in episodes_from_columns(given, max_episode_steps=3)]
    assert lengths == [3, 3, 3, 2]
    after = x + 1
    after[5] = 77  # the row below begins elsewhere
    assert [len(one.actions) for one in episodes_from_columns(given | {"next_observations": after})] == [3, 3, 5]


def test_an_npz_is_loaded_by_its_path_and_objects_in_it_are_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "logs.npz", **columns())
    check(episodes_from_npz(tmp_path / "logs.npz"))
    assert load_dataset(tmp_path / "logs.npz").name == "logs"
    DecisionAgent(str(tmp_path / "logs.npz"), width=8, horizon=8, rows=2).learn(32)
    np.savez(tmp_path / "bad.npz", actions=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"cannot be read as \.npz of plain arrays"):
        load_dataset(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="no such file"):
        load_dataset(tmp_path / "none.npz")


class Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "buffer.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"buffer.pkl is a pickle; .* rlmin.data.episodes_from_trajectories"):
        load_dataset(tmp_path / "buffer.pkl")
    assert not Path("ran").exists()


@pytest.mark.needs("pandas", "pyarrow")
def test_a_table_has_an_episode_column(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    given, frame = columns(), {f"obs_{i}": columns()["observations"][:, i] for i in range(D)}
    frame |= {"action": given["actions"], "reward": given["rewards"], "done": given["terminals"]}
    table = pd.DataFrame(frame | {"episode": np.repeat([0, 1, 2], [4, 3, 4])})
    check(episodes_from_table(table), repeats=True)
    table.to_csv(tmp_path / "log.csv")
    check(episodes_from_table(tmp_path / "log.csv"), repeats=True)
    assert load_dataset(tmp_path / "log.csv").observation_space.shape == (D,)
    with pytest.raises(ValueError, match="table: no column 'speed'; found obs_0"):
        episodes_from_table(table, observations=["speed"])
    with pytest.raises(ValueError, match="expected numbers, got"):
        episodes_from_table(table.assign(action="left"))


def test_a_d4rl_file_without_timeouts_is_cut_by_its_tasks_limit(tmp_path: Path) -> None:
    given: dict[str, Any] = {key: np.zeros((2500, 2)) for key in ("observations", "actions")}
    given |= {"rewards": np.zeros(2500), "terminals": np.arange(2500) == 1199}
    for name in ("hopper-medium-v2", "unknown-v0"):
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            for key, x in given.items():
                file[key] = x
    dataset = load_dataset(tmp_path / "hopper-medium-v2.hdf5")
    assert dataset.first.tolist() == [0, 1000, 1200, 2200, 2500] and dataset.terminated.tolist() == [0, 1, 0, 0]
    with pytest.raises(ValueError, match="no timeouts and no next_observations"):
        load_dataset(tmp_path / "unknown-v0.hdf5")


def test_a_dump_of_d3rlpy_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "dump.h5", "w") as file:
        file["columns"] = ["observations", "actions", "rewards", "terminated"]
        file["num_episodes"], file["version"] = 3, "2.1"
        for i, (rows, over) in enumerate(((range(4), True), (range(4, 7), False), (range(7, 11), True))):
            for key in ("observations", "actions", "rewards"):
                x = columns()[key][list(rows)]
                file[f"{key}_{i}"] = x if x.ndim == 2 else x[:, None]
            file[f"terminated_{i}"] = over
    dataset = load_dataset(tmp_path / "dump.h5")
    assert dataset.first.tolist() == [0, 4, 7, 11] and dataset.terminated.tolist() == [True, False, True]
    assert dataset.step["reward"].tolist() == list(range(11))


def test_demonstrations_in_robomimics_layout_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "demos.hdf5", "w") as file:
        for i in (0, 1, 10):
            group = file.create_group(f"data/demo_{i}")
            group["actions"], group["rewards"] = np.zeros((4, 2)), np.full(4, float(i))
            group["dones"] = [0, 0, 0, 1]
            for of, shift in (("obs", 0), ("next_obs", 1)):
                group[f"{of}/eef_pos"] = np.arange(4.0)[:, None].repeat(3, 1) + shift
                group[f"{of}/image"] = np.zeros((4, 8, 8, 3), np.uint8)
    dataset = load_dataset(tmp_path / "demos.hdf5")
    assert sorted(dataset.observation_space.spaces) == ["eef_pos", "image"]  # type: ignore[attr-defined]
    assert dataset.step["reward"].tolist() == [0.0] * 4 + [1.0] * 4 + [10.0] * 4, "in the order of their numbers"
    assert dataset.final["observation"]["eef_pos"][:, 0].tolist() == [4, 4, 4]


class Trajectory:
    """As `imitation.data.types.TrajectoryWithRew`: one observation more than actions."""

    def __init__(self, terminal: bool) -> None:
        self.obs, self.acts = np.arange(8.0).reshape(4, 2), np.array([0, 1, 1])
        self.infos, self.rews, self.terminal = None, np.ones(3), terminal


def test_trajectories_are_objects_or_dicts() -> None:
    one, other = episodes_from_trajectories([Trajectory(True), Trajectory(False)])
    assert (one.terminated, other.terminated) == (True, False) and one.observations[-1].tolist() == [6, 7]
    given = {key: x[:4] for key, x in columns().items()}
    (third,) = episodes_from_trajectories([given])
    assert third.terminated and len(third.observations) == 5
    with pytest.raises(ValueError, match="trajectory 1: no actions"):
        episodes_from_trajectories([given, {"obs": np.zeros((3, 1))}])


def test_a_replay_buffer_gives_what_the_environment_was_given() -> None:
    """Against the environment itself: the same actions from the same first state reach the same states."""
    model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=1000, buffer_size=450, seed=0)
    model.learn(500)
    episodes = episodes_from_buffer(model.replay_buffer)
    assert [len(one.actions) for one in episodes] == [150, 200, 100], "the oldest 50 steps were overwritten"
    env, episode = gym.make("Pendulum-v1"), episodes[1]
    env.reset()
    cos, sin, speed = episode.observations[0]
    env.unwrapped.state = np.array([np.arctan2(sin, cos), speed])  # type: ignore[attr-defined]
    for action, reward, following in zip(episode.actions, episode.rewards, episode.observations[1:], strict=True):
        observation, earned, *_ = env.step(action)
        np.testing.assert_allclose(observation, following, atol=2e-3)
        assert earned == pytest.approx(reward, abs=2e-2)
    assert not any(one.terminated for one in episodes)
    unscaled = episodes_from_buffer(model.replay_buffer, scaled=False)
    assert np.abs(unscaled[1].actions).max() <= 1 < np.abs(episode.actions).max()


def test_a_rollout_buffer_is_converted_while_training() -> None:
    class Convert(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.episodes = episodes_from_buffer(self.locals["rollout_buffer"])

    env = gym.make("CartPole-v1")
    model, callback = Sb3PPO("MlpPolicy", env, n_steps=64, n_epochs=1, seed=0), Convert()
    model.learn(64, callback)
    assert sum(len(one.actions) for one in callback.episodes) == 64
    assert [one.terminated for one in callback.episodes] == [True] * (len(callback.episodes) - 1) + [False]
    load_dataset(callback.episodes, env="CartPole-v1")
    with pytest.raises(ValueError, match="its rows were shuffled for training"):
        episodes_from_buffer(model.rollout_buffer)
