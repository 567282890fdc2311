"""Report: a study as one HTML file that opens without a network. Numbers become sentences in sentences.py."""

import base64
import io
from collections.abc import Mapping
from html import escape

import numpy as np

from rlmin.inspection import sentences as say
from rlmin.inspection.episode_pictures import draw_episode, draw_heat
from rlmin.inspection.findings import list_findings, methods
from rlmin.inspection.lengths import is_bounded_state
from rlmin.inspection.pictures import STYLE, draw_lags, draw_norms, draw_time_scales, draw_varied
from rlmin.inspection.study import Explained, Study
from rlmin.inspection.wipe_pictures import draw_wipes

FRAMES = 6
"""Largest number of pictures of an episode."""

CSS = """
:root { --ink: #1f2933; --soft: #52606d; --line: #e4e7eb; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); line-height: 1.55; font-size: 16px;
  font-family: "Source Sans 3", "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 48px 32px 80px; }
h1 { font-size: 31px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 21px; margin: 52px 0 8px; padding-top: 14px; border-top: 2px solid var(--ink); }
h2 span { color: var(--accent); margin-right: 8px; }
h3 { font-size: 16px; margin: 28px 0 4px; }
p, li { max-width: 78ch; }
p { margin: 8px 0 12px; }
.lead { color: var(--soft); font-size: 17px; margin-top: 0; }
.facts { display: grid; grid-template-columns: repeat(4, 1fr); gap: 14px 24px; margin: 26px 0 8px; padding: 18px 0;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.facts dt { font-size: 12px; color: var(--soft); text-transform: uppercase; letter-spacing: 0.05em; }
.facts dd { margin: 1px 0 0; font-weight: 600; overflow-wrap: anywhere; }
.short { background: #f5f8fa; border-left: 4px solid var(--accent); padding: 12px 20px 12px 16px; margin: 22px 0; }
.short h3 { margin: 0 0 4px; }
.short li { max-width: none; }
.short ul { margin: 0; padding-left: 20px; }
figure { margin: 18px 0 26px; break-inside: avoid; }
figure > img { width: 100%; height: auto; display: block; }
main { counter-reset: figure; }
figcaption::before { counter-increment: figure; content: "Figure " counter(figure) ". "; font-weight: 700;
  color: var(--ink); }
figcaption { font-size: 14px; color: var(--soft); margin-top: 8px; max-width: 108ch; }
figcaption b { color: var(--ink); }
.film { display: flex; gap: 10px; flex-wrap: wrap; margin: 14px 0 2px; }
.film div { font-size: 12.5px; color: var(--soft); flex: 1 1 0; min-width: 110px; max-width: 200px; }
.film img { width: 100%; border: 1px solid var(--line); display: block; }
.film .cause img { border: 3px solid #d55e00; } .film .action img { border: 3px solid #1f2933; }
.film .cause, .film .action { color: var(--ink); font-weight: 600; }
table { border-collapse: collapse; font-size: 14px; margin: 12px 0 20px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 14px; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
.not { color: var(--soft); font-style: italic; }
sup, sub { line-height: 0; } .number { white-space: nowrap; }
code { font-size: 14px; background: #f5f8fa; padding: 1px 4px; }
@media (max-width: 700px) { .facts { grid-template-columns: repeat(2, 1fr); } main { padding: 24px 16px; } }
@media print { main { max-width: none; padding: 0; } body { font-size: 11pt; } h2 { break-after: avoid; }
  .short { print-color-adjust: exact; -webkit-print-color-adjust: exact; } @page { margin: 16mm; } }
"""


def report(study: Study, *, title: str, facts: Mapping[str, str], command: str) -> str:
    """The page.

    Args:
        study: the measurements.
        title: of the run.
        facts: entries of the header, by name.
        command: the command that makes this page.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        sections = [make(study) for make in (_scales, _attribution, _lengths, _section_varied, _wipes, _methods)]
    items = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in facts.items())
    short = "".join(f"<li>{line}</li>" for line in list_findings(study))
    numbered = "\n".join(
        f"<section><h2><span>{i}</span>{escape(head)}</h2>\n{body}</section>"
        for i, (head, body) in enumerate(sections, 1)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Memory of {escape(title)}</title><style>{CSS}</style></head><body><main>
<h1>What the memory of {escape(title)} does</h1>
<p class="lead">{say.lead(study)}</p>
<dl class="facts">{items}</dl>
<div class="short"><h3>In short</h3><ul>{short}</ul></div>
<p>{say.HOW_TO_READ}</p>
{numbered}
<p class="not">Made by <code>{escape(command)}</code>.</p>
</main></body></html>
"""


