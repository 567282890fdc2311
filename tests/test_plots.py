"""Plots: what runs have logged, seeds together with their interval; a picture is written whole or not at all."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rlmin.cli import main
from rlmin.runs.curves import SECONDS, mean_curve, read_curve, smooth_curve
from rlmin.runs.groups import Group, group_runs
from rlmin.runs.logs import STEPS
from rlmin.runs.plots import plot_runs
from rlmin.runs.statistics import mean_band, mean_interval

RETURN, SUCCESS, LOSS = "rollout/ep_rew_mean", "rollout/success_rate", "train/loss"
MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def run(folder: Path, *, seed: int = 0, rows: int = 7, agent: str = "ppo", lacks: str = "", **config: Any) -> Path:
    """A run as training leaves it, as far as plots read it: the return of row i is i + seed."""
    folder.mkdir(parents=True)
    env = {"id": "rlmin/TMaze-v0", "kwargs": {"length": config.pop("length", 4)}, "workers": 0}
    said = {"agent": agent, "rlmin": "0.1.0", "env": env, "seed": seed, "config": {"encoder": "min_gru", **config}}
    (folder / "config.yaml").write_text(yaml.safe_dump({**said, "run": {"device": "cpu", "threads": seed}}))
    table = [{STEPS: 40 * (i + 1), SECONDS: 0.5 * (i + 1), RETURN: i + seed, LOSS: -i} for i in range(rows)]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in table[0] if name != lacks], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    return folder


# curves


def test_a_curve_is_read_over_steps_and_over_time(tmp_path: Path) -> None:
    run(tmp_path / "a", rows=3, seed=5)
    assert read_curve(tmp_path / "a", RETURN) == ([40.0, 80.0, 120.0], [5.0, 6.0, 7.0])
    assert read_curve(tmp_path / "a", RETURN, over=SECONDS)[0] == [0.5, 1.0, 1.5]
    assert read_curve(tmp_path / "a", "no/such") == ([], [])


def test_a_row_that_lacks_the_value_is_left_out_and_a_word_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(f"{STEPS},{RETURN},{LOSS}\n10,,1\n20,3,\n30,4,word\n4")
    assert read_curve(tmp_path, RETURN) == ([20.0, 30.0], [3.0, 4.0]), "the last row is still being written"
    with pytest.raises(ValueError, match=r"metrics\.csv: train/loss: expected numbers .*'word'"):
        read_curve(tmp_path, LOSS)


def test_the_mean_of_curves_is_over_what_all_have_and_linear_between_their_points() -> None:
    found = mean_curve([([0, 10, 20], [0.0, 1.0, 2.0]), ([5, 15], [7.0, 7.0])])
    assert found.x.tolist() == [5, 10, 15]
    np.testing.assert_allclose(found.mean, [(0.5 + 7) / 2, (1 + 7) / 2, (1.5 + 7) / 2], rtol=0, atol=1e-12)
    assert (found.low < found.mean).all() and (found.mean < found.high).all()
    with pytest.raises(ValueError, match="nothing in common: one begins at 30, another ends at 20"):
        mean_curve([([0, 20], [1.0, 1.0]), ([30, 40], [1.0, 1.0])])


def test_long_curves_are_thinned_and_one_alone_is_itself() -> None:
    x = np.arange(3001.0)
    found = mean_curve([(x, 2 * x), (x, 4 * x)])
    assert len(found.x) == 400 and (found.x[0], found.x[-1]) == (0, 3000)
    np.testing.assert_allclose(found.mean, 3 * found.x)
    alone = mean_curve([([1, 2], [3.0, 5.0])])
    assert alone.mean.tolist() == alone.low.tolist() == alone.high.tolist() == [3, 5]


def test_the_band_is_at_each_point_the_interval_of_the_mean_over_seeds() -> None:
    curves = np.random.default_rng(3).normal(size=(5, 3))
    columns = [mean_interval(curves[:, i].tolist()) for i in range(3)]
    np.testing.assert_allclose(np.stack(mean_band(curves), axis=1), columns, rtol=0, atol=1e-12)
    assert not np.allclose(mean_band(curves[:4])[1], [column.low for column in columns]), "the arm that must fail"


def test_smoothing_is_the_weighted_mean_of_the_past() -> None:
    values = [3.0, -1.0, 4.0, 2.0]
    assert smooth_curve(values, 0.0) == values
    weights = np.array([0.6**3, 0.6**2, 0.6, 1])
    assert smooth_curve(values, 0.6)[-1] == pytest.approx((weights * values).sum() / weights.sum(), abs=1e-12)
    assert smooth_curve([2.0] * 5, 0.9) == pytest.approx([2.0] * 5, abs=1e-12), "no bias towards 0 at the beginning"


# groups


def test_runs_that_differ_in_the_seed_alone_are_one_group_named_by_what_sets_it_apart(tmp_path: Path) -> None:
    gru = [run(tmp_path / f"gru-{seed}", seed=seed) for seed in range(3)]
    mlp = [run(tmp_path / f"mlp-{seed}", seed=seed, encoder="mlp") for seed in range(2)]
    assert group_runs([mlp[0], *gru, mlp[1]]) == [
        Group("encoder=mlp", tuple(mlp)),
        Group("encoder=min_gru", tuple(gru)),
    ]
    assert [group.name for group in group_runs(gru)] == ["rlmin/TMaze-v0"]
    alone = group_runs([*gru, mlp[0]], by_seed=False)
    assert [group.name for group in alone] == ["gru-0", "gru-1", "gru-2", "mlp-0"]


def test_every_setting_in_which_groups_differ_is_named_and_no_other(tmp_path: Path) -> None:
    folders = [run(tmp_path / "a", lr=1e-3), run(tmp_path / "b", lr=1e-4, length=9)]
    assert [group.name for group in group_runs(folders)] == ["length=4, lr=0.001", "length=9, lr=0.0001"]


def test_options_that_come_with_the_encoder_are_not_named_beside_it(tmp_path: Path) -> None:
    gru = run(tmp_path / "gru", encoder="min_gru", candidate="tanh", time_scales=[2.0, 256.0])
    mlp = run(tmp_path / "mlp", encoder="mlp", candidate=None, time_scales=None)
    assert [group.name for group in group_runs([gru, mlp])] == ["encoder=min_gru", "encoder=mlp"]
    other = run(tmp_path / "g", encoder="min_gru", candidate="g", time_scales=[2.0, 256.0])
    assert group_runs([gru, other, mlp])[1].name == "candidate=g, encoder=min_gru", "two of one encoder"


def test_groups_that_differ_in_too_much_are_named_by_their_folders(tmp_path: Path) -> None:
    many: dict[str, Any] = {"lr": 1e-4, "gamma": 0.9, "lam": 0.8, "clip": 0.1}
    plain = [run(tmp_path / f"plain-{seed}", seed=seed) for seed in range(2)]
    tuned = run(tmp_path / "tuned-0", **many)
    assert [group.name for group in group_runs([*plain, tuned])] == ["plain", "tuned-0"]


def test_a_run_without_its_settings_has_the_name_of_its_folder(tmp_path: Path) -> None:
    folders = [run(tmp_path / "told"), run(tmp_path / "bare")]
    (folders[1] / "config.yaml").unlink()
    assert [group.name for group in group_runs(folders)] == ["told", "bare"]


def test_agents_of_two_kinds_are_compared_in_what_both_have(tmp_path: Path) -> None:
    folders = [run(tmp_path / "a", clip=0.2), run(tmp_path / "b", agent="decision", rows=3, weight_decay=1e-4)]
    assert [group.name for group in group_runs(folders)] == ["agent=ppo", "agent=decision"]


def test_a_run_counts_once_and_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one, other = run(tmp_path / "a" / "0"), run(tmp_path / "b" / "0", seed=1)
    assert [group.folders for group in group_runs([one, one / ".." / "0"])] == [(one,)]
    assert [group.name for group in group_runs([one, other], by_seed=False)] == [str(one), str(other)]


# pictures


@pytest.mark.parametrize("suffix", MAGIC)
def test_a_picture_is_of_the_kind_its_name_says_and_the_same_each_time(tmp_path: Path, suffix: str) -> None:
    folders = [run(tmp_path / f"{seed}", seed=seed) for seed in range(2)]
    files = [tmp_path / f"a{suffix}", tmp_path / "new" / f"b{suffix}"]
    plot_runs(folders, files)
    content = files[0].read_bytes()
    assert content.startswith(MAGIC[suffix]) and content == files[1].read_bytes()
    plot_runs(folders, files, over="time", smooth=0.5, columns=[LOSS, RETURN])
    assert files[0].read_bytes() != content


def test_a_panel_is_a_column_and_a_line_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *where, **how: drawn.append(self))
    folders = [run(tmp_path / f"{seed}", seed=seed, rows=5 + seed) for seed in range(3)]
    other = run(tmp_path / "other", encoder="mlp", lacks=RETURN)
    plot_runs([*folders, other], [tmp_path / "x.png"], columns=[LOSS, RETURN])
    loss, returned = drawn[0].axes
    assert [line.get_label() for line in loss.lines] == ["encoder=min_gru (3 seeds)", "encoder=mlp"]
    assert [line.get_label() for line in returned.lines] == ["encoder=min_gru (3 seeds)"]
    line = returned.lines[0]
    assert np.asarray(line.get_xdata()).tolist() == [40, 80, 120, 160, 200], "as far as the shortest goes"
    assert np.asarray(line.get_ydata()).tolist() == [1, 2, 3, 4, 5], "the mean of seeds 0, 1, 2"
    assert returned.get_xlabel() == "environment steps" and len(returned.collections) == 1, "shaded"


def test_a_panel_counts_the_seeds_it_draws_and_says_what_is_cut_or_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 0 twice is one seed: the mean is that of seeds 0 and 2, and not of three runs."""
    from matplotlib.figure import Figure

    drawn, said = list[Figure](), list[str]()
    monkeypatch.setattr(Figure, "savefig", lambda self, *where, **how: drawn.append(self))
    folders = [run(tmp_path / "a"), run(tmp_path / "again"), run(tmp_path / "c", seed=2, lacks=LOSS, rows=5)]
    plot_runs(folders, [tmp_path / "x.png"], columns=[LOSS, RETURN], say=said.append)
    loss, returned = (axes.lines[0] for axes in drawn[0].axes)
    assert (loss.get_label(), returned.get_label()) == ("rlmin/TMaze-v0 (2 runs)", "rlmin/TMaze-v0 (3 runs)")
    assert np.asarray(returned.get_ydata()).tolist() == [1, 2, 3, 4, 5]
    assert said == [
        f"{LOSS} of rlmin/TMaze-v0: drawn without {folders[2]}, which lack it",
        f"{RETURN} of rlmin/TMaze-v0: drawn up to 200, where its shortest run ends; one has 280",
        "rlmin/TMaze-v0: an interval over 2 seeds says little; train at least 3",
    ]
    said.clear()
    plot_runs([folders[0], run(tmp_path / "d", seed=3)], [tmp_path / "x.png"], columns=[RETURN], say=said.append)
    assert drawn[1].axes[0].lines[0].get_label() == "rlmin/TMaze-v0 (2 seeds)"


