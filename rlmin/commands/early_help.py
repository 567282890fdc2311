"""Help that is printed before torch is loaded: the classes of settings are read from the sources."""

import ast
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rlmin.commands.help_text import write_help, write_train_help
from rlmin.commands.parse import HELP, flags, values
from rlmin.commands.preset_files import preset_path
from rlmin.commands.sketch import NeedsImport, find_cells, read_source, sketch
from rlmin.files.read_yaml import read_yaml

SETTINGS = {
    "evaluate": ("rlmin.commands.evaluate", "Evaluate"),
    "collect": ("rlmin.commands.collect", "Collect"),
    "convert": ("rlmin.commands.convert", "Convert"),
    "export": ("rlmin.commands.export", "Export"),
    "inspect": ("rlmin.commands.inspect", "Inspect"),
    "plot": ("rlmin.commands.plot", "Plot"),
    "compare": ("rlmin.commands.compare", "Compare"),
    "new": ("rlmin.commands.new", "New"),
    "tune": ("rlmin.suite.tuning.options", "TuneOptions"),
    "hub card": ("rlmin.interop.hub_command", "Card"),
    "hub push": ("rlmin.interop.hub_command", "Push"),
    "bench memory": ("rlmin.suite", "SuiteOptions"),
    "bench offline": ("rlmin.suite.offline", "OfflineOptions"),
    "bench defaults": ("rlmin.suite.defaults", "DefaultOptions"),
    "bench": ("rlmin.bench.options", "Options"),
}
"""Command -> module and class of its settings."""
SWITCHES = ("convert", "plot", "compare", "hub", "bench")
"""Commands whose switches stand without a value."""
RUN_OF = {"ppo": "TrainConfig", "decision": "DecisionTrainConfig"}
"""Algorithm -> class of the settings of its runs."""


def answer_help(arguments: Sequence[str]) -> None:
    """Print the help that is asked for, and exit; return if nothing asks for it, or torch is needed for it."""
    if "torch" in sys.modules or not set(arguments[1:]) & set(HELP):
        return
    with suppress(NeedsImport):
        text = _read_train(arguments) if arguments[0] == "train" else _read(arguments)
        if text:
            print(text, end="")
            raise SystemExit(0)


def _read(arguments: Sequence[str]) -> str:
    """The help of a command; empty if it has no settings."""
    command, name = arguments[0], next((word for word in arguments[1:] if not word.startswith("-")), "")
    if command in ("hub", "bench") and not name:
        return ""
    found = SETTINGS.get(f"{command} {name}") or SETTINGS.get(command)
    if found is None:
        return ""
    about, prog = None, command
    if command in ("hub", "bench"):
        prog = f"{command} {name}"
    if found == SETTINGS["bench"]:
        if name not in read_source("rlmin.bench").get("NAMES"):
            return ""  # `all`, or a mistyped name
        about = ast.get_docstring(read_source(f"rlmin.bench.{name}").tree)
    prog = {"tune": "tune PRESET"}.get(command, prog)
    return write_help([sketch(*found)], prog=f"rlmin {prog}", description=about, switches=command in SWITCHES)


def _read_train(arguments: Sequence[str]) -> str:
    """The help of `rlmin train`; empty if its settings are not all in this package, or the preset is unreadable."""
    name, options = arguments[1], flags(arguments)
    if "--resume" in options:
        return write_help([sketch("rlmin.cli", "Resume")], prog="rlmin train")
    preset = {} if name.startswith("-") else read_yaml(preset_path(name))
    if not isinstance(preset, dict):
        return ""
    is_logged = "dataset" in preset or "--dataset" in options
    algorithm = _last("decision" if is_logged else "ppo", preset.get("algorithm"), *values(arguments, "--algorithm"))
    cell = find_cells().get(_last("min_gru", preset.get("encoder"), *values(arguments, "--encoder")))
    if algorithm not in RUN_OF or cell is None:
        return ""
    kinds = [sketch("rlmin.commands.train_config", RUN_OF[algorithm])]
    kinds += [sketch(cell.module, cell.options)] if cell.options else []
    kinds += [sketch("rlmin.suite.seeds", "SeedsOptions")] if "--seeds" in options else []
    called = "" if name.startswith("-") else Path(name).stem
    return write_train_help(kinds, command="train", is_logged=is_logged, preset=called, given=preset)


def _last(*names: object) -> str:
    """The last name that is given."""
    return [str(name) for name in names if name is not None][-1]
