"""The offline suite: its data are what the recipes say, cells are trained once, and the table says what was found."""

import csv
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlmin import load
from rlmin.agents.ppo_config import PPOConfig
from rlmin.cli import main
from rlmin.data import load_dataset
from rlmin.data.recorder import Recorded
from rlmin.suite.behaviour import Behaviour, Measured
from rlmin.suite.demonstrations import play_bot, walk_t_mazes
from rlmin.suite.offline import OfflineOptions, read_offline_suite, run_offline
from rlmin.suite.offline_cell import OfflineCell, resolve_target
from rlmin.suite.offline_report import as_markdown, flat, iqm, summarise
from rlmin.suite.peer import _steps_of_a_window
from rlmin.suite.recipes import Recipe
from rlmin.suite.run import read_finished
from rlmin.vector.arena import Arena
from rlmin.vector.make import make_vec

pytest.importorskip("h5py")
minari = pytest.importorskip("minari")

SMALL = """
steps: 600
seeds: 1
episodes: 5
targets: [100, best]
settings: {width: 8, layers: 1, mlp: 0, rows: 3, horizon: 16}
agents:
  min_gru: {encoder: min_gru}
  bc: {encoder: min_lstm, condition: none}
recipes:
  pole:
    env: rlmin/PositionOnlyCartPoleEasy-v0
    steps: 4096
    checkpoints: 2
    episodes: 7
    ppo: {num_envs: 16, horizon: 64, width: 16, layers: 1, lr: 3e-3, epochs: 2}
  maze: {env: rlmin/TMaze-v0, env_kwargs: {length: 6}, qualities: [oracle], episodes: 23, wrong: 0.3}
tasks:
  rlmin/pole-medium-replay-v0: {agents: [min_gru]}
  rlmin/maze-oracle-v0: {variants: [{length: 3}, {length: 9}], steps: 300}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("MINARI_REMOTE", "none://nowhere")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


# demonstrations


def test_t_mazes_are_walked_straight_and_some_turn_the_wrong_way() -> None:
    walked = [episode for episode, _ in walk_t_mazes(403, length=12, wrong=0.25, seed=4)]
    returns = np.array([episode.rewards.sum() for episode in walked])
    lengths = np.array([len(episode.rewards) for episode in walked])
    assert len(walked) == 403 and set(returns.tolist()) == {0.0, 1.0} and 0.65 < returns.mean() < 0.85
    assert lengths.min() == 2 and lengths.max() == 13 and all(episode.terminated for episode in walked)
    assert {float(episode.rewards.sum()) for episode, _ in walk_t_mazes(31, length=5, wrong=0.0, seed=4)} == {1.0}
    one = walked[0]
    assert one.observations[0, 1] in (-1, 1) and not one.observations[1:-2].any(), "the cue is shown once"


def rewards_again(env: Any, episode: Recorded, seed: int) -> list[float]:
    env.reset(seed=seed)
    found = []
    for action in episode.actions:
        _, reward, terminated, truncated, _ = env.step(action)
        found.append(float(reward))
        if terminated or truncated:
            break
    return found


def test_what_the_bot_did_solves_its_level_and_no_other() -> None:
    played = list(play_bot("BabyAI-GoToRedBall-v0", 3, seed=70))
    env: Any = gym.make("BabyAI-GoToRedBall-v0")
    assert len(played) == 3
    for episode, seed in played:
        assert episode.observations["mission"][0] == "go to the red ball" and episode.rewards[-1] > 0
        assert rewards_again(env, episode, seed) == episode.rewards.tolist()
        assert max(rewards_again(env, episode, seed + 100)) == 0, "another level is not solved by these actions"
    with pytest.raises(ValueError, match="expected a level of BabyAI"):
        list(play_bot("MiniGrid-Empty-5x5-v0", 1, seed=0))


def test_a_bot_recipe_makes_a_dataset_that_can_be_read() -> None:
    recipe = Recipe.read("ball", {"env": "BabyAI-GoToRedBall-v0", "qualities": ["bot"], "episodes": 4, "seed": 2})
    recipe.make("rlmin/ball-bot-v0", Path("out"))
    found, stored = load_dataset("rlmin/ball-bot-v0"), minari.load_dataset("rlmin/ball-bot-v0")
    assert found.num_episodes == 4 and float(found.returns.min()) > 0
    assert set(found.step["observation"].keys()) == {"direction", "image"}
    assert found.env is not None and found.env["id"] == "BabyAI-GoToRedBall-v0"
    assert found.reference is not None and found.reference.expert == pytest.approx(float(found.returns.mean()))
    assert found.reference.random < found.reference.expert
    env: Any = gym.make("BabyAI-GoToRedBall-v0")
    for episode, told in zip(stored.iterate_episodes(), stored.storage.get_episode_metadata(range(4)), strict=True):
        env.reset(seed=int(told["seed"]))
        steps = [env.step(action) for action in episode.actions]
        assert (
            steps[-1][1] > 0
            and steps[-1][2]
            and np.array_equal(steps[-1][0]["image"], episode.observations["image"][-1])
        )


# behaviour policies


def behaviour(folder: Path, **changes: Any) -> Behaviour:
    config = PPOConfig(num_envs=8, horizon=16, width=8, layers=1, mlp=0, epochs=1)
    arena = Arena(id="rlmin/PositionOnlyCartPoleEasy-v0")
    return Behaviour(**{"folder": folder, "arena": arena, "steps": 384, "checkpoints": 3, "config": config, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder).policy.state_dict()


def test_training_that_was_interrupted_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole = behaviour(tmp_path / "whole").train()
    assert [load(folder).num_timesteps for folder in whole] == [0, 128, 256, 384]
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    for lost in ("002", "003"):
        shutil.rmtree(tmp_path / "half" / lost)
    half = behaviour(tmp_path / "half").train()
    a, b, earlier = weights(whole[-1]), weights(half[-1]), weights(half[-2])
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], earlier[name]) for name in a)
    with pytest.raises(ValueError, match="trained with other settings"):
        behaviour(tmp_path / "half", steps=999).train()


def test_expert_is_the_best_checkpoint_medium_the_first_halfway_and_the_replay_leads_there(tmp_path: Path) -> None:
    folders = behaviour(tmp_path / "few").train()
    measured = Measured(folders=folders, random=1.0, returns=[0.5, 5.0, 9.0, 7.0])
    assert (measured.expert, measured.medium) == (2, 1)
    assert (measured.reference.random, measured.reference.expert) == (1.0, 9.0)

    def steps(quality: str) -> list[tuple[int, int]]:
        return [(one.details.get("num_timesteps", -1), one.episodes) for one in measured.list_players(quality, 7)]

    assert steps("expert") == [(256, 7)] and steps("medium") == [(128, 7)] and steps("random") == [(-1, 7)]
    assert steps("medium-replay") == [(0, 4), (128, 3)]
    with pytest.raises(ValueError, match="nothing was learned"):
        Measured(folders=folders, random=9.5, returns=[0.5, 5.0, 9.0, 7.0]).list_players("expert", 7)


# the suite


def test_a_suite_makes_its_data_trains_scores_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlmin.suite.behaviour.EPISODES", 20)
    with pytest.raises(ValueError, match="rlmin/maze-oracle-v0: no such dataset yet; make it with rlmin bench"):
        run_offline(OfflineOptions(suite="small.yaml"))
    said = run_offline(OfflineOptions(suite="small.yaml", make=True))
    assert said.splitlines()[1].startswith("rlmin/maze-oracle-v0: 23 episodes") and "7 episodes" in said
    replay, maze = (load_dataset(f"rlmin/{name}-v0") for name in ("pole-medium-replay", "maze-oracle"))
    assert replay.reference is not None and "expert's sampled actions" in replay.reference.source
    assert (maze.reference.random, maze.reference.expert) == (0, 1) if maze.reference else False
    assert run_offline(OfflineOptions(suite="small.yaml", make=True)) == said, "what is there is left alone"

    options = OfflineOptions(suite="small.yaml", results=Path("results"))
    table = run_offline(options)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert run_offline(options) == table
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    part = run_offline(replace(options, tasks=("rlmin/maze-oracle-v0",), agents=("bc",)))
    assert part != table and run_offline(replace(options, report=True)) == table
    with pytest.raises(ValueError, match="no cell is finished there"):
        run_offline(replace(options, report=True, out=Path("elsewhere")))
    rows = list(csv.DictReader(Path("results/small-cells.csv").read_text().splitlines()))
    places = [(row["task"], row["variant"], row["target"], row["agent"]) for row in rows]
    assert places == [
        *(("rlmin/pole-medium-replay-v0", "", target, "min_gru") for target in ("100", "best")),
        *(
            ("rlmin/maze-oracle-v0", variant, target, agent)
            for agent in ("min_gru", "bc")
            for variant in ("length=3", "length=9")
            for target in ("100", "best")
        ),
    ]
    assert {row["length"] for row in rows if row["variant"] == "length=9"} == {"10"}, "the maze is the variant's"
    assert {row["best"] for row in rows if "maze" in row["task"]} == {"100"}, "so that both targets are one there"
    scores = [(row["score"], row["return"]) for row in rows if "maze" in row["task"]]
    assert scores[::2] == scores[1::2]
    assert "| rlmin/maze-oracle-v0 | length=9 | best | 1 |" in table and Path("results/small.md").read_text() == table

    run_offline(OfflineOptions(suite="small.yaml", make=True, overwrite=True, tasks=("rlmin/maze-oracle-v0",)))
    with pytest.raises(ValueError, match=r"trained with data='.*' and not '.*'; choose another --out"):
        run_offline(options)

    Path("small.yaml").write_text(SMALL.replace("[100, best]", "[100]"))
    cell = read_offline_suite("small.yaml").cells()[0]
    with pytest.raises(ValueError, match="asked="):
        read_finished(cell, Path("runs/suite/small"))


def test_a_column_of_d3rlpy_s_transformer_needs_it_and_is_scored_like_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = SMALL.replace("agents:\n", "agents:\n  theirs: {peer: d3rlpy, windows: 5}\n", 1)
    Path("small.yaml").write_text(text.replace("agents: [min_gru]", "agents: [theirs], steps: 100"))
    monkeypatch.setattr("rlmin.suite.behaviour.EPISODES", 20)
    options: dict[str, Any] = {"suite": "small.yaml", "tasks": ("rlmin/pole-medium-replay-v0",)}
    run_offline(OfflineOptions(**options, make=True))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "d3rlpy", None)
        with pytest.raises(ValueError, match="d3rlpy is not installed; pip install --no-deps d3rlpy"):
            _one_cell("small.yaml").run(Path("run"))
    pytest.importorskip("d3rlpy", reason="pins an older gymnasium, so it is not among the test extras")
    row = _one_cell("small.yaml").run(Path("run"))
    assert row["steps"] >= 100 and [one["target"] for one in row["results"]] == [100, "best"]
    assert all(0 < one["return"] <= 1 and one["length"] >= 1 for one in row["results"])


def test_a_target_is_a_score_or_the_best_episode_of_the_data() -> None:
    told = {"returns": [-3.0, 8.0, 2.0], "reference": {"random": 2.0, "expert": 6.0, "source": "said"}}
    assert [resolve_target(target, told) for target in (0, 50, 100, "best")] == [2, 4, 6, 8]


def test_the_budget_of_windows_counts_the_steps_in_them() -> None:
    for lengths, context in (([1], 20), ([7, 30, 2], 5), ([19, 20, 21], 20)):
        real = [min(t + 1, context) for length in lengths for t in range(length)]
        assert _steps_of_a_window(lengths, context) == pytest.approx(np.mean(real))


def _one_cell(suite: str) -> OfflineCell:
    return next(cell for cell in read_offline_suite(suite).cells() if cell.encoder == "theirs")


def test_the_suite_that_comes_with_rlmin_can_be_made_and_trained() -> None:
    assert len(read_offline_suite("decision-defaults").cells()) == 15
    suite = read_offline_suite("offline")
    cells = suite.cells()
    assert len(suite.tasks) > 15 and {cell.encoder for cell in cells} >= {"min_gru", "min_lstm", "attention", "bc"}
    for task in suite.tasks:
        recipe = suite.recipe_of(task)
        assert recipe.ppo_config
    for recipe in suite.recipes.values():
        if not recipe.env.startswith(("BabyAI", "Hopper", "HalfCheetah", "Walker2d")):
            make_vec(recipe.env, 1, **recipe.env_kwargs).close()
    for config in [cell.config for cell in cells if cell.seed == 0]:
        assert config.eval_episodes == 0 and config.total_timesteps >= 1_000_000
    lengths = [one["length"] for one in cells[0].settings["asked"]["variants"]]
    assert lengths == [50, 150, 300, 600, 1200, 2400, 4800, 9600]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("min_gru: {encoder: min_gru}", "min_gru: {encodr: min_gru}"), "no setting 'encodr'"),
        (("agents: [min_gru]", "agents: [min_gro]"), "no agent 'min_gro'; did you mean 'min_gru'"),
        (("qualities: [oracle]", "qualities: [orakel]"), "no quality of maze 'orakel'"),
        (("env: rlmin/TMaze-v0", "env: CartPole-v1"), "maze: an oracle is known for rlmin/TMaze-v0 only"),
        (("checkpoints: 2", "checkpoints: 0"), "pole: checkpoints: expected a whole number of at least 1, got 0"),
        (("checkpoints: 2", "checkpoints: [2]"), "pole: checkpoints: expected a whole number of at least 1, got"),
        (("[100, best]", "[100, bets]"), "no target 'bets'; did you mean 'best'"),
        (("lr: 3e-3", "lrr: 3e-3"), "no PPO setting of pole 'lrr'"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(
    change: tuple[str, str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("small.yaml").write_text(SMALL.replace(*change))
    with pytest.raises(SystemExit):
        main(["bench", "offline", "--suite", "small.yaml"])
    said = capfd.readouterr().err
    assert f"small.yaml: {message}" in said and said.count("\n") == 1


def row(task: str, agent: str, seed: int, scores: dict[str, float]) -> dict[str, Any]:
    results = [
        {"variant": variant, "target": 100, "score": x, "return": x / 50, "success": None, "length": 3.0}
        for variant, x in scores.items()
    ]
    told = {"task": task, "encoder": agent, "seed": seed, "steps": 10, "behaviour": 0.5, "best": 1.5, "seconds": 1.0}
    return told | {"reference": {"random": 0.0, "expert": 2.0, "source": "said"}, "results": results}


def test_the_table_has_means_intervals_the_data_and_the_interquartile_mean() -> None:
    rows = [
        row("a", agent, seed, {"x": 10.0 * seed + add, "y": 7.0})
        for agent, add in (("p", 0), ("q", 50))
        for seed in range(4)
    ]
    rows += [row("b", "p", 0, {"": 99.0})]
    lines = flat(rows)
    first = summarise(lines)[0]
    assert (first["task"], first["variant"], first["agent"], first["score"]) == ("a", "x", "p", 15.0)
    assert first["low"] < 15 < first["high"] and first["behaviour"] == 25.0
    found = iqm(lines, "q")
    assert found is not None and found.value == 65.0, "variant y and task b, which q has not, do not count"
    text = as_markdown(lines)
    assert (
        "| a | x | 100 | 4 | 25.0 | 75.0 | 15.0 [" in text
        and "| b |  | 100 | 1 | 25.0 | 75.0 | 99.0 [99.0, 99.0] |  |" in text
    )
