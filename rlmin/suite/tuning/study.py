"""The search: Optuna proposes settings, an executor trains them, and what is clearly worse is stopped early.

Everything is in one folder: study.db is Optuna's, a folder a trial holds its agents and their returns. The search reads
the returns from there, wherever a trial was trained, so the same command goes on after any interruption.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from rlmin.checks import require
from rlmin.commands.train_config import OfflineRun, OnlineRun
from rlmin.files.atomic import write_atomic
from rlmin.files.lock import lock_folder
from rlmin.files.read_json import read_json
from rlmin.suite.cells import differences
from rlmin.suite.executors.job import Job
from rlmin.suite.executors.run_jobs import Event, run_jobs, stop_by_signal
from rlmin.suite.tuning.options import TuneOptions
from rlmin.suite.tuning.report import write_report
from rlmin.suite.tuning.space import Space, read_space
from rlmin.suite.tuning.trial import STOP, Trial, read_returns, summarise
from rlmin.vector.make import make_vec, parse_pairs, readable_errors

DATABASE, SETTINGS = "study.db", "settings.json"
ALIKE = ("trials", "on", "jobs", "retries", "resources", "pruner", "startup")
"""Options that may change when a search goes on."""


def tune(config: OnlineRun | OfflineRun, options: TuneOptions, *, name: str) -> str:
    """Search; returns the best settings as text. Files are written beside: see `rlmin.suite.tuning.report`.

    Args:
        config: of all runs; the settings of the space are changed.
        options: how to search.
        name: of the folder, runs/NAME-tuned, where `config.folder` is None.

    Raises:
        ValueError: the space or a setting is unusable, or no trial was finished.
        ImportError: Optuna is not installed.
    """
    optuna = require("optuna", extra="tune")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = read_space(options.space or config.algorithm, config)
    if isinstance(config, OnlineRun):
        with readable_errors(config.env):
            make_vec(config.env, 1, **parse_pairs(config.env_kwargs)).close()
    out = (config.folder or Path("runs") / f"{name}-tuned").resolve()
    with lock_folder(out):
        _check_same(out / SETTINGS, config, options, space)
        search = Search(optuna, config, options, space, out)
        search.run()
        if not search.has_best:
            why = f"; the first error: {search.errors[0]}" if search.errors else ""
            raise ValueError(f"{out}: no trial was trained to its end{why}")
        return write_report(search.study, config, out, objective=options.objective)


class Search:
    """A study of Optuna, and the trials that run for it."""

    def __init__(
        self, optuna: Any, config: OnlineRun | OfflineRun, options: TuneOptions, space: Space, out: Path
    ) -> None:
        self.optuna, self.config, self.options, self.out = optuna, config, options, out
        self.distributions = {key: dimension.distribution() for key, dimension in space.items()}
        storage = optuna.storages.RDBStorage(f"sqlite:///{out / DATABASE}")
        self.study = optuna.create_study(
            storage=storage,
            study_name="rlmin",
            direction="maximize",
            load_if_exists=True,
            pruner=_make_pruner(optuna, options),
        )
        begun = len(self.study.trials)  # another seed, or the search would propose the same settings again
        self.study.sampler = optuna.samplers.TPESampler(
            seed=config.seed + begun, n_startup_trials=options.startup, constant_liar=True
        )
        self.running: dict[str, Any] = {}
        self.reported: dict[str, int] = {}
        self.errors: list[str] = []

    @property
    def has_best(self) -> bool:
        """Whether a trial was trained to its end."""
        return bool(self.study.get_trials(states=(self.optuna.trial.TrialState.COMPLETE,)))

    def run(self) -> None:
        """Run every trial that is not finished."""
        states = self.optuna.trial.TrialState
        ended = sum(trial.state != states.RUNNING for trial in self.study.trials)
        self._say(f"{self.options.trials} trials, {ended} done before, {self.options.seeds} seeds each")
        executor, retries = self.options.make_executor(), self.options.retries
        events = run_jobs(self._propose(), executor, folder=self.out, retries=retries, on_tick=self._look)
        try:
            with stop_by_signal(), contextlib.closing(events):
                for event in events:
                    self._end(event)
        except KeyboardInterrupt:
            self._say("stopping; the same command continues from here")
            raise

    def _propose(self) -> Iterator[Job]:
        """Trials that an earlier command has left, then new ones."""
        states = self.optuna.trial.TrialState
        for frozen in self.study.get_trials(states=(states.RUNNING,)):
            yield self._make_job(self.optuna.trial.Trial(self.study, frozen._trial_id))
        while len(self.study.trials) < self.options.trials:
            yield self._make_job(self.study.ask(self.distributions))

    def _make_job(self, trial: Any) -> Job:
        name, options = f"trial {trial.number}", self.options
        self.running[name] = trial
        self.reported[name] = len(self.study.trials[trial.number].intermediate_values)
        facts = {"seeds": options.seeds, "checks": options.checks, "episodes": options.episodes}
        return Job(name, Trial(self.config, dict(trial.params), self._folder(name), **facts))

    def _look(self) -> None:
        """Tell Optuna what running trials have returned, and stop those that are clearly worse."""
        for name, trial in self.running.items():
            returns = read_returns(self._folder(name))
            for check in range(self.reported[name], len(returns)):
                trial.report(summarise(returns[check], self.options.objective), check + 1)
            is_new, self.reported[name] = len(returns) > self.reported[name], len(returns)
            if is_new and len(returns) < self.options.checks and trial.should_prune():
                write_atomic(self._folder(name) / STOP, b"")

    def _end(self, event: Event) -> None:
        name, states = event.job.name, self.optuna.trial.TrialState
        if event.again:
            self._say(f"[lost] {name}: {event.error}")
            return
        self._look()
        trial, returns = self.running.pop(name), read_returns(self._folder(name))
        if event.error is not None:
            self.study.tell(trial, state=states.FAIL)
            self.errors.append(event.error)
            outcome = f"failed: {event.error}"
        elif len(returns) < self.options.checks:
            self.study.tell(trial, state=states.PRUNED)
            outcome = f"stopped at {len(returns)} of {self.options.checks}, {self._score(returns)}"
        else:
            self.study.tell(trial, summarise(returns[-1], self.options.objective))
            outcome = self._score(returns)
        chosen = ", ".join(f"{key}={_show(value)}" for key, value in trial.params.items())
        self._say(f"[{trial.number + 1}/{self.options.trials}] {outcome}  {chosen}")

    def _score(self, returns: list[list[float]]) -> str:
        return (
            f"{self.options.objective} {summarise(returns[-1], self.options.objective):.3f}" if returns else "nothing"
        )

    def _folder(self, name: str) -> Path:
        return self.out / name.replace(" ", "-")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _make_pruner(optuna: Any, options: TuneOptions) -> Any:
    if options.pruner == "none":
        return optuna.pruners.NopPruner()
    if options.pruner == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)


def _check_same(file: Path, config: OnlineRun | OfflineRun, options: TuneOptions, space: Space) -> None:
    """Write the description of the search, or raise a ValueError if the folder holds another search."""
    run = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in ("folder", "trust")}
    about = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in (*ALIKE, "space")}
    dimensions = {f"space: {key}": repr(dimension) for key, dimension in space.items()}
    here = json.loads(json.dumps({**run, **{f"--{key}": value for key, value in about.items()}, **dimensions}))
    if not file.exists():
        write_atomic(file, json.dumps(here, indent=1).encode())
        return
    differ = differences(read_json(file), here)
    if differ:
        raise ValueError(f"{file.parent}: searched with {differ}; choose another --folder, or delete that one")


def _show(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
