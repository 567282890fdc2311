"""Training end to end: environment steps a second against sb3-contrib's RecurrentPPO and with other memories.

All contenders of a task train in the same environments with the same rollouts, epochs and minibatch sizes, in turns of
whole rollouts; the first turn is not counted. `relative` is to RecurrentPPO, which has one LSTM of the stated width
shared by actor and critic, and one hidden layer of that width in each head. rlmin has two residual blocks of that width
(its default, about twice the network), one block (as many memory layers as RecurrentPPO; the targets are for it), or
one block with a narrower MLP (the size nearest to RecurrentPPO's).

Minibatches of 512 steps are shorter than a rollout of T = 1024. There rlmin trains on windows of 512 steps and
recomputes their initial memory in every epoch; RecurrentPPO cuts sequences at minibatches too, and keeps the memory of
the rollout. The length of its sequences depends on the episodes: some twenty steps for a CartPole agent that is only
beginning to learn, 200 for a pendulum.

The rows "in rlmin's PPO" have one block whose memory is another library's, so that only the memory differs:
CleanRL's loop (nn.LSTM called step by step, its state masked, during updates too), sb3-contrib's splitting and padding,
TorchRL's GRUModule, and minGRU-pytorch's cell, which cannot reset and so is there for its speed only.

On a GPU, environments, policy and rollout of the T-maze tasks all live there, and two larger tasks are added.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from rlmin.agents.ppo import PPO
from rlmin.bench.options import Options
from rlmin.bench.peers import LogSpaceMinGRU, Missing, SplitAndPad, Stepped, TorchRLGRU
from rlmin.bench.report import LIMIT, Table, Target, number
from rlmin.bench.sb3 import make_recurrent_ppo
from rlmin.bench.timing import Case
from rlmin.encoders import CELLS, Cell, Encoder, register

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPOCHS = 4
BASE, ONE = "sb3-contrib RecurrentPPO", "rlmin min_gru, 1 block"


class Task(NamedTuple):
    """A task and the settings of its training."""

    env: str
    env_kwargs: dict[str, Any]
    num_envs: int
    horizon: int
    batch: int  # steps in a minibatch
    width: int
    rollouts: int = 1  # in a turn
    target: float | None = None  # target: speed in units of RecurrentPPO's
    peers: bool = False  # also other memories in rlmin's PPO
    base: bool = True  # also RecurrentPPO
    bptt: int | None = None  # rlmin's window, where a minibatch is shorter than a rollout


MAZE, POLE = ("rlmin/TMaze-v0", {"length": 50}), ("CartPole-v1", dict[str, Any]())
TASKS: dict[str, Task] = {
    "tmaze, 64 envs, T=128, width 64": Task(*MAZE, 64, 128, 2048, 64, 2, 2.5, peers=True),
    "cartpole, 16 envs, T=128, width 256": Task(*POLE, 16, 128, 512, 256, 2, 4.0),
    "cartpole, 16 envs, T=1024, width 256": Task(*POLE, 16, 1024, 512, 256, 1, 8.0, bptt=512),
    "pendulum, 16 envs, T=1024, width 256": Task("Pendulum-v1", {}, 16, 1024, 512, 256, 1, bptt=512),
}
LARGE: dict[str, Task] = {
    "tmaze, 1024 envs, T=128, width 128": Task(*MAZE, 1024, 128, 32768, 128),
    "tmaze, 8192 envs, T=128, width 128": Task(*MAZE, 8192, 128, 262144, 128, base=False),
}
QUICK: dict[str, Task] = {
    "tmaze": Task("rlmin/TMaze-v0", {"length": 4}, 4, 8, 16, 8, peers=True),
    "cartpole": Task(*POLE, 2, 8, 8, 8),
}
OWN: dict[str, dict[str, Any]] = {
    "rlmin min_gru, 2 blocks": {},
    ONE: {"layers": 1},
    "rlmin min_gru, 1 block, mlp 1": {"layers": 1, "mlp": 1},
    "rlmin lstm, 1 block": {"layers": 1, "encoder": "lstm"},
}
PEERS: dict[str, Callable[[int, int], Encoder]] = {
    "CleanRL's loop in rlmin's PPO": lambda D, H: Stepped(nn.LSTM, D, H),
    "split and pad in rlmin's PPO": lambda D, H: SplitAndPad(nn.LSTM, D, H),
    "TorchRL's GRU in rlmin's PPO": TorchRLGRU,
    "minGRU-pytorch in rlmin's PPO": LogSpaceMinGRU,
}


def run(options: Options) -> Table:
    """Every task; see the top of this file."""
    table = Table()
    for name, task in tasks(options).items():
        contenders = _contenders(table, name, task, options)
        cases = {key: learn for key, (_, learn) in contenders.items()}
        timing = options.measure(name, cases, rounds=5, seconds=50, block=0)
        for key, (policy, _) in contenders.items():
            steps = task.rollouts * task.horizon * task.num_envs
            table.add(
                {
                    "task": name,
                    "contender": key,
                    "parameters": sum(x.numel() for x in policy.parameters()),
                    "steps/s": round(steps / timing.median(key)),
                    "relative": 1 / timing.ratio(key, BASE) if BASE in cases else None,
                    "rounds": timing.rounds,
                }
            )
        if task.target is not None and BASE in cases:
            (row,) = table.where(task=name, contender=ONE)
            table.targets.append(Target(f"{name}, {ONE}", number(row["relative"]), task.target, at_most=False))
    return table


def tasks(options: Options) -> dict[str, Task]:
    """The tasks; on a GPU there are larger ones, too."""
    if options.quick:
        return QUICK
    return TASKS if options.device == "cpu" else TASKS | LARGE


def _contenders(table: Table, name: str, task: Task, options: Options) -> dict[str, tuple[nn.Module, Case]]:
    """Policy and turn of every contender that is installed; the others get a skipped row."""
    makers: dict[str, Callable[[], tuple[nn.Module, Case]]] = {}
    if task.base:
        makers[BASE] = lambda: rival(task, options.device)
    for key, settings in OWN.items():
        makers[key] = lambda settings=settings: own(task, options.device, **settings)  # type: ignore[misc]
    for key, cell in PEERS.items() if task.peers else ():
        makers[key] = lambda cell=cell: with_cell(cell, task, options.device)  # type: ignore[misc]
    found: dict[str, tuple[nn.Module, Case]] = {}
    for key, make in makers.items():
        try:
            found[key] = make()
        except Missing as reason:
            table.skip(reason, {"task": name, "contender": key})
    return found


def own(task: Task, device: str, **settings: Any) -> tuple[nn.Module, Case]:
    """rlmin's PPO with these settings: its policy, and a turn of training."""
    agent = PPO(
        task.env,
        env_kwargs=task.env_kwargs,
        device=device,
        num_envs=task.num_envs,
        horizon=task.horizon,
        minibatches=task.num_envs * task.horizon // task.batch,
        bptt=task.bptt,
        width=task.width,
        epochs=EPOCHS,
        **settings,
    )
    steps = task.rollouts * task.num_envs * task.horizon
    return agent.policy, lambda: agent.learn(steps, reset_num_timesteps=False)


