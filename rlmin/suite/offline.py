"""The offline suite: (dataset, agent, seed) cells trained on logged data alike, and scored in closed loop.

rlmin bench offline --make [--tasks ...]                       make the datasets that are missing
rlmin bench offline [--tasks ...] [--agents ...] [--seeds N]   train, score, report
rlmin bench offline --report                                   the table of all that is finished

    steps: 2_000_000                   logged steps a cell, repeats counted
    seeds: 5
    episodes: 100                      played for each score
    targets: [100, best]               scores asked for, best: that of the data's best episode; the first one counts in
                                       the means over tasks
    settings: {width: 64}              any setting of `rlmin train --dataset`, for every cell
    agents:                            columns of the table: NAME -> settings that differ
      min_gru: {encoder: min_gru}
      bc: {encoder: min_gru, condition: none}
      d3rlpy: {peer: d3rlpy, windows: 20}      d3rlpy's DecisionTransformer, see rlmin/suite/peer.py
    recipes:                           how data are made: NAME -> `rlmin.suite.recipes.Recipe`
      cartpole: {env: rlmin/PositionOnlyCartPoleEasy-v0}
    tasks:                             dataset -> settings, which win; steps, seeds, targets, episodes, agents too
      rlmin/cartpole-expert-v0: {}
      rlmin/tmaze-oracle-v0: {variants: [{length: 150}, {length: 9600}]}    other arguments of the environment

A score is 100 for the expert's return and 0 for random actions, of the last checkpoint, greedy.
"""

import contextlib
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlmin.checks import check_names, require
from rlmin.commands.train_config import DecisionTrainConfig, settable
from rlmin.data import load_dataset
from rlmin.data.minari import open_minari
from rlmin.encoders.cell import select_options
from rlmin.files.trust import from_file
from rlmin.settings import Count
from rlmin.suite.cells import UNWATCHED, check_entries, check_mappings, drop_other_seeds, open_suite
from rlmin.suite.executors.options import ExecutorOptions
from rlmin.suite.offline_cell import BEST, OfflineCell
from rlmin.suite.offline_report import write_report
from rlmin.suite.peer import PeerCell
from rlmin.suite.recipes import Recipe
from rlmin.suite.run import read_or_run
from rlmin.vector.make import import_provider

OWN = ("steps", "seeds", "targets", "episodes")  # entries of the suite, or of a task
OF_TASKS = (*OWN, "agents", "variants")
KEYS = (*OWN, "settings", "agents", "recipes", "tasks")
PEER = "peer"  # entries of a peer agent, see rlmin/suite/peer.py


@dataclass(frozen=True, kw_only=True)
class OfflineSuite:
    """Datasets, agents, seeds and steps of a suite; see the module."""

    name: str
    agents: Mapping[str, Mapping[str, Any]]
    recipes: Mapping[str, Recipe]
    tasks: Mapping[str, Mapping[str, Any]]
    steps: int = 1_000_000
    seeds: int = 5
    episodes: int = 100
    targets: tuple[float | str, ...] = (100,)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def cells(self) -> list[OfflineCell]:
        """Every cell; those of a task are adjacent."""
        return [
            self._cell(task, agent, seed)
            for task, own in self.tasks.items()
            for agent in own.get("agents", self.agents)
            for seed in range(own.get("seeds", self.seeds))
        ]

    def recipe_of(self, dataset: str) -> Recipe:
        """The recipe of a dataset.

        Raises:
            ValueError: there is none.
        """
        check_names("dataset made by a recipe", [dataset], [id for one in self.recipes.values() for id in one.datasets])
        return next(one for one in self.recipes.values() if dataset in one.datasets)

    def _cell(self, task: str, agent: str, seed: int) -> OfflineCell:
        own = self.tasks[task]
        own_settings = {key: x for key, x in own.items() if key not in OF_TASKS}
        encoder = {**self.settings, **self.agents[agent], **own_settings}.get("encoder", DecisionTrainConfig.encoder)
        shared, last = (
            select_options(self.settings, encoder),
            select_options(own_settings, encoder),
        )  # they may belong to several encoders
        settings = {**shared, **self.agents[agent], **last}
        asked = {"targets": list(own.get("targets", self.targets)), "variants": own.get("variants", [{}])}
        asked["episodes"] = own.get("episodes", self.episodes)
        settings |= {"total_timesteps": own.get("steps", self.steps), "seed": seed} | UNWATCHED
        kind = PeerCell if PEER in settings else OfflineCell
        return kind(task, agent, seed, {"dataset": task, **settings, "asked": asked})


