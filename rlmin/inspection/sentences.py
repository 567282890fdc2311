"""Sentences: the content of the pictures in numbers, and how each number is computed. HTML, escaped."""

import math
from collections.abc import Iterable
from html import escape

import torch

from rlmin.encoders import CELLS
from rlmin.inspection.delays import Varied
from rlmin.inspection.findings import cause, outcome
from rlmin.inspection.recurrence import recurrences
from rlmin.inspection.study import Explained, Study
from rlmin.inspection.time_scales import share_beyond
from rlmin.inspection.trace import mixers

HOW_TO_READ = (
    "Every number on this page was measured with the policy as it was saved; nothing was trained. Episodes are played "
    "greedily (the most likely action). A <b>step</b> is one observation and one action; <i>t</i> is the step whose "
    "action is looked at, <i>s</i> an earlier one. Bands are 95 % intervals (bootstrap of returns, Wilson of success "
    "rates) unless a caption says otherwise."
)
SCALES = (
    "Each unit multiplies what it holds by a keep gate at every step. A unit with gate <i>a</i> has lost half of it "
    "after ln 2 / &minus;ln <i>a</i> steps, its <b>half-life</b>. The gates look at the input, so the half-life in "
    "play differs from the one that the bias alone would give."
)
ATTRIBUTION = (
    "The memory of a layer is an exactly weighted sum of what each past step wrote into it: "
    "<i>h<sub>t</sub></i> = &Sigma;<sub>s</sub> <i>C<sub>t,s</sub></i>, with <i>C<sub>t,s</sub></i> = "
    "(&Pi;<sub>r=s+1..t</sub> <i>a<sub>r</sub></i>) <i>b<sub>s</sub></i>. So a past step can be taken out of it "
    "exactly. Three answers to the same question are shown: what the memory is <b>made of</b>, what taking one step "
    "<b>out of one layer's memory</b> does to the action, and what <b>not having seen</b> that step does to it through "
    "the whole network."
)
WIPES = (
    "A wipe empties the whole memory, the convolution's included, just before the observation of step <i>t</i> is "
    "read. Where the action hardly changes, it did not depend on the past; where episodes go wrong afterwards, what "
    "was lost could not be seen again."
)

HEAT_AGAIN = "<b>Time by time</b>, of this episode; as above."


def lead(study: Study) -> str:
    """One sentence below the title."""
    found = study.evaluation
    return f"A look inside a trained policy: {escape(str(study.subject.arena))}, {escape(outcome(found))}."


def no_scales(study: Study) -> str:
    """The reason why there are no half-lives."""
    if recurrences(mixers(study.subject.policy)):
        return "Every episode that was played here is one step long, so there was nothing to forget in play."
    return (
        f"The gates of {_encoder(study)} depend on its own memory, or it has none, so a unit has no half-life of its "
        f"own. This section is for {_join(cell.name for cell in CELLS.values() if cell.has_terms)}."
    )


def scales_caption(study: Study) -> str:
    """Below the half-lives."""
    rows = study.episodes.start.shape[1]
    return (
        "<b>Half-lives of the units, by layer.</b> Cumulative: at 0.5 is the median. Dashed, by the bias of the gate "
        "alone (input 0), as TensorBoard's <code>memory/log10_time_scale</code> has it (there as 1 / (1 &minus; "
        "<i>a</i>)). Thick, the half-life that a unit's mean rate of forgetting amounts to over the steps of "
        f"{rows} episodes played. Thin, every single gate, step by unit. Vertical lines: mean length of an episode "
        f"({study.length:.0f} steps) and the window of training ({study.subject.horizon})."
    )


def scales_table(study: Study) -> tuple[list[str], list[list[str]]]:
    """Quantiles of the half-lives in play."""
    head = ["half-life, steps", "10 %", "median", "90 %", "longest", "longer than an episode", "than the window"]
    rows = []
    for layer, one in enumerate(study.scales, 1):
        for name, x in (("by bias", one.bias), ("in play", one.played)):
            low, middle, high = torch.quantile(x.clamp(max=1e12), torch.tensor([0.1, 0.5, 0.9], dtype=x.dtype)).tolist()
            shares = [share_beyond(x, study.length), share_beyond(x, study.subject.horizon)]
            quantiles = [_steps(low), _steps(middle), _steps(high), _steps(float(x.max()))]
            rows.append([f"layer {layer}, {name}", *quantiles, *(f"{100 * share:.0f} %" for share in shares)])
    return head, rows


def no_sum(study: Study) -> str:
    """For a memory that is not a weighted sum."""
    return (
        f"The memory of {_encoder(study)} is not a sum of past steps with weights of their own, so only the last "
        "of three answers is given here: what not having seen a past step does to an action, through the whole network."
    )


def episode_line(one: Explained) -> str:
    """The result of an episode, and the strongest cause."""
    T, earned = len(one.episode), float(one.episode.reward.sum())
    line = f"{T} steps, return {earned:.3g}"
    if one.moment is None:
        return f"{line}; no past step matters"
    return f"{line}; {cause(one)} spoke most for an action, at step {one.moment[0]}"


def episode_caption(one: Explained, *, short: bool = False) -> str:
    """Below the picture of an episode."""
    text = (
        "<b>The episode.</b> Arcs lead from the past step that spoke most for an action to the step of that action, "
        "wherever that effect is at least a tenth of the largest (orange); the wider, the larger. Below, the "
        "observation: blue is above 0, orange below, each row divided by its largest size; then the action."
    )
    text = "<b>Another episode.</b>" if short else text
    if one.moment is None:
        return text
    t, g = one.moment
    before, after = one.attribution.log_prob[t].exp(), one.attribution.input_log_prob[t, g].exp()
    what = "density" if one.episode.action.is_floating_point() else "probability"
    return (
        f"{text} Had {cause(one)} been an average input instead, the {what} of the action taken at step {t} would "
        f"have been {float(after):.3g} and not {float(before):.3g}."
    )


