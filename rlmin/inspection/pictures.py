"""Pictures: their style, and the simple ones. Each is an SVG, as text."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from rlmin.evaluation.evaluate import Evaluation
from rlmin.inspection.delays import Varied
from rlmin.inspection.lengths import Norms, by_age
from rlmin.inspection.time_scales import TimeScales

if TYPE_CHECKING:  # matplotlib is slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, PALE = "#1f2933", "#7b8794", "#d9dee4"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""The colours of Okabe and Ito, which colour-blind readers can distinguish."""
MARKS = {"episode": COLOURS[1], "training window": INK, "trained": COLOURS[1]}
"""Colours of vertical lines, by their names."""
WIDTH = 10.0  # inches; the page is as wide

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 16,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa5b1",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.7,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "rlmin",
}


def figure(height: float) -> "Figure":
    """An empty figure, as wide as the page."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no window

    return Figure(figsize=(WIDTH, height), layout="constrained")


def svg(drawn: "Figure") -> str:
    """The figure as SVG."""
    text = io.StringIO()
    drawn.savefig(text, format="svg", dpi=150, metadata={"Date": None, "Creator": None}, transparent=True)
    return text.getvalue()


def draw_time_scales(scales: Sequence[TimeScales], *, length: float, horizon: int) -> str:
    """Cumulative distributions of half-lives, a panel a layer."""
    drawn = figure(3.1)
    finite = [x for one in scales for part in (one.bias, one.played) for x in part[part.isfinite()].tolist()]
    low, high = 0.5 * min([1.0, *finite]), 2 * max([length, horizon, *finite])
    panels = drawn.subplots(1, len(scales), sharey=True, squeeze=False)[0]
    for layer, (axes, one) in enumerate(zip(panels, scales, strict=True)):
        share = np.linspace(0, 1, len(one.gate))
        axes.plot(
            one.gate.clamp(max=10 * high).numpy(), share, color=COLOURS[4], linewidth=1.2, label="single gates, in play"
        )
        _staircase(axes, one.bias, high, color=GREY, linestyle="--", label="units, by their bias")
        _staircase(axes, one.played, high, color=COLOURS[0], linewidth=2.4, label="units, in play")
        axes.set(xscale="log", xlim=(low, high), ylim=(0, 1.02), title=f"layer {layer + 1}", xlabel="half-life, steps")
        _marks(axes, {"episode": length, "training window": horizon})
        axes.grid()
    panels[0].set_ylabel("share with a shorter half-life")
    panels[0].legend(loc="upper left")
    return svg(drawn)


def draw_lags(lags: Sequence[tuple[Tensor, Tensor]], *, group: int) -> str:
    """Mean size of effects by lag: of the input, and of each layer's memory."""
    drawn = figure(2.7)
    axes = drawn.subplots()
    names = [*(f"memory of layer {i + 1}" for i in range(len(lags) - 1)), "what was seen, whole network"]
    for i, (name, (mean, count)) in enumerate(zip(names, lags, strict=True)):
        last = i == len(lags) - 1
        shown = int((count > 0).sum())
        steps = group * np.arange(shown)
        marked = "o" if shown <= 60 else None
        colour = INK if last else COLOURS[i % len(COLOURS)]
        axes.plot(steps, mean[:shown].numpy(), marker=marked, color=colour, linewidth=2.4 if last else 1.5, label=name)
    axes.set(xlabel="lag: steps between cause and action", ylabel="mean |effect|, nats", ylim=(0, None))
    axes.margins(x=0.01)
    axes.grid()
    axes.legend()
    return svg(drawn)


def draw_norms(long: Norms | None, unwiped: Norms | None, *, horizon: int, of_success: bool) -> str:
    """Size of the memory by age, and the returns of episodes by the age of a memory that is never wiped."""
    drawn = figure(3.2)
    panels: list[Axes] = list(drawn.subplots(1, 3 if long is not None else 2))
    sizes = {"size, longest episodes": long, "size, never wiped": unwiped}
    shown = {title: found for title, found in sizes.items() if found is not None}
    for axes, (title, found) in zip(panels, shown.items(), strict=False):
        _size(axes, found, horizon)
        axes.set_title(title)
    panels[0].legend(loc="best")
    if unwiped is not None:
        _draw_ages(panels[-1], unwiped, horizon, of_success=of_success)
    return svg(drawn)


def draw_varied(found: Varied) -> str:
    """Success, if known, and return over the values of one argument."""
    values = list(found.results)
    numbers = all(isinstance(value, int | float) for value in values)
    x = [float(value) for value in values] if numbers else list(map(float, range(len(values))))
    kinds = ["success", "return"] if _know_success(list(found.results.values())) else ["return"]
    drawn = figure(3.1)
    for axes, kind in zip(drawn.subplots(1, 2), [*kinds, "length"][:2], strict=True):
        middle, low, high = intervals(list(found.results.values()), kind)
        axes.fill_between(x, low, high, color=COLOURS[0], alpha=0.18, linewidth=0)
        axes.plot(x, middle, marker="o", color=COLOURS[0])
        if numbers and min(x) > 0:
            axes.set_xscale("log")
        axes.set_xticks(x, [str(value) for value in values])
        axes.minorticks_off()
        axes.set(xlabel=found.name, ylabel={"success": "success rate", "length": "steps of an episode"}.get(kind, kind))
        fit(axes, kind, low, high)
        if found.trained in values:
            _marks(axes, {"trained": x[values.index(found.trained)]})
        axes.grid()
    return svg(drawn)


