"""Logs: stable-baselines3's Logger, which writes TensorBoard events, metrics.csv and, on request, to W&B."""

import codecs
import csv
import os
from collections.abc import Mapping
from io import SEEK_END, StringIO
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import (
    CSVOutputFormat,
    HParam,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    filter_excluded_keys,
)
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from rlmin.checks import require, warn_user
from rlmin.files.atomic import write_atomic
from rlmin.files.read_bounded import read_bounded
from rlmin.runs.own_files import METRICS as METRICS
from rlmin.vector.episodes import EpisodeStatistics

LARGEST = 512 * 2**20
"""Most bytes of a log: a million rows of forty columns."""
MOST_VALUES = 20_000_000
"""Most values in a log."""
STEPS = "time/total_timesteps"

QUIET = {"console": "off", "x_disable_stats": True}
"""Settings of W&B: it neither captures output nor samples the machine."""


def read_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and the complete rows of a csv file: a kill may have torn the last row.

    Raises:
        ValueError: `file` is not a csv file.
    """
    return _rows_of(_read_whole(file))


def _read_whole(file: Path) -> list[list[str]]:
    """The lines that were written whole; see `read_rows`."""
    content = read_bounded(file, most=LARGEST, form="CSV")
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(content)  # keeps the bytes of a cut letter back
        whole = text[: text.rfind("\n") + 1]  # a cut number is still a number, so the end of the line decides
        lines = _read_lines(whole, file)
        if whole.count('"') % 2:  # cut at the end of a line inside a quoted text, which never closed
            lines.pop()
            if not lines:
                raise csv.Error("a text in its first line has no end")
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file}: not readable as CSV ({error})") from None
    return lines


def _rows_of(lines: list[list[str]]) -> tuple[list[str], list[dict[str, str]]]:
    """The columns, and the rows that have them all."""
    keys = lines[0] if lines else []
    return keys, [dict(zip(keys, line, strict=True)) for line in lines[1:] if len(line) == len(keys)]


def _read_lines(text: str, file: Path) -> list[list[str]]:
    """The lines of a csv file; a ValueError for more values than a log has, as an empty one takes only a letter."""
    lines, values = list[list[str]](), 0
    for line in csv.reader(StringIO(text, newline="")):
        values += len(line)
        if values > MOST_VALUES:
            raise ValueError(f"{file}: expected a log of at most {MOST_VALUES:,} values")
        lines.append(line)
    return lines


class ContinuedCSV(CSVOutputFormat):
    """A csv file that a resumed run continues: rows up to `until` steps stay, later ones are written again.

    A file of several lines without such a row is not a log, or no longer one; it is kept under another name.
    """

    def __init__(self, file: Path, until: int) -> None:
        keys, kept = _read_kept(file, until)
        self.path, self.separator, self.quotechar = file, ",", '"'
        self._begin(keys if kept else [], kept)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Write one row. A new column rewrites the file, whole or not at all, so a kill never loses a row."""
        new = filter_excluded_keys(key_values, key_excluded, "csv").keys() - self.keys
        if new:  # sorted: the order of a set differs from process to process
            self.file.close()
            self._begin([*self.keys, *sorted(new)], read_rows(self.path)[1])
        super().write(key_values, key_excluded, step)

    def _begin(self, keys: list[str], rows: list[dict[str, str]]) -> None:
        """Write the file with these rows, and open it at its end."""
        text = StringIO()
        if keys:
            writer = csv.DictWriter(text, keys, lineterminator="\n", restval="")
            writer.writeheader()
            writer.writerows(rows)
        write_atomic(self.path, text.getvalue().encode())
        self.file = self.path.open("r+", newline="\n", encoding="utf-8")
        self.file.seek(0, SEEK_END)
        self.keys = keys


