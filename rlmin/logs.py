"""Logs: stable-baselines3's Logger, writing TensorBoard events and metrics.csv."""

import csv
from collections.abc import Mapping
from io import SEEK_END, StringIO
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import CSVOutputFormat, HParam, Logger, TensorBoardOutputFormat
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from rlmin.checkpoint import write_atomic
from rlmin.episodes import EpisodeStatistics

METRICS = "metrics.csv"


class ContinuedCSV(CSVOutputFormat):
    """A csv file that a resumed run goes on writing: rows up to `until` steps stay, later ones are taken again."""

    def __init__(self, file: Path, until: int) -> None:
        kept: list[dict[str, str]] = []
        keys: list[str] = []
        if file.exists():
            with file.open(newline="") as lines:
                reader = csv.DictReader(lines)
                keys = list(reader.fieldnames or [])
                kept = [row for row in reader if float(row["time/total_timesteps"]) <= until]
        text = StringIO()
        if kept:
            writer = csv.DictWriter(text, keys, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)
        write_atomic(file, text.getvalue().encode())  # a kill at any time loses none of the kept rows
        self.file = file.open("r+", newline="\n")
        self.file.seek(0, SEEK_END)
        self.keys, self.separator, self.quotechar = (keys if kept else []), ",", '"'


class ContinuedBoard(TensorBoardOutputFormat):
    """TensorBoard events in which a resumed run replaces what an earlier attempt wrote beyond `until` steps."""

    def __init__(self, folder: Path, until: int) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=until + 1 if until else None)
        self._is_closed = False


def make_logger(folder: Path, settings: Mapping[str, Any], *, until: int = 0) -> Logger:
    """A logger into a run folder.

    Args:
        folder: the run.
        settings: hyper-parameters, shown by TensorBoard's HPARAMS page.
        until: steps already taken; rows of an earlier attempt beyond them are dropped.
    """
    board = ContinuedBoard(folder, until)
    logger = Logger(str(folder), [board, ContinuedCSV(folder / METRICS, until)])
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
    speed: float,
) -> None:
    """Put one row together: episodes (of an agent that plays some), speed, training metrics, and time scales in steps.

    Keys are those of stable-baselines3 where it has one, so its plotting helpers find them.
    """
    facts: dict[str, float | None] = {"time/total_timesteps": steps, "time/fps": speed}
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
