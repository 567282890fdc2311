"""Pictures of a memory that is wiped: the action before which it happens, and the episodes after it."""

from typing import TYPE_CHECKING, Any

import numpy as np

from rlmin.inspection.pictures import COLOURS, GREY, INK, add_legend, figure, fit, intervals, svg
from rlmin.inspection.study import Study

if TYPE_CHECKING:  # matplotlib is slow to import
    from matplotlib.axes import Axes


def draw_wipes(study: Study) -> str:
    """The action with and without memory at each step, their divergence, and returns by the time of the wipe."""
    drawn = figure(3.2)
    action, divergence, returns = drawn.subplots(1, 3)
    one = study.forgetting[0]
    steps = np.arange(len(one.kept))
    marker = "." if len(steps) <= 60 else None
    action.plot(steps, one.kept.cpu().numpy(), color=COLOURS[0], marker=marker, label="with its memory")
    action.plot(steps, one.wiped.cpu().numpy(), color=COLOURS[1], marker=marker, linestyle="--", label="just wiped")
    action.set(title="the action taken", xlabel="step t of episode 1", ylabel="its probability", ylim=(0, None))
    if study.explained[0].episode.action.is_floating_point():
        action.set_ylabel("its density")
    for i, found in enumerate(study.forgetting):
        length = len(found.divergence)
        divergence.plot(
            range(length),
            found.divergence.cpu().numpy(),
            color=COLOURS[i % len(COLOURS)],
            marker=marker,
            label=f"episode {i + 1}",
        )
    divergence.set(title="how much the wipe changes", xlabel="step t", ylabel="KL divergence, nats", ylim=(0, None))
    add_legend(action)
    add_legend(divergence)
    _returns(study, returns)
    for axes in (action, divergence, returns):
        axes.grid()
    return svg(drawn)


def _returns(study: Study, axes: "Axes") -> None:
    """Episodes whose memory was wiped once, beside those never and always wiped."""
    kind = "success" if study.evaluation.successes is not None else "return"
    found = list(study.wipes.values())
    middle, low, high = intervals(found, kind)
    axes.fill_between(list(study.wipes), low, high, color=COLOURS[0], alpha=0.18, linewidth=0)
    axes.plot(list(study.wipes), middle, color=COLOURS[0], marker="o")
    never, always = (intervals([one], kind)[0][0] for one in (study.evaluation, study.memoryless or study.evaluation))
    for value, name, colour in ((never, "never\nwiped", INK), (always, "wiped at\nevery step", GREY)):
        axes.axhline(value, color=colour, linewidth=1, linestyle=(0, (4, 2)))
        place: dict[str, Any] = {
            "xycoords": axes.get_yaxis_transform(),
            "textcoords": "offset points",
            "xytext": (4, 0),
        }
        axes.annotate(name, (1, value), fontsize=8, ha="left", va="center", color=colour, **place)
    axes.set(title=f"{kind}, wiped once", xlabel="step of the wipe", ylabel=kind)
    fit(axes, kind, [*low, never, always], [*high, never, always])