def fit(axes: "Axes", kind: str, low: Sequence[float], high: Sequence[float]) -> None:
    """Limits of an axis: success from 0 to 1, and no zoom into rounding errors."""
    if kind == "success":
        axes.set_ylim(-0.03, 1.05)
        return
    bottom, top = min(low), max(high)
    room = max(0.1 * (top - bottom), 0.1 * max(abs(bottom), abs(top)), 1e-3)
    axes.set_ylim(bottom - room, top + room)
    axes.ticklabel_format(axis="y", useOffset=False)


def add_legend(axes: "Axes") -> None:
    """Add a legend above the picture, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=3, borderaxespad=0, columnspacing=1.2)


def _staircase(axes: "Axes", values: Tensor, most: float, **style: Any) -> None:
    """The cumulative distribution of a few values; infinite ones lie beyond the picture."""
    ordered = values.clamp(max=10 * most).sort().values.numpy()
    axes.step(np.r_[1e-9, ordered], np.r_[0, np.arange(1, len(ordered) + 1) / len(ordered)], where="post", **style)


def _marks(axes: "Axes", places: Mapping[str, float]) -> None:
    """Vertical lines with their names above the picture: the leftmost name to the left of its line, others right."""
    low, high = axes.get_xlim()
    inside = sorted((x, name) for name, x in places.items() if low <= x <= high)
    for i, (x, name) in enumerate(inside):
        left = (i == 0 and len(inside) > 1) or x > low + 0.9 * (high - low)
        axes.axvline(x, color=MARKS[name], linewidth=1, linestyle=(0, (4, 2)), zorder=1.5)
        axes.annotate(
            name,
            (x, 1),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            xytext=(-3 if left else 3, 2),
            ha="right" if left else "left",
            va="bottom",
            fontsize=8,
            color=MARKS[name],
        )


def _size(axes: "Axes", found: Norms, horizon: int) -> None:
    size = found.size.numpy()  # [M, L, B]
    kept = np.isfinite(size[:, 0]).sum(1) * 2 >= size.shape[2]  # ages reached by at least half of the rows
    size = size[: int(kept.sum())]
    age = np.arange(1, len(size) + 1)
    for layer in range(size.shape[1]):
        low, middle, high = np.nanquantile(size[:, layer], [0.1, 0.5, 0.9], axis=1)
        colour = COLOURS[layer % len(COLOURS)]
        axes.fill_between(age, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(age, middle, color=colour, linewidth=1.4, label=f"layer {layer + 1}")
    axes.set(xscale="log", xlabel="age of the memory, steps", ylim=(0, None))
    axes.set_ylabel("rms of the units")
    axes.set_xlim(1, max(len(size), 2))
    _marks(axes, {"training window": horizon})
    axes.grid()


def _draw_ages(axes: "Axes", found: Norms, horizon: int, *, of_success: bool) -> None:
    groups = [(age, Evaluation.of(episodes)) for age, episodes in by_age(found.episodes)]
    kind = "success" if of_success and _know_success([one for _, one in groups]) else "return"
    if groups:
        middle, low, high = intervals([one for _, one in groups], kind)
        ages = [age for age, _ in groups]
        axes.fill_between(ages, low, high, color=COLOURS[0], alpha=0.18, linewidth=0)
        axes.plot(ages, middle, color=COLOURS[0], marker="o")
        fit(axes, kind, low, high)
    axes.set(xlabel="age of the memory at their start, steps", ylabel=kind)
    axes.set_title(f"{kind} of episodes, never wiped")
    axes.set_xlim(0, max(len(found.size), 2))
    _marks(axes, {"training window": horizon})
    axes.grid()


def _know_success(found: Sequence[Evaluation]) -> bool:
    return bool(found) and all(one.successes is not None for one in found)


def intervals(found: Sequence[Evaluation], kind: str) -> tuple[list[float], list[float], list[float]]:
    """Mean and 95 % interval of success or return; for lengths, mean and quartiles."""
    if kind == "success":
        ends = [one.success_interval() or (0.0, 0.0) for one in found]
        return [one.success_rate or 0.0 for one in found], *map(list, zip(*ends, strict=True))  # type: ignore[return-value]
    if kind == "length":
        low, high = ([float(np.quantile(one.lengths, q)) for one in found] for q in (0.25, 0.75))
        return [float(one.lengths.mean()) for one in found], low, high
    ends = [one.return_interval() for one in found]
    return [one.mean_return for one in found], *map(list, zip(*ends, strict=True))  # type: ignore[return-value]
