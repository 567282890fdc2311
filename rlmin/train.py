"""Training runs: an agent, its environment and a folder meet here."""

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

import gymnasium as gym
import torch
import yaml

from rlmin.agents.load import load
from rlmin.agents.ppo import PPO, PPOConfig
from rlmin.agents.warmup import warmup
from rlmin.callbacks import Hook
from rlmin.checkpoint import LEARNER, read_header
from rlmin.checks import check_names
from rlmin.evaluate import Evaluation, evaluate
from rlmin.vector import adapt

PRESETS = Path(__file__).parent / "configs"


@dataclass(frozen=True, kw_only=True)
class TrainConfig(PPOConfig):
    """One training run: what to train on, for how long, and every setting of PPO and its policy."""

    env: str  # gymnasium id
    env_kwargs: tuple[str, ...] = ()  # key=value pairs for the environment's constructor
    total_timesteps: int = 500_000  # environment steps, summed over environments
    seed: int = 0  # of weights, environments and actions
    device: str = "cpu"  # or cuda, ...
    workers: int = 0  # processes that step the environments; 0: this one
    threads: int | None = None  # of torch on the CPU; None: as torch decides
    folder: Path | None = None  # of the run; None: runs/NAME-NUMBER, the next free number
    save_interval: int = 100_000  # environment steps between checkpoints
    eval_episodes: int = 200  # greedy, at the end; 0: none
    eval_kwargs: tuple[str, ...] = ()  # for a second evaluation: key=value pairs that differ from env_kwargs

    def __post_init__(self) -> None:
        PPOConfig.__post_init__(self)
        least_of = {"total_timesteps": 1, "save_interval": 1, "eval_episodes": 0, "workers": 0, "threads": 1}
        for name, least in least_of.items():
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least {least}")

    @property
    def ppo(self) -> PPOConfig:
        """The settings that are PPO's."""
        return PPOConfig(**{f.name: getattr(self, f.name) for f in fields(PPOConfig)})

    @property
    def run(self) -> dict[str, Any]:
        """The settings that a resumed run needs beside PPO's, as plain values."""
        return {name: getattr(self, name) for name in RUN} | {"eval_kwargs": parse_pairs(self.eval_kwargs)}


RUN = ("device", "threads", "save_interval", "eval_episodes")
PAIRS = ("env_kwargs", "eval_kwargs")