def _read_kept(file: Path, until: int) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and the rows up to `until` steps; a file without any is renamed, with a warning."""
    if not file.exists():
        return [], []
    lines, why = list[list[str]](), ""
    try:
        lines = _read_whole(file)
    except ValueError as error:
        if not file.is_file():
            raise
        why = str(error).removeprefix(f"{file}: ")
    keys, rows = _rows_of(lines)
    rows = [row for row in rows if _steps(row) >= 0]
    if len(lines) > 1 and not rows:
        why = f"no line has {STEPS}"
    if why:
        other = file.with_name(f"{file.name}.before-{until}")
        os.replace(file, other)
        warn_user(f"{file}: {why}; a new log is begun, and this one is kept as {other.name}")
    return keys, [row for row in rows if _steps(row) <= until]


def _steps(row: Mapping[str, str]) -> float:
    """The step of a row; -1 if it has none."""
    try:
        return float(row[STEPS])
    except (KeyError, ValueError):
        return -1.0


class ContinuedBoard(TensorBoardOutputFormat):
    """TensorBoard events; a resumed run replaces those of an earlier attempt beyond `until` steps."""

    def __init__(self, folder: Path, until: int) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=until + 1 if until else None)
        self._is_closed = False


class WandbOutput(KVWriter):
    """Rows of the log in a run of Weights & Biases, over environment steps; its files lie in the run folder.

    Args:
        folder: the run; W&B shows its name.
        project: project of W&B.
        run_id: id of the run, the same whenever it continues.
        settings: hyper-parameters.

    Raises:
        ImportError: wandb is not installed.
        ValueError: W&B refuses: nobody is logged in, or the project is not theirs.
    """

    def __init__(self, folder: Path, project: str, run_id: str, settings: Mapping[str, Any]) -> None:
        self.wandb = wandb = require("wandb", extra="wandb")
        about: dict[str, Any] = {"project": project, "id": run_id, "name": folder.resolve().name, "dir": str(folder)}
        try:
            self.run = wandb.init(**about, config=dict(settings), resume="allow", reinit="create_new", settings=QUIET)
        except wandb.Error as error:
            raise ValueError(f"W&B: {error}; WANDB_MODE=offline keeps everything here") from error
        self.run.define_metric("*", step_metric=STEPS)  # W&B's own step must never go back

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """One row: numbers as they are, tensors as histograms."""
        row = {key: value for key, value in key_values.items() if isinstance(value, int | float | np.number)}
        tensors = {key: value for key, value in key_values.items() if isinstance(value, Tensor)}
        self.run.log(row | {key: self.wandb.Histogram(value.numpy()) for key, value in tensors.items()})

    def close(self) -> None:
        """Send the remaining rows, and end W&B's run."""
        self.run.finish()


def make_logger(
    folder: Path, settings: Mapping[str, Any], *, until: int = 0, wandb: tuple[str, str] | None = None
) -> Logger:
    """A logger into a run folder.

    Args:
        folder: the run.
        settings: hyper-parameters, for TensorBoard's HPARAMS page.
        until: number of steps already taken; later rows of an earlier attempt are dropped.
        wandb: project of W&B and id of the run there, to log to as well; None: no W&B.

    Raises:
        ImportError, ValueError: see `WandbOutput`.
    """
    others = [] if wandb is None else [WandbOutput(folder, *wandb, settings)]  # first: it may refuse
    board = ContinuedBoard(folder, until)
    logger = Logger(str(folder), [board, ContinuedCSV(folder / METRICS, until), *others])
    if until == 0:
        shown = {key: value for key, value in settings.items() if isinstance(value, bool | str | float | int)}
        metrics: dict[str, float | int] = dict.fromkeys(
            ("rollout/ep_rew_mean", "rollout/success_rate", "train/loss"), 0.0
        )
        board.write({"hparams": HParam(shown, metrics)}, {"hparams": ("csv", "log", "stdout", "json")}, 0)
    return logger


def record(
    logger: Logger,
    policy: nn.Module,
    statistics: EpisodeStatistics | None,
    metrics: Mapping[str, float],
    *,
    steps: int,
    seconds: float,
    speed: float,
) -> None:
    """Record one row: episodes (if the agent plays any), speed, training metrics, and time scales in steps.

    Keys are stable-baselines3's where it has one, so its plotting helpers find them.
    """
    facts: dict[str, float | None] = {
        STEPS: steps,
        "time/time_elapsed": seconds,
        "time/fps": speed,
    }
    if statistics is not None:
        facts = {
            "rollout/ep_rew_mean": statistics.mean_return,
            "rollout/ep_len_mean": statistics.mean_length,
            "rollout/success_rate": statistics.success_rate,
            "rollout/episodes": statistics.episodes,
        } | facts
    for key, value in facts.items():
        if value is not None:
            logger.record(key, value)
    for key, value in metrics.items():
        logger.record(f"train/{key}", value)
    for name, module in policy.named_modules():
        scale = getattr(module, "time_scale", None)
        if callable(scale):
            logger.record(f"memory/log10_time_scale/{name}", scale().log10().cpu(), exclude=("csv", "stdout", "log"))
