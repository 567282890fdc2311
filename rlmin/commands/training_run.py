"""A training run: an agent of any kind learns into a folder, with logs and checkpoints, until it is done or stopped."""

import secrets
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from rlmin.agents.agent import Agent
from rlmin.commands.signals import handle_signals
from rlmin.commands.watchdog import BEST, watch
from rlmin.distributed import ALONE, LostRank, Ranks
from rlmin.distributed.join import leave
from rlmin.files.atomic import remove_leftovers
from rlmin.files.lock import check_free, lock_folder
from rlmin.runs.callbacks import Hook, Hooks
from rlmin.runs.checkpoint import CONFIG, LEARNER, POLICY, finish_save
from rlmin.vector.faults import EnvError

if TYPE_CHECKING:  # slow to import
    from stable_baselines3.common.logger import Logger

METRICS, CURVE = "metrics.csv", "curve.png"

SAVE_INTERVAL = 100_000
"""Environment steps between checkpoints, if a run does not set them."""


class SaveEvery(Hook):
    """Save the agent at the end of a rollout (or row of the log), after every so many environment steps."""

    def __init__(self, agent: Agent, folder: Path, interval: int) -> None:
        self.agent, self.folder, self.interval = agent, folder, interval
        self.saved = agent.num_timesteps

    def on_rollout_start(self) -> None:
        if self.agent.num_timesteps - self.saved >= self.interval:
            self.agent.save(self.folder)
            self.saved = self.agent.num_timesteps


def check_folder(folder: Path | None) -> None:
    """Raise a ValueError if a run cannot be put there."""
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder, found a file")
    check_free(folder)
    _check_empty(folder)


def _check_empty(folder: Path) -> None:
    if (folder / LEARNER).exists():
        raise ValueError(f"{folder}: there is a run already; resume it with --resume {folder}")
    if (folder / POLICY).exists():
        raise ValueError(f"{folder}: there is a policy already, without its {LEARNER}; choose another folder")


@contextmanager
def run_folder(folder: Path, *, new: bool, ranks: Ranks = ALONE) -> Iterator[None]:
    """Hold the folder of a run while it trains, and remove what a killed process left there.

    Args:
        folder: made where there is none.
        new: whether a run begins there; False: one is resumed.
        ranks: the processes of the run; the main one holds the folder before the others go on.

    Raises:
        ValueError: another process holds it, or has put a run there in the meantime.
    """
    if not ranks.is_main:
        ranks.barrier()
        yield
        return
    if not new and not folder.is_dir():
        raise ValueError(f"{folder}: no such run folder")
    try:
        with lock_folder(folder):
            if new:
                _check_empty(folder)
            remove_leftovers(folder, (CONFIG, POLICY, LEARNER, METRICS, CURVE))
            if (folder / BEST).is_dir():
                with lock_folder(folder / BEST):  # which leaves no lock of a killed process there either
                    remove_leftovers(folder / BEST, (CONFIG, POLICY, LEARNER))
            if not new:
                finish_save(folder)
            ranks.barrier()
            yield
    except BaseException:
        if new:
            with suppress(OSError):  # something is in it
                folder.rmdir()
        raise


def warm_up(agent: Agent) -> None:
    """Set the threads and compile, before a folder is made: a kernel that cannot run leaves none behind."""
    if agent.run.get("threads") is not None:
        torch.set_num_threads(agent.run["threads"])
    with agent.ranks.first_on_machine():
        agent.warm_up()


def learn_into(
    agent: Agent, place: Path, total: int, settings: Mapping[str, Any], *, folder: Path, progress_bar: bool
) -> None:
    """Train to `total` steps with logs and checkpoints; a signal ends it early, saved, with SystemExit.

    The folder has to be held, see `run_folder`. Several ranks separate at the end: only the main one goes on.

    Args:
        agent: the learner.
        place: of the run, an absolute path, as an environment may change the working folder.
        total: steps.
        settings: hyper-parameters, for the logs.
        folder: the same as the user named it, for messages.
        progress_bar: show progress.
    """
    ranks, agent.total_timesteps = agent.ranks, total
    if ranks.is_main:
        agent.set_logger(_logger(agent, place, settings))  # first: W&B may refuse, and the run can be started again
    if agent.num_timesteps == 0:
        agent.save(place)  # from here on there is always a last good checkpoint
    if ranks.is_main:
        print("\n".join([f"run: {folder}", *agent.policy.input_lines()]), flush=True)
    save = SaveEvery(agent, place, agent.run.get("save_interval", SAVE_INTERVAL))
    try:
        with watch(agent, place, total) as watchdog, stop_on_signals(agent) as caught:
            hooks = Hooks([watchdog, save])  # a checkpoint knows of the evaluations before it
            steps = total - agent.num_timesteps
            agent.learn(steps, hooks, progress_bar=progress_bar, reset_num_timesteps=False)
            agent.save(place)
            stopped = int(ranks.max(torch.tensor(caught[0] if caught else 0)))
        leave(ranks)
    except (EnvError, LostRank) as error:
        where = f"the last checkpoint, of step {save.saved:,}, is whole; resume with: rlmin train --resume {folder}"
        raise type(error)(f"{error}; {where}") from error.__cause__
    finally:
        agent.logger.close()
        agent.close()
    if stopped:
        if ranks.is_main:
            print(f"stopped at {agent.num_timesteps:,} steps and saved; resume with: rlmin train --resume {folder}")
        raise SystemExit(128 + stopped)


def _logger(agent: Agent, folder: Path, settings: Mapping[str, Any]) -> "Logger":
    """The logs of a run; if they cannot be opened, nothing is left of them."""
    from rlmin.runs.logs import make_logger

    before = set(folder.iterdir())
    project = agent.run.get("wandb")
    if project is not None:  # the id is saved with the run, so that W&B continues the same one
        agent.run.setdefault("wandb_id", secrets.token_hex(8))
    wandb = None if project is None else (project, agent.run["wandb_id"])
    try:
        return make_logger(folder, settings, until=agent.num_timesteps, wandb=wandb)
    except BaseException:
        for path in set(folder.iterdir()) - before:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        raise


def new_folder(name: str, here: Path) -> Path:
    """runs/NAME-NUMBER, the first that does not exist in `here`, created there."""
    number = 0
    while True:
        folder = Path("runs") / f"{name}-{number}"
        try:
            (here / folder).mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def ignore_interrupts(workers: int) -> AbstractContextManager[None]:
    """Workers started in here ignore Ctrl-C, which a terminal sends to them too: the main process stops them."""
    return handle_signals(signal.SIGINT, by=signal.SIG_IGN) if workers else nullcontext()


@contextmanager
def stop_on_signals(agent: Agent) -> Iterator[list[int]]:
    """SIGINT, SIGTERM and SIGHUP ask the agent to stop after its update; a second one stops at once. Main thread only.

    SIGHUP comes when a terminal or a connection closes; under nohup it stays ignored.
    """
    caught: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        agent.stop_requested = True

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before: dict[signal.Signals, Any] = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield caught
    except LostRank:  # torchrun ends the others as soon as one has ended, and this one has to say so first
        before = dict.fromkeys(before, signal.SIG_IGN)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
