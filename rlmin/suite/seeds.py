"""Many seeds of one run: a folder each, one view while they train, one table and one picture at the end.

    rlmin train PRESET --seeds 5 --jobs 2 [--on ray|slurm]

The same command goes on with the seeds that are not finished.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from rlmin.agents.load import load
from rlmin.commands.evaluate import evaluate_run, evaluate_run_targets
from rlmin.commands.train_config import OfflineRun, OnlineRun
from rlmin.files.atomic import write_atomic
from rlmin.policy.fit import is_conditioned
from rlmin.runs.checkpoint import LEARNER, read_header
from rlmin.runs.compare import compare_runs
from rlmin.runs.compare_tables import write_text
from rlmin.runs.plots import plot_runs
from rlmin.runs.statistics import iqm_interval, mean_interval
from rlmin.settings import Range
from rlmin.suite.cells import Cell, Row, train_or_resume
from rlmin.suite.executors.options import ExecutorOptions
from rlmin.suite.report import as_csv
from rlmin.suite.run import run_cells
from rlmin.suite.seeds_view import SeedsView
from rlmin.vector.make import import_provider, make_vec, parse_pairs, readable_errors

TABLE, CURVES = "seeds.csv", "curves.png"
APART = ("folder", "seed", "trust", "eval_episodes", "threads")
"""Settings that do not make a run another one."""


@dataclass(frozen=True, kw_only=True)
class SeedsOptions(ExecutorOptions):
    """Train many seeds of a run at once; the same command goes on with those that are not finished."""

    seeds: Annotated[int, Range(least=1, most=1000)]  # Number of runs, with seeds from --seed on


@dataclass(frozen=True)
class SeedCell(Cell):
    """One seed of a run."""

    chosen: OnlineRun | OfflineRun = field(kw_only=True)
    place: ClassVar[str] = "--folder"
    plays: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """See `Cell.name`."""
        return f"seed {self.seed}"

    @property
    def config(self) -> Any:
        """The settings of the run; the cell evaluates it itself."""
        return replace(self.chosen, seed=self.seed, folder=None, eval_episodes=0, threads=self.chosen.threads or 1)

    def folder(self, out: Path) -> Path:
        """The run folder."""
        return out / f"seed-{self.seed}"

    def run(self, folder: Path) -> Row:
        """Train in `folder`, or continue there, and play the last policy."""
        train_or_resume(self.config, folder)
        row: Row = {"seed": self.seed, "steps": int(read_header(folder, LEARNER)["num_timesteps"])}
        return row | {"final": _play(self.chosen, folder), "folder": folder.name}


def _play(config: OnlineRun | OfflineRun, folder: Path) -> float | None:
    """Mean return of the last policy, greedy; None where it is not to be played, or has no environment here."""
    if not config.eval_episodes:
        return None
    if config.env is not None:
        import_provider(config.env)  # the command names the module, so the run may import it
    options: dict[str, Any] = {"episodes": config.eval_episodes, "device": config.device, "trust": config.trust}
    agent = load(folder, device=config.device, trust=config.trust)
    if agent.env_spec["id"] is None:
        return None
    if not is_conditioned(agent.policy):
        return evaluate_run(folder, **options).mean_return
    best = max(agent.run["data"]["returns"])
    return evaluate_run_targets(folder, target_return=(best,), **options).asked[0].evaluation.mean_return


def train_seeds(config: OnlineRun | OfflineRun, options: SeedsOptions, *, name: str) -> str:
    """Train every seed that is not finished; returns the table as text.

    Args:
        config: settings of all runs; their seeds follow its seed, their folders are in its folder.
        options: how many, and where.
        name: of the folder, runs/NAME-seeds, where `config.folder` is None.

    Raises:
        ValueError: settings are unusable or contradict finished seeds, or a seed failed; the others are kept.
    """
    out = config.folder or Path("runs") / f"{name}-seeds"
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: expected a folder, found a file")
    if (out / LEARNER).exists():
        raise ValueError(f"{out}: there is a single run already; choose another --folder")
    if isinstance(config, OnlineRun):  # an error should not appear in each of them
        with readable_errors(config.env):
            make_vec(config.env, 1, **parse_pairs(config.env_kwargs)).close()
    settings = json.loads(json.dumps({f.name: getattr(config, f.name) for f in fields(config)}, default=str))
    settings = {key: value for key, value in settings.items() if key not in APART}
    encoder = getattr(config, "encoder", "")
    cells = [
        SeedCell(out.name, encoder, seed, settings, chosen=config)
        for seed in range(config.seed, config.seed + options.seeds)
    ]
    with SeedsView({cell.name: cell.folder(out) for cell in cells}, config.total_timesteps) as view:
        rows = run_cells(cells, out, options, view=view)
    return write_report(rows, [cell.folder(out) for cell in cells], out)


def write_report(rows: Sequence[Row], folders: Sequence[Path], out: Path) -> str:
    """Write seeds.csv and curves.png into `out`; returns the table as text."""
    names = ("seed", "steps", "final", "seconds", "folder")
    write_atomic(out / TABLE, as_csv([{name: row[name] for name in names} for row in rows]))
    plot_runs(folders, [out / CURVES])
    lines = [f"seed {row['seed']}: {_show(row['final'])}  {out / row['folder']}" for row in rows]
    finals = [row["final"] for row in rows if row["final"] is not None]
    if finals:
        lines.append(f"greedy, last policy: mean {mean_interval(finals)}, interquartile mean {iqm_interval([finals])}")
    with suppress(ValueError):  # runs without evaluations have nothing to compare
        lines.append(write_text(compare_runs(folders)).rstrip())
    return "\n".join([*lines, f"{out / TABLE}, {out / CURVES}"])


def _show(final: float | None) -> str:
    return "not played" if final is None else f"{final:.3f}"