def _scales(study: Study) -> tuple[str, str]:
    head = "How long it can remember"
    if not study.scales:
        return head, _note(say.no_scales(study))
    picture = draw_time_scales(study.scales, length=study.length, horizon=study.subject.horizon)
    table = _table(*say.scales_table(study))
    return head, f"<p>{say.SCALES}</p>" + _figure(picture, "half-lives", say.scales_caption(study)) + table


def _attribution(study: Study) -> tuple[str, str]:
    parts = [f"<p>{say.ATTRIBUTION if study.explained[0].attribution.layers else say.no_sum(study)}</p>"]
    for i, one in enumerate(study.explained):
        parts.append(f"<h3>Episode {i + 1}: {say.episode_line(one)}</h3>")
        parts.append(_film(one))
        parts.append(_figure(draw_episode(study, one), "an episode", say.episode_caption(one, short=i > 0)))
        caption = say.HEAT_AGAIN if i else say.heat_caption(study, one)
        parts.append(_figure(draw_heat(one), "time by time", caption))
    parts.append("<h3>How far back</h3>")
    parts.append(_figure(draw_lags(study.lags, group=study.group), "effects by lag", say.lags_caption(study)))
    return "Which past step drove an action", "".join(parts)


def _lengths(study: Study) -> tuple[str, str]:
    head = "Far beyond training: the size of the memory"
    if not is_bounded_state(study.subject.policy):
        return head, _note(say.no_size(study))
    successes = study.evaluation.successes is not None
    picture = draw_norms(study.long, study.unwiped, horizon=study.subject.horizon, of_success=successes)
    return head, f"<p>{say.lengths(study)}</p>" + _figure(picture, "size of the memory", say.lengths_caption(study))


def _section_varied(study: Study) -> tuple[str, str]:
    found = study.varied
    head = "Success against delay"
    if found is None:
        return head, _note(say.no_knob(study))
    body = _figure(draw_varied(found), "success against delay", say.describe_varied(study)) if found.results else ""
    body += _table(*say.tabulate_varied(found)) if found.results else ""
    failed = "".join(f"<li>{escape(f'{found.name}={key}: {why}')}</li>" for key, why in found.failed.items())
    return head, body + (f'<p class="not">Not played:</p><ul class="not">{failed}</ul>' if failed else "")


def _wipes(study: Study) -> tuple[str, str]:
    head = "When the memory is wiped"
    if study.memoryless is None:
        return head, _note("This policy has no memory, so there is nothing to wipe.")
    picture = draw_wipes(study)
    return head, f"<p>{say.WIPES}</p>" + _figure(picture, "wiping the memory", say.wipes_caption(study))


def _methods(study: Study) -> tuple[str, str]:
    return "What is exact", "".join(f"<p>{line}</p>" for line in methods(study))


def _film(one: Explained) -> str:
    """Frames of an episode, with the cause and the action marked."""
    frames = one.episode.frames
    if not frames:
        return ""
    cause, action = -1, -1
    if one.moment is not None:
        action, group = one.moment
        cause = int(group * one.attribution.group)
    spread = {round(x) for x in np.linspace(0, len(frames) - 1, FRAMES)}
    for wanted in {cause, action} - {-1} - spread:  # replaces the nearest frame that is not needed itself
        spread.remove(min(spread - {cause, action}, key=lambda x: abs(x - wanted)))
        spread.add(wanted)
    cells = []
    for t in sorted(spread):
        kind, more = {cause: ("cause", ": the cause"), action: ("action", ": the action")}.get(t, ("", ""))
        cells.append(f'<div class="{kind}"><img alt="step {t}" src="{_png(frames[t])}">step {t}{more}</div>')
    return f'<div class="film">{"".join(cells)}</div>'


def _figure(picture: str, alt: str, caption: str) -> str:
    source = "data:image/svg+xml;base64," + base64.b64encode(picture.encode()).decode()
    return f'<figure><img alt="{escape(alt)}" src="{source}"><figcaption>{caption}</figcaption></figure>'


def _png(frame: bytes) -> str:
    """The picture in few bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(frame)).convert("P", palette=Image.Palette.ADAPTIVE).save(file, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _note(line: str) -> str:
    return f'<p class="not">{line}</p>'
