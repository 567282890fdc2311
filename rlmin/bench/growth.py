"""Growth: the cost of one more step from T = 64 to 16384, and of one more environment from B = 1 to 4096.

Time: forward and backward of one layer at width 128, episodes of 1 to 100 steps. `tokens` keeps T * B at 65536, so that
only the length changes; `rows` keeps B at 8, so that the data in memory grow with T. The cost is in nanoseconds per
token, and relative to T = 64: if that is 1 throughout, time is linear. All lengths of one memory take turns.

Environments: acting in the T-maze (a rollout of 16 steps, environment included) and training on it (the rollout and its
update) with the default policy, per environment and step, relative to B = 1.
"""

from typing import TYPE_CHECKING, Any

from rlmin.agents.ppo import PPO
from rlmin.bench.cell import forward_backward
from rlmin.bench.options import Options
from rlmin.bench.report import Table, Target, number, plain_log
from rlmin.bench.timing import Case
from rlmin.encoders import MIXERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENCODERS = ("min_gru", "min_lstm", "gru", "attention", "lru", "gated_linear", "delta_net")
LENGTHS = (64, 256, 1024, 4096, 8192, 16384)
BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
TOKENS, ROWS, WIDTH = 65536, 8, 128
HORIZON = 16
UP_TO, MOST_GROWTH = 8192, 1.15
"""Largest T of the target for minGRU's cost per token, relative to T = 64."""


def run(options: Options) -> Table:
    """Layers over T, then acting and training over B; see the top of this file."""
    table = Table()
    for kept in ("tokens", "rows"):
        for name in ENCODERS:
            _over_time(table, name, kept, options)
    _over_environments(table, options)
    for kept in () if options.quick else ("tokens", "rows"):
        worst = [number(row["relative"]) for row in table.where(what="min_gru", kept=kept) if number(row["T"]) <= UP_TO]
        table.targets.append(Target(f"min_gru, same {kept}, dearest token to T={UP_TO}", max(worst), MOST_GROWTH))
    return table


def _over_time(table: Table, name: str, kept: str, options: Options) -> None:
    lengths = (4, 16) if options.quick else LENGTHS
    tokens, rows, width = (32, 2, 4) if options.quick else (TOKENS, ROWS, WIDTH)
    sizes = {str(T): (T, tokens // T if kept == "tokens" else rows) for T in lengths}
    cases = {
        key: forward_backward(MIXERS[name](width, width), (T, B, width), True, options.device)
        for key, (T, B) in sizes.items()
    }
    timing = options.measure(f"{name}, same {kept}", cases, rounds=9, seconds=6)
    first = next(iter(sizes))
    for key, (T, B) in sizes.items():
        cost = 1e9 * timing.median(key) / (T * B)
        relative = timing.ratio(key, first) * (sizes[first][0] * sizes[first][1]) / (T * B)
        table.add(
            {"what": name, "kept": kept, "T": T, "B": B, "ns": cost, "relative": relative, "rounds": timing.rounds}
        )


def _over_environments(table: Table, options: Options) -> None:
    batches = (1, 3) if options.quick else BATCHES
    for what in ("acting", "training"):
        cases = {str(B): case(what, B, options) for B in batches}
        timing = options.measure(f"{what} over B", cases, rounds=9, seconds=6)
        for B in batches:
            cost = 1e9 * timing.median(str(B)) / (HORIZON * B)
            relative = timing.ratio(str(B), str(batches[0])) * batches[0] / B
            row = {"what": what, "kept": "T", "T": HORIZON, "B": B, "ns": cost, "relative": relative}
            table.add({**row, "rounds": timing.rounds})


def case(what: str, B: int, options: Options) -> Case:
    """A rollout of B environments, or a rollout and its update."""
    sizes: dict[str, Any] = {"num_envs": B, "horizon": HORIZON, "width": 8 if options.quick else WIDTH}
    agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": 10}, device=options.device, lr=1e-6, epochs=4, **sizes)

    def training() -> None:
        rollout = agent.collector.collect()
        assert rollout is not None, "nothing stops it"
        agent.update(rollout)

    return agent.collector.collect if what == "acting" else training


def draw(table: Table, figure: "Figure") -> None:
    """Cost per token over T for both ways to grow, and cost per step and environment over B."""
    for axes, kept in zip(figure.subplots(1, 3), ["tokens", "rows", "T"], strict=True):
        for what in table.each("what", kept=kept):
            rows = table.where(what=what, kept=kept)
            at = [number(row["B" if kept == "T" else "T"]) for row in rows]
            scale = 1e-3 if kept == "T" else 1
            axes.plot(at, [scale * number(row["ns"]) for row in rows], marker=".", label=what)
            if what == "min_gru":
                axes.axhspan(number(rows[0]["ns"]), number(rows[0]["ns"]) * MOST_GROWTH, alpha=0.2, label="target")
        plain_log(axes, x=True, y=True)
        axes.tick_params(axis="x", labelrotation=60)
        axes.set_xlabel("environments, B" if kept == "T" else "length, T")
        axes.legend(fontsize=8)
    titles = [f"ns a token, T x B = {TOKENS}", f"ns a token, B = {ROWS}", "us a step and environment"]
    for axes, title in zip(figure.axes, titles, strict=True):
        axes.set_title(title, fontsize=10)
