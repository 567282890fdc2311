"""Count: bytes, kernel launches and products of an iteration of PPO on a GPU, counted without one.

Every operation of a rollout and of an update is watched on the CPU, on the code path that a GPU takes: one launch for
each operation that is no view, the bytes of what it reads and writes, 2 m k n for a matrix product. A fused operation
of rlmin counts the launches of its Triton kernels. Two numbers of environments are counted; everything is linear in
them, so 4,096 follow.

T-maze, T = 32 (as good as 128, as all parts are linear in T), width 128, 2 layers, 4 epochs of 4 minibatches. `floor`
is the highest speed of a GPU that moves 4 TB/s and computes 50 TFLOP/s in float32, 200 in TF32, one after the other.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlmin.agents.ppo import PPO
from rlmin.bench.options import Options
from rlmin.bench.products import NAMES, count_flops
from rlmin.bench.report import LIMIT, Table, Target, number
from rlmin.bench.scan import force_kernel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no convolution": {"conv": 0},
    "no MLP": {"mlp": 0},
    "1 layer": {"layers": 1},
    "mlp, no memory": {"encoder": "mlp"},
}
HORIZON, ROWS, ENVS = 32, (8, 16), 4096
MOST_BYTES, MOST_LAUNCHES = 450.0, 112
"""Targets: KB an environment step, and launches a minibatch."""
BANDWIDTH, SPEEDS = 4e12, {"floor, M steps/s": 50e12, "floor with TF32, M steps/s": 200e12}
FASTEST = 6.0
"""Target: million environment steps a second, counted, with TF32."""
FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"}
"""Operations that launch nothing, though they are no views."""
CHOOSING = {"index", "gather", "index_select", "embedding"}
"""Operations that read only what they choose."""


FUSED = {"norm_conv_backward": 2, "add_norm_backward": 2, "silu_backward": 2, "ppo_loss": 2}
"""Launches of fused operations with more than one: sums of each program are joined by a second one."""


class Work(NamedTuple):
    """Work of a piece of code."""

    launches: float = 0
    bytes: float = 0
    flops: float = 0


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the work of every operation inside its context, those of backward passes too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        if not _is_free(func):
            found = _work_of(func, (args, kwargs or {}), given)
            self.work = Work(*(a + b for a, b in zip(self.work, found, strict=True)))
        return given


class Elsewhere(str):
    """A device that is the CPU, and takes the code path of a GPU."""

    type = "elsewhere"


def run(options: Options) -> Table:
    """Every variant; see the top of this file."""
    table = Table()
    sizes: dict[str, Any] = {"width": 8, "horizon": 4} if options.quick else {"width": 128, "horizon": HORIZON}
    with force_kernel("portable"):  # one operation each, and none of the fused blocks of the CPU
        for name, settings in VARIANTS.items():
            _add_row(table, name, {**sizes, **settings})
    (row,) = table.where(variant="defaults")
    table.targets.append(Target("KB an environment step", number(row["KB a step"]), MOST_BYTES))
    table.targets.append(Target("launches a minibatch", number(row["launches a minibatch"]), MOST_LAUNCHES))
    fastest = number(row["floor with TF32, M steps/s"])
    table.targets.append(Target("floor with TF32, M steps/s", fastest, FASTEST, at_most=False))
    return table


def count_iteration(num_envs: int, settings: dict[str, Any]) -> tuple[Work, Work]:
    """Work of a rollout and of the update from it, as on a GPU."""
    fixed: dict[str, Any] = {"num_envs": num_envs, "minibatches": 4, "epochs": 4, "env_kwargs": {"length": 10}}
    agent = PPO("rlmin/TMaze-v0", **fixed, **settings)
    take_gpu_path(agent)
    rollouts: list[Any] = []
    agent.collector.collect()  # the first one allocates
    rollout = count(lambda: rollouts.append(agent.collector.collect()))
    with agent.training():
        agent.update(rollouts[-1])  # the first one makes the moments
        update = count(lambda: agent.update(rollouts[-1]))
    return rollout, update


def count(function: Callable[[], object]) -> Work:
    """The work of one call."""
    watch = Watch()
    with watch:
        function()
    return watch.work


def take_gpu_path(agent: PPO) -> None:
    """Let an agent on the CPU collect as if its environment were on a GPU: without asking what tensors hold."""
    env: Any = agent.vector.env
    vector: Any = agent.vector
    agent.collector.asks = False
    env.device = vector._home = Elsewhere("cpu")


def _add_row(table: Table, name: str, settings: dict[str, Any]) -> None:
    few, more = ROWS
    counted = [count_iteration(rows, settings) for rows in ROWS]
    rollout, update = (
        Work(*(a + (b - a) / (more - few) * (ENVS - few) for a, b in zip(*pair, strict=True)))
        for pair in zip(*counted, strict=True)
    )
    steps = settings["horizon"] * ENVS
    bytes_, flops = ((getattr(rollout, key) + getattr(update, key)) / steps for key in ("bytes", "flops"))
    table.add(
        {
            "variant": name,
            "launches a time step": counted[0][0].launches / settings["horizon"],
            "launches a minibatch": counted[0][1].launches / 16,
            "rollout, KB a step": 1e-3 * rollout.bytes / steps,
            "update, KB a step": 1e-3 * update.bytes / steps,
            "KB a step": 1e-3 * bytes_,
            "MFLOP a step": 1e-6 * flops,
            **{name: 1e-6 / (bytes_ / BANDWIDTH + flops / speed) for name, speed in SPEEDS.items()},
        }
    )


def _is_free(func: Any) -> bool:
    if func.overloadpacket.__name__ in FREE or func.namespace == "profiler":
        return True
    results = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in results)  # a view


def _work_of(func: Any, given: Any, made: Any) -> Work:
    read, written = _tensors(given), _tensors(made)
    name = func.overloadpacket.__name__.rstrip("_")
    if name in CHOOSING:
        read = [*read[1:], *written]
    into = [x for argument in func._schema.arguments if argument.alias_info is not None for x in _own(argument, given)]
    size = sum(map(_bytes, (*read, *into))) + sum(_bytes(x) for x in written if not any(x is y for y in into))
    return Work(FUSED.get(name, 1), size, count_flops(list(given[0])) if name in NAMES else 0)


def _own(argument: Any, given: Any) -> list[Tensor]:
    """The tensors given for an argument that the operation writes to."""
    return _tensors(given[1].get(argument.name, [])) if argument.kwarg_only else _tensors(given[0][:1])


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def _bytes(x: Tensor) -> int:
    """Bytes behind a tensor; what is expanded is read once."""
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())


def draw(table: Table, figure: "Figure") -> None:
    """Kilobytes of an environment step, rollout and update, and launches of a minibatch."""
    left, right = figure.subplots(1, 2, sharey=True)
    names = table.each("variant")[::-1]
    rollout, update = (table.numbers(f"{part}, KB a step")[::-1] for part in ("rollout", "update"))
    left.barh(names, rollout, label="rollout")
    left.barh(names, update, left=rollout, label="update")
    left.axvline(MOST_BYTES, **LIMIT)
    left.set_title("KB an environment step", fontsize=10)
    left.legend(fontsize=8)
    right.barh(names, table.numbers("launches a minibatch")[::-1], color="C2")
    right.axvline(MOST_LAUNCHES, label="target", **LIMIT)
    right.set_title("kernel launches a minibatch", fontsize=10)
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", alpha=0.3)
