"""Busy: training beside other programs that compete for the same cores.

PPO on the T-maze (64 environments, width 64) with one thread and with two, beside 0, 1 and 2 busy loops, each a process
of its own. Turns alternate; a turn is a few rollouts with their updates. `relative` is to one thread beside the same
loops. `asleep` is rlmin's way to let torch's threads wait for each other, `spinning` is OpenMP's default. Spinning
threads beside busy loops stall for minutes, so they are measured without loops, and given up if a turn takes over 30
seconds because other programs keep the machine busy. There is one row for each load, number of threads and way to
wait.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rlmin.bench.answering import Answering
from rlmin.bench.options import QUICK_ROUNDS, Options
from rlmin.bench.report import Row, Table, Target, limit, number
from rlmin.waiting import CHOICES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOPS, QUICK_LOOPS = (0, 1, 2), (0, 1)
ROUNDS = 5
PATIENCE = 30.0
"""Seconds that a turn of spinning threads may take."""
WAYS = {"asleep": "PASSIVE", "spinning": None}
KINDS = ((1, "asleep"), (2, "asleep"), (2, "spinning"))
LEAST_BUSY, LEAST_IDLE = 0.7, 0.97
"""Two threads beside two loops over one thread; asleep over spinning, two threads on an idle machine."""

WORKER = """
import sys, time, torch
threads, rollouts, size, width = map(int, sys.argv[1:])
torch.set_num_threads(threads)
from rlmin import PPO
agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": 50}, num_envs=size, horizon=51, width=width, minibatches=8)
def turn(rollouts):
    began = time.perf_counter()
    agent.learn(rollouts * size * 51)
    return rollouts * size * 51 / (time.perf_counter() - began)
turn(1)
print("ready", flush=True)
for _ in sys.stdin:
    print(turn(rollouts), flush=True)
"""


class Trainer(Answering):
    """A process that trains for a turn on request."""

    def __init__(self, threads: int, way: str, *, quick: bool) -> None:
        rollouts, size, width = (1, 8, 8) if quick else (3, 64, 64)
        environment = {name: x for name, x in os.environ.items() if name not in (*CHOICES, "OMP_NUM_THREADS")}
        policy = WAYS[way]
        self.patience = None if policy else PATIENCE
        environment |= {"OMP_WAIT_POLICY": policy} if policy else {"GOMP_SPINCOUNT": "300000"}  # GNU's own
        sizes = [*map(str, (threads, rollouts, size, width))]
        super().__init__(WORKER, sizes, environment, starting=None if policy else 2 * PATIENCE)

    def turn(self) -> float:
        """Steps a second of one turn; a TimeoutError if it takes too long."""
        self.wait_ready()
        self.ask()
        return float(self.answer(self.patience))


@contextmanager
def run_busy_loops(count: int) -> Iterator[None]:
    """Run `loops` processes that compute without end."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run(options: Options) -> Table:
    """Every load, number of threads and way to wait; see the top of this file."""
    table = Table()
    rounds = QUICK_ROUNDS if options.quick else options.rounds or ROUNDS
    with ExitStack() as stack:
        trainers: dict[tuple[int, str], Trainer] = {}
        for threads, way in KINDS[: 2 if options.quick else 3]:
            trainers[threads, way] = Trainer(threads, way, quick=options.quick)
            stack.callback(trainers[threads, way].close)
        for loops in QUICK_LOOPS if options.quick else LOOPS:
            print(f"  ... beside {loops} busy loops", file=sys.stderr, flush=True)
            chosen = {key: one for key, one in trainers.items() if loops == 0 or key[1] == "asleep"}
            with run_busy_loops(loops):
                _measure(table, chosen, loops, rounds)
    _add_targets(table)
    return table


def _measure(table: Table, trainers: dict[tuple[int, str], Trainer], loops: int, rounds: int) -> None:
    found: dict[tuple[int, str], list[float]] = {key: [] for key in trainers}
    for done in range(rounds):
        for key in list(found)[:: 1 if done % 2 == 0 else -1]:
            try:
                found[key].append(trainers[key].turn())
            except TimeoutError as error:
                trainers[key].process.kill()
                del found[key]
                table.skip(error, {"waiting": key[1], "loops": loops, "threads": key[0]})
    base = found[1, "asleep"]
    for (threads, way), speeds in found.items():
        relative = statistics.median(a / b for a, b in zip(speeds, base, strict=True))
        row: Row = {"waiting": way, "loops": loops, "threads": threads, "steps/s": statistics.median(speeds)}
        table.add(row | {"relative": relative, "rounds": rounds})


def _add_targets(table: Table) -> None:
    for row in table.where(loops=2, threads=2, waiting="asleep"):
        what = "two threads beside two busy loops, over one thread beside them"
        table.targets.append(Target(what, number(row["relative"]), LEAST_BUSY, at_most=False))
    asleep, spinning = (table.where(loops=0, threads=2, waiting=way) for way in WAYS)
    for own, other in zip(asleep, spinning, strict=False):  # none if the spinning threads stalled
        share = number(own["relative"]) / number(other["relative"])
        what = "two threads without busy loops, asleep over spinning"
        table.targets.append(Target(what, share, LEAST_IDLE, at_most=False))


def draw(table: Table, figure: "Figure") -> None:
    """Speed relative to one thread beside the same loops."""
    axes = figure.subplots()
    kinds = table.each("waiting")
    rows = [row for row in table.rows if row["threads"] == 2]
    for i, row in enumerate(rows):
        colour = f"C{kinds.index(str(row['waiting']))}"
        axes.bar(i, number(row["relative"]), color=colour)
    axes.set_xticks(range(len(rows)), [f"{row['loops']} loops, {row['waiting']}" for row in rows], fontsize=8)
    axes.set_title("two threads, steps/s over those of one thread", fontsize=10)
    limit(axes, LEAST_BUSY, "target beside loops")
    axes.grid(axis="y", alpha=0.3)
