"""Soak: agents of every kind learn in turn in one process, which must not grow.

    python -m tests.soak --minutes 30

PPO on a native environment, on worker processes and on a VecEnv of stable-baselines3, and a decision agent on
memory-mapped data. In each cycle every agent learns on, and is made, saved, loaded and closed once more beside it.
After each cycle resident memory, descriptors and threads are counted. The slopes are Theil and Sen's, the median of the
slopes of all pairs, without the first third. A slope counts if it is beyond its bound and adds up to more than noise.
Resident memory moves by pages: by 0.05 MiB in ten minutes after the first cycle (measured), so 0.25 MiB are more than
noise. Of thirty minutes twenty count, in which a leak of 1 MiB an hour adds up to 0.33 MiB: it is found. In a shorter
time only a faster one is.
"""

import argparse
import gc
import itertools
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlmin import PPO, DecisionAgent, load
from rlmin.data import Episode, load_dataset

Turn = Callable[[], object]
"""One cycle of one kind of agent."""
SMALL: dict[str, Any] = {"width": 16, "horizon": 16, "num_envs": 4, "minibatches": 2, "epochs": 1}
MIB = 2**20
WARM_UP = 8
"""Cycles before the first that is counted: caches of torch and of the allocator fill up, by 0.3 MiB in a minute."""


@dataclass(frozen=True)
class Bound:
    """How fast something may grow."""

    per_hour: float
    noise: float  # a rise over the whole time that is not told from none
    unit: str


BOUNDS = {
    "memory": Bound(per_hour=1, noise=0.25, unit="MiB"),
    "descriptors": Bound(per_hour=2, noise=2, unit="descriptors"),
    "threads": Bound(per_hour=2, noise=2, unit="threads"),
}


@dataclass(frozen=True)
class Growth:
    """How fast something grew."""

    name: str
    per_hour: float
    last: float
    seconds: float  # that the slope was taken over

    @property
    def too_fast(self) -> bool:
        """Whether it is beyond its bound."""
        bound = BOUNDS[self.name]
        return self.per_hour > bound.per_hour and self.per_hour * self.seconds / 3600 > bound.noise

    def __str__(self) -> str:
        bound = BOUNDS[self.name]
        said = f"{self.name}: {self.per_hour:+.2f} {bound.unit} an hour, {self.last:.0f} at the end"
        return f"{said}; bound {bound.per_hour:g}{', TOO FAST' if self.too_fast else ''}"


def counted() -> dict[str, float]:
    """Resident memory, descriptors and threads of this process now."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "memory": float(status["VmRSS"].split()[0]) * 1024 / MIB,
        "descriptors": float(len(list(Path("/proc/self/fd").iterdir()))),
        "threads": float(status["Threads"]),
    }


def growths(times: Sequence[float], samples: Sequence[Mapping[str, float]]) -> list[Growth]:
    """The slope of each count, without the first third."""
    first = len(times) // 3
    times, samples = times[first:], samples[first:]
    found = []
    for name in BOUNDS:
        points = [(t, sample[name]) for t, sample in zip(times, samples, strict=True)]
        slopes = [(y - x) / (t - s) for (s, x), (t, y) in itertools.combinations(points, 2) if t > s]
        slope = 3600 * statistics.median(slopes) if slopes else 0.0
        found.append(Growth(name, slope, points[-1][1], times[-1] - times[0]))
    return found


def soak(turns: Mapping[str, Turn], *, seconds: float, least: int = 9, before: int = 0) -> tuple[int, list[Growth]]:
    """Cycles until the time is over, at least `least`: how many, and what grew; `before` cycles are not counted."""
    for turn in [*turns.values()] * before:
        turn()
    times, samples, begin = list[float](), list[dict[str, float]](), time.monotonic()
    while time.monotonic() < begin + seconds or len(times) < least:
        for turn in turns.values():
            turn()
        times.append(time.monotonic() - begin)
        samples.append(counted())
    return len(times), growths(times, samples)


def once_more(make: Callable[[], Any], folder: Path, steps: int) -> None:
    """An agent is made, learns, is saved, loaded and closed."""
    agent = make()
    agent.learn(steps)
    agent.save(folder)
    load(folder).close()
    agent.close()


def in_turn(make: Callable[[], Any], folder: Path, steps: int) -> Turn:
    """An agent that learns on, and another beside it."""
    kept = make()

    def turn() -> None:
        kept.learn(steps, reset_num_timesteps=False)
        once_more(make, folder, steps)

    return turn


def vec_env() -> Any:
    """Of stable-baselines3."""
    from stable_baselines3.common.env_util import make_vec_env

    return make_vec_env("CartPole-v1", n_envs=4)


@contextmanager
def every_turn(folder: Path) -> Iterator[dict[str, Turn]]:
    """The four kinds."""
    draw = np.random.default_rng(0)
    episodes = [Episode(draw.normal(size=(65, 8)), draw.integers(0, 3, 64), np.ones(64), True) for _ in range(200)]
    data = load_dataset(episodes, cache=folder / "data")
    makers: dict[str, tuple[Callable[[], Any], int]] = {
        "native": (partial(PPO, "rlmin/TMaze-v0", env_kwargs={"length": 5}, **SMALL), 256),
        "workers": (partial(PPO, "CartPole-v1", workers=2, **SMALL), 128),
        "stable-baselines3": (lambda: PPO(vec_env(), **{k: x for k, x in SMALL.items() if k != "num_envs"}), 256),
        "decision": (partial(DecisionAgent, data, width=16, rows=4, horizon=16), 512),
    }
    yield {name: in_turn(make, folder / name, steps) for name, (make, steps) in makers.items()}


def main() -> None:
    """Soak and say what grew; exit code 1 where something grew too fast."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="Minutes in all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="rlmin-soak-") as folder, every_turn(Path(folder)) as turns:
        cycles, found = soak(turns, seconds=60 * given.minutes, before=WARM_UP)
    print(f"{cycles} cycles of {', '.join(turns)}", *found, sep="\n")
    sys.exit(any(growth.too_fast for growth in found))


if __name__ == "__main__":
    main()
