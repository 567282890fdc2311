"""A suite: the (task, encoder, seed) cells to train and the settings of each, read from a YAML file.

steps: 1_000_000                       environment steps a cell
encoders: [min_gru, gru, mlp]          columns of the table
seeds: 5                               rows of each
settings: {num_envs: 64, lr: 1e-3}     any setting of `rlmin train`, for every cell
tasks:                                 id or NAME -> settings that differ; `steps`, `seeds` and `encoders` too;
                                       `encoders: {min_gru: 5, mlp: 2}` says the seeds of each
  rlmin/RepeatFirstEasy-v0: {horizon: 51}
  S9 seen 3x3: {env: rlmin/GridMemoryS9View3-v0, horizon: 128}
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from rlmin.checks import check_names
from rlmin.commands.evaluate import evaluate_run
from rlmin.commands.parse_agent import parse_agent
from rlmin.commands.presets import preset_arguments
from rlmin.commands.train import resume, train
from rlmin.commands.train_config import OfflineRun, OnlineRun, TrainConfig, settable
from rlmin.commands.training_run import CURVE
from rlmin.encoders import CELLS
from rlmin.encoders.cell import select_options
from rlmin.envs.catalog import variants
from rlmin.envs.tensor_env import Variant
from rlmin.files.lock import check_free
from rlmin.files.read_yaml import read_yaml
from rlmin.runs.checkpoint import LEARNER, read_header
from rlmin.runs.curves import read_curve
from rlmin.settings import Count, check_setting
from rlmin.vector.make import import_provider, parse_pairs

SUITES = Path(__file__).parent.parent / "configs" / "suites"
UNWATCHED = {"threads": 1, "evaluations": 0, "eval_episodes": 0}  # the suite scores a cell itself
OF_TASKS = ("steps", "seeds", "encoders")  # entries of a task beside settings of a run
KEYS = ("steps", "encoders", "seeds", "settings", "tasks")
ENTRIES: dict[str, Any] = {
    "steps": Count,
    "seeds": Count,
    "episodes": Count,
    "floor": float,
    "ceiling": float,
    "env": str,
    "encoders": tuple[str, ...] | dict[str, Any],
    "agents": tuple[str, ...] | dict[str, Any],
    "targets": tuple[float | str, ...],
    "variants": tuple[dict[str, Any], ...],
}
"""Types of the entries of suites and their tasks, in all files of suites."""


EPISODES = 400  # held-out episodes: seeds of their own, empty memory, greedy actions

Row = dict[str, Any]
CellOfAnyKind = TypeVar("CellOfAnyKind", bound="Cell")


@dataclass(frozen=True)
class Cell:
    """One training run of a suite."""

    task: str
    encoder: str
    seed: int
    settings: Mapping[str, Any]  # of `TrainConfig`, complete but for the folder

    place: ClassVar[str] = "--out"
    """The option that names another folder."""
    plays: ClassVar[bool] = True
    """Whether a finished row always has a score: the policy was played."""

    @property
    def name(self) -> str:
        """The name in messages, which no other cell of the suite has."""
        return f"{self.task} {self.encoder} seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """The run folder."""
        return out / self.task.replace("/", "-").replace(" ", "-") / f"{self.encoder}-{self.seed}"

    @property
    def config(self) -> TrainConfig:
        """The settings as the command line would read them."""
        return parse_agent(TrainConfig, preset_arguments(self.settings), prog="rlmin bench memory")

    def run(self, folder: Path) -> Row:
        """Train in `folder`, or continue there, and score; returns the row of the cell."""
        train_or_resume(self.config, folder)
        return score(self, folder)


def drop_other_seeds(cells: Iterable[CellOfAnyKind]) -> list[CellOfAnyKind]:
    """One cell of each column of a task: the others have its settings, and reading those of hundreds takes seconds."""
    first = dict[tuple[str, str], CellOfAnyKind]()
    for cell in cells:
        first.setdefault((cell.task, cell.encoder), cell)
    return list(first.values())


@dataclass(frozen=True)
class Suite:
    """Tasks, encoders, seeds and steps of a suite."""

    name: str
    tasks: Mapping[str, Mapping[str, Any]]
    encoders: Sequence[str]
    seeds: int
    steps: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        """Every cell; the seeds of a task are adjacent, so that a stopped suite has complete rows."""
        return [
            Cell(task, encoder, seed, self._settings(task, encoder, seed))
            for task, own in self.tasks.items()
            for encoder, seeds in self.columns(own).items()
            for seed in range(seeds)
        ]

    def columns(self, own: Mapping[str, Any]) -> dict[str, int]:
        """The encoders of a task with these entries of its own, and the seeds of each."""
        encoders = own.get("encoders", self.encoders)
        if isinstance(encoders, Mapping):
            return dict(encoders)
        return dict.fromkeys(encoders, own.get("seeds", self.seeds))

    def _settings(self, task: str, encoder: str, seed: int) -> dict[str, Any]:
        own = {"env": task, "steps": self.steps, **self.settings, **self.tasks[task]}
        own = select_options(own, encoder)  # they may belong to several encoders
        steps = own.pop("steps")
        own = {name: value for name, value in own.items() if name not in OF_TASKS}
        return own | {"encoder": encoder, "seed": seed, "total_timesteps": steps} | UNWATCHED


def read_suite(name: str) -> Suite:
    """The suite of that name, or in that .yaml file.

    Raises:
        ValueError: there is none, or an entry is unknown or invalid.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"{name}: no such file")
    else:
        check_names("suite", [name], [path.stem for path in SUITES.glob("*.yaml")])
        path = SUITES / f"{name}.yaml"
    entries = read_yaml(path)
    if not isinstance(entries, dict) or not isinstance(entries.get("tasks"), dict):
        raise ValueError(f"{path.name}: expected a mapping with `tasks`, see rlmin/suite/cells.py")
    check_mappings({"settings": entries.get("settings"), **entries["tasks"]}, path.name)
    known = settable(TrainConfig)
    try:
        check_names("entry", entries, KEYS)
        entries = check_entries(entries, "suite")
        check_names("encoder", entries.get("encoders", []), CELLS)
        tasks = {task: check_entries(settings or {}, task) for task, settings in entries["tasks"].items()}
        for settings in (entries.get("settings") or {}, *tasks.values()):
            check_names("setting", settings, [*known, *OF_TASKS])
            check_names("encoder", settings.get("encoders", []), CELLS)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    return Suite(
        name=path.stem,
        tasks={task: _as_pairs(settings) for task, settings in tasks.items()},
        encoders=entries.get("encoders", ["min_gru", "mlp"]),
        seeds=entries.get("seeds", 5),
        steps=entries.get("steps", 1_000_000),
        settings=_as_pairs(entries.get("settings") or {}),
    )


