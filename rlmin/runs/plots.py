"""Plots: learning curves of runs as PNG, SVG or PDF, those that differ in the seed alone as one line."""

import io
import textwrap
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlmin.checks import check_names
from rlmin.runs.checkpoint import write_atomic
from rlmin.runs.curves import SECONDS, Curve, mean_curve, read_columns, read_curve, smooth_curve
from rlmin.runs.groups import Group, group_runs, read_seed, read_settings
from rlmin.runs.logs import STEPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "rollout/ep_rew_mean": "return, mean of 100 episodes",
    "rollout/success_rate": "success rate",
    "train/held_out_loss": "open-loop loss, episodes kept out",
    "train/held_out_accuracy": "share of actions predicted, episodes kept out",
}
"""Drawn by default, those of them that a run has."""

OTHERWISE = {"train/loss": "loss"}
"""Drawn where a run has none of these."""

OVER = {"steps": STEPS, "time": SECONDS}
UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))

FORMATS: dict[str, dict[str, Any]] = {  # without a date: the same curves are the same bytes
    ".png": {"dpi": 120},
    ".svg": {"metadata": {"Date": None}},
    ".pdf": {"metadata": {"CreationDate": None}},
}


def plot_runs(
    folders: Sequence[Path],
    files: Sequence[Path],
    *,
    columns: Sequence[str] = (),
    over: str = "steps",
    by_seed: bool = True,
    smooth: float = 0.0,
    say: Callable[[str], None] = lambda line: None,
) -> list[Group]:
    """Draw what runs have logged, a panel for each column.

    Args:
        folders: runs.
        files: pictures to write, .png, .svg or .pdf: all of them or, where something is wrong, none.
        columns: of metrics.csv; none: return and success, where known, or the losses of a decision agent.
        over: "steps", or "time": wall-clock time of learning.
        by_seed: draw runs that differ in the seed alone as one line, their mean with a 95 % bootstrap interval over
            seeds; runs of one seed count as one, their mean.
        smooth: weight of the past in an exponential moving average of each run, in [0, 1).
        say: told which runs of a line lack a column, and where a line ends before the longest of its runs.

    Returns:
        the groups, each of them a line.

    Raises:
        ValueError: a folder without metrics, a column that no run has, a picture that cannot be written.
    """
    check_names("kind of picture", [_suffix(file) for file in files], FORMATS)
    _check_places([Path(file) for file in files])
    check_names("axis", [over], OVER)
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth={smooth}: expected a weight in [0, 1)")
    known = dict.fromkeys(name for folder in folders for name in read_columns(folder))
    check_names("column", columns, known)
    if OVER[over] not in known:
        raise ValueError(f"{folders[0]}: no {OVER[over]} in its metrics; an earlier rlmin wrote them: plot over steps")
    groups = group_runs(folders, by_seed=by_seed)
    shown = list(columns) or [name for name in LABELS if name in known] or list(OTHERWISE)
    panels = {
        column: {group.name: line for group in groups if (line := _line_of(group, column, over, smooth, say))}
        for column in shown
    }
    label, unit = _time_axis(panels) if over == "time" else (_steps_label(folders), 1.0)
    figure = _figure(panels, label, unit)
    images = [(Path(file), _image(figure, _suffix(file))) for file in files]  # all, before the first is written
    for file, image in images:
        write_atomic(file, image)
    return groups


class Line(NamedTuple):
    """A group in a panel: its curve, and what that is the mean of."""

    curve: Curve
    seeds: int
    runs: int

    def label(self, name: str) -> str:
        """The name of the group, and of how many curves this is the mean."""
        if self.runs == 1:
            return name
        return f"{name} ({self.seeds} seeds)" if self.runs == self.seeds else f"{name} ({self.runs} runs)"


