"""Logs that a kill tore: what was written whole stays, the rest is dropped, and a resumed run writes it again."""

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dying import every_death
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from rlmin import load
from rlmin.commands.train import TrainConfig, resume, train
from rlmin.runs.curves import read_columns, read_curve
from rlmin.runs.logs import METRICS, STEPS, ContinuedBoard, ContinuedCSV, read_rows

NONE: dict[str, tuple[str, ...]] = {}


def row(i: int, text: str = "note", **more: Any) -> dict[str, Any]:
    return {STEPS: 100 * i, "rollout/ep_rew_mean": 12.25 + i, text: 'a, "b"\nc'} | more


@pytest.fixture
def written(tmp_path: Path) -> Path:
    file = tmp_path / METRICS
    out = ContinuedCSV(file, 0)
    for i in (1, 2, 3):
        out.write(row(i), NONE)
    out.close()
    return file


def values(file: Path) -> list[tuple[float, float]]:
    with file.open(newline="") as lines:
        return [(float(row[STEPS]), float(row["rollout/ep_rew_mean"])) for row in csv.DictReader(lines)]


@pytest.mark.parametrize("text", ["note", "say", "words"], ids=["first", "between", "last"])
def test_a_row_that_was_cut_at_any_position_is_dropped_and_no_other_one(text: str, tmp_path: Path) -> None:
    written = tmp_path / METRICS
    out = ContinuedCSV(written, 0)
    for i in (1, 2, 3):
        out.write(row(i, text), NONE)
    out.close()
    content = written.read_bytes()
    assert content.splitlines()[0] == ",".join(sorted(row(1, text))).encode(), "in every process the same"
    whole = values(written)
    for cut in range(len(content) + 1):
        written.write_bytes(content[:cut])
        keys, rows = read_rows(written)
        found = [(float(x[STEPS]), float(x["rollout/ep_rew_mean"])) for x in rows]
        assert all(x[text] == 'a, "b"\nc' for x in rows)
        assert found == whole[: len(found)] and all(list(x) == keys for x in rows)
        assert len(found) >= content[:cut].count(b"\n") // 2 - 1, "a row has two lines, the columns have one"
        ContinuedCSV(written, 250).close()
        assert values(written) == found[:2] if found else written.read_bytes() == b""
    assert len(found) == 3, "what was not cut is all there"


def test_a_letter_that_was_cut_is_dropped_with_its_row(tmp_path: Path) -> None:
    file = tmp_path / METRICS
    content = f"{STEPS},note\n100,a\n200,\N{SNOWMAN}\n".encode()
    for cut in (1, 2, 3):  # of its three bytes and the end of its line
        file.write_bytes(content[:-cut])
        assert [row["note"] for row in read_rows(file)[1]] == ["a"]
    file.write_bytes(content)
    assert [row["note"] for row in read_rows(file)[1]] == ["a", "\N{SNOWMAN}"]


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "a spreadsheet's": lambda content: content.replace(b",", b";"),
    "another file": lambda content: b"hello\nworld\n",
    "a quote too many": lambda content: b'"' + content.replace(b'"', b""),
    "no UTF-8": lambda content: content[:-3] + b"\xe9\xe9\n",
    "a field without end": lambda content: content + b"x" * 200_000 + b"\n",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_log_that_cannot_be_continued_is_kept_under_another_name(kind: str, written: Path) -> None:
    content = DAMAGED[kind](written.read_bytes())
    written.write_bytes(content)
    with pytest.warns(UserWarning, match=r"metrics\.csv: .*; a new log is begun, and this one is kept as"):
        out = ContinuedCSV(written, 250)
    out.write(row(4), NONE)
    out.close()
    assert written.with_name(f"{METRICS}.before-250").read_bytes() == content and values(written) == [(400, 16.25)]


