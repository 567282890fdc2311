"""Collecting: a dataset holds exactly what was seen and done, from whom, and is there whole or not at all."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from unix import SIGNALS

from rlmin import PPO, DecisionAgent
from rlmin.cli import main
from rlmin.data import Reference, load_dataset, writer
from rlmin.data.recorder import make_stored_space
from rlmin.evaluation.collect import PlayedBy, collect
from rlmin.evaluation.scores import score
from rlmin.files.lock import lock_folder
from rlmin.policy import Policy, PolicyConfig
from rlmin.vector.arena import Arena
from rlmin.wrappers.shift import Shift

modes = pytest.mark.parametrize("mode", list(AutoresetMode))


class Odd(gym.Env[Any, Any]):
    """Every kind of observation; episodes of 2 to 90 steps by the seed; every second one is cut short."""

    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (33, 35, 3), np.uint8),
            "inner": spaces.Tuple((spaces.Box(-9, 9, (2,), np.float64), spaces.Discrete(5, start=2))),
            "mission": spaces.Text(12),
            "keys": spaces.MultiBinary(4),
        }
    )
    action_space = spaces.MultiDiscrete([3, 4], start=[1, 0])
    episode = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode += 1
        self.t, self.length = 0, int(self.np_random.choice([2, 3, 90], p=[0.5, 0.4, 0.1]))
        return self.seen(np.zeros(2)), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        over, cut = self.t == self.length, self.length == 3
        return self.seen(action), float(self.np_random.normal()), over and not cut, over and cut, {}

    def seen(self, action: Any) -> dict[str, Any]:
        random = self.np_random
        return {
            "image": random.integers(0, 256, (33, 35, 3), dtype=np.uint8),
            "inner": (random.normal(size=2) / 3 + np.sum(action), np.int64(2 + random.integers(5))),
            "mission": f"step {self.t}",
            "keys": random.integers(0, 2, 4, dtype=np.int8),
        }


gym.register("CollectTest/Odd-v0", f"{__name__}:Odd")


@pytest.fixture
def here(root: Path) -> Path:
    """The folder a test runs in."""
    return root.parent


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Minari's folder, of this test alone."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setenv("RLMIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "datasets"


def there(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*")) if root.exists() else []


def odd(mode: AutoresetMode = AutoresetMode.SAME_STEP) -> Callable[[int], VectorEnv[Any, Any, Any]]:
    return lambda rows: SyncVectorEnv([Odd] * rows, autoreset_mode=mode)


def chance(episodes: int) -> PlayedBy:
    return PlayedBy(name="random", policy=None, episodes=episodes)


def policy_of(env: Any, **settings: Any) -> Policy:
    return Policy(env.observation_space, env.action_space, PolicyConfig(width=8, layers=1, **settings))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(part, b[name]) for name, part in a.items())
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.array_equal(a, b))


def at(observations: Any, t: int) -> Any:
    if isinstance(observations, dict):
        return {name: at(part, t) for name, part in observations.items()}
    return tuple(at(part, t) for part in observations) if isinstance(observations, tuple) else observations[t]


def replayed(dataset: Any, make: Callable[[], Any], *, late: int = 0) -> bool:
    """Whether every step of the dataset happens again in fresh environments; `late` shifts the actions."""
    told = list(dataset.storage.get_episode_metadata(dataset.episode_indices))
    episodes = {(one["row_seed"], one["turn"]): episode for one, episode in zip(told, dataset, strict=True)}
    assert len(episodes) == dataset.total_episodes
    for row_seed in {key[0] for key in episodes}:
        env, turn = make(), 0
        while (row_seed, turn) in episodes:
            episode = episodes[row_seed, turn]
            seen, _ = env.reset(seed=int(row_seed) if turn == 0 else None)
            for t in range(len(episode.rewards)):
                if not same(seen, at(episode.observations, t)):
                    return False
                action = episode.actions[max(t - late, 0)]
                seen, reward, terminated, truncated, _ = env.step(action)
                assert len(episode.rewards) == len(episode.actions)
                if (reward, terminated, truncated) != (
                    episode.rewards[t],
                    episode.terminations[t],
                    episode.truncations[t],
                ):
                    return False
            if not same(seen, at(episode.observations, len(episode.rewards))):
                return False
            turn += 1
        env.close()
    return True


# -- what is in it ----------------------------------------------------------------------------------------------------


@modes
def test_every_step_happens_again_bit_for_bit(mode: AutoresetMode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "HELD_BYTES", 30_000)  # written in several goes
    dataset = collect([chance(17)], odd(mode), "odd/random", num_envs=5, seed=7)
    assert dataset.id == "odd/random-v0" and dataset.total_episodes == 17
    loaded = minari.load_dataset("odd/random-v0")
    assert replayed(loaded, Odd)
    assert not replayed(loaded, Odd, late=1), "an action belongs to the observation in which it was taken"
    assert max(len(episode.rewards) for episode in loaded) == 90 and {bool(e.truncations[-1]) for e in loaded} == {0, 1}
    first = loaded[0]
    assert first.observations["inner"][0].dtype == np.float64 and first.observations["image"].dtype == np.uint8
    assert loaded.observation_space == Odd.observation_space and loaded.action_space == Odd.action_space


def test_every_row_plays_its_share_so_that_short_episodes_are_not_over_represented() -> None:
    dataset = collect([chance(23)], odd(), "odd/share-v3", num_envs=5, seed=1)
    rows = [one["row_seed"] for one in dataset.storage.get_episode_metadata(range(23))]
    counts = {row: rows.count(row) for row in rows}
    assert counts == {1: 5, 2: 5, 3: 5, 4: 4, 5: 4} and dataset.id == "odd/share-v3"
    seeds = [one.get("seed") for one in dataset.storage.get_episode_metadata(range(23))]
    assert sorted(seed for seed in seeds if seed is not None) == [1, 2, 3, 4, 5]


def test_tensors_of_a_native_environment_are_recorded_as_its_single_form_gives_them() -> None:
    arena = Arena(id="rlmin/TMaze-v0", kwargs={"length": 3})
    agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": 3}, width=8, layers=1, num_envs=4, horizon=4)
    by = PlayedBy(name="ppo", policy=agent.policy, episodes=9, deterministic=False)
    dataset = collect([by], arena, "tmaze/ppo", num_envs=4, env_spec=arena.spec())
    env = dataset.recover_environment()
    assert env.observation_space == dataset.observation_space
    assert replayed(dataset, dataset.recover_environment)
    found = load_dataset("tmaze/ppo-v0")
    assert found.env == {"id": "rlmin/TMaze-v0", "kwargs": {"active": False, "length": 3}, "workers": 0}
    assert found.returns.tolist() == pytest.approx([float(episode.rewards.sum()) for episode in dataset], abs=1e-6)


def test_a_shifted_environment_is_recorded_as_it_was_seen_and_can_be_made_again() -> None:
    arena = Arena(id="CartPole-v1", shift=Shift(noise=0.1, drop=0.2, sticky=0.3))
    dataset = collect([chance(7)], arena, "cartpole/shifted", num_envs=3, env_spec=arena.spec())
    assert replayed(dataset, dataset.recover_environment)
    assert not replayed(dataset, lambda: gym.make("CartPole-v1"))


def test_a_mission_is_kept_as_text() -> None:
    arena = Arena(id="BabyAI-GoToRedBallGrey-v0", kwargs={"max_episode_steps": 5})
    dataset = collect([chance(2)], arena, "babyai/random", num_envs=2, env_spec=arena.spec())
    assert set(dataset[0].observations["mission"]) == {"go to the red ball"}
    assert isinstance(dataset.observation_space["mission"], spaces.Text)


# -- from whom --------------------------------------------------------------------------------------------------------


def test_several_sources_go_into_one_dataset_and_every_episode_says_which_it_came_from() -> None:
    agent = PPO("CartPole-v1", width=8, layers=1, num_envs=4, horizon=8)
    early = PlayedBy(name="ppo", policy=agent.policy, episodes=5, deterministic=False, details={"num_timesteps": 0})
    late = PlayedBy(name="ppo", policy=agent.policy, episodes=3, details={"num_timesteps": 32})
    arena = Arena(id="CartPole-v1")
    dataset = collect([early, late, chance(4)], arena, "cartpole/mixed", num_envs=3, recipe={"why": "test"})
    told = list(dataset.storage.get_episode_metadata(range(12)))
    assert [one["source"] for one in told] == [0] * 5 + [1] * 3 + [2] * 4
    assert [one["played_by"] for one in told[4:9]] == ["ppo"] * 4 + ["random"]
    metadata = dataset.storage.metadata
    assert metadata["algorithm_name"] == "ppo + random" and "ref_min_score" not in metadata
    recipe = metadata["recipe"]
    assert recipe["why"] == "test" and recipe["seed"] == 0 and recipe["rlmin"]
    assert [source["policy"] for source in recipe["sources"]] == ["sampled", "greedy", "random"]
    assert [source.get("num_timesteps") for source in recipe["sources"]] == [0, 32, None]
    returns = [float(episode.rewards.sum()) for episode in dataset]
    assert recipe["sources"][1]["return_mean"] == pytest.approx(np.mean(returns[5:8]))
    assert len({one["row_seed"] for one in told}) == 9, "no two sources see the same episodes"
    again = collect([early, late, chance(4)], arena, "cartpole/again", num_envs=3)
    assert [float(episode.rewards.sum()) for episode in again] == returns


def test_reference_scores_are_minaris() -> None:
    given = collect([chance(3)], odd(), "odd/given", reference=Reference(random=-1.0, expert=4.0, source="told"))
    returns = np.array([0.5, 7.0])
    wanted = 100 * minari.get_normalized_score(given, returns)
    assert score(returns, Reference(random=-1.0, expert=4.0, source="")) == pytest.approx(wanted)
    assert given.storage.metadata["reference_source"] == "told"
    measured = collect([chance(3)], odd(), "odd/measured", measure_reference=40, seed=3).storage.metadata
    best = max(float(episode.rewards.sum()) for episode in minari.load_dataset("odd/measured-v0"))
    assert measured["ref_max_score"] == best and abs(measured["ref_min_score"]) < 6
    assert measured["reference_source"].startswith("measured: 40 episodes of random actions; the largest return")


def test_a_dataset_knows_the_module_of_its_environment(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = 'gym.register("Poles-v0", "gymnasium.envs.classic_control.cartpole:CartPoleEnv", max_episode_steps=9)'
    (tmp_path / "collected_poles.py").write_text(f"import gymnasium as gym\n{register}\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        command = ["collect", "--env", "collected_poles:Poles-v0", "--policy", "random", "--episodes", "3"]
        main([*command, "--dataset", "ab/plain"])
        main([*command, "--dataset", "ab/shifted", "--sticky", "0.5"])
    finally:
        gym.registry.pop("Poles-v0", None)  # as in a new process
    sys.modules.pop("collected_poles")
    assert load_dataset("ab/plain-v0").env == {"id": "collected_poles:Poles-v0", "kwargs": {}, "workers": 0}
    assert load_dataset("ab/shifted-v0").env is None, "without its wrapper it is another task"


# -- whole or not at all ----------------------------------------------------------------------------------------------


class Stops(Odd):
    """Is interrupted in its 60th step."""

    steps = 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        Stops.steps += 1
        if Stops.steps % 60 == 0:
            raise KeyboardInterrupt
        return super().step(action)


def stops(rows: int) -> VectorEnv[Any, Any, Any]:
    return SyncVectorEnv([Stops] * rows, autoreset_mode=AutoresetMode.SAME_STEP)


def test_an_interrupted_collection_leaves_nothing_behind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "HELD_BYTES", 1)
    with pytest.raises(KeyboardInterrupt):
        collect([chance(500)], stops, "odd/half", num_envs=2)
    assert there(root) == []


def test_a_dataset_is_replaced_only_where_that_is_asked_for_and_the_new_one_is_whole(root: Path) -> None:
    collect([chance(3)], odd(), "odd/kept")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"dataset 'odd/kept-v0': there is one already in .*; use --overwrite"):
        collect([chance(4)], odd(), "odd/kept")
    with pytest.raises(KeyboardInterrupt):
        collect([chance(500)], stops, "odd/kept", num_envs=2, overwrite=True)
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    collect([chance(4)], odd(), "odd/kept", overwrite=True)
    assert minari.load_dataset("odd/kept-v0").total_episodes == 4 and there(root / "odd") == [
        "kept-v0",
        "kept-v0/data",
        "kept-v0/data/main_data.hdf5",
        "kept-v0/data/metadata.json",
        "namespace_metadata.json",
    ]
    assert list(minari.list_local_datasets()) == ["odd/kept-v0"]
    with pytest.raises(ValueError, match="is there already and is no dataset"):
        (root / "odd" / "other-v0").mkdir()
        collect([chance(1)], odd(), "odd/other", overwrite=True)


def test_a_dataset_stays_where_its_successor_is_stopped_between_two_renames(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect([chance(3)], odd(), "odd/kept")
    rename, calls = Path.rename, list[str]()

    def stopped(self: Path, target: Path) -> Path:
        calls.append(target.name)
        if len(calls) == 2:
            raise SystemExit(143)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(SystemExit):
        collect([chance(4)], odd(), "odd/kept", overwrite=True)
    assert calls[0].endswith(".old") and minari.load_dataset("odd/kept-v0").total_episodes == 3
    assert [path.name for path in (root / "odd").glob(".*")] == []


def test_what_a_killed_process_left_is_removed_and_not_what_another_one_writes(root: Path) -> None:
    killed, written, old = root / ".kept-v0.123", root / ".kept-v0.124", root / ".kept-v0.123.old"
    collect([chance(3)], odd(), "kept")
    for path in (killed, written, old):
        (path / "data").mkdir(parents=True)
    with lock_folder(written):
        collect([chance(3)], odd(), "kept", overwrite=True)
        assert not killed.exists() and written.exists()
    assert not old.exists() and minari.load_dataset("kept-v0").total_episodes == 3
    assert [path.name for path in root.glob(".*")] == [written.name] and not list(root.rglob(".lock"))


def test_what_was_replaced_comes_back_where_its_successor_was_killed_between_two_renames(root: Path) -> None:
    collect([chance(3)], odd(), "odd/kept")
    (root / "odd" / "kept-v0").rename(root / "odd" / ".kept-v0.123.old")
    with pytest.raises(ValueError, match="there is one already"):
        collect([chance(4)], odd(), "odd/kept")
    assert minari.load_dataset("odd/kept-v0").total_episodes == 3
    collect([chance(4)], odd(), "odd/kept", overwrite=True)
    assert minari.load_dataset("odd/kept-v0").total_episodes == 4 and not list((root / "odd").glob(".*"))


@SIGNALS
def test_a_terminated_process_leaves_nothing_behind(root: Path) -> None:
    command = ["collect", "--env", "CartPole-v1", "--policy", "random", "--dataset", "ab/c", "--episodes", "1000000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    run = [sys.executable, "-c", "from rlmin.cli import main; main()", *command]
    process = subprocess.Popen(run, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not any("main_data" in name for name in there(root)):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr and process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and there(root) == []


def conditioned() -> Policy:
    leaf = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    env = gym.make("CartPole-v1")
    space = spaces.Dict({"observation": env.observation_space, "return_to_go": leaf})
    return Policy(space, env.action_space, PolicyConfig(width=8, layers=1))


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "spaces": (
        lambda: collect(
            [chance(1), PlayedBy(name="run a", policy=policy_of(gym.make("CartPole-v1")), episodes=1)], odd(), "ab/c"
        ),
        "run a: observation space: the policy expects Box.*the environment has Dict",
    ),
    "name": (lambda: collect([chance(1)], odd(), "no name"), "dataset 'no name': expected a name as"),
    "episodes": (lambda: chance(0), "random: episodes: expected at least 1, got 0"),
    "nobody": (lambda: collect([], odd(), "ab/c"), "expected at least one player"),
    "untold": (lambda: PlayedBy(name="x", policy=conditioned(), episodes=1), "is return-conditioned: set target"),
    "told": (
        lambda: PlayedBy(name="x", policy=policy_of(gym.make("CartPole-v1")), episodes=1, target=1.0),
        "takes no target return",
    ),
    "endless": (lambda: collect([chance(9)], odd(), "ab/c", max_steps=5), "has not ended its episode after 5 steps"),
    "space": (lambda: make_stored_space(spaces.Sequence(spaces.Discrete(2))), "a dataset cannot hold Sequence"),
    "entry": (lambda: make_stored_space(spaces.Dict({"a/b": spaces.Discrete(2)})), "cannot hold the entry 'a/b'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_collected_is_said_and_leaves_nothing_behind(kind: str, root: Path) -> None:
    broken, message = BAD[kind]
    with pytest.raises(ValueError, match=message):
        broken()
    assert there(root) == []


def test_a_return_conditioned_policy_is_told_its_target_and_its_dataset_is_the_environment_s_own() -> None:
    by = PlayedBy(name="decision", policy=conditioned(), episodes=4, target=30.0, return_scale=10.0)
    dataset = collect([by], Arena(id="CartPole-v1"), "cartpole/asked", num_envs=2)
    assert dataset.observation_space == gym.make("CartPole-v1").observation_space
    assert dataset.storage.metadata["recipe"]["sources"][0]["target_return"] == 30.0
    assert replayed(dataset, lambda: gym.make("CartPole-v1"))


# -- from the command line --------------------------------------------------------------------------------------------


def test_runs_and_chance_are_collected_and_inspected(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task = ["train", "tmaze", "--width", "8", "--horizon", "10", "--num-envs", "4", "--minibatches", "2"]
    task += ["--env-kwargs", "length=4", "--eval-episodes", "0"]
    main([*task, "--total-timesteps", "40", "--folder", "a"])
    main([*task, "--total-timesteps", "80", "--folder", "b", "--seed", "1"])
    capfd.readouterr()
    main(["collect", "a", "b", "--policy", "random", "--dataset", "tmaze/mix", "--episodes", "11", "--num-envs", "3"])
    said = capfd.readouterr().out.splitlines()
    assert said[0] == "tmaze/mix-v0: 11 episodes, 55 steps of rlmin/TMaze-v0 length=4"
    assert [line.split(":")[0].strip() for line in said[1:4]] == ["ppo (greedy)", "ppo (greedy)", "random (random)"]
    dataset = minari.load_dataset("tmaze/mix-v0")
    sources = dataset.storage.metadata["recipe"]["sources"]
    assert [(source.get("run"), source.get("num_timesteps"), source["episodes"]) for source in sources] == [
        ("a", 40, 4),
        ("b", 80, 4),
        (None, None, 3),
    ]
    assert replayed(dataset, dataset.recover_environment)
    main(["inspect", "tmaze/mix-v0", "--file", "mix.png"])
    said = capfd.readouterr().out.splitlines()
    assert any(line.split() == ["steps", "55"] for line in said) and said[-1] == "mix.png"
    assert Path("mix.png").read_bytes().startswith(b"\x89PNG")


def test_a_decision_agent_is_asked_for_returns_and_its_data_give_targets_and_scores(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    task = ["--env", "rlmin/TMaze-v0", "--env-kwargs", "length=3", "--policy", "random"]
    main(["collect", *task, "--dataset", "tmaze/random", "--episodes", "30", "--measure-reference", "20"])
    DecisionAgent("tmaze/random-v0", width=8, layers=1, rows=4, horizon=8).save("run")
    returns = load_dataset("tmaze/random-v0").returns.numpy()
    low, mean, high = float(returns.min()), float(returns.mean()), float(returns.max())
    capfd.readouterr()
    main(["evaluate", "run", "--episodes", "8"])
    said = capfd.readouterr()
    lines = said.out.splitlines()
    assert said.err == "" and lines[0].startswith("no target given: using the largest and the mean return")
    assert [float(line.split()[0]) for line in lines[3:5]] == pytest.approx([high, mean], abs=1e-3)
    assert float(lines[3].split()[3]) == 100, "the largest return of the data counts as 100"
    assert lines[5].startswith("the data: mean return") and lines[-2].endswith(
        "(metadata of tmaze/random-v0, measured: 20 episodes of random actions; the largest return of the dataset)"
    )
    assert lines[-1] == "run/targets.csv, run/targets.png"
    assert (here / "run" / "targets.png").read_bytes().startswith(b"\x89PNG")
    main(
        [
            "evaluate",
            "run",
            "--episodes",
            "8",
            "--target-score",
            "50",
            "--target-return",
            str(high + 1),
            "--file",
            "a.png",
        ]
    )
    said = capfd.readouterr()
    outside = f"target {high + 1:g}: outside the returns of the data, {low:g} to {high:g}; nothing was learned there"
    assert said.err == f"rlmin: warning: {outside}\n"
    assert float(said.out.splitlines()[3].split()[3]) == 50.0 and (here / "a.csv").exists()
    main(["evaluate", "run", "--episodes", "8", "--env-kwargs", "length=4"])
    assert "no reference scores are known" in capfd.readouterr().out, "another task has other references"
    main(["collect", "run", "--dataset", "tmaze/decision", "--episodes", "4"])
    assert minari.load_dataset("tmaze/decision-v0").storage.metadata["recipe"]["sources"][0]["target_return"] == high
    PPO(gym.make("rlmin/TMaze-v0", length=3), width=8, horizon=8).save("teacher")
    both = ["collect", "teacher", "run", "--dataset", "tmaze/both", "--episodes", "4", "--target-return", "0"]
    main([*both, "--env", "rlmin/TMaze-v0", "--env-kwargs", "length=3"])
    sources = minari.load_dataset("tmaze/both-v0").storage.metadata["recipe"]["sources"]
    assert [one.get("target_return") for one in sources] == [None, 0.0], "only the one that reads it is told"
    capfd.readouterr()
    with pytest.raises(SystemExit):
        main(["collect", "teacher", "--dataset", "tmaze/no", "--episodes", "4", "--target-return", "0"])
    assert "is not return-conditioned; leave --target-return out" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["collect", "--dataset", "ab/c", "--episodes", "3"], "name a run folder, or --env ID --policy random"),
        (["collect", "--policy", "random", "--dataset", "ab/c", "--episodes", "3"], "needs --env ID"),
        (["collect", "no", "--dataset", "ab/c", "--episodes", "3"], "no: no such run folder"),
        (
            ["collect", "--env", "CartPol-v1", "--policy", "random", "--dataset", "ab/c", "--episodes", "3"],
            "did you mean",
        ),
        (["inspect", "a/b-v0"], "no Minari dataset 'a/b-v0'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    heard = capfd.readouterr().err
    assert ended.value.code == 2 and message in heard and heard.count("\n") == 1, heard
    assert there(root) == []
