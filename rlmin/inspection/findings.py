"""Findings: the results of a study and their accuracy, in sentences. HTML, escaped."""

from html import escape
from typing import Any

from rlmin.evaluation.evaluate import Evaluation
from rlmin.inspection.study import Explained, Study
from rlmin.inspection.time_scales import share_beyond


def list_findings(study: Study) -> list[str]:
    """The findings, one sentence each."""
    return [line for line in (_reach(study), _drove(study), _back(study), _far(study), _describe_loss(study)) if line]


def cause(one: Explained) -> str:
    """The past step or steps with the largest effect."""
    if one.moment is None:
        return "none"
    first = one.moment[1] * one.attribution.group
    last = min(first + one.attribution.group, len(one.episode)) - 1
    return f"step {first}" if first == last else f"steps {first}&ndash;{last}"


def outcome(one: Evaluation) -> str:
    """Return and, if known, success."""
    text = "" if one.success_rate is None else f", success {100 * one.success_rate:.1f} %"
    return f"return {one.mean_return:.3g}{text}"


def methods(study: Study) -> list[str]:
    """Which numbers are exact, which are not, and the measured errors."""
    exact = []
    errors = [layer.error for one in study.explained for layer in one.attribution.layers]
    if errors:
        total, (double, single) = _power(max(errors)), map(_power, study.deletion_error)
        exact = [
            "<b>Exact.</b> The memory as the sum of what past steps wrote: in float64, the largest difference between "
            f"that sum and the layer's own scan was {total} here. Taking step <i>s</i> out: the layer's scan was run "
            "again with nothing written at <i>s</i> and all gates kept; the largest difference to <i>h</i> &minus; "
            f"<i>C</i> was {double} in float64, and {single} in float32, in which the policy plays. No step has a part "
            "in what happens after its episode.",
            "<b>Run, not linearised.</b> The effects: the network above the changed memory is run again for every "
            "past step, so they hold for taking away that one step, and do not add up over several.",
        ]
    return [
        *exact,
        "<b>Not the same question.</b> A layer's effect leaves gates and all other candidates as they were. The effect "
        "of what was seen lets everything follow from the changed input; where a layer's effect is small and that one "
        "is large, the step acted through another layer, through the gates, or was written more than once.",
    ]


def _reach(study: Study) -> str:
    if not study.scales:
        return ""
    shares = [share_beyond(one.played, study.length) for one in study.scales]
    text = ", ".join(f"{100 * share:.0f} % in layer {i}" for i, share in enumerate(shares, 1))
    return f"Units whose half-life in play is longer than an episode ({study.length:.0f} steps): {text}."


def _drove(study: Study) -> str:
    known = [
        (float(one.attribution.input_effect[one.moment]), i) for i, one in enumerate(study.explained) if one.moment
    ]
    if not known:
        return "No past step has an effect on any action: the policy acts on what it sees."
    i = max(known)[1]
    one = study.explained[i]
    t, g = one.moment or (0, 0)
    before, after = one.attribution.log_prob[t].exp(), one.attribution.input_log_prob[t, g].exp()
    what = "density" if one.episode.action.is_floating_point() else "probability"
    return (
        f"The strongest cause from the past is {cause(one)} of episode {i + 1}, for the action at step {t}: had an "
        f"average input been seen then, the {what} of that action would be {float(after):.3g} and not "
        f"{float(before):.3g}."
    )


def _back(study: Study) -> str:
    mean, count = study.lags[-1]
    past = mean[1 : int((count > 0).sum())]
    if not len(past) or float(past.max()) < 1e-9:
        return ""
    lag = (1 + int(past.argmax())) * study.group
    about = "about " if study.group > 1 else ""
    return f"Of the past, what was seen {about}{lag} {'step' if lag == 1 else 'steps'} ago matters most on average."


def _far(study: Study) -> str:
    found = study.varied
    if found is None or not isinstance(found.trained, int | float) or found.trained not in found.results:
        return ""
    numbers = [value for value in found.results if isinstance(value, int | float)]
    base = found.results[found.trained]
    if base.success_rate == 0:
        return ""  # there is nothing to hold
    values = sorted(value for value in numbers if value >= found.trained)
    held = [value for value in values if _is_as_good(found.results[value], base)]
    last = next((low for low, high in zip(values, [*values[1:], None], strict=True) if high not in held), values[-1])
    name = escape(found.name)
    if last == values[-1]:
        return f"What it achieves at {name}={found.trained} holds up to {name}={last}, the largest that was played."
    following = values[values.index(last) + 1]
    return (
        f"What it achieves at {name}={found.trained} holds up to {name}={last}; at {name}={following} it is "
        f"{escape(outcome(found.results[following]))}."
    )


def _is_as_good(one: Evaluation, base: Evaluation) -> bool:
    """Whether success is at least nine tenths, or the return lower by at most a tenth."""
    if one.success_rate is not None and base.success_rate is not None:
        return one.success_rate >= 0.9 * base.success_rate
    return one.mean_return >= base.mean_return - 0.1 * abs(base.mean_return)


def _describe_loss(study: Study) -> str:
    if study.memoryless is None or not study.wipes:
        return ""
    kind = "success" if study.evaluation.successes is not None else "return"

    def level(one: Evaluation) -> float:
        return (one.success_rate or 0.0) if kind == "success" else one.mean_return

    worst: Any = min(study.wipes, key=lambda t: level(study.wipes[t]))
    usual, once, always = (level(one) for one in (study.evaluation, study.wipes[worst], study.memoryless))
    low, _ = study.evaluation.success_interval() or study.evaluation.return_interval()
    if once < min(low, usual):
        return (
            f"Wiping the memory once costs most at step {worst}: {kind} {once:.3g} instead of {usual:.3g}; wiped at "
            f"every step it is {always:.3g}."
        )
    if always < min(low, usual):
        return (
            f"Wiping the memory once has no measurable cost; wiped at every step, {kind} is "
            f"{always:.3g} instead of {usual:.3g}."
        )
    return ""


def _power(x: float) -> str:
    mantissa, exponent = f"{x:.1e}".split("e")
    return f'<span class="number">{mantissa} &times; 10<sup>{int(exponent)}</sup></span>'