def test_zeros_of_a_power_cut_cost_the_rows_they_replaced(written: Path) -> None:
    content, whole = written.read_bytes(), values(written)
    for changed, rows in ((content + bytes(50), 3), (content[:-10] + bytes(10), 2), (bytes(len(content)), 0)):
        written.write_bytes(changed)
        ContinuedCSV(written, 250).close()
        assert (values(written) if rows else []) == whole[: min(rows, 2)] and len(list(written.parent.iterdir())) == 1


def test_curves_are_drawn_of_the_rows_that_are_whole(written: Path) -> None:
    content = written.read_bytes()
    written.write_bytes(content[:-1])
    assert read_curve(written.parent, "rollout/ep_rew_mean") == ([100, 200], [13.25, 14.25])
    assert STEPS in read_columns(written.parent)
    written.write_bytes(content[:5])
    with pytest.raises(ValueError, match="expected at least one row; was training stopped before its first update"):
        read_columns(written.parent)


def test_a_new_column_costs_no_row_whenever_the_writer_dies(written: Path) -> None:
    content, folder = written.read_bytes(), written.parent
    before = values(written)

    def widen() -> None:
        out = ContinuedCSV(folder / METRICS, 300)
        out.write(row(4, success=0.5), NONE)
        out.close()

    deaths = 0
    for _ in every_death(widen):
        deaths += 1
        assert values(written)[:3] == before
        for path in folder.iterdir():
            path.unlink()
        written.write_bytes(content)
    assert deaths > 10
    widen()
    assert values(written) == [*before, (400, 16.25)] and read_rows(written)[1][3]["success"] == "0.5"
    assert read_rows(written)[1][0]["success"] == "" and read_rows(written)[1][0]["note"] == 'a, "b"\nc'


def small(folder: Path) -> TrainConfig:
    settings: dict[str, Any] = {"width": 8, "horizon": 8, "num_envs": 4, "minibatches": 1, "epochs": 1}
    return TrainConfig(
        env="rlmin/TMaze-v0", env_kwargs=("length=4",), folder=folder, total_timesteps=96, eval_episodes=0, **settings
    )


def test_a_resumed_run_has_the_rows_of_one_that_was_not_torn(tmp_path: Path) -> None:
    run = train(small(tmp_path / "run"), progress_bar=False)
    content = (run / METRICS).read_bytes()
    last = content.rindex(b"\n", 0, -1) + 1
    for cut in (last, last + 1, (last + len(content)) // 2, len(content) - 2, len(content) - 1):
        again = Path(shutil.copytree(run, tmp_path / f"cut-{cut}"))
        (again / METRICS).write_bytes(content[:cut])
        resume(again, total_timesteps=128, progress_bar=False)
        steps = [float(x[STEPS]) for x in read_rows(again / METRICS)[1]]
        assert steps == [32, 64, 128] and load(again).num_timesteps == 128
    (run / METRICS).unlink()
    resume(run, total_timesteps=128, progress_bar=False)
    assert [float(x[STEPS]) for x in read_rows(run / METRICS)[1]] == [128]


def test_torn_events_cost_what_was_not_written_whole_and_a_resumed_run_writes_it_again(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    board = ContinuedBoard(whole, 0)
    ends = []
    for step in (1, 2, 3):
        board.write({"loss": float(step)}, {"loss": ()}, step)
        (file,) = whole.iterdir()
        ends.append(file.stat().st_size)
    board.close()
    content = file.read_bytes()
    for cut in range(ends[0], ends[2] + 1, 3):
        torn = tmp_path / f"cut-{cut}"
        torn.mkdir()
        # files of one second are read in any order, and a killed run has begun before the one that goes on
        (torn / re.sub(r"(?<=tfevents\.)\d+", lambda time: str(int(time[0]) - 1), file.name)).write_bytes(content[:cut])
        again = ContinuedBoard(torn, 2)
        again.write({"loss": 3.5}, {"loss": ()}, 3)
        again.close()
        events = EventAccumulator(str(torn))
        events.Reload()
        kept = [(1, 1.0), (2, 2.0)] if cut >= ends[1] else [(1, 1.0)]
        assert sorted((x.step, x.value) for x in events.Scalars("loss")) == [*kept, (3, 3.5)], cut
