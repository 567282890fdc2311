"""Answers that come before torch is loaded: help, and a hint for a mistyped option.

The classes of settings are read from the sources. Once torch is loaded, nothing is answered early: user code may have
registered algorithms and encoders with options of their own.
"""

import ast
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from rlmin.commands.arguments import HELP, flag, flags, values
from rlmin.commands.help_text import option_flags, write_help, write_train_help
from rlmin.commands.preset_files import preset_path
from rlmin.commands.sketch import NeedsImport, find_cells, read_source, sketch
from rlmin.commands.table import TABLE
from rlmin.files.read_yaml import read_yaml
from rlmin.settings.sb3_names import SB3_NAMES, answer

RUN_OF = {"ppo": "train", "decision": "train --dataset"}
"""Algorithm -> entry of `TABLE` with the settings of its runs."""


def sketch_settings(command: str) -> type:
    """The class of settings of an entry of `TABLE`."""
    kind: type = sketch(TABLE[command].module, TABLE[command].settings)
    return kind


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
    has_parts = command in ("hub", "bench")
    if has_parts and not name:
        return ""
    found = next((one for one in (f"{command} {name}", command) if one in TABLE), None)
    if found is None:
        return ""
    about = None
    if found == "bench":
        if name not in read_source("rlmin.bench").get("NAMES"):
            return ""  # `all`, or a mistyped name
        about = ast.get_docstring(read_source(f"rlmin.bench.{name}").tree)
    prog = "tune PRESET" if command == "tune" else f"{command} {name}" if has_parts else command
    switches = TABLE[found].switches
    return write_help([sketch_settings(found)], prog=f"rlmin {prog}", description=about, switches=switches)


def _read_train(arguments: Sequence[str]) -> str:
    """The help of `rlmin train`; empty if its settings are not all in this package, or the preset is unreadable."""
    name, options = arguments[1], flags(arguments)
    if "--resume" in options:
        return write_help([sketch_settings("train --resume")], prog="rlmin train")
    preset = {} if name.startswith("-") else read_yaml(preset_path(name))
    if not isinstance(preset, dict):
        return ""
    is_logged = "dataset" in preset or "--dataset" in options
    algorithm = _last("decision" if is_logged else "ppo", preset.get("algorithm"), *values(arguments, "--algorithm"))
    cell = find_cells().get(_last("min_gru", preset.get("encoder"), *values(arguments, "--encoder")))
    if algorithm not in RUN_OF or cell is None:
        return ""
    kinds = [sketch_settings(RUN_OF[algorithm])]
    kinds += [sketch(cell.module, cell.options)] if cell.options else []
    kinds += [sketch_settings("train --seeds")] if "--seeds" in options else []
    called = "" if name.startswith("-") else Path(name).stem
    return write_train_help(kinds, command="train", is_logged=is_logged, preset=called, given=preset)


def _last(*names: object) -> str:
    """The last name that is given."""
    return [str(name) for name in names if name is not None][-1]


def check_options(command: str, arguments: Sequence[str], *, others: Collection[str] = ()) -> None:
    """Raise a ValueError for an option that is nearly one of the command's settings, unless torch is loaded already.

    Everything that is not clearly a slip is left to the parser, which knows the encoder.

    Args:
        command: one that takes settings.
        arguments: without the command.
        others: options that the command knows beside its settings.
    """
    if "torch" in sys.modules:
        return
    is_train = command == "train"
    own = {*others, *list_flags(*(RUN_OF.values() if is_train else [command]))}
    unknown = [option for option in flags(arguments) if option not in own and option not in HELP]
    if not unknown:
        return
    names = {name[2:].replace("-", "_") for name in own}
    foreign = {*map(flag, SB3_NAMES), *list_cell_flags()} - own if is_train else set[str]()
    for option in unknown:
        if option in foreign:
            continue
        if (hint := answer(option[2:].replace("-", "_"), names)) is not None:
            raise ValueError(f"no option {option!r}: {hint}")
        near = get_close_matches(option, sorted(own | foreign), n=1)
        if near and near[0] in own:
            raise ValueError(f"no option {option!r}; did you mean {near[0]!r}?")
        return


def list_flags(*commands: str) -> list[str]:
    """The options of some entries of `TABLE`, each once."""
    each = [option_flags(sketch_settings(one), switches=TABLE[one].switches) for one in commands]
    return list(dict.fromkeys(option for options in each for option in options))


def list_cell_flags() -> set[str]:
    """The options of all encoders."""
    kinds = {(cell.module, cell.options) for cell in find_cells().values() if cell.options}
    return {option for module, name in kinds for option in option_flags(sketch(module, name))}
