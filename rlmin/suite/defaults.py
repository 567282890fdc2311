"""The defaults suite: rlmin's default settings, beside those of other libraries.

rlmin bench defaults [--tasks ...] [--columns ...] [--seeds N] [--jobs N]     train, score, report
rlmin bench defaults --report                                                 the table of all that is finished
rlmin bench defaults --cells a-cells.csv b-cells.csv                          without what other machines finished
rlmin bench defaults --quick                                                  a few thousand steps, to see that it runs

    steps: 100_000                     environment steps a cell
    seeds: 5
    columns:                           NAME -> settings that make the column; `peer` names another library's class
      mlp: {encoder: mlp}
      stable-baselines3: {peer: PPO}
    tasks:                             id or NAME -> env, env_kwargs, steps, seeds;
      CartPole-v1: {floor: 22, ceiling: 500}       floor and ceiling: returns that count as 0 and 1;
                                                   settings: what belongs to the task, as previous_action
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlmin.checks import check_names
from rlmin.commands.train_config import TrainConfig, settable
from rlmin.files.trust import from_file
from rlmin.settings import Count, check_setting
from rlmin.suite.cells import Row, check_entries, check_mappings, drop_other_seeds, open_suite
from rlmin.suite.default_cell import DefaultCell, settings_of
from rlmin.suite.default_report import join_cells, read_cells, write_report
from rlmin.suite.executors.options import ExecutorOptions
from rlmin.suite.run import read_or_run
from rlmin.suite.sb3_cell import PEERS, SB3Cell
from rlmin.vector.make import import_provider, make_one

KEYS = ("steps", "seeds", "columns", "tasks")
OF_TASKS = ("env", "env_kwargs", "steps", "seeds", "floor", "ceiling", "settings")
ROLLOUT = 4096  # environment steps by which the last rollout of any column may exceed those of its task
QUICK: dict[str, Any] = {"seeds": 1, "steps": 4096}
"""Settings of --quick, for the first task and rlmin's own columns."""


@dataclass(frozen=True, kw_only=True)
class DefaultSuite:
    """Tasks, columns, seeds and steps of a suite; see the module."""

    name: str
    columns: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[str, Mapping[str, Any]]
    steps: int
    seeds: int

    def cells(self) -> list[DefaultCell]:
        """Every cell; the cells of a task are adjacent, so that a stopped suite has complete lines."""
        return [
            (SB3Cell if "peer" in made else DefaultCell)(
                task, column, seed, settings_of(task, own, made, steps=own.get("steps", self.steps))
            )
            for task, own in self.tasks.items()
            for column, made in self.columns.items()
            for seed in range(own.get("seeds", self.seeds))
        ]

    def choose(self, rows: Sequence[Row], file: Path) -> list[Row]:
        """The rows of this suite's tasks and columns, from another machine's `file`.

        Raises:
            ValueError: a row does not belong to the suite, because its steps, floor or ceiling differ.
        """
        found = [row for row in rows if row["task"] in self.tasks and row["encoder"] in self.columns]
        for row in found:
            own = self.tasks[row["task"]]
            steps, asked = row["steps"], own.get("steps", self.steps)
            if not asked <= steps <= asked + ROLLOUT or any(row[key] != own[key] for key in ("floor", "ceiling")):
                expected = f"{asked:,} steps, floor {own['floor']:g}, ceiling {own['ceiling']:g}"
                got = f"{steps:,}, {row['floor']:g}, {row['ceiling']:g}"
                raise ValueError(f"{file}: {row['task']}: expected {expected}; got {got}: cells of another suite")
        return found


