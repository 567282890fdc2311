"""Comparisons of runs: known answers, refusals with their reason, and the same table in every format."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rlmin.cli import main
from rlmin.runs.compare import compare_runs, interval, probability_of_improvement
from rlmin.runs.compare_tables import write_latex, write_markdown, write_text
from rlmin.runs.curves import SECONDS
from rlmin.runs.logs import STEPS

GREEDY, RETURN = "eval/mean_reward", "rollout/ep_rew_mean"


def run(
    folder: Path, scores: list[float], *, seed: int, every: int = 100, env: str = "mine/A-v0", **config: Any
) -> Path:
    """A run as training leaves it, as far as a comparison reads it."""
    folder.mkdir(parents=True)
    made = {"id": env, "kwargs": {"length": config.pop("length", 4)}, "workers": 0}
    said = {"agent": "ppo", "env": made, "seed": seed, "config": {"encoder": "min_gru", **config}}
    (folder / "config.yaml").write_text(yaml.safe_dump(said))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([STEPS, SECONDS, GREEDY, RETURN])
        writer.writerows([every * (i + 1), i, score, -score] for i, score in enumerate(scores))
    return folder


def groups(tmp_path: Path, *, seeds: tuple[int, ...] = (0, 1, 2, 3)) -> list[Path]:
    """minGRU ends at 1, 2, 3, 10, an LSTM 0.5 below it seed by seed."""
    ends = [1.0, 2.0, 3.0, 10.0]
    lstm = [run(tmp_path / f"l{i}", [0, x - 0.5], seed=i, encoder="lstm") for i, x in enumerate(ends)]
    ours = [run(tmp_path / f"g{i}", [x / 2, x], seed=s) for i, (s, x) in enumerate(zip(seeds, ends, strict=True))]
    return [*lstm, *ours]


def test_the_numbers_are_those_counted_by_hand(tmp_path: Path) -> None:
    found = compare_runs(groups(tmp_path), threshold=1.0)
    lstm, ours = found.rows
    assert (found.column, found.steps, lstm.name, ours.name) == (GREEDY, 200, "encoder=lstm", "encoder=min_gru")
    assert ours.mean.value == 4.0 and ours.iqm.value == 2.5 and lstm.difference is None is lstm.improvement
    x, y = [1, 2, 3, 10], [0.5, 1.5, 2.5, 9.5]
    assert ours.improvement is not None and ours.improvement.value == np.mean([a > b for a in x for b in y])
    assert ours.difference is not None and ours.difference == (0.5, 0.5, 0.5) and ours.is_paired
    assert (ours.steps_to_threshold, ours.reached, lstm.reached) == (100.0, 4, 3)
    assert ours.mean.low < 3 < 4 < ours.mean.high


def test_unlike_seeds_are_no_pairs(tmp_path: Path) -> None:
    found = compare_runs(groups(tmp_path, seeds=(0, 1, 2, 7)))
    difference = found.rows[1].difference
    assert not found.rows[1].is_paired and difference is not None and difference.low < -3 < 4 < difference.high
    assert found.rows[1].steps_to_threshold is None


def test_the_intervals_cover_what_they_should() -> None:
    """Of 200 samples of 20 normal numbers, the 95 % interval holds the true mean in 90 % at least, and not in all."""
    random = np.random.default_rng(0)
    held = [interval((random.normal(size=20),), lambda x, axis: x.mean(axis)) for _ in range(200)]
    assert 180 <= sum(x.low < 0 < x.high for x in held) < 200
    assert probability_of_improvement(np.array([1.0, 1.0]), np.array([1.0, 0.0])) == 0.75


def test_what_does_not_compare_is_refused(tmp_path: Path) -> None:
    base = run(tmp_path / "a", [1, 2], seed=0)
    with pytest.raises(ValueError, match=r"unlike tasks do not compare: env is mine/A-v0 in .*a, mine/B-v0 in .*b"):
        compare_runs([base, run(tmp_path / "b", [1, 2], seed=0, env="mine/B-v0")])
    with pytest.raises(ValueError, match=r"unlike tasks do not compare: length is 4 in .*, 5 in "):
        compare_runs([base, run(tmp_path / "c", [1, 2], seed=0, length=5)])
    longer = run(tmp_path / "d", [1, 2, 3, 4], seed=1)
    with pytest.raises(ValueError, match=r"unlike budgets do not compare: .*a ends at 200 .*d at 400; .*--at 200"):
        compare_runs([base, longer])
    assert compare_runs([base, longer], at=200).rows[0].mean.value == 2
    with pytest.raises(ValueError, match=r"at=300: .*a ends at 200 steps"):
        compare_runs([base, longer], at=300)
    with pytest.raises(ValueError, match=r"no column 'eval/mean_rewrd'; did you mean 'eval/mean_reward'"):
        compare_runs([base], column="eval/mean_rewrd")


def test_every_format_holds_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"table{suffix}" for suffix in (".csv", ".md", ".tex", ".txt")]
    main(["compare", *map(str, groups(tmp_path)), "--threshold", "1", "--file", *map(str, files)])
    said = capsys.readouterr().out
    table, markdown, latex, text = (file.read_text() for file in files)
    assert said.startswith(text) and "differences of pairs of equal seeds" in text and "100 (3 of 4)" not in text
    (lstm, ours) = csv.DictReader(table.splitlines())
    assert (ours["mean"], ours["iqm"], ours["paired"], lstm["difference"]) == ("4.0", "2.5", "True", "")
    assert "| encoder=min_gru | 4 | 4 [" in markdown and "warning" not in markdown
    assert r"encoder=min\_gru & 4 & 4 [" in latex and latex.count(r"\\") == 3
    with pytest.raises(SystemExit, match="2"):
        main(["compare", str(tmp_path / "g0"), "--file", "x.doc"])
    main(["compare", str(tmp_path / "g0"), str(tmp_path / "g1")])
    assert "warning: fewer than 3 seeds" in capsys.readouterr().out


def test_a_name_is_text_in_every_format_and_a_minus_is_one(tmp_path: Path) -> None:
    found = compare_runs(groups(tmp_path), column=RETURN, threshold=-5.0)
    odd = replace(found, rows=tuple(replace(row, name=r"a\b|c_d~e^f {50 %}-1") for row in found.rows))
    latex = write_latex(odd).partition(r"\midrule")[2]
    assert r"a\textbackslash{}b|c\_d\textasciitilde{}e\textasciicircum{}f \{50 \%\}" in latex
    assert "& $-$4 [$-$" in latex and " -" not in latex and "[-" not in latex
    lines = write_markdown(odd).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")}) == 1
    assert "steps to a score: median over seeds" in write_text(found) or "(n of m)" in write_text(found)