def with_cell(cell: Callable[[int, int], Encoder], task: Task, device: str) -> tuple[nn.Module, Case]:
    """The same with one block whose memory is `cell`."""
    with register_for_a_while(Cell("peer", cell, output_is_memory=False)) as name:
        return own(task, device, encoder=name, layers=1)


@contextmanager
def register_for_a_while(cell: Cell) -> Iterator[str]:
    """Context in which policies can have this memory, under the name that it yields."""
    try:
        yield register(cell).name
    finally:
        del CELLS[cell.name]


def rival(task: Task, device: str) -> tuple[nn.Module, Case]:
    """RecurrentPPO: its policy, and a turn of training."""
    sizes: dict[str, Any] = {
        "num_envs": task.num_envs,
        "horizon": task.horizon,
        "batch": task.batch,
        "width": task.width,
    }
    model = make_recurrent_ppo(task.env, task.env_kwargs, epochs=EPOCHS, device=device, **sizes)
    steps = task.rollouts * task.num_envs * task.horizon
    return model.policy, lambda: model.learn(steps, reset_num_timesteps=False)


def draw(table: Table, figure: "Figure") -> None:
    """Speed relative to RecurrentPPO (steps a second where it does not train), a panel a task, one above the other."""
    names = table.each("task")
    counts = [len(table.where(task=name)) for name in names]
    figure.set_size_inches(9, 1 + 0.25 * sum(counts) + 0.7 * len(names))
    panels = figure.subplots(len(names), 1, squeeze=False, gridspec_kw={"height_ratios": counts})
    for axes, name in zip(panels[:, 0], names, strict=True):
        rows = table.where(task=name)[::-1]
        column = "steps/s" if rows[0]["relative"] is None else "relative"
        values = [number(row[column]) for row in rows]
        colours = ["C0" if str(row["contender"]) in OWN else "0.6" for row in rows]
        bars = axes.barh([str(row["contender"]) for row in rows], values, color=colours)
        axes.bar_label(bars, [f"{x:,.3g}" if column == "relative" else f"{x:,.0f}" for x in values], fontsize=8)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.margins(x=0.15)
        axes.set_xlabel("RecurrentPPO = 1" if column == "relative" else "steps a second", fontsize=8)
        target = TASKS[name].target if name in TASKS else None
        if target is not None:
            axes.axvline(target, label=f"target of 1 block: {target:g}", **LIMIT)
            axes.legend(fontsize=7, loc="lower right")