def test_over_time_the_axis_is_in_the_unit_that_suits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *where, **how: drawn.append(self))
    for rows, unit, last in ((3, "seconds", 1.5), (480, "minutes", 4.0)):
        plot_runs([run(tmp_path / unit, rows=rows)], [tmp_path / "x.png"], over="time")
        axes = drawn[-1].axes[0]
        assert axes.get_xlabel() == f"wall-clock time of learning, {unit}"
        assert np.asarray(axes.lines[0].get_xdata())[-1] == pytest.approx(last)


WRONG = {
    "no folder": (["none"], "none: no such run folder"),
    "a folder without metrics": (["."], r"\.: expected metrics\.csv in it"),
    "an unknown column": (["a", "--columns", "train/los"], "no column 'train/los'; did you mean 'train/loss'?"),
    "an unknown kind": (["a", "--file", "x.svg", "y.jpg"], r"no kind of picture '\.jpg'; .*\.png"),
    "no suffix": (["a", "--file", "x"], "no kind of picture ''; known: .pdf, .png, .svg"),
    "a weight of one": (["a", "--smooth", "1"], "smooth: expected a number from 0 to below 1, got 1"),
    "no time": (["old", "--over", "time"], "old: no time/time_elapsed in its metrics; an earlier rlmin"),
    "no row": (["empty"], r"metrics\.csv: expected at least one row"),
    "seeds apart": (["a", "later"], "rollout/ep_rew_mean of rlmin/TMaze-v0: the curves have nothing in"),
    "a file in the way": (["a", "--file", "x.svg", "a/config.yaml/x.png"], "config.yaml is no folder"),
    "a folder in the way": (["a", "--file", "x.svg", "taken.png"], "taken.png: expected a picture to write, found a f"),
    "not text": (["bytes"], r"metrics\.csv: not readable as CSV .*decode"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_drawn_is_said_in_one_line_and_leaves_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(Path("a"))
    run(Path("old"), lacks=SECONDS)
    run(Path("later"), seed=1)
    Path("later/metrics.csv").write_text(f"{STEPS},{SECONDS},{RETURN}\n9000,1,2\n")
    run(Path("empty"), rows=1)
    Path("empty/metrics.csv").write_text(f"{STEPS},{RETURN}\n")
    run(Path("bytes"))
    Path("bytes/metrics.csv").write_bytes(b"\xff\xfe\x00\x81")
    Path("taken.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    arguments, message = WRONG[case]
    with pytest.raises(SystemExit) as stopped:
        main(["plot", *arguments])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(message, said), said
    assert sorted(tmp_path.rglob("*")) == before
    main(["plot", "a", "--file", "x.png"])
    assert sorted(tmp_path.rglob("*")) != before, "the arm that must write"


def test_real_runs_of_both_agents_are_drawn_over_time_which_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    from rlmin import DecisionAgent
    from rlmin.agents.decision import DecisionConfig
    from rlmin.commands.train import TrainConfig, resume, train
    from rlmin.data import Episode
    from rlmin.runs.logs import make_logger

    small = TrainConfig(
        env="rlmin/TMaze-v0",
        env_kwargs=("length=3",),
        total_timesteps=80,
        num_envs=4,
        horizon=10,
        width=8,
        folder=tmp_path / "ppo",
        eval_episodes=0,
    )
    train(small, progress_bar=False)
    resume(tmp_path / "ppo", total_timesteps=160, progress_bar=False)
    steps, seconds = read_curve(tmp_path / "ppo", SECONDS)
    assert steps == [40, 80, 120, 160] and seconds == sorted(seconds) and len(set(seconds)) == 4

    random = np.random.default_rng(0)
    episodes = [
        Episode(random.normal(size=(9, 3)), random.integers(2, size=8), np.ones(8), terminated=True) for _ in range(5)
    ]
    agent = DecisionAgent(episodes, config=DecisionConfig(width=8, rows=2, horizon=6), seed=0)
    (tmp_path / "decision").mkdir()
    agent.set_logger(make_logger(tmp_path / "decision", {}))
    agent.learn(60, log_interval=2)
    agent.logger.close()
    agent.save(tmp_path / "decision")
    groups = plot_runs([tmp_path / "ppo", tmp_path / "decision"], [tmp_path / "x.svg"], over="time", columns=[LOSS])
    assert [group.name.partition(",")[0] for group in groups] == ["agent=ppo", "agent=decision"]


def test_a_paper_picture_shows_ratios_to_a_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn, said = list[tuple[Figure, dict[str, Any]]](), list[str]()
    monkeypatch.setattr(Figure, "savefig", lambda self, *where, **how: drawn.append((self, how)))
    ours = [run(tmp_path / f"g{seed}", seed=seed) for seed in (1, 2, 3, 10)]
    base = run(tmp_path / "lstm", seed=2, encoder="lstm")
    options: dict[str, Any] = {"style": "paper", "band": "iqm", "relative_to": base, "columns": [RETURN]}
    plot_runs([*ours, base], [tmp_path / "x.png"], say=said.append, **options)
    (figure, how) = drawn[0]
    lines = [np.asarray(line.get_ydata(), float) for line in figure.axes[0].lines]
    np.testing.assert_allclose(lines[0], (np.arange(7) + 2.5) / (np.arange(7) + 2), rtol=1e-12)
    assert how["dpi"] == 300 and (lines[1] == 1).all() and figure.get_size_inches()[0] == pytest.approx(3.3)
    label = figure.axes[0].get_ylabel()
    assert label.endswith("relative") and "relative to encoder=lstm" in figure.get_supxlabel() and said == []
    (legend,) = figure.legends  # above the panel, over which there is no room for it
    assert [text.get_text() for text in legend.get_texts()] == ["encoder=min_gru (4 seeds)", "encoder=lstm"]
    assert figure.get_size_inches()[1] == pytest.approx(2.8), "a panel as high as without it"
    assert max(map(len, label.splitlines())) < 32, "a longer line is cut at the edge"
    with pytest.raises(ValueError, match="is not above 0 everywhere"):
        plot_runs(ours, [tmp_path / "x.png"], columns=[LOSS], relative_to=ours[0])


def test_a_baseline_may_be_a_folder_of_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        run(tmp_path / "lstm" / f"seed-{seed}", seed=seed, encoder="lstm")
    run(tmp_path / "ours", seed=1)
    words = ["plot", str(tmp_path / "ours"), "--relative-to", str(tmp_path / "lstm"), "--file", str(tmp_path / "x.png")]
    main([*words, "--columns", RETURN])
    assert "seed-1, " in capsys.readouterr().out and (tmp_path / "x.png").exists()
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--group", "none"])
    assert "holds 2 seeds, name one of them, as " in capsys.readouterr().err
