"""Training runs: an agent, its environment or data, and a folder meet here."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from rlmin.agents.agent import Agent
from rlmin.agents.load import load
from rlmin.agents.offline import OfflineAgent
from rlmin.checks import require
from rlmin.commands.evaluate import Evaluate, run_evaluate
from rlmin.commands.evaluate import evaluate_run as evaluate_run
from rlmin.commands.presets import PRESETS as PRESETS
from rlmin.commands.presets import preset_arguments as preset_arguments
from rlmin.commands.presets import preset_path as preset_path
from rlmin.commands.presets import read_preset as read_preset
from rlmin.commands.train_config import PAIRS as PAIRS
from rlmin.commands.train_config import DecisionTrainConfig as DecisionTrainConfig
from rlmin.commands.train_config import OfflineRun, OnlineRun
from rlmin.commands.train_config import TrainConfig as TrainConfig
from rlmin.commands.training_run import (
    CURVE,
    check_folder,
    ignore_interrupts,
    learn_into,
    new_folder,
    run_folder,
    warm_up,
)
from rlmin.commands.watchdog import BEST, Score, read_best
from rlmin.distributed import ALONE, Ranks, join
from rlmin.distributed.join import TIMEOUT, own_device
from rlmin.runs.checkpoint import LEARNER, read_header
from rlmin.settings import Count, Positive
from rlmin.settings.boundary import checked
from rlmin.vector import adapt
from rlmin.vector.make import make_vec, readable_errors
from rlmin.vector.make import parse_pairs as parse_pairs


@checked
def train(config: OnlineRun | OfflineRun, *, name: str = "run", progress_bar: bool = True) -> Path:
    """Train, save and evaluate: an agent in an environment, or one on logged data.

    All processes that torchrun started train one agent; the first of them writes, logs and evaluates.

    Args:
        config: everything.
        name: of the run, where `config.folder` is None.
        progress_bar: show progress.

    Returns:
        the run folder.

    Raises:
        ValueError: settings, environment, data or folder are unusable; nothing has been written.
        ImportError: a package that the settings need is not installed; nothing has been written.
        FloatingPointError: training met NaN or infinity; the last checkpoint is the last good one.
        SystemExit: a signal ended it, after a checkpoint; the code is 128 plus the signal's number.
    """
    if not isinstance(config, OnlineRun | OfflineRun):
        raise TypeError(f"config: expected a TrainConfig or a DecisionTrainConfig, got {type(config).__name__}")
    here = Path.cwd()  # an environment may change it
    with join(timeout=config.rank_timeout) as ranks:
        if ranks.is_main:
            check_folder(config.folder)
            if config.wandb is not None:
                require("wandb", extra="wandb")
        agent = make_agent(config, ranks)
        agent.run |= config.run
        warm_up(agent)
        folder = new_folder(name, here) if config.folder is None and ranks.is_main else config.folder
        folder = Path(ranks.broadcast_text(str(folder)))
        place, total, settings = here / folder, config.total_timesteps, cast(Any, config).to_saved()
        with run_folder(place, new=True, ranks=ranks):
            learn_into(agent, place, total, settings, folder=folder, progress_bar=progress_bar)
            if ranks.is_main:
                _report(agent, place)
    return folder


@checked
def resume(
    folder: Path,
    *,
    total_timesteps: Count | None = None,
    device: str | None = None,
    dataset: str | None = None,
    wandb: str | None = None,
    env: str | None = None,
    trust: bool = False,
    rank_timeout: Positive = TIMEOUT,
    progress_bar: bool = True,
) -> Path:
    """Resume a run that was stopped or killed, or extend a finished one.

    A run that was stopped after its last save only gets its curve and its evaluation.

    Args:
        folder: the run.
        total_timesteps: steps at which to stop; None: the run's own.
        device: device to train on; None: the run's own.
        dataset: new place of a decision agent's data; None: the old one.
        wandb: project of Weights & Biases to log to from here on, or "none"; None: as before.
        env: the run's own environment id; naming it here allows the import of its module.
        trust: whether the run may import that module by itself: see `rlmin.files.trust`.
        rank_timeout: seconds that a process of several waits for one that hangs; their number may differ from before.
        progress_bar: show progress.

    Raises:
        ValueError: there is no run, it cannot be read, it is finished, its data are gone, or another process
            is training there.
        ImportError, FloatingPointError, SystemExit: see `train`.
    """
    place = Path(folder).absolute()  # an environment may change the working folder
    with join(timeout=rank_timeout) as ranks, run_folder(folder, new=False, ranks=ranks):
        header = read_header(folder, LEARNER)
        total = total_timesteps or header["total_timesteps"]
        over = header["num_timesteps"] >= total
        if over and (folder / CURVE).exists():
            message = f"finished at {header['num_timesteps']:,} steps; extend it with --total-timesteps"
            raise ValueError(f"{folder}: {message}")
        _check_env(folder, header, env)
        project = _wandb(header, wandb)
        device = own_device(device or header.get("run", {}).get("device", "cpu"), ranks)
        known = header["env"]
        with readable_errors(known["id"] or str(folder)), ignore_interrupts(known["workers"]):
            agent = load(folder, device=device, trust=trust or env is not None, ranks=ranks)
            if dataset is not None:
                _give(agent, dataset, header)
            if not over:
                agent.resume(place)
        if project != agent.run.get("wandb"):
            agent.run["wandb"] = project
        if not over:  # otherwise it was stopped between its last save and its curve
            warm_up(agent)
            learn_into(agent, place, total, header["config"], folder=folder, progress_bar=progress_bar)
        if ranks.is_main:
            _report(agent, place)
    return folder


def _check_env(folder: Path, header: Mapping[str, Any], env: str | None) -> None:
    """Raise a ValueError if a run cannot be resumed in its environment, or should be in another one."""
    known = header["env"]["id"]
    if known is None and "dataset" not in header:
        raise ValueError(
            f"{folder}: trained on an environment without an id; use agent.set_env(env), agent.resume(...)"
        )
    if env is not None and env != known:
        raise ValueError(f"env={env!r}: a run is resumed in its own environment, expected {known!r}")


def _wandb(header: Mapping[str, Any], given: str | None) -> str | None:
    """The project of Weights & Biases for a resumed run."""
    project = header.get("run", {}).get("wandb") if given is None else None if given == "none" else given
    if project is not None:
        _check_wandb()
    return project


def _check_wandb() -> None:
    try:
        require("wandb", extra="wandb")
    except ImportError as error:
        raise ImportError(f"{error}, or continue without W&B: --wandb none") from None


def make_agent(config: OnlineRun | OfflineRun, ranks: Ranks = ALONE) -> Agent:
    """The agent of a run, which has not learned yet.

    Raises:
        ValueError: environment or data are unusable.
    """
    return _online(config, ranks) if isinstance(config, OnlineRun) else _offline(config, ranks)


def _online(config: OnlineRun, ranks: Ranks) -> Agent:
    kwargs, other = parse_pairs(config.env_kwargs), parse_pairs(config.eval_kwargs)
    kind: Any = config.agent_class
    with readable_errors(config.env):
        if other and config.eval_episodes:  # an error there should not appear after hours of training
            adapt(config.env, env_kwargs={**kwargs, **other}).close()
        settings: dict[str, Any] = {"seed": config.seed, "workers": config.workers, **_place(config.device, ranks)}
        with ignore_interrupts(config.workers):
            agent: Agent = kind(config.env, config=config.agent_settings, env_kwargs=kwargs, **settings)
    return agent


def _place(device: str, ranks: Ranks) -> dict[str, Any]:
    """Where an agent learns: the device, and the ranks where there are several."""
    place: dict[str, Any] = {"device": own_device(device, ranks)}
    return place if ranks.is_alone else {**place, "ranks": ranks}


def _offline(config: OfflineRun, ranks: Ranks) -> Agent:
    env = None if config.env is None else {"id": config.env, "kwargs": parse_pairs(config.env_kwargs)}
    kind: Any = config.agent_class
    with readable_errors(f"dataset {config.dataset!r}"):
        settings: dict[str, Any] = {"seed": config.seed, "trust": config.trust, **_place(config.device, ranks)}
        if config.skip_bad_episodes:
            settings["skip_bad_episodes"] = True
        agent: Agent = kind(config.dataset, env=env, config=config.agent_settings, **settings)
    if agent.env_spec["id"] is None and ranks.is_main:
        message = "the data do not name their environment, so the bounds of its spaces are a guess"
        print(f"{message}; name it with --env ID", file=sys.stderr, flush=True)
    return agent


def _give(agent: Agent, dataset: str, header: Mapping[str, Any]) -> None:
    """The data of a run at another place; they have to be unchanged."""
    if not isinstance(agent, OfflineAgent):
        raise ValueError(f"dataset={dataset!r}: this run learns in an environment, not from data")
    skip = header["dataset"].get("skip_bad_episodes", False)
    agent.set_dataset(dataset, env=header["dataset"]["env"], trust=agent.trust, skip_bad_episodes=skip)
    if agent.source["digest"] != header["dataset"]["digest"]:
        raise ValueError(f"dataset {dataset!r}: these are not the data of this run")


def _report(agent: Agent, folder: Path) -> None:
    """Draw the curve, and evaluate."""
    from rlmin.runs.plots import plot_runs

    plot_runs([folder], [folder / CURVE])
    if isinstance(agent, OfflineAgent):
        _report_offline(agent, folder)
        return
    _compare_with_best(agent, folder)
    episodes = agent.run.get("eval_episodes", TrainConfig.eval_episodes)
    variants: list[dict[str, Any]] = [{}]
    if agent.run.get("eval_kwargs"):
        variants.append(agent.run["eval_kwargs"])
    for variant in variants if episodes else []:
        result = evaluate_run(folder, env_kwargs=variant, episodes=episodes, device=str(agent.device))
        words = _words({**agent.env_spec["kwargs"], **variant})
        print(f"greedy on {agent.env_spec['id']}{words}: {result}", flush=True)


def _compare_with_best(agent: Agent, folder: Path) -> None:
    """Print whether the last policy, which is evaluated at the end, is as good as the best one during training."""
    best, known = read_best(folder), agent.run.get("last")
    if best is None or known is None:
        return
    last = Score(**known)
    if last.mean_return >= best.mean_return:
        print(f"the last policy is the best of {agent.run['evaluations']} evaluations", flush=True)
        return
    scores = f"{last.mean_return:.3f} in evaluations, the best {best.mean_return:.3f} at {best.num_timesteps:,} steps"
    if not best.beats(last):
        print(f"the last policy is as good as the best, within the error: it returned {scores}", flush=True)
        return
    print(
        f"note: the last policy is worse than the best: it returned {scores}. "
        f"What follows is the last; play the best: rlmin evaluate {folder / BEST}",
        flush=True,
    )


def _report_offline(agent: OfflineAgent, folder: Path) -> None:
    """The open-loop loss on held-out data and, if the environment can be made here, the returns in it."""
    _compare_with_best(agent, folder)
    for name, value in agent.held_out().items():
        print(f"open loop, {name.replace('_', ' ')}: {value:.4g}", flush=True)
    spec, episodes = agent.env_spec, agent.run.get("eval_episodes", DecisionTrainConfig.eval_episodes)
    if not episodes:
        return
    if spec["id"] is None:
        message = "not evaluated: the data do not name their environment; name it with rlmin evaluate --env ID"
        print(f"{message}, if its spaces are the ones guessed from the data, or train with --env ID", flush=True)
        return
    try:
        with readable_errors(spec["id"]):
            make_vec(spec["id"], 1, **spec["kwargs"]).close()
    except ValueError as error:
        print(f"not evaluated: {error}", flush=True)
        return
    print(f"greedy on {spec['id']}{_words(spec['kwargs'])}:", flush=True)
    print(run_evaluate(Evaluate(run=folder, episodes=episodes, device=str(agent.device))), flush=True)


def _words(kwargs: Mapping[str, Any]) -> str:
    return "".join(f" {key}={value}" for key, value in kwargs.items())
