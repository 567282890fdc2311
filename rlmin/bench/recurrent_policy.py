"""RecurrentPPO with rlmin's memories in the place of its LSTM: environment steps a second.

Everything is sb3-contrib's: rollouts, buffer, padding, loss, optimizer. Only the policy differs, so this is the effect
of `policy="MinGruPolicy"` for its users, not the speed of rlmin's own PPO (`rlmin bench train`). Actor and critic have
a memory each, RecurrentPPO's default, and one hidden layer of that width behind it; `relative` is to the LSTM in the
same task. The targets are for one layer of memory, as in the LSTM; two layers, MinGruPolicy's default, have about as
many weights as one LSTM.

The share of padding in a minibatch depends on the episodes and is the same for all. A CartPole agent that is only
beginning to learn falls after twenty steps; all episodes of pendulums and T-mazes have the same length.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from rlmin.bench.options import Options
from rlmin.bench.peers import Missing
from rlmin.bench.report import LIMIT, Table, Target, number
from rlmin.bench.sb3 import make_recurrent_ppo
from rlmin.checks import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPOCHS, TARGET = 4, 2.0
BASE = "MlpLstmPolicy, 1 layer"
CONTENDERS: dict[str, dict[str, Any]] = {
    BASE: {"policy": "MlpLstmPolicy"},
    "MinGruPolicy, 1 layer": {"policy": "MinGruPolicy", "n_lstm_layers": 1},
    "MinLstmPolicy, 1 layer": {"policy": "MinLstmPolicy", "n_lstm_layers": 1},
    "MinGruPolicy, 2 layers": {"policy": "MinGruPolicy"},
}


class Task(NamedTuple):
    """A task and the settings of its training."""

    env: str
    num_envs: int
    horizon: int
    batch: int  # steps in a minibatch
    width: int
    rollouts: int = 1  # in a turn
    env_kwargs: dict[str, Any] = {}  # noqa: RUF012  never changed


TASKS = {
    "cartpole, 8 envs, T=128, width 64": Task("rlmin/CartPoleNoVel-v1", 8, 128, 256, 64),
    "cartpole, 16 envs, T=128, width 256": Task("rlmin/CartPoleNoVel-v1", 16, 128, 512, 256),
    "pendulum, 16 envs, T=200, width 64": Task("rlmin/PendulumNoVel-v1", 16, 200, 800, 64),
    "tmaze, 64 envs, T=128, width 64": Task("rlmin/TMaze-v0", 64, 128, 2048, 64, env_kwargs={"length": 50}),
}
QUICK = {"cartpole": Task("rlmin/CartPoleNoVel-v1", 2, 8, 8, 8)}


def run(options: Options) -> Table:
    """Every task; see the top of this file."""
    table = Table()
    for name, task in (QUICK if options.quick else TASKS).items():
        try:
            models = {key: model(task, options.device, **kind) for key, kind in CONTENDERS.items()}
        except (Missing, ImportError) as reason:
            table.skip(reason, {"task": name})
            continue
        steps = task.rollouts * task.num_envs * task.horizon
        cases = {key: partial(made.learn, steps, reset_num_timesteps=False) for key, made in models.items()}
        timing = options.measure(name, cases, rounds=7, seconds=20, block=0)
        for key, made in models.items():
            table.add(
                {
                    "task": name,
                    "contender": key,
                    "parameters": sum(x.numel() for x in made.policy.parameters()),
                    "steps/s": round(steps / timing.median(key)),
                    "relative": 1 / timing.ratio(key, BASE),
                    "rounds": timing.rounds,
                }
            )
        (row,) = table.where(task=name, contender="MinGruPolicy, 1 layer")
        table.targets.append(Target(f"{name}, MinGruPolicy, 1 layer", number(row["relative"]), TARGET, at_most=False))
    return table


def model(task: Task, device: str, *, policy: str, **memory: Any) -> Any:
    """A RecurrentPPO for the task.

    Raises:
        Missing, ImportError: sb3-contrib is not installed.
    """
    require("rlmin.interop.sb3_recurrent", extra="sb3")  # the names of the policies
    sizes = {"num_envs": task.num_envs, "horizon": task.horizon, "batch": task.batch, "width": task.width}
    own = {"shared_lstm": False, "enable_critic_lstm": True, **memory}
    return make_recurrent_ppo(task.env, task.env_kwargs, epochs=EPOCHS, device=device, policy=policy, **sizes, **own)


def draw(table: Table, figure: "Figure") -> None:
    """Speed relative to the LSTM, a panel a task, one above the other."""
    names = table.each("task")
    figure.set_size_inches(9, 1 + 1.5 * len(names))
    for axes, name in zip(figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0], names, strict=True):
        rows = table.where(task=name)[::-1]
        values = [number(row["relative"]) for row in rows]
        colours = ["0.6" if row["contender"] == BASE else "C0" for row in rows]
        bars = axes.barh([str(row["contender"]) for row in rows], values, color=colours)
        axes.bar_label(bars, [f"{x:.2f}" for x in values], fontsize=8)
        axes.axvline(TARGET, label=f"target of 1 layer of minGRU: {TARGET:g}", **LIMIT)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.margins(x=0.15)
    axes.set_xlabel("times the steps a second of RecurrentPPO's LSTM", fontsize=8)
    axes.legend(fontsize=7, loc="lower right")
