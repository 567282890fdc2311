"""The results of a search: best.yaml, a preset; trials.csv; importance.png."""

import io
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from rlmin.checks import require
from rlmin.commands.train_config import OfflineRun, OnlineRun
from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv

BEST, TRIALS, PICTURE = "best.yaml", "trials.csv", "importance.png"
APART = ("folder", "seed", "trust", "encoder_options")
"""Settings that are not in the preset."""
FEW = 4
"""Least number of finished trials from which importance is estimated."""


def write_report(study: Any, config: OnlineRun | OfflineRun, out: Path, *, objective: str) -> str:
    """Write the files into `out`; returns the best settings as text.

    Args:
        study: Optuna's, with a finished trial.
        config: of all runs.
        out: folder of the search.
        objective: name of the score, for words.
    """
    best = study.best_trial
    score = f"{objective} of the seeds {best.value:.3f}, trial {best.number} of {len(study.trials)}"
    preset = {**find_differences(config), **best.params}
    text = f"# Found by `rlmin tune`: {score}.\n{yaml.safe_dump(preset, sort_keys=False)}"
    write_atomic(out / BEST, text.encode())
    write_atomic(out / TRIALS, as_csv(_list_rows(study)))
    files = [out / BEST, out / TRIALS]
    weights = _weigh(study)
    if weights:
        write_atomic(out / PICTURE, _draw(study, weights, objective))
        files.append(out / PICTURE)
    lines = [f"best: {score}", *(f"  {key}: {value}" for key, value in best.params.items())]
    lines += [f"importance: {', '.join(f'{key} {weight:.2f}' for key, weight in weights.items())}"] if weights else []
    return "\n".join([*lines, f"train it: rlmin train {out / BEST}", ", ".join(map(str, files))])


def find_differences(config: OnlineRun | OfflineRun) -> dict[str, Any]:
    """The settings of a run that are not the defaults, as a preset holds them."""
    kind: Any = type(config)
    given = {f.name: getattr(config, f.name) for f in fields(kind) if f.name not in APART and f.init}
    usual = {f.name: f.default for f in fields(kind)}
    changed = {name: value for name, value in given.items() if name not in usual or value != usual[name]}
    options: dict[str, Any] = getattr(config, "encoder_options", {})
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
    return {name: str(value) if isinstance(value, str | Path) else value for name, value in plain.items()} | options


def _list_rows(study: Any) -> list[dict[str, Any]]:
    """A row for each trial."""
    names = list(dict.fromkeys(name for trial in study.trials for name in trial.params))
    rows = []
    for trial in study.trials:
        last = max(trial.intermediate_values, default=None)
        score = trial.value if trial.value is not None else trial.intermediate_values.get(last)
        row = {"trial": trial.number, "state": trial.state.name.lower(), "score": score, "evaluations": last or 0}
        rows.append(row | {name: trial.params.get(name) for name in names})
    return rows


def _weigh(study: Any) -> dict[str, float]:
    """The importance of each setting; together they are 1. Empty if too few trials are finished."""
    optuna = require("optuna", extra="tune")
    done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if len(done) < FEW or len({trial.value for trial in done}) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found


def _draw(study: Any, weights: dict[str, float], objective: str) -> bytes:
    """Importance of the settings, and the best score so far over the trials."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.6 + 0.28 * len(weights)), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(weights)[::-1]
    left.barh(names, [weights[name] for name in names])
    left.set_title("importance of the settings (PED-ANOVA)", fontsize="medium")
    done = [(trial.number, trial.value) for trial in study.trials if trial.value is not None]
    numbers, values = zip(*done, strict=True)
    right.plot(numbers, values, ".", color="0.6", label="trial")
    right.step(numbers, [max(values[: i + 1]) for i in range(len(values))], where="post", label="best so far")
    right.set_xlabel("trial")
    right.set_title(f"return, {objective} of the seeds", fontsize="medium")
    right.legend(fontsize="small")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()
