"""Plots: learning curves of runs as PNG, SVG or PDF; runs that differ only in the seed share a line."""

import io
import textwrap
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from rlmin.checks import check_names
from rlmin.runs.checkpoint import write_atomic
from rlmin.runs.curves import SECONDS, Curve, mean_curve, read_columns, read_curve, smooth_curve
from rlmin.runs.groups import Group, group_runs, read_seed, read_settings
from rlmin.runs.logs import STEPS
from rlmin.runs.statistics import iqm_band, mean_band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "rollout/ep_rew_mean": "return, mean of 100 episodes",
    "rollout/success_rate": "success rate",
    "train/held_out_loss": "open-loop loss, episodes kept out",
    "train/held_out_accuracy": "share of actions predicted, episodes kept out",
}
"""Columns drawn by default, if a run has them."""

OTHERWISE = {"train/loss": "loss"}
"""Columns drawn if a run has none of these."""

OVER = {"steps": STEPS, "time": SECONDS}
UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))

FORMATS: dict[str, dict[str, Any]] = {  # without a date, the same curves give the same bytes
    ".png": {},
    ".svg": {"metadata": {"Date": None}},
    ".pdf": {"metadata": {"CreationDate": None}},
}


FEW = 3
"""Number of seeds below which an interval says little."""

BANDS = {"mean": mean_band, "iqm": iqm_band}
"""Name of a statistic over seeds -> function that gives it with its interval."""


class Looks(NamedTuple):
    """Sizes and colours of a picture."""

    width: float  # inches of a panel
    height: float
    dpi: int
    note: float  # points of the smallest text
    colours: tuple[str, ...]
    rc: dict[str, Any]  # of matplotlib


