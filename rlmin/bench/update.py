"""Updates: the share of matrix products in a PPO update.

A rollout of the T-maze (64 environments, T = 128) is collected once; then whole updates of it (four epochs of four
minibatches: forward, loss, backward, clipping, optimiser) take turns with all matrix products of one such update, of
the same sizes in the same order, and nothing else. `share` is the products' time over the update's; `GFLOP/s` is the
speed of the products alone. There is one row for each memory and width.
"""

from typing import TYPE_CHECKING, Any

from rlmin.agents.ppo import PPO
from rlmin.bench.options import Options
from rlmin.bench.products import Products
from rlmin.bench.report import Table, Target, limit, number
from rlmin.bench.timing import Case

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENCODERS = ("min_gru", "min_lstm", "gru")
WIDTHS = (64, 128, 256)
QUICK = (8,)
LEAST_SHARE = {128: 0.5, 256: 0.6}
"""Target: share of products in an update of minGRU, by width."""


def run(options: Options) -> Table:
    """Every memory and width; see the top of this file."""
    table = Table()
    for width in QUICK if options.quick else WIDTHS:
        for name in ENCODERS:
            _measure(table, name, width, make(name, width, options), options)
    for width, share in LEAST_SHARE.items():
        for row in table.where(encoder="min_gru", width=width):
            what = f"min_gru at width {width}, share of products"
            table.targets.append(Target(what, number(row["share"]), share, at_most=False))
    return table


def make(encoder: str, width: int, options: Options) -> PPO:
    """An agent in the T-maze whose weights hardly change over many updates on one rollout."""
    sizes: dict[str, Any] = {"num_envs": 4, "horizon": 8} if options.quick else {"num_envs": 64, "horizon": 128}
    settings: dict[str, Any] = {"encoder": encoder, "width": width, "minibatches": 4, "epochs": 4, "lr": 1e-7}
    return PPO("rlmin/TMaze-v0", env_kwargs={"length": 10}, device=options.device, **settings, **sizes)


def _measure(table: Table, name: str, width: int, agent: PPO, options: Options) -> None:
    rollout = agent.collector.collect()
    assert rollout is not None, "nothing stops it"
    agent.policy.train()
    products = Products(lambda: agent.update(rollout))
    cases: dict[str, Case] = {"update": lambda: agent.update(rollout), "products": products}
    timing = options.measure(f"{name}, width {width}", cases, rounds=7, seconds=4, block=0)
    table.add(
        {
            "encoder": name,
            "width": width,
            "parameters": sum(x.numel() for x in agent.policy.parameters()),
            "update, ms": 1e3 * timing.median("update"),
            "products, ms": 1e3 * timing.median("products"),
            "share": timing.ratio("products", "update"),
            "GFLOP/s": 1e-9 * products.flops / timing.median("products"),
            "rounds": timing.rounds,
        }
    )


def draw(table: Table, figure: "Figure") -> None:
    """Time of an update by width and memory, with the part of its products filled; and their share."""
    left, right = figure.subplots(1, 2)
    names, widths = table.each("encoder"), table.each("width")
    for i, name in enumerate(names):
        rows = table.where(encoder=name)
        places = [j + 0.8 * (i - (len(names) - 1) / 2) / len(names) for j in range(len(rows))]
        size, colour = 0.8 / len(names), f"C{i}"
        left.bar(places, [number(row["update, ms"]) for row in rows], size, edgecolor=colour, fill=False)
        left.bar(places, [number(row["products, ms"]) for row in rows], size, color=colour, label=name)
        right.bar(places, [number(row["share"]) for row in rows], size, color=colour)
    for axes in (left, right):
        axes.set_xticks(range(len(widths)), [f"width {width}" for width in widths])
        axes.grid(axis="y", alpha=0.3)
    left.set_yscale("log")
    left.set_title("an update, ms (log); filled: its matrix products", fontsize=10)
    right.set_title("share of matrix products", fontsize=10)
    right.set_ylim(0, 1)
    for width, share in LEAST_SHARE.items():
        limit(right, share, f"target of min_gru at width {width}")
    left.legend(fontsize=8)
