"""`rlmin convert`, leaving out bad episodes, and what float32 loses."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest

from rlmin import DecisionAgent, load
from rlmin.cli import main
from rlmin.data import Episode, load_dataset
from rlmin.data.precision import find_loss

LENGTHS = (4, 3, 5)
N = sum(LENGTHS)


@pytest.fixture(autouse=True)
def minari_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)


def columns(**others: Any) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    ends = np.isin(np.arange(N), np.cumsum(LENGTHS) - 1)
    seen = draw.uniform(-0.1, 0.1, (N, 4)).astype(np.float32)
    made = {"observations": seen, "next_observations": seen + 1, "actions": np.arange(N) % 2, "rewards": np.ones(N)}
    return made | {"terminals": ends, "timeouts": ~ends & False} | others


def write_npz(path: Path, **others: Any) -> Path:
    np.savez(path, **columns(**others))
    return path


def write_d4rl(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        for name, x in columns().items():
            file[name] = x
    return path


def write_robomimic(path: Path) -> Path:
    given, first = columns(), 0
    with h5py.File(path, "w") as file:
        for i, length in enumerate(LENGTHS):
            rows = slice(first, first + length)
            demo = file.create_group(f"data/demo_{i}")
            for name in ("actions", "rewards"):
                demo[name] = given[name][rows]
            demo["dones"] = given["terminals"][rows]
            demo["obs/place"], demo["next_obs/place"] = given["observations"][rows], given["next_observations"][rows]
            first += length
    return path


def write_d3rlpy(path: Path) -> Path:
    given, first = columns(), 0
    with h5py.File(path, "w") as file:
        file["num_episodes"] = len(LENGTHS)
        for i, length in enumerate(LENGTHS):
            rows = slice(first, first + length)
            for name in ("observations", "actions", "rewards"):
                file[f"{name}_{i}"] = given[name][rows]
            file[f"terminated_{i}"] = True
            first += length
    return path


def run(*arguments: str) -> None:
    main(list(arguments))


@pytest.mark.parametrize(
    ("write", "name"),
    [(write_npz, "a.npz"), (write_d4rl, "a.hdf5"), (write_robomimic, "b.hdf5"), (write_d3rlpy, "c.h5")],
)
def test_a_converted_dataset_holds_what_the_file_held(
    write: Any, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / name)
    env = () if write is write_robomimic else ("--env", "CartPole-v1")
    run("convert", str(file), "--to", "pole/logged", *env)
    assert "pole/logged-v0: 3 episodes, 12 steps, mean return 4" in capsys.readouterr().out
    found = minari.load_dataset("pole/logged-v0")
    episodes, given, first = list(found.iterate_episodes()), columns(), 0
    for episode, length in zip(episodes, LENGTHS, strict=True):
        rows = slice(first, first + length)
        seen: Any = episode.observations
        seen = seen["place"] if isinstance(seen, dict) else seen
        assert np.array_equal(seen[:-1], given["observations"][rows])
        if write is not write_d3rlpy:  # whose files lack the last state
            assert np.array_equal(seen[-1], given["next_observations"][rows][-1])
        assert np.array_equal(episode.actions, given["actions"][rows])
        assert episode.rewards.tolist() == [1] * length
        assert episode.terminations[-1] and not episode.truncations.any()
        first += length
    if env:
        assert found.env_spec is not None and found.env_spec.id == "CartPole-v1"
    run("convert", "pole/logged-v0", "--to", "pole/again")  # from Minari, too
    assert load_dataset("pole/again-v0").lengths.tolist() == list(LENGTHS)


def test_a_check_and_every_error_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = str(write_npz(tmp_path / "good.npz"))
    run("convert", good, "--to", "pole/logged", "--check")
    assert "every value fits, nothing was written" in capsys.readouterr().out
    bad = str(write_npz(tmp_path / "bad.npz", rewards=np.where(np.arange(N) == 5, np.nan, 1)))
    for arguments, words in (
        ((bad,), "episode 1, step 1: reward: expected a finite float32, got nan"),
        ((good, "--env", "Pendulum-v1"), "dataset 'good'"),
        ((good, "--env-kwargs", "a=1"), "env_kwargs belong to an environment"),
        (("none.npz",), "no such file"),
    ):
        with pytest.raises(SystemExit):
            run("convert", *arguments, "--to", "pole/logged")
        assert words in capsys.readouterr().err
    assert not [path for path in (tmp_path / "minari").rglob("*") if path.is_file()]
    run("convert", good, "--to", "pole/logged")
    with pytest.raises(SystemExit):
        run("convert", good, "--to", "pole/logged")
    assert "there is one already" in capsys.readouterr().err
    run("convert", good, "--to", "pole/logged", "--overwrite")


def test_bad_episodes_are_left_out_with_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = str(write_npz(tmp_path / "bad.npz", rewards=np.where(np.arange(N) == 5, np.nan, 1)))
    run("convert", bad, "--to", "pole/rest", "--skip-bad-episodes")
    shown = capsys.readouterr()
    report = "left out 1 of 3 episodes: episode 1, step 1: reward: expected a finite float32, got nan"
    assert "pole/rest-v0: 2 episodes, 9 steps" in shown.out and report in shown.out and report in shown.err
    assert load_dataset("pole/rest-v0").lengths.tolist() == [4, 5]
    run("inspect", bad, "--skip-bad-episodes", "True")
    assert report in capsys.readouterr().out
    small = (
        "--encoder",
        "mlp",
        "--width",
        "8",
        "--layers",
        "1",
        "--horizon",
        "8",
        "--rows",
        "2",
        "--total-timesteps",
        "64",
    )
    settings = (*small, "--eval-episodes", "0", "--evaluations", "0", "--held-out", "0", "--folder", "run")
    with pytest.raises(SystemExit):
        run("train", "--dataset", bad, *settings)
    run("train", "--dataset", bad, "--skip-bad-episodes", "True", *settings)
    assert report in capsys.readouterr().err
    agent: Any = load("run")
    with pytest.warns(UserWarning, match="left out 1 of 3"):
        assert agent.dataset.num_episodes == 2  # a loaded run finds the same episodes again


def episode(length: int = 4, *, width: int = 2, **parts: Any) -> Episode:
    made = {"observations": np.zeros((length + 1, width)), "actions": np.zeros(length), "rewards": np.zeros(length)}
    return Episode(**{**made, "terminated": True, **parts})


def test_every_kind_of_fault_is_left_out_and_named() -> None:
    nan = np.full((5, 2), np.nan)
    episodes = [
        episode(),
        episode(rewards=np.zeros(3)),
        episode(width=3),
        episode(5),
        episode(observations=nan),
        episode(observations=np.zeros((4, 2))),
        episode(actions=np.array([0, 1, 2, 0.5])),
        episode(actions=np.zeros(0), rewards=np.zeros(0)),
    ]
    kept: dict[str, Any] = {"action_space": gym.spaces.Discrete(3)}
    with pytest.warns(UserWarning, match="left out 6 of 8 episodes") as caught:
        found = load_dataset(episodes, skip_bad_episodes=True, **kept)
    assert found.lengths.tolist() == [4, 5]
    report = str(caught[0].message)
    for words in (
        "episode 1: expected as many rewards as actions, 4, got 3",
        "episode 2: observations [3]",
        "episode 4, step 0: observation 'observation', entry 0",
        "episode 5: observation 'observation': expected 5 for 4 actions, got 4",
        "episode 6",
        "episode 7: has no step",
    ):
        assert words in report
    with pytest.raises(ValueError, match="episode 1: expected as many rewards"):
        load_dataset(episodes, **kept)
    with pytest.raises(ValueError, match="no episode is good"):
        load_dataset([episode(observations=nan)] * 2, skip_bad_episodes=True, **kept)
    whole = load_dataset([episode(), episode()], skip_bad_episodes=True, **kept)  # without a word
    assert whole.num_episodes == 2


def test_what_float32_loses_is_named() -> None:
    times = 1.7e9 + np.arange(30.0)
    seen = np.stack([np.linspace(0, 1, 30), times], 1)
    one = episode(29, observations=seen, actions=np.zeros(29, np.int64))
    with pytest.warns(UserWarning, match=r"observation 'observation', entry 1: float32 makes 1 of 29 different values"):
        load_dataset([one])
    named = episode(29, observations={"clock": times, "x": seen[:, 0]}, actions=np.zeros(29, np.int64))
    with pytest.warns(UserWarning, match=r"observation 'clock': float32 makes 1 of 29"):
        load_dataset([named])
    rewards = episode(29, observations=seen[:, :1], actions=np.zeros(29, np.int64), rewards=times[:-1])
    with pytest.warns(UserWarning, match=r"reward: float32 makes 1 of 29"):
        load_dataset([rewards])
    assert find_loss(times - times[0]) is None and find_loss(times.astype(np.float32)) is None
    assert find_loss(np.random.default_rng(0).normal(size=(1000, 3))) is None
    assert find_loss(np.arange(2**24, 2**24 + 9)) == (0, 9, 5)


def test_data_are_checked_against_an_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_npz(tmp_path / "good.npz"))
    run("inspect", file, "--env", "CartPole-v1")
    assert "fits CartPole-v1" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("inspect", file, "--env", "Acrobot-v1")
    assert "expected" in capsys.readouterr().err
    run("convert", file, "--to", "pole/logged", "--env", "CartPole-v1")
    with pytest.raises(SystemExit):
        run("inspect", "pole/logged-v0", "--env", "Acrobot-v1")
    assert "its observation space is" in capsys.readouterr().err
    with pytest.raises(ValueError, match="observation space"):
        DecisionAgent("pole/logged-v0", env="Acrobot-v1", width=8)
