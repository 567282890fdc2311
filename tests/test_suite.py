"""The suite runner: cells are trained once, resumed where they stopped, and reported under both protocols."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import trim_mean
from unix import SIGNALS

from rlmin import PPO, load
from rlmin.commands.train import train
from rlmin.runs.checkpoint import LEARNER, read_header
from rlmin.runs.logs import make_logger
from rlmin.runs.statistics import interquartile_mean, iqm_interval, mean_interval, normalise
from rlmin.suite import SuiteOptions, run_suite
from rlmin.suite.cells import SUITES, anchors, read_suite, score
from rlmin.suite.report import as_markdown, draw_scores, iqm, summarise
from rlmin.suite.run import SCORE, read_finished, train_cell

MAZE = """
steps: 512
encoders: [min_gru, mlp]
seeds: 2
settings: {num_envs: 8, width: 8, layers: 1, mlp: 0, horizon: 16, epochs: 1}
tasks:
  rlmin/TMaze-v0: {env_kwargs: {length: 3}}
"""
SMALL = MAZE + "  cart pole: {env: CartPole-v1, steps: 256}\n"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


def test_a_suite_is_every_task_encoder_and_seed_with_its_own_settings(small: Path) -> None:
    suite = read_suite(str(small))
    cells = suite.cells()
    assert len(cells) == 2 * 2 * 2
    assert {(cell.task, cell.encoder, cell.seed) for cell in cells} == {
        (task, encoder, seed) for task in suite.tasks for encoder in ("min_gru", "mlp") for seed in (0, 1)
    }
    maze, cart = cells[0].config, cells[-1].config
    assert (maze.env, maze.env_kwargs, maze.total_timesteps) == ("rlmin/TMaze-v0", ("length=3",), 512)
    assert (cart.env, cart.total_timesteps, cart.encoder, cart.seed, cart.width) == ("CartPole-v1", 256, "mlp", 1, 8)


def test_a_task_can_have_its_own_seeds_and_encoders_and_options_win(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    own = "  rlmin/RepeatFirstEasy-v0: {seeds: 3, encoders: [gru]}"
    file.write_text(f"encoders: [min_gru, mlp]\nseeds: 2\ntasks:\n  rlmin/TMaze-v0: {{}}\n{own}")
    made = [(cell.task, cell.encoder) for cell in read_suite(str(file)).cells()]
    assert made.count(("rlmin/RepeatFirstEasy-v0", "gru")) == 3 == len(made) - 4
    options = SuiteOptions(suite=str(file), seeds=1, encoders=("lstm",))
    assert {(cell.encoder, cell.seed) for cell in options.select().cells()} == {("lstm", 0)}


def test_every_encoder_of_a_task_can_have_its_own_seeds(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("seeds: 5\ntasks:\n  rlmin/TMaze-v0: {encoders: {min_gru: 3, mlp: 2}}")
    cells = read_suite(str(file)).cells()
    found = [(cell.encoder, cell.seed) for cell in cells]
    assert found == [("min_gru", 0), ("min_gru", 1), ("min_gru", 2), ("mlp", 0), ("mlp", 1)]
    chosen = SuiteOptions(suite=str(file), encoders=("mlp", "gru")).select()
    assert chosen.columns(chosen.tasks["rlmin/TMaze-v0"]) == {"mlp": 2, "gru": 5}
    assert len(SuiteOptions(suite=str(file), seeds=1).select().cells()) == 2


def test_a_suite_runs_reports_and_does_not_train_twice(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = SuiteOptions(suite=str(small), out=out, results=out, encoders=("min_gru",), seeds=2)
    table = run_suite(options)
    assert "| rlmin/TMaze-v0 | 512 | 2 | 0.5 | 1 |" in table and "IQM of normalised scores, best" in table
    for kind in ("small-cells.csv", "small.csv", "small.md", "small-curves.png", "small-scores.png"):
        assert (out / kind).stat().st_size > 100, kind
    rows = list(csv.DictReader((out / "small-cells.csv").read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["0", "1", "0", "1"] and all(float(row["steps"]) >= 256 for row in rows)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    assert run_suite(options) == table
    assert before == {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}, "nothing was trained again"


def test_a_half_trained_cell_goes_on_and_ends_where_an_uninterrupted_one_does(small: Path, tmp_path: Path) -> None:
    cell = read_suite(str(small)).cells()[0]
    config = cell.config
    train(replace(config, folder=cell.folder(tmp_path / "whole")), progress_bar=False)
    wanted = score(cell, cell.folder(tmp_path / "whole"))

    agent = PPO(config.env, config=config.agent_settings, seed=config.seed, env_kwargs={"length": 3})
    agent.learn(256)
    agent.total_timesteps, agent.run = 512, config.run
    half = cell.folder(tmp_path / "half")
    agent.save(half)
    make_logger(half, {}, until=0).close()  # the log of the part that was trained, empty as nothing was dumped
    row = train_cell(cell, tmp_path / "half")
    assert load(half).num_timesteps == 512
    assert row["final"] == wanted["final"]


def test_cells_of_other_settings_are_not_mixed_in(small: Path, tmp_path: Path) -> None:
    cell = read_suite(str(small)).cells()[-1]
    train_cell(cell, tmp_path)
    assert read_finished(cell, tmp_path) is not None
    file = cell.folder(tmp_path) / SCORE
    row = json.loads(file.read_text())
    row["settings"]["width"] = 16
    file.write_text(json.dumps(row))
    with pytest.raises(ValueError, match="width=16 and not 8"):
        read_finished(cell, tmp_path)


def test_a_half_trained_cell_of_other_settings_is_refused(small: Path, tmp_path: Path) -> None:
    cell = next(cell for cell in read_suite(str(small)).cells() if cell.encoder == "min_gru")
    folder = cell.folder(tmp_path)
    train(replace(cell.config, folder=folder, total_timesteps=256), progress_bar=False)
    with pytest.raises(ValueError, match=r"half-trained with total_timesteps=256 and not \d+; choose another --out"):
        train_cell(cell, tmp_path)


def rows(scores: dict[tuple[str, str], list[float]]) -> list[dict[str, object]]:
    return [
        {"task": task, "encoder": encoder, "seed": seed, "steps": 10, "final": x, "best": x + 0.1, "success": None}
        | {"floor": -0.5, "ceiling": 1.0}
        for (task, encoder), found in scores.items()
        for seed, x in enumerate(found)
    ]


def test_the_table_says_mean_interval_best_floor_and_ceiling() -> None:
    table = rows({("a", "min_gru"): [1.0, 0.4], ("a", "mlp"): [-0.5, -0.5], ("b", "min_gru"): [0.1, 0.7]})
    line = summarise(table)[0]
    assert (line["final"], line["best"]) == (pytest.approx(0.7), pytest.approx(0.8))
    assert line["final low"] == pytest.approx(0.4) and line["final high"] == pytest.approx(1.0)
    text = as_markdown(table)
    assert "| a | 10 | 2 | -0.5 | 1 | 0.700 [0.400, 1.000] (0.800) | -0.500 [-0.500, -0.500] (-0.400) |" in text
    found = iqm(table, "min_gru", "final")
    assert found is not None and found.value == pytest.approx(np.mean([0.6, 1.0])), "only what both have played"
    found = iqm(table + rows({("b", "mlp"): [0.0]}), "min_gru", "final")
    assert found is not None and found.value == pytest.approx(np.mean([0.6, 0.8]))  # of 0.4, 0.6, 0.8, 1.0


def test_the_longer_side_of_the_heat_map_goes_down() -> None:
    wide = rows({("t", "a"): [0.5], ("t", "b"): [1.0], ("u", "a"): [0.0]})
    axes = draw_scores(wide).axes[0]
    assert [x.get_text() for x in axes.get_yticklabels()] == ["t", "u"]
    axes = draw_scores([*wide, *rows({("u", "c"): [0.25]})]).axes[0]
    assert [x.get_text() for x in axes.get_yticklabels()] == ["a", "b", "c"]
    shown = {(round(x.get_position()[0]), round(x.get_position()[1])): x.get_text() for x in axes.texts}
    assert shown == {(0, 0): "0.50", (0, 1): "1.00", (1, 0): "0.00", (1, 2): "0.25"}


def test_the_interquartile_mean_is_scipys_trimmed_mean() -> None:
    random = np.random.default_rng(0)
    for n in (1, 2, 3, 4, 5, 8, 11, 20):
        scores = random.normal(size=(3, n))
        assert np.allclose(interquartile_mean(scores), trim_mean(scores, 0.25, axis=-1))


def test_bootstrap_intervals_cover_the_mean_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        found = mean_interval(random.normal(size=30).tolist())
        inside += found.low <= 0 <= found.high
    assert 0.87 <= inside / 200 <= 0.99
    constant = mean_interval([2.0, 2.0])
    assert constant == (2.0, 2.0, 2.0)


def test_tasks_keep_their_weight_in_the_interval() -> None:
    found = iqm_interval([[0.0] * 5, [1.0] * 5])
    assert found == (0.5, 0.5, 0.5), "resampling within tasks changes nothing here; across tasks it would"


def test_scores_are_normalised_between_floor_and_ceiling() -> None:
    assert [normalise(x, -0.5, 1.0) for x in (-0.5, 1.0, 0.25)] == [0.0, 1.0, 0.5]


def test_anchors_are_those_of_the_game() -> None:
    known = anchors("rlmin/TMaze-v0")
    assert known is not None and (known.floor, known.ceiling) == (0.5, 1.0)
    assert anchors("CartPole-v1") is None


OTHERS = ("offline", "decision-defaults", "defaults", "stability")
"""Suites of another form, which have tests of their own."""


@pytest.mark.parametrize(
    "name",
    [path.stem for path in SUITES.glob("*.yaml") if path.stem not in OTHERS],
)
def test_the_suites_of_the_library_can_be_read(name: str) -> None:
    for cell in read_suite(name).cells():
        assert cell.config.threads == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: {a: {widht: 3}}", "no setting 'widht'; did you mean 'width'"),
        ("tasks: {a: {}}\nencoders: [mingru]", "no encoder 'mingru'"),
        ("seed: 3\ntasks: {a: {}}", "no entry 'seed'; did you mean 'seeds'"),
        ("steps: 3", "expected a mapping with `tasks`"),
        ("tasks: {a: {", "not readable as YAML"),
        ("steps: null\ntasks: {a: {}}", "suite: steps: expected a whole number of at least 1, got None"),
        ("tasks: {a: {seeds: [1]}}", "a: seeds: expected a whole number"),
        ("tasks: {a: {encoders: {mlp: x}}}", "a: seeds of mlp: expected a whole number"),
        ("tasks: {a: {}}\nencoders: 3", "suite: encoders: expected a list"),
    ],
)
def test_a_bad_suite_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_suite(str(file))


def test_unknown_names_suggest_the_right_one(small: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'rlmin/TMaze-v0'"):
        SuiteOptions(suite=str(small), tasks=("rlmin/TMase-v0",)).select()
    with pytest.raises(ValueError, match="no suite"):
        read_suite("nothing")


@SIGNALS
@pytest.mark.slow
@pytest.mark.parametrize(("send", "number"), [("killpg", signal.SIGINT), ("kill", signal.SIGTERM)])
def test_one_signal_stops_every_process_and_the_next_start_goes_on(send: str, number: int, tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text(SMALL.replace("steps: 512", "steps: 10_000_000"))
    command = ["bench", "memory", "--suite", str(file), "--out", str(tmp_path), "--results", str(tmp_path)]
    # a shell begins its background jobs deaf to SIGINT
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = [sys.executable, "-c", f"{heard}; from rlmin.cli import main; main({command!r})"]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        learner = tmp_path / "long" / "rlmin-TMaze-v0" / "min_gru-0" / LEARNER
        for _ in range(3000):  # seconds on a free machine, minutes beside other tests
            if learner.is_file():
                break
            time.sleep(0.1)
        time.sleep(1)
        began = time.monotonic()
        getattr(os, send)(running.pid, number)  # a terminal sends to the group, a scheduler to the one process it knows
        try:
            said = running.communicate(timeout=300)[1]
        finally:
            running.kill()  # if it did not listen, or this would wait for it
    assert running.returncode == 130 and "the same command continues" in said and "Traceback" not in said
    assert time.monotonic() - began < 200, "millions of steps were still to come"
    assert read_header(learner.parent, LEARNER)["total_timesteps"] == 10_000_000
