"""Pictures of single episodes: observations, actions, and the past steps that drove them."""

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rlmin.inspection.pictures import COLOURS, GREY, INK, PALE, add_legend, figure, svg
from rlmin.inspection.study import Explained, Study
from rlmin.policy.heads import ChoiceHead
from rlmin.spaces import leaf_spaces

if TYPE_CHECKING:  # matplotlib is slow to import
    from matplotlib.axes import Axes

ROWS_SHOWN = 16
"""Largest number of observation rows in a picture."""
NAMES_FIT = 40
"""Steps up to which each action is named."""
LAYERS_SHOWN = 3


def draw_episode(study: Study, one: Explained) -> str:
    """Observations and actions, with arcs to each action from the past step that supported it most."""
    rows, names = select_rows(study, one)
    height = 0.9 + 0.16 * max(len(rows), 1)
    drawn = figure(1.5 + height + 0.9)
    arcs, strip, bottom = drawn.subplots(3, 1, sharex=True, height_ratios=[1.5, height, 0.9])
    T = len(one.episode)
    _arcs(arcs, one)
    if len(rows):
        most = max(float(np.abs(rows).max()), 1e-9)
        strip.imshow(rows, aspect="auto", cmap=diverging(), vmin=-most, vmax=most, interpolation="nearest")
    strip.set_yticks(range(len(names)), names, fontsize=7.5)
    strip.tick_params(length=0)
    strip.set_title("what was seen", pad=6)
    for place in strip.spines.values():
        place.set(visible=True, color=PALE)
    _draw_actions(study, bottom, one)
    bottom.set_xlim(-0.5, T - 0.5)
    bottom.set_xlabel("step")
    drawn.align_ylabels()
    return svg(drawn)


