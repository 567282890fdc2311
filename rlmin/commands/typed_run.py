"""A training run as typed: a preset, and options that win over it, become the settings of a run."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlmin.checks import check_names
from rlmin.commands.arguments import HELP, flags, values
from rlmin.commands.help_text import write_train_help
from rlmin.commands.parse import check_stray
from rlmin.commands.parse_agent import parse_agent
from rlmin.commands.presets import config_class, preset_arguments, read_preset
from rlmin.commands.train_config import PAIRS, OfflineRun, OnlineRun
from rlmin.encoders import CELLS
from rlmin.encoders.cell import option_names, select_options
from rlmin.files.trust import Foreign
from rlmin.vector.make import import_provider


def read_typed_run(
    name: str | None, arguments: Sequence[str], *, command: str, others: Collection[str] = ()
) -> tuple[Any, str]:
    """The settings of a run, and what it is called.

    Args:
        name: of the preset, or its file; None: there is none.
        arguments: options of the run; one of `--dataset` makes it a run on logged data.
        command: name of the command, for help and messages.
        others: options that the command knows elsewhere.

    Raises:
        ValueError: no such preset or setting, a value that does not fit, or a module that a preset may not import.
        SystemExit: help was asked for, and has been printed.
    """
    settings = read_preset(name) if name else {}
    algorithm = [settings.get("algorithm"), *values(arguments, "--algorithm")][-1]
    given = {*settings, *("dataset" for option in flags(arguments) if option == "--dataset")}
    kind: Any = config_class(given, algorithm)
    online = issubclass(kind, OnlineRun)
    if name and online != issubclass(config_class(settings, settings.get("algorithm")), OnlineRun):
        raise ValueError(f"{name}: a preset for an environment, not for data; leave it out, or leave out --dataset")
    settings = {key: value for key, value in settings.items() if key not in find_foreign(arguments)}
    if any(word in HELP for word in arguments):
        encoder = [settings.get("encoder", kind.encoder), *values(arguments, "--encoder")][-1]
        check_names("encoder", [encoder], CELLS)
        own, called = CELLS[encoder].options, Path(name).stem if name else ""
        kinds = [kind] if own is None else [kind, own]
        print(write_train_help(kinds, command=command, is_logged=not online, preset=called, given=settings), end="")
        raise SystemExit(0)
    check_stray(arguments, prog=f"rlmin {command}")  # before the preset's arguments, it would belong to the last
    config: Any = parse_agent(
        kind,
        preset_arguments(settings) + list(arguments),
        prog=f"rlmin {command} PRESET" if online else f"rlmin {command}",
        others=others,
    )
    if isinstance(settings.get("env"), Foreign) and config.env == settings["env"] and not config.trust:
        import_provider(settings["env"])  # raises where it may not
    pairs = [*settings.get("env_kwargs", []), *config.env_kwargs]  # changing one key of a preset keeps the others
    config = replace(config, env_kwargs=tuple({pair.split("=")[0]: pair for pair in pairs}.values()))
    what = Path(config.dataset).stem if isinstance(config, OfflineRun) else config.env
    return config, Path(name).stem if name else re.split("[/:]", what)[-1]


def find_foreign(arguments: Sequence[str]) -> set[str]:
    """The settings of a preset that do not fit what is typed: those for its own environment and its own encoder."""
    names: set[str] = set(PAIRS) if "--env" in flags(arguments) else set()
    for encoder in values(arguments, "--encoder")[-1:]:
        names |= option_names() - set(select_options(dict.fromkeys(option_names()), encoder))
    return names
