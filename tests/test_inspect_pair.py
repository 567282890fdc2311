"""`rlmin inspect RUN RUN`: two runs side by side."""

from pathlib import Path

import pytest

from rlmin import PPO
from rlmin.cli import main

TASK = {"env_kwargs": {"length": 4}, "num_envs": 4, "horizon": 8, "layers": 1, "seed": 0}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, settings in (("a", {"width": 8}), ("b", {"width": 12, "encoder": "mlp"})):
        PPO("rlmin/TMaze-v0", **TASK, **settings).save(name)  # type: ignore[arg-type]
    return tmp_path


def test_a_table_has_both_runs_and_only_the_settings_that_differ(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["inspect", "a", "b", "--episodes", "8", "--file", "pair.txt"])
    shown = capsys.readouterr().out
    assert (runs / "pair.txt").read_text() == shown
    rows = {line.split("  ")[0].strip(): line for line in shown.splitlines()}
    assert rows["layers"].split() == ["layers", "1", "of", "width", "8", "1", "of", "width", "12"]
    assert rows["width"].split() == ["width", "8", "12"] and rows["encoder"].split() == ["encoder", "min_gru", "mlp"]
    assert rows["hard_gate"].split() == ["hard_gate", "False", "-"] and "{" not in shown  # an option of one memory
    assert "gamma" not in rows and "horizon" not in rows
    assert rows["without memory"].endswith("has none") and "success" in rows["without memory"]
    assert shown.splitlines()[-1] == "8 greedy episodes each, from seed 10000; 95 % intervals"
    main(["inspect", "a", "a", "--episodes", "4"])
    same = capsys.readouterr().out
    assert "settings that differ" not in same and "settings that differ" in shown
    returns = next(line for line in same.splitlines() if line.startswith("return")).split("  ")
    assert len({cell.strip() for cell in returns if cell.strip()}) == 2  # the same seeds, the same score


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a", "none"), "none: no such run folder"),
        (("a", "b", "--vary", "length=3,4"), "--vary: has no effect on two runs"),
        (("a", "b", "--skip-bad-episodes", "True"), "--skip-bad-episodes: has no effect on two runs"),
    ],
)
def test_what_does_not_fit_is_one_line(
    arguments: tuple[str, ...], words: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", *arguments])
    assert words in capsys.readouterr().err
