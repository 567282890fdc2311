"""The memory suite: many (task, encoder, seed) cells trained under one protocol, and one report of them.

rlmin bench memory [--suite NAME|FILE.yaml] [--seeds N] [--steps N] [--encoders ...] [--tasks ...] [--jobs N]
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlmin.checks import check_names
from rlmin.commands.train import parse_pairs
from rlmin.encoders import CELLS
from rlmin.files.trust import from_file
from rlmin.settings import Count
from rlmin.suite.cells import Suite, drop_other_seeds, read_suite
from rlmin.suite.executors.options import ExecutorOptions
from rlmin.suite.report import write_report
from rlmin.suite.run import run_cells
from rlmin.vector.make import import_provider, make_vec


@dataclass(frozen=True, kw_only=True)
class SuiteOptions(ExecutorOptions):
    """Train a suite of memory tasks, cell by cell, and report; started again it continues where it stopped."""

    suite: str = "memory"  # Name of the suite, or a .yaml file
    tasks: tuple[str, ...] = ()  # Tasks to train; none: all of them
    encoders: tuple[str, ...] = ()  # Encoders to train; none: the suite's and every task's own
    seeds: Count | None = None  # Number of seeds; None: the suite's and every task's own
    steps: Count | None = None  # Environment steps of a cell; None: the suite's and every task's own
    trust: bool = False  # Whether the modules that the ids in a suite's file name are imported, whose code then runs
    out: Path = Path("runs/suite")  # Folder of the run folders; all nodes share it
    results: Path = Path("runs/suite")  # Folder of the report

    def select(self) -> Suite:
        """The suite with the changes of these options."""
        suite = read_suite(self.suite)
        check_names("task", self.tasks, suite.tasks)
        check_names("encoder", self.encoders, CELLS)
        return replace(suite, tasks={task: self._select_entries(suite, task) for task in self.tasks or suite.tasks})

    def _select_entries(self, suite: Suite, task: str) -> dict[str, Any]:
        """The entries of one task."""
        own = dict(suite.tasks[task])
        columns = suite.columns(own)
        usual = own.get("seeds", suite.seeds)
        own["encoders"] = {name: self.seeds or columns.get(name, usual) for name in self.encoders or columns}
        return own if self.steps is None else own | {"steps": self.steps}


def run_suite(options: SuiteOptions) -> str:
    """Train and report; returns the table as Markdown.

    Raises:
        ValueError: no such suite, task or encoder; settings that contradict finished cells; a cell that failed.
    """
    suite = options.select()
    cells = suite.cells()
    # a bad setting or id should not appear after hours of training
    for config in [cell.config for cell in drop_other_seeds(cells)]:
        if not options.trust:
            import_provider(from_file(config.env, where=suite.name))  # raises if it may not
        make_vec(config.env, 1, **parse_pairs(config.env_kwargs)).close()
    rows = run_cells(cells, options.out / suite.name, options)
    return write_report(rows, cells, options.out / suite.name, options.results, name=suite.name)
