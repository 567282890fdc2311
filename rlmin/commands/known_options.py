"""Options of commands, read from the sources: a mistyped one is answered before torch is loaded.

The classes of settings stand beside the code that they configure, and importing that code loads torch. So their fields
are read from the text of the files.
"""

import re
import sys
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path

from rlmin.commands.parse import HELP, flag
from rlmin.settings.sb3_names import SB3_NAMES, answer

PACKAGE = Path(__file__).parent.parent
SHIFT = "wrappers/shift.py"
SOURCES = {
    "train": ("commands/train_config.py", "agents/*_config.py", "policy/config.py"),
    "evaluate": ("commands/evaluate.py", SHIFT),
    "collect": ("commands/collect.py", SHIFT),
    "export": ("commands/export.py",),
    "inspect": ("commands/inspect.py",),
}
"""Command -> files with the classes of its settings."""
ENCODERS = ("encoders/*.py",)
"""Files with the options of encoders, which `train` takes too."""


def check_early(command: str, options: Iterable[str], others: Collection[str] = ()) -> None:
    """Raise a ValueError for an option that is nearly one of the command's settings, unless torch is loaded already.

    Once torch is loaded, user code may have registered algorithms and encoders with options of their own. Everything
    that is not clearly a slip is left to the parser, which knows the encoder.

    Args:
        command: a key of `SOURCES`.
        options: given by the user, as --with-dashes.
        others: options that the command knows beside its settings.
    """
    if "torch" in sys.modules:
        return
    own = {*map(flag, setting_names(SOURCES[command])), *others}
    foreign = {*map(flag, {*setting_names(ENCODERS), *SB3_NAMES})} - own if command == "train" else set[str]()
    names = {name[2:].replace("-", "_") for name in own}
    for option in options:
        if option in own or option in foreign or option in HELP:
            continue
        if (hint := answer(option[2:].replace("-", "_"), names)) is not None:
            raise ValueError(f"no option {option!r}: {hint}")
        near = get_close_matches(option, sorted(own | foreign), n=1)
        if near and near[0] in own:
            raise ValueError(f"no option {option!r}; did you mean {near[0]!r}?")
        return


def setting_names(patterns: Iterable[str]) -> set[str]:
    """Names of the fields of every frozen dataclass in the files of these patterns."""
    files = {file for pattern in patterns for file in PACKAGE.glob(pattern)}
    return {name for file in files for name in _fields(file.read_text(encoding="utf-8"))}


def _fields(source: str) -> list[str]:
    classes = [part.partition("\n\n\n")[0] for part in source.split("\n@dataclass(frozen=True")[1:]]
    return [name for text in classes for name in re.findall(r"^    (\w+): ", text, re.MULTILINE)]