def read_offline_suite(name: str) -> OfflineSuite:
    """The suite of that name, or in that .yaml file.

    Raises:
        ValueError: there is none, or an entry is unknown or invalid.
    """
    path, entries = open_suite(name, kind="offline suite", parts=("agents", "tasks"), module="rlmin/suite/offline.py")
    for key in ("agents", "tasks", "recipes"):
        check_mappings({"settings": entries.get("settings"), **(entries.get(key) or {})}, path.name)
    known = settable(DecisionTrainConfig)
    try:
        check_names("entry", entries, KEYS)
        entries = check_entries(entries, "suite")
        tasks, agents = (
            {name: check_entries(x or {}, name) for name, x in entries[key].items()} for key in ("tasks", "agents")
        )
        check_names("setting", entries.get("settings") or {}, known)
        for settings in agents.values():
            check_names("setting", settings, [*known, PEER])
            check_names("peer", [settings[PEER]] if PEER in settings else [], ["d3rlpy"])
        for settings in tasks.values():
            check_names("setting", settings, [*known, *OF_TASKS])
            check_names("agent", settings.get("agents", []), agents)
        for own in (entries, *tasks.values()):
            check_names("target", [x for x in own.get("targets", []) if isinstance(x, str)], [BEST])
        recipes = {name: Recipe.read(name, own or {}) for name, own in (entries.get("recipes") or {}).items()}
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    own = {key: entries[key] for key in (*OWN, "settings") if entries.get(key) is not None}
    return OfflineSuite(name=path.stem, agents=agents, tasks=tasks, recipes=recipes, **own)


@dataclass(frozen=True, kw_only=True)
class OfflineOptions(ExecutorOptions):
    """Make the datasets of a suite, or train on them cell by cell and report; started again it continues."""

    suite: str = "offline"  # Name of the suite, or a .yaml file
    make: bool = False  # Whether to make the missing datasets and train nothing
    overwrite: bool = False  # Whether --make also replaces existing datasets
    report: bool = False  # Whether to report the finished cells and train nothing
    tasks: tuple[str, ...] = ()  # Datasets to train on; none: all of them
    agents: tuple[str, ...] = ()  # Columns of the table to train; none: all of them
    seeds: Count | None = None  # Number of seeds; None: the suite's and every task's own
    steps: Count | None = None  # Logged steps of a cell; None: the suite's and every task's own
    trust: bool = False  # Whether the modules that ids in the suite and in the data name are imported; their code runs
    out: Path = Path("runs/suite")  # Folder of the run folders and behaviour policies; all nodes share it
    results: Path = Path("runs/suite")  # Folder of the report

    def select(self) -> OfflineSuite:
        """The suite with the changes of these options."""
        suite = read_offline_suite(self.suite)
        check_names("task", self.tasks, suite.tasks)
        check_names("agent", self.agents, suite.agents)
        given = {"steps": self.steps, "seeds": self.seeds, "agents": self.agents or None}
        entries = {name: value for name, value in given.items() if value is not None}
        if self.trust:
            recipes = {name: replace(recipe, env=str(recipe.env)) for name, recipe in suite.recipes.items()}
            suite, entries = replace(suite, recipes=recipes), entries | {"trust": True}
        return replace(suite, tasks={task: {**suite.tasks[task], **entries} for task in self.tasks or suite.tasks})


def run_offline(options: OfflineOptions) -> str:
    """Make the data, or train and report; returns the text to print.

    Raises:
        ValueError: no such suite, task or agent; missing data, or data that cannot be made; a cell that failed.
    """
    suite = options.select()
    out = options.out / suite.name
    if options.make:
        return make_datasets(suite, out, overwrite=options.overwrite)
    missing = [task for task in suite.tasks if not exists(task)]
    if options.report:
        suite = replace(suite, tasks={task: own for task, own in suite.tasks.items() if task not in missing})
    elif missing:
        raise ValueError(f"{', '.join(missing)}: no such dataset yet; make it with rlmin bench offline --make")
    data = {task: fingerprint(task) for task in suite.tasks}
    # so that a cell is trained again after its data have been made anew
    cells = [replace(cell, settings={**cell.settings, "data": data[cell.task]}) for cell in suite.cells()]
    # a bad setting should not appear after hours of training
    for config in [cell.config for cell in drop_other_seeds(cells)]:
        if config.env is not None and not options.trust:
            import_provider(from_file(config.env, where=suite.name))  # raises if it may not
    rows = read_or_run(cells, out, options, report=options.report)
    return write_report(rows, options.results, name=suite.name)


def make_datasets(suite: OfflineSuite, out: Path, *, overwrite: bool = False) -> str:
    """Make the missing datasets of the tasks (or all); returns a line for each."""
    lines = []
    for task in suite.tasks:
        if overwrite or not exists(task):
            print(f"making {task}", file=sys.stderr, flush=True)
            with contextlib.redirect_stdout(io.StringIO()):  # minigrid prints every rejected layout
                suite.recipe_of(task).make(task, out / "behaviour", overwrite=overwrite)
        found = load_dataset(task)
        size = f"{found.num_episodes:,} episodes, {found.num_steps:,} steps"
        lines.append(f"{task}: {size}, mean return {float(found.returns.mean()):.3f}")
    return "\n".join(lines)


def fingerprint(dataset: str) -> str:
    """A digest that changes with the files of a dataset."""
    return open_minari(dataset).fingerprint()[:16]


def exists(dataset: str) -> bool:
    """Whether Minari has a local dataset of this name."""
    root = require("minari", extra="offline").storage.datasets_root_dir.get_dataset_path()
    return bool((root / dataset / "data").is_dir())
