"""Many seeds of one run: each is a single run of that seed, and the same command goes on with what is missing."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_compare import run

from rlmin import load
from rlmin.cli import OF_SEEDS, main
from rlmin.commands.arguments import split_options
from rlmin.commands.train_config import OnlineRun
from rlmin.runs.groups import expand_seeds
from rlmin.suite.run import SCORE, read_finished
from rlmin.suite.seeds import SeedCell, write_report
from rlmin.suite.seeds_view import SeedsView, read_state

SMALL = "--num-envs 8 --width 8 --layers 1 --horizon 16 --eval-episodes 8 --evaluations 2 --threads 1"
COMMAND = ["train", "tmaze", "--env-kwargs", "length=3", "--total-timesteps", "512", *SMALL.split()]


def test_options_of_seeds_are_told_from_those_of_a_run() -> None:
    typed = ["--lr", "1e-3", "--seeds", "5", "--env-kwargs", "length=3", "start=-1", "--jobs=2", "--on", "ray"]
    many, own = split_options(typed, OF_SEEDS)
    assert many == ["--seeds", "5", "--jobs", "2", "--on", "ray"]
    assert own == ["--lr", "1e-3", "--env-kwargs", "length=3", "start=-1"]
    assert split_options(own, OF_SEEDS) == ([], own)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train tmaze --jobs 2", "--jobs: belongs to --seeds N"),
        ("train tmaze --seeds 0", "seeds: expected a whole number from 1 to 1000, got 0"),
        ("train tmaze --seeds 2 --on slurn", "did you mean 'slurm'"),
        ("train tmaze --seeds 2 --lrr 1e-3", "no option '--lrr'; did you mean '--lr'"),
        ("train --resume runs/x --seeds 2", "goes on with a single run"),
        ("train --env rlmin/TMase-v0 --seeds 2", "TMase"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and message in lines[0]
    assert not list(tmp_path.iterdir())


def test_the_report_has_a_row_a_seed_and_the_statistics_of_all(tmp_path: Path) -> None:
    folders = [run(tmp_path / f"seed-{seed}", [0.5, seed], seed=seed) for seed in range(4)]
    rows = [
        {"seed": seed, "steps": 200, "final": float(seed), "seconds": 1.0, "folder": folder.name, "settings": {}}
        for seed, folder in enumerate(folders)
    ]
    text = write_report(rows, folders, tmp_path)
    assert "seed 3: 3.000" in text and "interquartile mean 1.500 [" in text and "mine/A-v0" in text
    written = list(csv.DictReader((tmp_path / "seeds.csv").read_text().splitlines()))
    assert [row["final"] for row in written] == ["0", "1", "2", "3"]
    assert (tmp_path / "curves.png").stat().st_size > 1000
    unplayed = write_report([{**row, "final": None} for row in rows], folders, tmp_path)
    assert "seed 3: not played" in unplayed and "greedy" not in unplayed


def test_the_view_reads_what_runs_have_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path / "seed-0", [0.5, 0.75], seed=0)
    assert read_state(folder) == (200, -0.75)
    with (folder / "metrics.csv").open("a") as file:
        file.write("300,1,2")  # a row that is being written
    assert read_state(folder) == (200, -0.75) and read_state(tmp_path / "none") == (0, None)
    with SeedsView({"seed 0": folder, "seed 1": tmp_path / "none"}, 400) as view:
        view.printed = view.seen = -100.0
        view.look()
    assert "seed 0 50 %  seed 1 0 %" in capsys.readouterr().err


@pytest.mark.slow
def test_seeds_are_single_runs_and_are_trained_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main([*COMMAND, "--seed", "1", "--folder", "single"])
    capsys.readouterr()
    seeds = [*COMMAND, "--seeds", "2", "--jobs", "2"]
    main(seeds)
    table = capsys.readouterr().out
    out = tmp_path / "runs" / "tmaze-seeds"
    single, of_many = (load(folder).policy.state_dict() for folder in (tmp_path / "single", out / "seed-1"))
    assert all(torch.equal(x, of_many[name]) for name, x in single.items())
    other = load(out / "seed-0").policy.state_dict()
    assert not all(torch.equal(x, other[name]) for name, x in single.items())
    row = json.loads((out / "seed-1" / SCORE).read_text())
    assert f"seed 1: {row['final']:.3f}" in table and row["steps"] == 512
    shutil.rmtree(out / "seed-0")
    before = (out / "seed-1" / SCORE).stat().st_mtime_ns
    main(seeds)
    assert capsys.readouterr().out == table and (out / "seed-1" / SCORE).stat().st_mtime_ns == before
    with pytest.raises(SystemExit):
        main([*seeds, "--lr", "1e-2"])
    assert "lr=0.0005 and not 0.01; choose another --folder" in capsys.readouterr().err


@pytest.mark.slow
def test_seeds_that_are_not_played_are_finished_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seeds = " ".join([*COMMAND, "--seeds 2"]).replace("--eval-episodes 8", "--eval-episodes 0").split()
    main(seeds)
    table = capsys.readouterr().out
    assert "seed 0: not played" in table and "seed 1: not played" in table
    main(seeds)
    assert capsys.readouterr().out == table


@pytest.mark.parametrize(("final", "plays", "fits"), [(None, False, True), (None, True, False), ("x", False, False)])
def test_a_row_without_a_score_is_finished_where_nobody_plays(
    final: Any, plays: bool, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = SeedCell("runs", "min_gru", 0, {}, chosen=OnlineRun(env="rlmin/TMaze-v0"))
    monkeypatch.setattr(SeedCell, "plays", plays)
    folder = cell.folder(tmp_path)
    folder.mkdir()
    (folder / SCORE).write_text(json.dumps({"seed": 0, "steps": 1, "final": final, "seconds": 1.0, "settings": {}}))
    if fits:
        assert read_finished(cell, tmp_path) is not None
        return
    with pytest.raises(ValueError, match="expected the row of a finished cell"):
        read_finished(cell, tmp_path)


def test_a_folder_of_seeds_stands_for_its_runs(tmp_path: Path) -> None:
    for name in ("many/seed-2", "many/seed-10", "many/other", "one"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("many/seed-2", "many/seed-10", "one"):
        (tmp_path / name / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "one/seed-0").mkdir()
    found = expand_seeds([tmp_path / "many", tmp_path / "one", tmp_path / "none"])
    assert found == [tmp_path / name for name in ("many/seed-2", "many/seed-10", "one", "none")]
