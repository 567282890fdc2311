"""Command lines: known commands and options with values of every kind. They exit with 0, or with 2 and one line."""

import contextlib
import io
import os
from pathlib import Path
from typing import Any, get_origin

from hypothesis import strategies as st

from rlmin.cli import main
from rlmin.commands.arguments import flag
from rlmin.commands.collect import Collect
from rlmin.commands.evaluate import Evaluate
from rlmin.commands.export import Export
from rlmin.commands.inspect import Inspect
from rlmin.commands.plot import Plot
from rlmin.commands.train_config import DecisionTrainConfig, TrainConfig
from rlmin.settings import describe_settings

from . import minari_folders, runs
from .case import BadEndError, RefusedError
from .junk import numbers

WORDS = [
    "runs/ppo",
    "runs/decision",
    "runs/none",
    minari_folders.ID,
    "tmaze",
    "cartpole",
    "rlmin/TMaze-v0",
    "CartPole-v1",
]
WORDS += [
    "no-such-env",
    "no_such_module:X-v0",
    "length=4",
    "length=x",
    "a",
    "",
    " ",
    "None",
    "True",
    "nan",
    "inf",
    "-1",
    "1e3",
]
WORDS += [
    "cpu",
    "cuda",
    "meta",
    "0",
    "1",
    "2",
    "3",
    "0.5",
    "x.png",
    "x.npz",
    "x.onnx",
    "x.pt2",
    "x.mp4",
    "ppo",
    "mlp",
    "gru",
]
WORDS += [
    "{a",
    "a={b",
    "[1, 2",
    "--",
    "=",
    "-x",
    "é",
    "seeds",
    "steps",
    "random",
    "tanh",
    "length=3,4",
    "\x00",
    "\ud800",
]
UNASKED = {"--wandb", "--workers", "--video", "--jobs"}
"""Options that reach a network or take a process each."""

word = st.one_of(st.sampled_from(WORDS), numbers.map(str), st.text("abc=[]{}-. ,:0", max_size=5))
SETTINGS: dict[str, list[Any]] = {
    "train": [TrainConfig, DecisionTrainConfig],
    "evaluate": [Evaluate],
    "collect": [Collect],
    "export": [Export],
    "inspect": [Inspect],
    "plot": [Plot],
}
FEW: dict[str, list[str]] = {
    "train": [
        "--total-timesteps",
        "16",
        "--num-envs",
        "2",
        "--horizon",
        "8",
        "--minibatches",
        "1",
        "--eval-episodes",
        "1",
        "--evaluations",
        "0",
    ],
    "evaluate": ["--episodes", "1", "--num-envs", "1", "--max-steps", "50"],
    "collect": ["--episodes", "1", "--num-envs", "1", "--max-steps", "50", "--measure-reference", "0"],
    "inspect": ["--episodes", "1"],
    "export": ["--check", "3"],
}
"""What keeps a command short, where the case does not say it."""


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Arguments of `rlmin`."""
    command = draw(st.sampled_from([*SETTINGS, *SETTINGS, "list", "hub", "bench", "no", ""]))
    if command not in SETTINGS:
        first = {"hub": ["card"], "bench": ["no"]}.get(command, [])
        return [command, *first, *draw(st.lists(word, max_size=3))]
    options = sorted(
        {
            flag(name)
            for kind in SETTINGS[command]
            for name, x in describe_settings(kind).items()
            if get_origin(x.hint) is not dict
        }
    )
    options = [option for option in options if option not in UNASKED]
    found = draw(st.lists(word, max_size=1)) if draw(st.booleans()) else ["tmaze" if command == "train" else "runs/ppo"]
    for _ in range(draw(st.integers(0, 3))):
        option = draw(st.one_of(st.sampled_from(options), st.sampled_from(["--no", "--resume", "--lenght", "-h"])))
        found += [f"{option}={draw(word)}"] if draw(st.booleans()) else [option, *draw(st.lists(word, max_size=2))]
    return [command, *found]


CASES = st.builds(lambda words: {"words": words}, command_lines())


def prepare(base: Path) -> None:
    """Runs and a dataset to name."""
    (base / "runs").mkdir()
    runs.prepare(base / "runs")
    (base / "minari").mkdir()
    minari_folders.prepare(base / "minari")


def run(case: dict[str, Any], base: Path, work: Path) -> None:
    """Run the command in a folder of its own."""
    os.environ |= {"MINARI_DATASETS_PATH": str(work / "minari"), "MINARI_REMOTE": "none://nowhere"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "COLUMNS": "120"}
    for name in ("runs", "minari"):
        (work / name).symlink_to(base / name)
    os.chdir(work)
    words = list(case["words"])
    few = iter(FEW.get(words[0], []))
    for option, value in zip(few, few, strict=True):
        if not any(given.partition("=")[0] == option for given in words):
            words += [option, value]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(words)
    except SystemExit as end:
        _check_end(end, words, out.getvalue(), err.getvalue())


def _check_end(end: SystemExit, words: list[str], out: str, err: str) -> None:
    """Raise the error that was said in one line; anything else is a bad end."""
    if end.code in (0, None):
        return
    lines = [line for line in err.splitlines() if line.strip() and not line.startswith("rlmin: warning:")]
    usage = not lines and out.startswith("usage:")
    cause = end.__context__
    if end.code != 2 or not (usage or (len(lines) == 1 and lines[0].startswith("rlmin: "))):
        raise BadEndError(f"exit code {end.code}: {err[-400:]!r}")
    if usage:
        raise RefusedError("usage")
    if cause is not None:
        raise cause