def draw_heat(one: Explained) -> str:
    """Time by time: the origin of each layer's memory, and the effect of each past step on each action."""
    why = one.attribution
    L = len(why.layers)
    layers = list(range(L)) if L <= LAYERS_SHOWN else [0, L // 2, L - 1]
    drawn = figure(6.6 if layers else 3.4)
    panels = drawn.subplots(2 if layers else 1, max(len(layers) + 1, 2), squeeze=False)
    effects = {f"effect of layer {i + 1}'s memory": why.layers[i].effect for i in layers}
    effects["effect of what was seen"] = why.input_effect
    most = max(_largest_past(effect, why.group) for effect in effects.values())  # one scale for comparison
    drawing = [_map(panels[-1, i], effect, one, name, most=most) for i, (name, effect) in enumerate(effects.items())]
    _scale(panels[-1, : len(effects)], drawing[0], "nats", extend="both")
    if layers:
        shares = [why.layers[i].share for i in layers]
        most = max(float(share.abs().max()) for share in shares)
        drawing = [
            _map(panels[0, i], share, one, f"share in the memory, layer {layer + 1}", most=most, root=True)
            for i, (layer, share) in enumerate(zip(layers, shares, strict=True))
        ]
        _scale(
            panels[0, : len(layers)],
            drawing[0],
            "share",
            ticks=[x for x in (-0.3, -0.05, 0, 0.05, 0.3, 1) if abs(x) <= most],
        )
    _decision(panels[0, -1], one, layers)
    for row in panels:
        row[0].set_ylabel("action at step t")
    return svg(drawn)


def diverging() -> Any:
    """Orange below 0, white, blue above."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = ["#8c3b00", "#e8893c", "#ffffff", "#3d8fc6", "#06406b"]
    return LinearSegmentedColormap.from_list("rlmin", colours).with_extremes(bad="#eef1f4")


def select_rows(study: Study, one: Explained) -> tuple[np.ndarray[Any, Any], list[str]]:
    """[rows, T] the entries of an observation that change most, each between -1 and 1, and their names.

    Choices of up to 16 are one-hot. Pictures give no rows: they are shown as frames.
    """
    known = leaf_spaces(study.subject.policy.observation_space)
    rows, names = list[np.ndarray[Any, Any]](), list[str]()
    for name, leaf in one.episode.leaves.items():
        values = _columns(known.get(name), leaf[:, 0].cpu())
        if values is None:
            continue
        alone = values.shape[1] == 1
        rows.extend(values.T)
        names.extend([name] if alone else [f"{name} {i}" for i in range(values.shape[1])])
    table = np.array([row / max(float(np.abs(row).max()), 1e-9) for row in rows]).reshape(len(rows), len(one.episode))
    if len(table) > ROWS_SHOWN:
        kept = np.sort(np.argsort(-table.std(1), kind="stable")[:ROWS_SHOWN])
        table, names = table[kept], [names[i] for i in kept]
    return table, names


def _columns(space: Any, leaf: Tensor) -> Any:
    """Array [T, columns] of one leaf; None for a picture."""
    if isinstance(space, gym.spaces.Discrete) and space.n <= ROWS_SHOWN:
        return one_hot(leaf.long(), int(space.n)).double().numpy()
    if leaf.ndim > 2 and leaf[0].numel() > 64:
        return None
    return leaf.flatten(1).double().numpy() if leaf.ndim > 1 else leaf[:, None].double().numpy()


def _arcs(axes: "Axes", one: Explained) -> None:
    """For every step the past group with the largest effect, if that is at least a tenth of the largest of all."""
    from matplotlib.patches import Arc

    why = one.attribution
    T, G = why.input_effect.shape
    past = np.arange(G)[None] < (np.arange(T) // why.group)[:, None]
    effect = np.where(past, why.input_effect.numpy(), 0)
    cause, most = effect.argmax(1), effect.max()
    width = 1.0
    for t in range(T):
        size = effect[t, cause[t]] / max(most, 1e-9)
        if most < 1e-9 or size < 0.1:
            continue
        s = (cause[t] + 0.5) * why.group - 0.5
        chosen = (t, cause[t]) == one.moment
        style: dict[str, Any] = {
            "color": COLOURS[1] if chosen else COLOURS[0],
            "alpha": 1.0 if chosen else 0.25 + 0.5 * size,
        }
        axes.add_patch(Arc(((s + t) / 2, 0), t - s, 2 * (t - s), theta1=0, theta2=180, lw=0.6 + 2.2 * size, **style))
        width = max(width, t - s)
    axes.set_ylim(0, 1.08 * width)
    axes.set_yticks([])
    axes.set_title("which past step spoke most for the action")
    for name in ("left", "bottom"):
        axes.spines[name].set_visible(False)
    axes.tick_params(length=0, labelbottom=False)


def _draw_actions(study: Study, axes: "Axes", one: Explained) -> None:
    """The probability of the action and, for a single choice, its number at every step."""
    T, head = len(one.episode), study.subject.policy.action_head
    steps = np.arange(T)
    if not isinstance(head, ChoiceHead):
        for i, row in enumerate(one.episode.action[:, 0].flatten(1).T):
            axes.plot(steps, row.numpy(), color=COLOURS[i % len(COLOURS)], linewidth=1.2, label=f"action {i}")
        axes.set_title("what was done: the mean action, [low, high] as [-1, 1]", pad=6)
        return
    axes.bar(steps, one.attribution.log_prob.exp().numpy(), width=0.9, color=PALE)
    axes.set_ylim(0, 1.05)
    axes.set_title("what was done: probability of the action" + (", and its number" if T <= NAMES_FIT else ""), pad=6)
    if T <= NAMES_FIT and one.episode.action.shape[-1] == 1:
        for t, action in enumerate(one.episode.action[:, 0, 0].tolist()):
            axes.text(t, 0.08, str(action), ha="center", fontsize=8, color=INK)


def _largest_past(effect: Tensor, group: int) -> float:
    """The largest |effect| of a step before the action's own."""
    T, G = effect.shape
    past = torch.arange(G)[None] < (torch.arange(T) // group)[:, None]
    return max(float(effect[past].abs().max()) if bool(past.any()) else 0.0, 1e-6)


def _map(axes: "Axes", values: Tensor, one: Explained, title: str, *, most: float, root: bool = False) -> Any:
    """A heat map between -most and most, on a square-root scale if `root`; the future is grey."""
    from matplotlib.colors import FuncNorm, Normalize

    why = one.attribution
    T, G = values.shape
    future = np.arange(G)[None] > (np.arange(T) // why.group)[:, None]
    functions = (lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * np.square(x))
    scale = FuncNorm(functions, vmin=-most, vmax=most) if root else Normalize(-most, most)
    image = axes.imshow(
        np.ma.masked_array(values.numpy(), future),
        aspect="auto",
        cmap=diverging(),
        norm=scale,
        interpolation="nearest",
        extent=(-0.5, G * why.group - 0.5, T - 0.5, -0.5),
    )
    axes.set_xlim(-0.5, T - 0.5)
    axes.locator_params(integer=True)
    axes.set_title(title, fontsize=9, pad=6)
    axes.set_xlabel("because of step s")
    if one.moment is not None:
        t, g = one.moment
        ring = {"markersize": 9, "fillstyle": "none", "markeredgewidth": 1.8}
        axes.plot([(g + 0.5) * why.group - 0.5], [t], "o", color=COLOURS[1], clip_on=False, **ring)  # type: ignore[arg-type]
    return image


def _scale(panels: Any, image: Any, name: str, **more: Any) -> None:
    """One colour bar for a row of maps."""
    bar = panels[0].figure.colorbar(image, ax=list(panels), fraction=0.03, pad=0.01, aspect=26, **more)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7.5, length=2)
    bar.ax.set_title(name, fontsize=8, fontweight="normal", loc="left", pad=6)


def _decision(axes: "Axes", one: Explained, layers: list[int]) -> None:
    """Every effect on the one action that is marked."""
    why = one.attribution
    if one.moment is None:
        axes.set_axis_off()
        axes.text(0.02, 0.5, "no past step has an effect:\nthere is no memory", color=GREY, transform=axes.transAxes)
        return
    t = one.moment[0]
    last = t // why.group + 1
    steps = why.group * np.arange(last)
    for layer in layers:
        colour = COLOURS[layer % len(COLOURS)]
        axes.plot(
            steps, why.layers[layer].effect[t, :last].numpy(), color=colour, marker=".", label=f"layer {layer + 1}"
        )
    axes.plot(steps, why.input_effect[t, :last].numpy(), color=INK, marker="o", markersize=3.5, label="seen")
    shown = [*(why.layers[layer].effect[t, : last - 1] for layer in layers), why.input_effect[t, : last - 1]]
    high = max(float(x.max()) for x in shown)
    low = min(float(x.min()) for x in shown)
    room = 0.15 * max(high - low, 1e-6)
    axes.set_ylim(low - room, high + room)  # the present is often far above, and may leave the picture
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_title(f"effects on the action at step {t}", fontsize=9)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("because of step s")
    axes.grid()
    add_legend(axes)