def read_default_suite(name: str) -> DefaultSuite:
    """The suite of that name, or in that .yaml file.

    Raises:
        ValueError: there is none, or an entry is unknown or invalid.
    """
    path, content = open_suite(
        name, kind="suite of defaults", parts=("columns", "tasks"), module="rlmin/suite/defaults.py"
    )
    for key in ("columns", "tasks"):
        check_mappings(content[key], path.name)
    known = settable(TrainConfig)
    try:
        check_names("entry", content, KEYS)
        content = check_entries(content, "suite")
        content["columns"] = {name: made or {} for name, made in content["columns"].items()}
        content["tasks"] = {task: check_entries(own or {}, task) for task, own in content["tasks"].items()}
        for made in content["columns"].values():
            check_names("setting", made, [*known, "peer"])
            check_names("peer", [made["peer"]] if "peer" in made else [], PEERS)
        for task, own in content["tasks"].items():
            check_names(f"entry of {task}", own, OF_TASKS)
            for key in ("settings", "env_kwargs"):
                check_setting(f"{task}: {key}", own.get(key, {}), dict[str, Any])
            check_names("setting", own.get("settings", {}), known)
            missing = [key for key in ("floor", "ceiling") if key not in own]
            if missing:
                raise ValueError(f"{task}: expected {' and '.join(missing)}")
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    own = {key: content[key] for key in ("columns", "tasks")}
    return DefaultSuite(name=path.stem, steps=content.get("steps", 100_000), seeds=content.get("seeds", 5), **own)


@dataclass(frozen=True, kw_only=True)
class DefaultOptions(ExecutorOptions):
    """Train agents with default settings, cell by cell, and report; started again it continues where it stopped."""

    suite: str = "defaults"  # Name of the suite, or a .yaml file
    quick: bool = False  # Whether to train only a few thousand steps on the first task, to see that it runs
    report: bool = False  # Whether to train nothing, and report the cells that are finished
    tasks: tuple[str, ...] = ()  # Tasks to train; none: all of them
    columns: tuple[str, ...] = ()  # Columns to train; none: all of them
    seeds: Count | None = None  # Number of seeds; None: the suite's and every task's own
    steps: Count | None = None  # Environment steps of a cell; None: the suite's and every task's own
    cells: tuple[Path, ...] = ()  # Files NAME-cells.csv of other machines; their cells are not trained, but reported
    trust: bool = False  # Whether the modules that the ids in a suite's file name are imported, whose code then runs
    out: Path = Path("runs/suite")  # Folder of the run folders; all nodes share it
    results: Path = Path("runs/suite")  # Folder of the report

    def select(self) -> DefaultSuite:
        """The suite with the changes of these options."""
        suite = read_default_suite(self.suite)
        if self.quick:
            own = tuple(name for name, made in suite.columns.items() if "peer" not in made)
            first = tuple(suite.tasks)[:1]
            return replace(self, quick=False, tasks=first, columns=self.columns or own, **QUICK).select()
        check_names("task", self.tasks, suite.tasks)
        check_names("column", self.columns, suite.columns)
        given = {"steps": self.steps, "seeds": self.seeds}
        asked = {name: value for name, value in given.items() if value is not None}
        columns = {name: suite.columns[name] for name in self.columns or suite.columns}
        tasks = {task: {**suite.tasks[task], **asked} for task in self.tasks or suite.tasks}
        return replace(suite, columns=columns, tasks=tasks)


def run_defaults(options: DefaultOptions) -> str:
    """Train and report; returns the table as Markdown.

    Raises:
        ValueError: no such suite, task, column or file; settings that contradict finished cells; a cell that failed.
    """
    suite = options.select()
    others = [row for file in options.cells for row in suite.choose(read_cells(file), file)]
    cells, out = suite.cells(), options.out / (f"{suite.name}-quick" if options.quick else suite.name)
    if not options.report:  # a report prefers what was trained here
        finished = {(row["task"], row["encoder"], int(row["seed"])) for row in others}
        cells = [cell for cell in cells if (cell.task, cell.encoder, cell.seed) not in finished]
    for cell in drop_other_seeds(cells):  # a bad setting should not appear after hours of training
        if not options.trust:
            import_provider(from_file(cell.settings["env"], where=suite.name))  # raises if it may not
        if not isinstance(cell, SB3Cell):
            assert cell.config.env
        if not options.report:  # nor should a missing package
            make_one(cell.settings["env"], **cell.settings["env_kwargs"]).close()
    rows = read_or_run(cells, out, options, report=options.report, others=len(others))
    joined = join_cells(rows, others, tasks=[*suite.tasks], columns=[*suite.columns])
    return write_report(joined, options.results, name=out.name)