def preset_path(name: str) -> Path:
    """The file of a preset's name, or of a path that ends in .yaml.

    Raises:
        ValueError: neither exists; the message names the nearest preset.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ValueError(f"{name}: no such file")
        return Path(name)
    check_names("preset", [name], [path.stem for path in PRESETS.glob("*.yaml")])
    return PRESETS / f"{name}.yaml"


def read_preset(name: str) -> dict[str, Any]:
    """The settings of a preset or file: differences from the defaults.

    Raises:
        ValueError: no such preset, not a mapping, or a key that is no setting.
    """
    path = preset_path(name)
    try:
        settings = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: not readable as YAML ({error})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path.name}: expected settings as `key: value`, got {type(settings).__name__}")
    try:
        check_names("setting", settings, [f.name for f in fields(TrainConfig)])
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    for key in PAIRS:
        if isinstance(settings.get(key), dict):
            settings[key] = [f"{name}={value}" for name, value in settings[key].items()]
    return settings


def preset_arguments(settings: Mapping[str, Any]) -> list[str]:
    """The settings as the command line would give them, so that both are parsed by one parser and 1e-4 is a number."""
    arguments: list[str] = []
    for key, value in settings.items():
        arguments.append("--" + key.replace("_", "-"))
        arguments += [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return arguments


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """["size=9", "layouts=null"] -> {"size": 9, "layouts": None}; values are read as YAML.

    Raises:
        ValueError: a pair without "=".
    """
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"expected key=value, got {pair!r}")
    return {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in pairs)}


def train(config: TrainConfig, *, name: str = "run", progress_bar: bool = True) -> Path:
    """Train, save and evaluate.

    Args:
        config: everything.
        name: of the run, where `config.folder` is None.
        progress_bar: show progress.

    Returns:
        the run folder.

    Raises:
        ValueError: settings, environment or folder do not work; nothing has been written.
        FloatingPointError: training met NaN or infinity; the last checkpoint is the last good one.
        SystemExit: a signal ended it, after a checkpoint; the code is 128 plus the signal's number.
    """
    if config.folder is not None and config.folder.exists() and not config.folder.is_dir():
        raise ValueError(f"{config.folder}: expected a folder, found a file")
    if config.folder is not None and (config.folder / LEARNER).exists():
        raise ValueError(f"{config.folder}: there is a run already; go on with --resume {config.folder}")
    kwargs, run = parse_pairs(config.env_kwargs), config.run
    with _readable_errors(config.env):
        if run["eval_kwargs"] and config.eval_episodes:  # a mistake there should not show after hours of training
            adapt(config.env, env_kwargs={**kwargs, **run["eval_kwargs"]}).close()
        with _uninterrupted(config.workers):
            agent = PPO(
                config.env,
                config=config.ppo,
                seed=config.seed,
                device=config.device,
                env_kwargs=kwargs,
                workers=config.workers,
            )
    agent.run = run
    _warm_up(agent)
    folder = _new_folder(name) if config.folder is None else config.folder
    _run(agent, folder, config.total_timesteps, asdict(config), progress_bar)
    return folder


def resume(
    folder: Path, *, total_timesteps: int | None = None, device: str | None = None, progress_bar: bool = True
) -> Path:
    """Go on with a run that was stopped or killed, or for longer than it was meant to last.

    Args:
        folder: the run.
        total_timesteps: where to stop; None: where the run was to stop.
        device: to go on on; None: the run's own.
        progress_bar: show progress.

    Raises:
        ValueError: no run is there, it cannot be read, or it is finished already.
        FloatingPointError, SystemExit: see `train`.
    """
    header = read_header(folder, LEARNER)
    total = total_timesteps or header["total_timesteps"]
    if header["num_timesteps"] >= total:
        raise ValueError(f"{folder}: finished at {header['num_timesteps']:,} steps; go further with --total-timesteps")
    env = header["env"]
    if env["id"] is None:
        raise ValueError(
            f"{folder}: trained on an environment without an id; use agent.set_env(env), agent.resume(...)"
        )
    with _readable_errors(env["id"]), _uninterrupted(env["workers"]):
        agent = load(folder, device=device or header.get("run", {}).get("device", "cpu"))
        agent.resume(folder)
    _warm_up(agent)
    _run(agent, folder, total, header["config"], progress_bar)
    return folder


def evaluate_run(
    folder: Path,
    *,
    env: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    episodes: int = 200,
    deterministic: bool = True,
    seed: int = 10_000,
    num_envs: int = 16,
    device: str = "cpu",
) -> Evaluation:
    """Evaluate the policy of a run.

    Args:
        folder: the run.
        env: another environment with the same spaces; None: the run's own.
        env_kwargs: differences from the run's own.
        episodes, deterministic, seed: see `rlmin.evaluate.evaluate`.
        num_envs: played at once.

    Raises:
        ValueError: the run cannot be read, or its policy does not fit the environment.
    """
    with _readable_errors(env or str(folder)):
        agent = load(folder, device=device)
        spec = agent.env_spec
        if env is None and spec["id"] is None:
            raise ValueError(f"{folder}: trained on an environment without an id; name one with --env")
        own = spec["kwargs"] if env is None else {}
        kwargs = {**own, **(env_kwargs or {})}
        vector = adapt(env or spec["id"], num_envs=max(min(num_envs, episodes), 1), device=device, env_kwargs=kwargs)
    try:
        return evaluate(agent.policy, vector, episodes=episodes, deterministic=deterministic, seed=seed)
    finally:
        vector.close()


class SaveEvery(Hook):
    """Save the agent between an update and the next rollout, every so many environment steps."""

    def __init__(self, agent: PPO, folder: Path, interval: int) -> None:
        self.agent, self.folder, self.interval = agent, folder, interval
        self.saved = agent.num_timesteps

    def on_rollout_start(self) -> None:
        if self.agent.num_timesteps - self.saved >= self.interval:
            self.agent.save(self.folder)
            self.saved = self.agent.num_timesteps


def _warm_up(agent: PPO) -> None:
    """Set the threads and compile, before a folder is made: a kernel that cannot run leaves none behind."""
    if agent.run.get("threads") is not None:
        torch.set_num_threads(agent.run["threads"])
    warmup(agent.policy, horizon=agent.config.horizon, num_envs=agent.rows)


def _run(agent: PPO, folder: Path, total: int, settings: Mapping[str, Any], progress_bar: bool) -> None:
    """Train to `total` steps with logs and checkpoints, and report; a signal ends it early, saved."""
    from rlmin.logs import make_logger

    folder.mkdir(parents=True, exist_ok=True)
    agent.total_timesteps = total
    if agent.num_timesteps == 0:
        agent.save(folder)  # from here on there is always a last good checkpoint
    agent.set_logger(make_logger(folder, settings, until=agent.num_timesteps))
    print(f"run: {folder}", flush=True)
    save = SaveEvery(agent, folder, agent.run.get("save_interval", TrainConfig.save_interval))
    try:
        with _signals(agent) as caught:
            steps = total - agent.num_timesteps
            agent.learn(steps, save, progress_bar=progress_bar, reset_num_timesteps=False)
            agent.save(folder)
    finally:
        agent.logger.close()
        agent.vector.close()
    if caught:
        print(f"stopped at {agent.num_timesteps:,} steps and saved; go on with: rlmin train --resume {folder}")
        raise SystemExit(128 + caught[0])
    _report(agent, folder)


def _report(agent: PPO, folder: Path) -> None:
    """Draw the curve, evaluate greedily in the run's environment and, where asked for, in a variant of it."""
    from rlmin.plots import plot_runs

    plot_runs([folder], folder / "curve.png")
    episodes = agent.run.get("eval_episodes", TrainConfig.eval_episodes)
    variants: list[dict[str, Any]] = [{}]
    if agent.run.get("eval_kwargs"):
        variants.append(agent.run["eval_kwargs"])
    for variant in variants if episodes else []:
        result = evaluate_run(folder, env_kwargs=variant, episodes=episodes, device=str(agent.device))
        words = _words({**agent.env_spec["kwargs"], **variant})
        print(f"greedy on {agent.env_spec['id']}{words}: {result}", flush=True)


def _words(kwargs: Mapping[str, Any]) -> str:
    return "".join(f" {key}={value}" for key, value in kwargs.items())


def _new_folder(name: str) -> Path:
    """runs/NAME-NUMBER, the first that does not exist, created."""
    number = 0
    while True:
        folder = Path("runs") / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


@contextmanager
def _readable_errors(what: str) -> Iterator[None]:
    """Whatever an environment's constructor raises where its arguments do not fit, as one ValueError."""
    try:
        yield
    except (gym.error.Error, ImportError, TypeError, AssertionError, RuntimeError) as error:
        raise ValueError(f"{what}: {str(error).strip() or type(error).__name__}") from error


@contextmanager
def _uninterrupted(workers: int) -> Iterator[None]:
    """Worker processes begun in here ignore Ctrl-C, which a terminal sends to them too: the main process stops them."""
    if workers == 0 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _signals(agent: PPO) -> Iterator[list[int]]:
    """SIGINT and SIGTERM ask the agent to stop after its update; a second one stops at once. Main thread only."""
    caught: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        agent.stop_requested = True

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