def check_entries(entries: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Entries of a suite or of a task, checked, with plain numbers.

    Raises:
        ValueError: an entry has the wrong type or is out of range.
    """
    found = dict(entries)
    for key in set(entries) & set(ENTRIES):
        plain = check_setting(f"{where}: {key}", entries[key], ENTRIES[key])
        found[key] = plain if isinstance(plain, int | float) else entries[key]  # lists stay lists, for score.json
    if isinstance(found.get("encoders"), dict):
        for name, seeds in found["encoders"].items():
            check_setting(f"{where}: seeds of {name}", seeds, Count)
    return found


def open_suite(name: str, *, kind: str, parts: tuple[str, str], module: str) -> tuple[Path, dict[str, Any]]:
    """The file of a suite, by name or path, and its entries.

    Args:
        name: of the suite, or of the file.
        kind: name of this kind of suite, for error messages.
        parts: entries that have to be mappings.
        module: documents the entries, for error messages.

    Raises:
        ValueError: there is no such file, or it lacks one of the parts.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else SUITES / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"{name}: no such file" if path == Path(name) else f"no {kind} {name!r}")
    content = read_yaml(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in parts):
        raise ValueError(f"{path.name}: expected a mapping with `{parts[0]}` and `{parts[1]}`, see {module}")
    return path, content


def check_mappings(parts: Mapping[Any, Any], file: str) -> None:
    """Raise a ValueError if an entry for settings is not a mapping."""
    for name, part in parts.items():
        if not isinstance(name, str) or not isinstance(part, dict | None):
            found = f"{name!r}: {part!r:.80}"
            raise ValueError(f"{file}: expected the settings of a name as a mapping, got {found}")


def train_or_resume(config: OnlineRun | OfflineRun, folder: Path) -> None:
    """Train in `folder`, or continue from its last checkpoint.

    Raises:
        ValueError: that checkpoint has other settings.
    """
    if not (folder / LEARNER).exists():
        train(replace(config, folder=folder), progress_bar=False)
        return
    header = read_header(folder, LEARNER)
    settings = config.agent_settings
    here = {"total_timesteps": config.total_timesteps, "seed": config.seed, **settings.to_saved()}
    there = {name: header.get(name) for name in ("total_timesteps", "seed")} | header["config"]
    plain = json.loads(json.dumps(here))  # as in a file: lists, no tuples; None is decided by the data
    known = {name: x for name, x in plain.items() if x is not None and name in there}
    differ = differences({name: there[name] for name in known}, known)
    if differ:
        raise ValueError(f"{folder}: half-trained with {differ}; choose another --out, or delete that folder")
    if int(header["num_timesteps"]) < config.total_timesteps or not (folder / CURVE).exists():
        resume(folder, progress_bar=False, env=config.env, trust=config.trust)
    else:
        check_free(folder)  # and removes leftovers of a process that was killed after it had finished


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Settings that differ, as text; "" if none do."""
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return ", ".join(f"{name}={there.get(name)!r} and not {here.get(name)!r}" for name in names)


def score(cell: Cell, folder: Path) -> Row:
    """Both protocols: the final policy on held-out episodes, and the best of training as POPGym publishes it."""
    differing = parse_pairs(cell.config.eval_kwargs)  # a task may be trained in an easier variant
    import_provider(cell.config.env)  # the suite names the module, so the run may import it
    held_out = evaluate_run(folder, env_kwargs=differing, episodes=EPISODES, num_envs=EPISODES // 4)
    steps, curve = read_curve(folder, "rollout/ep_rew_mean")
    known = anchors(cell.config.env)
    floor, ceiling = (None, None) if known is None else (known.floor, known.ceiling)
    return {
        "task": cell.task,
        "encoder": cell.encoder,
        "seed": cell.seed,
        "steps": int(steps[-1]),
        "final": held_out.mean_return,
        "best": float(max(curve)),
        "success": held_out.success_rate,
        "floor": floor,
        "ceiling": ceiling,
    }


def anchors(env: str) -> Variant | None:
    """Floor and ceiling of an id, if it is one of rlmin's own."""
    return dict(variants()).get(env)


def _as_pairs(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`env_kwargs: {length: 50}` in the form of the command line, length=50."""
    return {
        name: [f"{key}={x}" for key, x in value.items()] if isinstance(value, dict) and name not in OF_TASKS else value
        for name, value in settings.items()
    }
