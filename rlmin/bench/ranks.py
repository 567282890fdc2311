"""Ranks: one agent trained by two processes, beside one process.

Each process has one thread, and the number of environments is the same. Turns alternate; a turn is a few rollouts with
their updates. `relative` is the speed over that of one process. `step` is a gradient step: forward, backward and Adam.
`reduce` is the sum of all gradients over the processes, once a step, and `share` is its part of a gradient step. There
is one row for each task, number of environments and of processes. Targets hold for a machine with a free core for each
process.
"""

import json
import os
import socket
import statistics
import sys
from contextlib import ExitStack
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rlmin.bench.answering import Answering
from rlmin.bench.options import QUICK_ROUNDS, Options
from rlmin.bench.report import Row, Table, Target, limit, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEMORY, MAZE, LARGE = "minigrid-memory", "T-maze, width 64", "T-maze, 1 M weights"
TASKS: dict[str, dict[str, Any]] = {
    MEMORY: {
        "env": "rlmin/MiniGridMemory-v0",
        "env_kwargs": {"level": "S9", "view_size": 3, "layouts": 99},
        "horizon": 128,
    },
    MAZE: {
        "env": "rlmin/TMaze-v0",
        "env_kwargs": {"length": 50},
        "horizon": 51,
        "width": 64,
        "epochs": 4,
    },
    LARGE: {
        "env": "rlmin/TMaze-v0",
        "env_kwargs": {"length": 50},
        "horizon": 51,
        "width": 276,
        "epochs": 2,
    },
}
ENVIRONMENTS = {MEMORY: (16, 64), MAZE: (64, 256, 1024), LARGE: (64, 256)}
"""Total numbers of environments: few make small gradient steps, of which calls to Python and torch are a large part."""
SIZES = (1, 2)
ROUNDS = 7
LEAST = {MEMORY: 1.6, MAZE: 1.5}
"""Speed of two processes over that of one."""
MOST_SHARE = 0.05
"""Part of the sum over processes in a gradient step at a million weights."""

WORKER = """
import json, sys, time
import torch
torch.set_num_threads(1)
from rlmin import PPO
from rlmin.distributed import join
settings = json.loads(sys.argv[1])
def clock(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
with join(timeout=120) as ranks:
    agent = PPO(settings.pop("env"), shards=2, minibatches=4, ranks=ranks, **settings)
    config = agent.config
    steps = config.num_envs * config.horizon
    agent.learn(steps)
    gradients = torch.zeros(sum(x.numel() for x in agent.policy.parameters()))
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds = clock(lambda: agent.learn(2 * steps))
        rollout = agent.collector.collect()
        update = clock(lambda: agent.update(rollout)) / (config.epochs * config.minibatches)
        reduce = clock(lambda: [ranks.sum(gradients) for _ in range(20)]) / 20
        print(json.dumps([2 * steps / seconds, update, reduce, len(gradients)]), flush=True)
"""


class Group:
    """Processes that train one agent, a turn on request."""

    def __init__(self, size: int, settings: dict[str, Any]) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = str(found.getsockname()[1])
        place = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        self.processes = [
            Answering(WORKER, [json.dumps(settings)], os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(size)
        ]

    def turn(self) -> list[float]:
        """Steps a second, seconds of a gradient step and of a sum over processes, and the number of weights."""
        for process in self.processes:
            process.wait_ready()
        for process in self.processes:
            process.ask()
        lines = [process.answer() for process in self.processes]
        found: list[float] = json.loads(lines[0])
        return found

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.close()


def run(options: Options) -> Table:
    """Every task and number of processes; see the top of this file."""
    table = Table()
    rounds = QUICK_ROUNDS if options.quick else options.rounds or ROUNDS
    small = {"num_envs": 8, "horizon": 16, "width": 8, "epochs": 1} if options.quick else {}
    cases = [(task, num_envs) for task in TASKS for num_envs in ENVIRONMENTS[task]]
    for task, num_envs in cases[:1] if options.quick else cases:
        print(f"  ... {task}, {num_envs} environments", file=sys.stderr, flush=True)
        _measure(table, task, TASKS[task] | {"num_envs": num_envs} | small, rounds)
    for row in table.where(processes=2):
        what = f"{row['task']}, {row['environments']} environments"
        if row["task"] in LEAST:
            what, least = f"{what}, two processes over one", LEAST[str(row["task"])]
            table.targets.append(Target(what, number(row["relative"]), least, at_most=False))
        else:
            table.targets.append(Target(f"{what}, share of the sum", number(row["share"]), MOST_SHARE))
    return table


def _measure(table: Table, task: str, settings: dict[str, Any], rounds: int) -> None:
    found: dict[int, list[list[float]]] = {size: [] for size in SIZES}
    with ExitStack() as stack:
        groups = {size: Group(size, settings) for size in SIZES}
        for group in groups.values():
            stack.callback(group.close)
        for done in range(rounds):
            for size in SIZES[:: 1 if done % 2 == 0 else -1]:
                found[size].append(groups[size].turn())
    for size, turns in found.items():
        speeds, steps, sums, weights = zip(*turns, strict=True)
        row: Row = {"task": task, "environments": settings["num_envs"], "processes": size, "weights": int(weights[0])}
        row["steps/s"] = statistics.median(speeds)
        row["relative"] = statistics.median(a[0] / b[0] for a, b in zip(turns, found[1], strict=True))
        row |= {"step, ms": 1e3 * statistics.median(steps), "reduce, ms": 1e3 * statistics.median(sums)}
        row["share"] = statistics.median(a / b for a, b in zip(sums, steps, strict=True)) if size > 1 else None
        table.add(row | {"rounds": rounds})


def draw(table: Table, figure: "Figure") -> None:
    """Speed of two processes over that of one, and the part of a gradient step that the sum takes."""
    left, right = figure.subplots(1, 2)
    rows = [row for row in table.rows if row["processes"] == 2]
    names = [f"{fill(str(row['task']), 10)}\n{row['environments']} envs" for row in rows]
    left.bar(names, [number(row["relative"]) for row in rows], color="C0")
    left.set_title("steps/s, two processes over one", fontsize=10)
    for task, least in LEAST.items():
        if any(row["task"] == task for row in rows):
            limit(left, least, f"target of {task}")
    right.bar(names, [number(row["share"]) for row in rows], color="C1")
    right.set_title("the sum of gradients, part of a gradient step", fontsize=10)
    limit(right, MOST_SHARE, "target at 1 M weights")
    for axes in (left, right):
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="y", alpha=0.3)
