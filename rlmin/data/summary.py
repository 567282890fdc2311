"""Summary of a dataset as text, and its returns as a picture."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlmin.runs.checkpoint import write_atomic
from rlmin.spaces import leaf_spaces

if TYPE_CHECKING:  # a Dataset has a summary
    from rlmin.data.dataset import Dataset


def summary(dataset: "Dataset") -> str:
    """Episodes, lengths, returns, spaces, environment, reference scores and recipe, a line each."""
    E, N, ended = dataset.num_episodes, dataset.num_steps, int(dataset.terminated.sum())
    leaves = ", ".join(f"{name} {space}" for name, space in leaf_spaces(dataset.observation_space).items())
    env, reference = dataset.env, dataset.reference
    words = [] if env is None else [str(env["id"]), *(f"{k}={v}" for k, v in env["kwargs"].items())]
    environment = " ".join(words) or "unknown"
    scores = "unknown: no normalised score"
    if reference is not None:
        scores = f"{reference.random:g} counts as 0, {reference.expert:g} as 100 ({reference.source})"
    lines = {
        "dataset": dataset.name,
        "episodes": f"{E:,}, of which {ended:,} terminated and {E - ended:,} were truncated",
        "steps": f"{N:,}",
        "length": _spread(dataset.lengths.double().numpy()),
        "return": _spread(dataset.returns.numpy()),
        "observation": leaves,
        "action": str(dataset.action_space),
        "environment": environment,
        "reference": scores,
        **{key: str(value) if key == "skipped" else _short(value) for key, value in dataset.recipe.items()},
    }
    width = max(map(len, lines)) + 2
    return "\n".join(f"{key:<{width}}{value}" for key, value in lines.items())


def plot_returns(dataset: "Dataset", file: str | Path) -> None:
    """Draw a histogram of the returns, with the reference scores in their range.

    Args:
        dataset: the data.
        file: PNG to write.
    """
    from matplotlib.figure import Figure  # without pyplot: no global state, no window

    returns = dataset.returns.numpy()
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(returns, bins=min(50, max(10, round(len(returns) ** 0.5))))
    axes.axvline(float(returns.mean()), color="black", label=f"mean {returns.mean():g}")
    if dataset.reference is not None:
        for name in ("random", "expert"):
            score = getattr(dataset.reference, name)
            axes.axvline(score, color="black", linestyle="--" if name == "random" else ":", label=f"{name} {score:g}")
    axes.set_title(dataset.name)
    axes.set_xlabel("return")
    axes.set_ylabel("episodes")
    axes.legend()
    image = BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_atomic(Path(file), image.getvalue())


def _spread(x: np.ndarray) -> str:
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75])
    spread = f"min {x.min():g}, quartiles {low:g} {middle:g} {high:g}, max {x.max():g}"
    return f"mean {x.mean():g}, deviation {x.std():g}, {spread}"


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:117] + "..."