def _line_of(group: Group, column: str, over: str, smooth: float, say: Callable[[str], None]) -> Line | None:
    """The line of a group; None where none of its runs has the column."""
    found, lack = dict[Hashable, list[tuple[list[float], list[float]]]](), list[str]()
    for folder in group.folders:
        x, values = read_curve(folder, column, over=OVER[over])
        if x:
            found.setdefault(read_seed(folder), []).append((x, smooth_curve(values, smooth)))
        else:
            lack.append(str(folder))
    if not found:
        return None
    if lack:
        say(f"{column} of {group.name}: drawn without {', '.join(lack)}, which lack it")
    try:
        seeds = [mean_curve(curves) for curves in found.values()]
        curve = mean_curve([(one.x, one.mean) for one in seeds])
    except ValueError as error:
        raise ValueError(f"{column} of {group.name}: {error}; draw each run alone by --group none") from None
    ends = [x[-1] for curves in found.values() for x, _ in curves]
    if max(ends) > min(ends):
        say(f"{column} of {group.name}: drawn up to {min(ends):g}, where its shortest run ends; one has {max(ends):g}")
    return Line(curve, len(found), len(ends))


def _figure(panels: dict[str, dict[str, Line]], label: str, unit: float) -> "Figure":
    """A panel a column, a line a group, shaded where it is the mean over several seeds; x in `unit`."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no window
    from matplotlib.ticker import EngFormatter

    wide = min(len(panels), 3)
    high = -(-len(panels) // wide)
    figure = Figure(figsize=(6 * wide, 4 * high), layout="constrained")
    places = figure.subplots(high, wide, squeeze=False).ravel()
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    for axes, (column, lines) in zip(places, panels.items(), strict=False):
        for name, line in lines.items():
            _line(axes, line.curve._replace(x=line.curve.x / unit), line.label(name), names.index(name))
        axes.set_xlabel(label)
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.set_ylabel((LABELS | OTHERWISE).get(column, column))
        axes.grid(alpha=0.3)
        if lines:
            axes.legend(fontsize="small")
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    if any(line.seeds > 1 for lines in panels.values() for line in lines.values()):
        figure.supxlabel("shaded: 95 % bootstrap interval of the mean over seeds", fontsize=8, color="0.4")
    return figure


def _line(axes: "Axes", curve: Curve, name: str, number: int) -> None:
    colour, style = f"C{number % 10}", ("-", "--", ":")[number // 10 % 3]
    marker = "o" if len(curve.x) == 1 else None
    axes.plot(curve.x, curve.mean, color=colour, linestyle=style, marker=marker, label=textwrap.fill(name, width=56))
    if not (curve.low == curve.high).all():
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)


def _steps_label(folders: Sequence[Path]) -> str:
    """What the steps are steps of."""
    logged = {"dataset" in read_settings(Path(folder)) for folder in folders}
    if len(logged) > 1:
        return "steps"
    return "logged steps learnt from" if True in logged else "environment steps"


def _time_axis(panels: dict[str, dict[str, Line]]) -> tuple[str, float]:
    """The unit that suits the longest curve: its name, and its seconds."""
    last = max((float(line.curve.x[-1]) for lines in panels.values() for line in lines.values()), default=0.0)
    name, seconds = next((name, seconds) for name, seconds in UNITS if last >= 2 * seconds or seconds == 1)
    return f"wall-clock time of learning, {name}", seconds


def _check_places(files: Sequence[Path]) -> None:
    """All of them, before anything is drawn or written."""
    for file in files:
        if file.is_dir():
            raise ValueError(f"{file}: expected a picture to write, found a folder")
        above = next((place for place in file.absolute().parents if place.exists()), None)
        if above is not None and not above.is_dir():
            raise ValueError(f"{file}: cannot be written, {above} is no folder")


def _suffix(file: Path) -> str:
    return Path(file).suffix.lower()


def _image(figure: "Figure", suffix: str) -> bytes:
    import matplotlib as mpl

    image = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "rlmin"}):
        figure.savefig(image, format=suffix[1:], **FORMATS[suffix])
    return image.getvalue()
