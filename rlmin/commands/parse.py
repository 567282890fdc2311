"""Parsing: the arguments of a command become its settings. Whatever is wrong with them is a ValueError of one line."""

import contextlib
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import MISSING
from typing import Annotated, Any, TypeVar, get_args, get_origin

import tyro
from tyro.conf import FlagConversionOff
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from rlmin.checks import check_names
from rlmin.commands.arguments import HELP, flag, options_of
from rlmin.commands.help_text import is_positional, option_flags, settings_with_options, write_help
from rlmin.settings import About, Settings, check_setting, describe_settings, from_text, words
from rlmin.settings.sb3_names import answer

Config = TypeVar("Config", bound=Settings)

BOX = re.compile(r"[\u2500-\u257f]|-{3,}")
"""Lines that tyro draws around what it says."""
TITLE = "\u256d"
"""Corner before the title of its box, which the text repeats."""

REGISTRY = ConstructorRegistry()
"""How tyro reads settings."""


@REGISTRY.struct_rule
def _fields(info: StructTypeInfo) -> StructConstructorSpec | None:
    """A class of settings."""
    kind: Any = info.type
    if not _is_settings(kind):
        return None
    fields = tuple(_field(name, about) for name, about in settings_with_options(kind).items())
    return StructConstructorSpec(instantiate=kind, fields=fields)


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings)


def _field(name: str, about: About) -> StructFieldSpec:
    default = tyro.MISSING if about.default is MISSING else about.default
    kind: Any = about.hint  # `_check` has looked up names
    if is_positional(about):
        kind = Annotated[kind, tyro.conf.Positional]
    return StructFieldSpec(name=name, type=kind, default=default)


@REGISTRY.primitive_rule
def _whole_number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    """A whole number, also written 1e6."""
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda text: check_setting("number", from_text(text[0], int), int),
        is_instance=lambda x: isinstance(x, int),
        str_from_instance=lambda x: [str(x)],
    )


def parse(
    kind: type[Config],
    arguments: Sequence[str],
    *,
    prog: str,
    description: str | None = None,
    switches: bool = False,
    others: Collection[str] = (),
) -> Config:
    """The settings that the arguments of a command give.

    Args:
        kind: of the settings; its docstring and the comments beside its fields are the help.
        arguments: without the command.
        prog: the command, as a user types it.
        description: text at the top of the help; None: the docstring of `kind`.
        switches: whether `--no-overwrite` is there too; `--overwrite` alone always stands for `--overwrite True`.
        others: options that the command knows elsewhere, to suggest where an unknown one is like them.

    Raises:
        ValueError: an unknown option, one that is missing, or a value that does not fit.
        SystemExit: help was asked for, and has been printed.
    """
    if not switches:
        arguments = _complete_trust(kind, arguments)
    if any(word in HELP for word in arguments):
        print(write_help([kind], prog=prog, description=description, switches=switches), end="")
        raise SystemExit(0)
    _check(kind, arguments, prog=prog, switches=switches, others=others)
    options = () if switches else (FlagConversionOff,)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(kind, args=arguments, prog=prog, config=options, registry=REGISTRY)
    except SystemExit as end:
        if not end.code:
            raise
    box = printed.getvalue().partition("For full helptext")[0]
    text = "\n".join(line for line in box.splitlines() if not line.startswith(TITLE))
    words_ = " ".join(BOX.sub(" ", text).split())
    raise ValueError(f"{prog.removeprefix('rlmin ')}: {words_}")


def _check(kind: Any, arguments: Sequence[str], *, prog: str, switches: bool, others: Collection[str]) -> None:
    """Raise a ValueError if the arguments do not fit; tyro would print a box of many lines."""
    settings = settings_with_options(kind)
    given = {option: texts for option, texts in options_of(arguments) if option}
    named = {flag(name): (name, about) for name, about in settings.items() if not is_positional(about)}
    has_words = any(map(is_positional, settings.values()))
    if not has_words:
        check_stray(arguments, prog=prog)
    for option in given:
        hint = answer(option[2:].replace("-", "_"), settings) if option not in named else None
        if hint is not None:
            raise ValueError(f"no option {option!r}: {hint}")
    check_names("option", given, [*option_flags(kind, switches=switches), *others])
    for option, texts in given.items():
        name, about = named.get(option, (option, None))
        if about is not None and not (switches and about.hint is bool):
            _check_words(name, texts, about.hint, has_words=has_words)
    places = [name for name, about in settings.items() if is_positional(about)]
    loose = sum(not word.startswith("-") for word in arguments)  # at most so many stand at a place
    for name, about in settings.items():
        is_there = places.index(name) < loose if name in places else flag(name) in given
        if about.default is MISSING and not is_there:
            lacks = name if name in places else flag(name)
            raise ValueError(f"{prog.removeprefix('rlmin ')}: {lacks} is missing: {about.help}")


def check_stray(arguments: Sequence[str], *, prog: str) -> None:
    """Raise a ValueError for a word before the first option, of a command that takes none."""
    stray = next((texts[0] for option, texts in options_of(arguments) if not option), None)
    if stray is not None:
        key, equals, value = stray.partition("=")
        hint = f"; write {flag(key)} {value}" if equals else ""
        raise ValueError(f"{prog.removeprefix('rlmin ')}: expected options as --key value, got {stray!r}{hint}")


def _complete_trust(kind: Any, arguments: Sequence[str]) -> list[str]:
    """The arguments, with a lone `--trust` as `--trust True`; a word after it may belong to the command."""
    settings = describe_settings(kind)
    alone = {flag(name) for name, about in settings.items() if about.hint is bool}
    has_words = any(map(is_positional, settings.values()))
    words = list[str]()
    for word, after in zip(arguments, [*arguments, "--"][1:], strict=True):
        words.append(word)
        is_value = after in ("True", "False") if has_words else not after.startswith("--")
        if word.startswith("--") and flag(word[2:]) in alone and not is_value:
            words.append("True")
    return words


def _check_words(name: str, texts: Sequence[str], hint: Any, *, has_words: bool) -> None:
    """Raise a ValueError if the words after an option do not fit its setting."""
    kind = hint.__origin__ if get_origin(hint) is Annotated else hint
    tuples = [one for one in (kind, *get_args(kind)) if get_origin(one) is tuple]
    if len(texts) > 1 and not tuples and not has_words:
        raise ValueError(f"{name}: expected {words(hint)}, got {' '.join(texts)!r}")
    if not texts and not tuples:
        raise ValueError(f"{name}: expected {words(hint)}, got nothing")
    if texts and tuples and list(texts) != ["None"]:
        check_setting(name, [from_text(text, get_args(tuples[0])[0]) for text in texts], hint)
    elif not tuples:
        check_setting(name, from_text(texts[0], hint), hint)
