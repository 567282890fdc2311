"""Logs: stable-baselines3's Logger, writing TensorBoard events and metrics.csv and, where asked for, to W&B."""

import csv
from collections.abc import Mapping
from io import SEEK_END, StringIO
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import CSVOutputFormat, HParam, KVWriter, Logger, TensorBoardOutputFormat
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from rlmin.checkpoint import write_atomic
from rlmin.checks import require
from rlmin.episodes import EpisodeStatistics

METRICS = "metrics.csv"

QUIET = {"console": "off", "x_disable_stats": True}
"""Of W&B: it neither reads what is printed nor samples the machine."""


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


class WandbOutput(KVWriter):
    """Rows of the log in a run of Weights & Biases, over environment steps; its files lie in the run folder.

    Args:
        folder: the run; its name is shown.
        project: of W&B.
        run_id: the same whenever the run is gone on with.
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
        self.run.define_metric("*", step_metric="time/total_timesteps")  # W&B's own step must never go back

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """One row: numbers as they are, tensors as histograms."""
        row = {key: value for key, value in key_values.items() if isinstance(value, int | float | np.number)}
        tensors = {key: value for key, value in key_values.items() if isinstance(value, Tensor)}
        self.run.log(row | {key: self.wandb.Histogram(value.numpy()) for key, value in tensors.items()})

    def close(self) -> None:
        """Send what is left, and end W&B's run."""
        self.run.finish()


def make_logger(
    folder: Path, settings: Mapping[str, Any], *, until: int = 0, wandb: tuple[str, str] | None = None
) -> Logger:
    """A logger into a run folder.

    Args:
        folder: the run.
        settings: hyper-parameters, shown by TensorBoard's HPARAMS page.
        until: steps already taken; rows of an earlier attempt beyond them are dropped.
        wandb: project of W&B and id of the run there, to log to as well; None: not.

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
    """Put one row together: episodes (of an agent that plays some), speed, training metrics, and time scales in steps.

    Keys are those of stable-baselines3 where it has one, so its plotting helpers find them.
    """
    facts: dict[str, float | None] = {
        "time/total_timesteps": steps,
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
