"""The help of a command: its settings in groups, each with default and range, as plain text."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING
from typing import Annotated, Any, Literal, get_args, get_origin

from rlmin.commands.arguments import flag
from rlmin.commands.preset_files import preset_names
from rlmin.settings import POSITIONAL, About, Known, Settings, describe_settings, limits

NO_GIVEN: Mapping[str, Any] = {}
WIDEST = 40
"""Most letters of a list of choices beside its option."""


def write_help(
    kinds: Sequence[type],
    *,
    prog: str,
    description: str | None = None,
    switches: bool = False,
    preset: str = "",
    given: Mapping[str, Any] = NO_GIVEN,
) -> str:
    """The help of a command.

    Args:
        kinds: classes of its settings; each class and each base with settings of its own is a group.
        prog: the command, as a user types it.
        description: text at the top; None: the docstring of the first class.
        switches: whether `--quick` and `--no-quick` are options without a value.
        preset, given: name of the preset, and what it sets.
    """
    words = [_metavar(name, about.hint) for name, about in describe_settings(kinds[0]).items() if is_positional(about)]
    usage = " ".join([prog, *words, "[--option value ...]"]).replace("%", "%%")
    about = kinds[0].__doc__ if description is None else description
    parser = argparse.ArgumentParser(
        usage=usage, description=about, add_help=False, formatter_class=_Formatter, allow_abbrev=False
    )
    for title, settings in _groups(kinds):
        group = parser.add_argument_group(title)
        for name, setting in settings.items():
            text = _help(name, setting, preset, given).replace("%", "%%")
            if is_positional(setting):
                group.add_argument(name, metavar=_metavar(name, setting.hint), help=text, nargs=None)
            elif switches and setting.hint is bool:
                option = name.replace("_", "-")
                group.add_argument(f"--{option}", f"--no-{option}", action="store_true", help=text)
            else:
                group.add_argument(f"--{name.replace('_', '-')}", metavar=_metavar(name, setting.hint), help=text)
    return parser.format_help()


def write_train_help(
    kinds: Sequence[type], *, command: str, is_logged: bool, preset: str = "", given: Mapping[str, Any] = NO_GIVEN
) -> str:
    """The help of a command that trains.

    Args:
        kinds: settings of the run and its agent, and options of the encoder.
        command: train or tune.
        is_logged: whether it learns from logged data.
        preset, given: see `write_help`.
    """
    if is_logged:
        about = (
            "Train a decision agent on logged data. The dataset is the id of a Minari dataset (`rlmin collect` writes "
            "them) or the path of a D4RL file (.hdf5, .h5); --env says where to play at the end, if the data do not."
        )
        return write_help(kinds, prog=f"rlmin {command}", description=about, preset=preset, given=given)
    about = (
        f"Train an agent in an environment. Presets: {', '.join(preset_names())}, or your own .yaml file; keys given "
        "here win. To learn from logged data instead: `rlmin train --dataset ID|FILE.hdf5`, whose settings are shown "
        "by `rlmin train --dataset ID --help`. Many seeds: `--seeds 5 --jobs 2`; `rlmin train --seeds 5 --help` shows "
        "more. Options of another memory: `rlmin train --encoder NAME --help`."
    )
    return write_help(kinds, prog=f"rlmin {command} PRESET", description=about, preset=preset, given=given)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help beside the options, and a line break only where a description has one."""

    def __init__(self, prog: str, **more: Any) -> None:
        super().__init__(prog, max_help_position=30, **more)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = text.split("\n\n")
        return "\n\n".join(argparse.HelpFormatter._fill_text(self, part, width, indent) for part in parts)


def _groups(kinds: Sequence[type]) -> Iterator[tuple[str, Mapping[str, About]]]:
    """A title and the settings of every class, in the order of the classes; each setting once."""
    seen = set[str]()
    for kind in kinds:
        settings = describe_settings(kind)
        for base in kind.__mro__:
            own = vars(base).get("__annotations__", {}) if issubclass(base, Settings) else {}
            new = {
                name: settings[name] for name in own if name in settings.keys() - seen and has_option(settings[name])
            }
            seen |= set(new)
            title = "options" if base is kinds[0] else (base.__doc__ or "").partition(".")[0]
            if new:
                yield title, new


def has_option(about: About) -> bool:
    """Whether a setting has an option: mappings have none, their entries have options of their own."""
    return get_origin(about.hint) is not dict


def settings_with_options(kind: Any) -> dict[str, About]:
    """Every setting of a class that has an option."""
    return {name: about for name, about in describe_settings(kind).items() if has_option(about)}


def option_flags(kind: Any, *, switches: bool = False) -> list[str]:
    """Every option of a command whose settings are of this class; `switches`: `--no-quick` beside `--quick`."""
    named = {name: about for name, about in settings_with_options(kind).items() if not is_positional(about)}
    negated = [flag(f"no_{name}") for name, about in named.items() if switches and about.hint is bool]
    return [*map(flag, named), *negated]


def is_positional(about: About) -> bool:
    """Whether a setting is a word of the command, without an option."""
    return POSITIONAL in getattr(about.hint, "__metadata__", ())


def _help(name: str, about: About, preset: str, given: Mapping[str, Any]) -> str:
    bounds, choices = limits(about.hint), _choices(about.hint)
    text = about.help + (f" [{bounds}]" if bounds else "")
    text += f"; one of {', '.join(choices)}" if choices and _metavar(name, about.hint) == "NAME" else ""
    if is_positional(about):
        return text
    usual = "required" if about.default is MISSING else f"default: {_show(about.default)}"
    return f"{text} ({f'{preset}: {_show(given[name])}; ' if name in given else ''}{usual})"


def _show(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(str, value)) or "none"
    return str(value)


def _choices(hint: Any) -> list[str]:
    """The names that a setting may have; none where it is no name."""
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, Known):
            return list(mark.names)
    return [str(one) for one in get_args(hint)] if get_origin(hint) is Literal else []


def _metavar(name: str, hint: Any) -> str:
    """The form of a value: INT, {a,b}, FLOAT FLOAT."""
    if POSITIONAL in getattr(hint, "__metadata__", ()):
        kind = hint.__origin__
        many = get_origin(kind) is tuple
        choices = _choices(kind)
        return "{" + ",".join(choices) + "}" if choices else name.upper().rstrip("S" if many else "") + " ..." * many
    choices = _choices(hint)
    if choices:
        joined = ",".join(choices)
        return "{" + joined + "}" if len(joined) <= WIDEST else "NAME"
    if get_origin(hint) is Annotated:
        return _metavar(name, hint.__origin__)
    parts = get_args(hint)
    if get_origin(hint) is tuple:
        each = [_metavar(name, part) for part in parts if part is not Ellipsis]
        return f"[{each[0]} ...]" if parts[-1] is Ellipsis else " ".join(each)
    if parts:
        return "|".join([*(_metavar(name, part) for part in parts if part is not type(None)), *_none(parts)])
    return {bool: "{True,False}", int: "INT", float: "FLOAT"}.get(hint, "PATH" if hint.__name__ == "Path" else "TEXT")


def _none(parts: Sequence[Any]) -> list[str]:
    return ["None"] if type(None) in parts else []
