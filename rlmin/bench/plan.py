"""Plan: what would limit one run on 8, 64 and 512 GPUs, from counted work and assumed speeds; nothing is measured.

    iteration = rollout + 16 gradient steps,   each = launches * LAUNCH + bytes / BANDWIDTH
    sum of gradients = 2 (G - 1) / G * bytes of the weights / LINK + LATENCY,   once a gradient step

`rlmin bench count` counts launches and bytes of its T-maze (width 128, 2 layers, T = 32, 4 epochs of 4 minibatches).
The speeds of a GPU and of its links, below, are assumed, near what data sheets state. `grown` gives every GPU 4,096
environments, `shared` divides 4,096 among all. `efficiency` is the speed over G times that of one GPU. `steps an
update` is the batch; docs/results/scaling.md has measured what a larger batch does to learning.
"""

import math
from typing import TYPE_CHECKING, Any

from rlmin.agents.ppo import PPO
from rlmin.bench.count import ENVS, HORIZON, ROWS, Work, count_iteration
from rlmin.bench.options import Options
from rlmin.bench.report import Table
from rlmin.bench.scan import force_kernel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GPUS = (1, 8, 64, 512)
A_MACHINE = 8
"""GPUs of one machine."""
GRADIENT_STEPS = 16
LAUNCH = 2e-6
"""Seconds of a kernel launch inside a CUDA graph, the kernel's own start included."""
BANDWIDTH = 3.0e12
"""Bytes a second that kernels of these sizes move, of 4.8e12 on an H200's data sheet."""
LINKS = {"machine": 300e9, "network": 40e9}
"""Bytes a second and GPU in a sum over all: NVLink within a machine, 400 Gb/s a GPU between machines."""
LATENCY, HOP = 25e-6, 10e-6
"""Seconds of the smallest sum within a machine, and of each doubling of the number of machines."""


def run(options: Options) -> Table:
    """Both ways to divide the environments; see the top of this file."""
    table = Table()
    sizes: dict[str, Any] = {"width": 8, "horizon": 4} if options.quick else {"width": 128, "horizon": HORIZON}
    with force_kernel("portable"):
        counted = [count_iteration(rows, sizes) for rows in ROWS]
        agent = PPO("rlmin/TMaze-v0", num_envs=ROWS[0], minibatches=4, **sizes)
    weights = sum(x.numel() for x in agent.policy.parameters())
    for way in ("grown", "shared"):
        one = 0.0
        for gpus in GPUS:
            envs = ENVS if way == "grown" else ENVS // gpus
            rollout, update = (_extend(pair, envs) for pair in zip(*counted, strict=True))
            sums = GRADIENT_STEPS * seconds_of_sum(gpus, 4 * weights)
            whole = seconds_of(rollout) + seconds_of(update) + sums
            steps = envs * gpus * sizes["horizon"]
            one = one or steps / whole
            table.add(
                {
                    "environments": way,
                    "GPUs": gpus,
                    "a GPU": envs,
                    "rollout, ms": 1e3 * seconds_of(rollout),
                    "update, ms": 1e3 * seconds_of(update),
                    "sums, ms": 1e3 * sums,
                    "share of the sums": sums / whole,
                    "M steps/s": 1e-6 * steps / whole,
                    "efficiency": steps / whole / one / gpus,
                    "steps an update": steps,
                }
            )
    return table


def seconds_of(work: Work) -> float:
    """Seconds of launches and of bytes, one after the other."""
    return work.launches * LAUNCH + work.bytes / BANDWIDTH


def seconds_of_sum(gpus: int, size: int) -> float:
    """Seconds of one sum over all GPUs of `size` bytes."""
    if gpus == 1:
        return 0.0
    machines = max(gpus // A_MACHINE, 1)
    link = LINKS["machine" if machines == 1 else "network"]
    return 2 * (gpus - 1) / gpus * size / link + LATENCY + HOP * math.log2(machines)


def _extend(counted: tuple[Work, Work], envs: int) -> Work:
    """The work of `envs` environments, from that of both of `ROWS`; all of it is linear in their number."""
    (few, more), (low, high) = counted, ROWS
    return Work(*(a + (b - a) / (high - low) * (envs - low) for a, b in zip(few, more, strict=True)))


def draw(table: Table, figure: "Figure") -> None:
    """Efficiency, and the share of the sums, by the number of GPUs."""
    for axes, name in zip(figure.subplots(1, 2), ("efficiency", "share of the sums"), strict=True):
        for way in table.each("environments"):
            axes.plot(GPUS, table.numbers(name, environments=way), marker="o", label=way)
        axes.set_xscale("log", base=2)
        axes.set_ylim(0, 1.05)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("GPUs")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
