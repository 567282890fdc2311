"""The suite of defaults: every column with nothing set, cells of any library with the same row."""

import csv
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from rlmin.agents.ppo_config import PPOConfig
from rlmin.cli import main
from rlmin.suite.default_cell import EVALUATIONS, DefaultCell, find_steps
from rlmin.suite.default_report import CELLS, as_markdown, summarise
from rlmin.suite.defaults import DefaultOptions, read_default_suite, run_defaults
from rlmin.suite.sb3_cell import SB3Cell
from rlmin.vector.make import make_one

SMALL = """
steps: 600
seeds: 1
columns: {min_gru: {}, stable-baselines3: {peer: PPO}}
tasks:
  maze: {env: rlmin/TMaze-v0, env_kwargs: {length: 2}, floor: 0, ceiling: 1}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


def test_the_shipped_suite_sets_nothing_but_what_belongs_to_a_task_and_its_tasks_can_be_made() -> None:
    suite = read_default_suite("defaults")
    cells = [cell for cell in suite.cells() if cell.seed == 0 and not isinstance(cell, SB3Cell)]
    assert len(suite.tasks) == 19 and len(cells) == 19 * 2
    for cell in cells:
        belongs = {"encoder", *cell.settings["settings"]}
        usual, own = vars(PPOConfig()), vars(cell.config.agent_settings)
        assert {name for name in usual if usual[name] != own[name]} <= belongs, cell.task
    for env, kwargs in {cell.settings["env"]: cell.settings["env_kwargs"] for cell in cells}.items():
        if env != "LunarLander-v3":  # its package is not among those of the tests
            make_one(env, **kwargs).close()


def test_a_suite_trains_both_libraries_and_reports_them_alike(small: Path, tmp_path: Path) -> None:
    options = DefaultOptions(suite=str(small), out=tmp_path / "out", results=tmp_path)
    text = run_defaults(options)
    assert "| maze | " in text and "IQM of normalised returns, final" in text
    with (tmp_path / "small-cells.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["encoder"], row["seed"]) for row in rows] == [
        (column, "0") for column in ("min_gru", "stable-baselines3")
    ]
    assert all(0 < len(row["curve"].split()) <= EVALUATIONS for row in rows)
    assert (tmp_path / "small.png").stat().st_size > 10_000
    assert run_defaults(DefaultOptions(suite=str(small), report=True, out=tmp_path / "out", results=tmp_path)) == text


def test_cells_of_other_machines_join_the_report(small: Path, tmp_path: Path) -> None:
    def run(seeds: int, **more: Any) -> str:
        options = {"suite": str(small), "columns": ("min_gru",), "seeds": seeds, "results": tmp_path, **more}
        return run_defaults(DefaultOptions(**options))

    here, there = tmp_path / "here", tmp_path / "there"
    both = run(2, out=there)
    (tmp_path / "small-cells.csv").rename(tmp_path / "theirs.csv")
    run(1, out=here)
    assert run(1, out=here, report=True, cells=(tmp_path / "theirs.csv",)) == both, "its second seed is theirs"
    assert run(2, out=tmp_path / "new", cells=(tmp_path / "theirs.csv",)) == both
    assert not list((tmp_path / "new").rglob("score.json")), "all of them are finished, so none is trained"
    nothing_here = {"out": tmp_path / "nowhere", "report": True}
    assert run(1, **nothing_here, cells=(tmp_path / "theirs.csv", tmp_path / "small-cells.csv")) == both
    with pytest.raises(ValueError, match="no cell is finished there"):
        run(1, **nothing_here)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("curve", "course"), "expected the columns task, encoder, seed"),
        (("0.75", "high"), "line 2: expected numbers"),
        ((",600,", ",9000,"), r"maze: expected 600 steps, floor 0, ceiling 1; got 9,000, 0, 1"),
        ((",0,1,300 600,0.5 0.75,2", ""), "line 2: expected numbers"),
    ],
)
def test_cells_that_are_none_or_of_another_suite_are_refused(
    change: tuple[str, str], message: str, small: Path, tmp_path: Path
) -> None:
    row = "maze,min_gru,3,600,0.5,0.5,300,0,1,300 600,0.5 0.75,2"
    text = "\n".join((",".join(CELLS), row, ""))
    file = tmp_path / "theirs.csv"
    options = DefaultOptions(suite=str(small), report=True, cells=(file,), out=tmp_path / "out", results=tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        run_defaults(options)
    file.write_text(text)
    assert "| 0.5, worst 0.5, 90 % 0 k |" in run_defaults(options)
    assert change[0] in text
    file.write_text(text.replace(*change))
    with pytest.raises(ValueError, match=message):
        run_defaults(options)


def test_worst_and_steps_to_nine_tenths_are_those_of_the_curve() -> None:
    assert find_steps([10, 20, 30, 40], [0.0, 0.8, 1.0, 0.5], 0.0) == 30
    assert find_steps([10, 20, 30, 40], [-5.0, -4.0, -4.9, -4.0], -5.0) == 20
    assert find_steps([10, 20], [0.0, 0.0], 0.0) is None
    settings = {"floor": 0.0, "ceiling": 1.0}
    curve = [0.0, 0.1, 0.9, 0.3, 0.8, 0.9, 1.0, 1.0]
    row = DefaultCell("task", "mlp", 0, settings).row(range(10_000, 90_000, 10_000), curve, 0.95)
    assert (row["worst"], row["reached"], row["final"]) == (0.3, 30_000.0, 0.95)
    rows = [row | {"seconds": 1.0, "seed": seed, "worst": worst} for seed, worst in ((0, 0.3), (1, 0.7))]
    assert summarise(rows)[0]["worst"] == 0.3, "the worst of any seed"
    assert "0.95 [0.95, 0.95], worst 0.3, 90 % 30 k" in as_markdown(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("columns: {a: {peer: DQN}}\ntasks: {}", "small.yaml: no peer 'DQN'"),
        ("columns: {a: {gama: 1}}\ntasks: {}", "did you mean 'gamma'"),
        ("columns: {}\ntasks: {x: {floor: 0}}", "x: expected ceiling"),
        ("columns: {}\ntasks: {x: {flor: 0}}", "did you mean 'floor'"),
        ("tasks: {}", "expected a mapping with `columns` and `tasks`"),
    ],
)
def test_a_suite_that_cannot_be_is_named(change: str, message: str, small: Path) -> None:
    small.write_text(change)
    with pytest.raises(ValueError, match=message):
        read_default_suite(str(small))


def test_the_command_line_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench"])
    assert "defaults" in capsys.readouterr().out


@pytest.mark.parametrize(("steps", "length"), [(None, 200), (7, 7), (300, 300)])
def test_episodes_in_another_unit_are_as_long_as_asked(steps: int | None, length: int) -> None:
    env = gym.make("rlmin/Rescaled-v0", game="Pendulum-v1", offset=-1, steps=steps)
    env.reset(seed=0)
    ended = [any(env.step(env.action_space.sample())[2:4]) for _ in range(length)]
    assert ended == [False] * (length - 1) + [True]


def test_rewards_in_another_unit_are_those_of_the_game_scaled_and_moved() -> None:
    plain, other = gym.make("CartPole-v1"), gym.make("rlmin/Rescaled-v0", game="CartPole-v1", scale=1e4, offset=-1)
    plain.reset(seed=0), other.reset(seed=0)
    for action in (0, 1, 1, 0):
        one, another = plain.step(action), other.step(action)
        assert (one[0] == another[0]).all() and another[1] == 1e4 * float(one[1]) - 1
    assert other.unwrapped.spec is not None