def heat_caption(study: Study, one: Explained) -> str:
    """Below the heat maps."""
    unit = "log-density" if one.episode.action.is_floating_point() else "log-odds"
    group = one.attribution.group
    grouped = f" Columns are {group} consecutive steps, taken away together." if group > 1 else ""
    seen = (
        f"<b>Time by time.</b> Rows are actions, columns their causes; the circle is the largest past effect.{grouped} "
        f"<i>Effect of what was seen</i>: what the {unit} of the action taken at <i>t</i> lose where the input of the "
        "network at <i>s</i> (previous action and reward included) is replaced by the mean input of "
        f"{study.episodes.start.shape[1]} episodes and everything is run again; blue: it spoke for the action."
    )
    if not one.attribution.layers:
        return f"{seen} Colours end at the largest effect of a past step; the present (the diagonal) may lie beyond."
    c = study.subject.policy.config
    mixed = ""
    if c.conv:
        mixed = (
            f" The convolution before each memory lets what is written at <i>s</i> hold inputs of <i>s</i>&minus;"
            f"{c.conv - 1} to <i>s</i>, so an effect in a layer can stand up to {c.conv - 1} steps after what was seen."
        )
    return (
        f"{seen} <i>Share in the memory</i>: the part of <i>h<sub>t</sub></i> that was written at <i>s</i>, "
        "<i>C<sub>t,s</sub></i>&middot;<i>h<sub>t</sub></i> / |<i>h<sub>t</sub></i>|&sup2;; a row adds up to 1. "
        f"<i>Effect of a layer's memory</i>: what the {unit} lose where that layer puts out <i>h<sub>t</sub></i> "
        "&minus; <i>C<sub>t,s</sub></i> and all above it is run again. Colours end at the largest effect of a past "
        f"step; the present (the diagonal) may lie beyond.{mixed}"
    )


def lags_caption(study: Study) -> str:
    """Below the effects by lag."""
    grouped = f", in groups of {study.group} steps" if study.group > 1 else ""
    return (
        f"<b>How far back actions look.</b> Mean size of the effects above by the lag <i>t</i> &minus; <i>s</i>"
        f"{grouped}, over the steps of the {len(study.explained)} episodes shown that are that old. Lag 0 is the "
        "present observation."
    )


def no_size(study: Study) -> str:
    """For a memory without a meaningful size."""
    return (
        f"The memory of {_encoder(study)} is not a vector of units that could grow: this section is for "
        f"{_join(cell.name for cell in CELLS.values() if cell.is_bounded)}."
    )


def lengths(study: Study) -> str:
    """The introduction of that section."""
    text = (
        f"The policy was trained on windows of {study.subject.horizon} steps. Here its memory grows much older: "
        "<b>never wiped</b>, it goes on from episode to episode and has to write over what it held, which it never had "
        "to in training"
    )
    if study.long is None or study.varied is None:
        return text + "."
    longest = escape(f"{study.varied.name}={study.varied.longest}")
    return f"{text}; and in the <b>longest episodes</b> ({longest}) it lives as long."


def lengths_caption(study: Study) -> str:
    """Below the sizes."""
    rows = (study.unwiped or study.long).size.shape[2]  # type: ignore[union-attr]
    return (
        f"<b>Size and use of an old memory.</b> Root mean square of a layer's units by the age of the memory: median "
        f"of {rows} environments and the band of the middle 80 %. A level line says that the memory does not grow. "
        "Right: what episodes achieve that begin with a memory of that age (mean of equally many episodes a point)."
    )


def no_knob(study: Study) -> str:
    """For an environment without an argument to vary."""
    return (
        f"{escape(study.subject.arena.id)} has no argument that is known to lengthen the delay. Name one and its "
        "values: <code>--vary NAME=V1,V2,...</code>"
    )


def describe_varied(study: Study) -> str:
    """Below success against delay."""
    found: Varied = study.varied  # type: ignore[assignment]
    episodes = len(next(iter(found.results.values())).returns)
    trained = (
        f" The policy was trained at {escape(f'{found.name}={found.trained}')}." if found.trained is not None else ""
    )
    lengths = "" if study.evaluation.successes is not None else " Lengths are means, with quartiles."
    return f"<b>Success against {escape(found.name)}.</b> {episodes} episodes at each value.{trained}{lengths}"


def tabulate_varied(found: Varied) -> tuple[list[str], list[list[str]]]:
    """The same as numbers."""
    rows = []
    for value, one in found.results.items():
        low, high = one.return_interval()
        rate = "-" if one.success_rate is None else f"{100 * one.success_rate:.1f} %"
        rows.append(
            [str(value), f"{one.mean_return:.3f}", f"{low:.3f} to {high:.3f}", rate, f"{one.lengths.mean():.1f}"]
        )
    return [found.name, "return", "95 % interval", "success", "steps"], rows


def wipes_caption(study: Study) -> str:
    """Below the wipes."""
    episodes = len(next(iter(study.wipes.values())).returns)
    return (
        "<b>Wiping the memory.</b> Left: probability of the action taken at <i>t</i>, with the memory and with it "
        "emptied just before. Middle: KL divergence of the two distributions, KL(with || without). Right: "
        f"{episodes} episodes whose memory was wiped once, before that step, and which were then played on."
    )


def _join(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _encoder(study: Study) -> str:
    return escape(study.subject.policy.config.encoder)


def _steps(x: float) -> str:
    if not math.isfinite(x) or x >= 1e6:
        return "> 1e6"
    return f"{x:.1f}" if x < 100 else f"{x:,.0f}"