LEGEND_LINE = 0.2
"""Inches of a line of the legend above panels of the style "paper"."""
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that colour-blind people can distinguish (Okabe and Ito 2008)."""
STYLES = {
    "screen": Looks(6, 4, 120, 8, tuple(f"C{i}" for i in range(10)), {}),
    "paper": Looks(
        3.3, 2.4, 300, 5, OKABE_ITO,
        {"font.size": 8, "axes.linewidth": 0.6, "lines.linewidth": 1.2, "pdf.fonttype": 42, "svg.fonttype": "none",
         "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 7},
    ),
}  # fmt: skip


def plot_runs(
    folders: Sequence[Path],
    files: Sequence[Path],
    *,
    columns: Sequence[str] = (),
    over: str = "steps",
    by_seed: bool = True,
    smooth: float = 0.0,
    style: str = "screen",
    band: str = "mean",
    relative_to: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Group]:
    """Draw logged values of runs, a panel for each column.

    Args:
        folders: runs.
        files: pictures to write, .png, .svg or .pdf: all of them, or none after an error.
        columns: columns of metrics.csv; none: return and success, if known, or the losses of a decision agent.
        over: "steps", or "time": wall-clock time of training.
        by_seed: whether runs that differ only in the seed form one line, their mean with a 95 % bootstrap interval
            over seeds; several runs of one seed count as their mean.
        smooth: weight of the past in an exponential moving average of each run, in [0, 1).
        style: "screen", or "paper": panels as wide as a column of text, 300 dots an inch.
        band: "mean" of the seeds, or "iqm", their interquartile mean, each with its 95 % interval.
        relative_to: a run; lines are shown as a ratio to the line of its group. None: absolute values.
        say: called with remarks: runs that lack a column, lines that end before the longest of their runs, and lines
            with fewer than three seeds.

    Returns:
        the groups, one for each line.

    Raises:
        ValueError: a folder without metrics, a column that no run has, a picture that cannot be written.
    """
    _check_places([Path(file) for file in files])
    for kind, name, names in (("axis", over, OVER), ("style", style, STYLES), ("band", band, BANDS)):
        check_names(kind, [name], names)
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth={smooth}: expected a weight in [0, 1)")
    known = dict.fromkeys(name for folder in folders for name in read_columns(folder))
    check_names("column", columns, known)
    if OVER[over] not in known:
        raise ValueError(f"{folders[0]}: no {OVER[over]} in its metrics; an earlier rlmin wrote them: plot over steps")
    beside = [] if relative_to is None or relative_to in folders else [relative_to]
    groups = group_runs([*folders, *beside], by_seed=by_seed)
    base = next((g.name for g in groups if relative_to is not None and _holds(g, relative_to)), None)
    shown = list(columns) or [name for name in LABELS if name in known] or list(OTHERWISE)
    panels = {
        column: {group.name: line for group in groups if (line := _line_of(group, column, over, smooth, band, say))}
        for column in shown
    }
    if base is not None:
        panels = {column: _ratios(lines, base, column) for column, lines in panels.items()}
    label, unit = _time_axis(panels) if over == "time" else (_steps_label(folders), 1.0)
    looks: dict[str, Any] = {"looks": STYLES[style], "band": band, "base": base}
    for file, image in _images(panels, [Path(file) for file in files], label, unit, **looks).items():
        write_atomic(file, image)  # all are drawn before the first is written
    _warn_of_few(groups, say)
    return groups


class Line(NamedTuple):
    """A group in a panel: its curve, and the number of runs and seeds behind it."""

    curve: Curve
    seeds: int
    runs: int

    def label(self, name: str) -> str:
        """The name of the group with the number of its curves."""
        if self.runs == 1:
            return name
        return f"{name} ({self.seeds} seeds)" if self.runs == self.seeds else f"{name} ({self.runs} runs)"


def _line_of(group: Group, column: str, over: str, smooth: float, band: str, say: Callable[[str], None]) -> Line | None:
    """The line of a group; None if none of its runs has the column."""
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
        curve = mean_curve([(one.x, one.mean) for one in seeds], band=BANDS[band])
    except ValueError as error:
        raise ValueError(f"{column} of {group.name}: {error}; draw each run alone with --group none") from None
    ends = [x[-1] for curves in found.values() for x, _ in curves]
    if max(ends) > min(ends):
        say(f"{column} of {group.name}: drawn up to {min(ends):g}, where its shortest run ends; one has {max(ends):g}")
    return Line(curve, len(found), len(ends))


def _holds(group: Group, folder: Path) -> bool:
    return folder.resolve() in [one.resolve() for one in group.folders]


def _ratios(lines: dict[str, Line], base: str, column: str) -> dict[str, Line]:
    """Every line as a share of that of `base`, where both have points."""
    if base not in lines:
        raise ValueError(f"{column}: {base} has none, so nothing can be shown relative to it")
    below = lines[base].curve
    found = dict[str, Line]()
    for name, line in lines.items():
        keep = (line.curve.x >= below.x[0]) & (line.curve.x <= below.x[-1])
        x = line.curve.x[keep]
        unit = np.interp(x, below.x, below.mean)
        if not (unit > 0).all():
            raise ValueError(f"{column}: {base} is not above 0 everywhere, so a ratio to it means nothing")
        found[name] = line._replace(curve=Curve(x, *(part[keep] / unit for part in line.curve[1:])))
    return found


def _figure(
    panels: dict[str, dict[str, Line]], label: str, unit: float, looks: "Looks", *, band: str, base: str | None
) -> "Figure":
    """A panel for each column, a line for each group, shaded for means over several seeds; x in `unit`."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no window
    from matplotlib.ticker import EngFormatter

    wide = min(len(panels), 3)
    high = -(-len(panels) // wide)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    above = LEGEND_LINE * len(names) if looks.rc else 0.0
    figure = Figure(figsize=(looks.width * wide, looks.height * high + above), layout="constrained")
    places = figure.subplots(high, wide, squeeze=False).ravel()
    for axes, (column, lines) in zip(places, panels.items(), strict=False):
        for name, line in lines.items():
            curve = line.curve._replace(x=line.curve.x / unit)
            _line(axes, curve, line.label(name), names.index(name), looks.colours)
        axes.set_xlabel(label)
        axes.xaxis.set_major_formatter(EngFormatter())
        said = (LABELS | OTHERWISE).get(column, column)
        said = said if base is None else f"{said}, relative"
        axes.set_ylabel(textwrap.fill(said, int(13 * looks.height)))  # so many letters are as long as the axis
        axes.grid(alpha=0.3)
        if lines and not looks.rc:
            axes.legend(fontsize="small")
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    if looks.rc:  # above the panels, which are too small for it
        shown = {name: line for axes in places for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(shown.values(), shown.keys(), loc="outside upper left")
    notes = [] if base is None else [f"relative to {base}"]
    if any(line.seeds > 1 for lines in panels.values() for line in lines.values()):
        of = "mean" if band == "mean" else "interquartile mean"
        notes.append(f"shaded: 95 % bootstrap interval of the {of} over seeds")
    figure.supxlabel("\n".join(notes), fontsize=looks.note, color="0.4")
    return figure


def _line(axes: "Axes", curve: Curve, name: str, number: int, colours: Sequence[str]) -> None:
    colour, style = colours[number % len(colours)], ("-", "--", ":")[number // len(colours) % 3]
    marker = "o" if len(curve.x) == 1 else None
    axes.plot(curve.x, curve.mean, color=colour, linestyle=style, marker=marker, label=textwrap.fill(name, width=56))
    if not (curve.low == curve.high).all():
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)


def _steps_label(folders: Sequence[Path]) -> str:
    """Label of the axis of steps."""
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
    """Check all files before anything is drawn or written."""
    check_names("kind of picture", [_suffix(file) for file in files], FORMATS)
    for file in files:
        if file.is_dir():
            raise ValueError(f"{file}: expected a picture to write, found a folder")
        above = next((place for place in file.absolute().parents if place.exists()), None)
        if above is not None and not above.is_dir():
            raise ValueError(f"{file}: cannot be written, {above} is no folder")


def _suffix(file: Path) -> str:
    return Path(file).suffix.lower()


def _images(
    panels: dict[str, dict[str, Line]], files: Sequence[Path], label: str, unit: float, *, looks: Looks, **words: Any
) -> dict[Path, bytes]:
    """The content of each file."""
    from matplotlib import rc_context

    images, rc = dict[Path, bytes](), {**looks.rc, "svg.hashsalt": "rlmin"}
    with rc_context(cast(Any, rc)):
        figure = _figure(panels, label, unit, looks, **words)
        for file in files:
            image, suffix = io.BytesIO(), _suffix(file)
            figure.savefig(image, format=suffix[1:], dpi=looks.dpi, **FORMATS[suffix])
            images[file] = image.getvalue()
    return images


def _warn_of_few(groups: Sequence[Group], say: Callable[[str], None]) -> None:
    for group in groups:
        seeds = len({read_seed(folder) for folder in group.folders})
        if 1 < seeds < FEW:
            say(f"{group.name}: an interval over {seeds} seeds says little; train at least {FEW}")
