"""Settings: dataclasses whose fields declare type and range beside themselves, and one check of both.

    @dataclass(frozen=True, kw_only=True)
    class Config(Settings):
        lr: Positive = 1e-3  # Learning rate at the start of training
        bptt: Count | None = None  # Steps that gradients flow back through; None: the whole rollout

`Config(lr=math.nan)` is a ValueError: "lr: expected a number above 0, got nan". `dataclasses.replace`, the command
line, presets and files construct the class too, so all of them pass the same check. A valid value is kept as a plain
Python value: a numpy float32 becomes the equal float, a list the declared tuple. Checks that
combine several settings belong in `__post_init__`, after `super().__post_init__()`.

The comment beside a field is its help on the command line and its line in the documentation.
"""

import ast
import contextlib
import enum
import functools
import inspect
import math
import operator
import os
import textwrap
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from rlmin.checks import check_names

BOUNDS = {
    "least": (operator.ge, "of at least"),
    "above": (operator.gt, "above"),
    "most": (operator.le, "of at most"),
    "below": (operator.lt, "below"),
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """A range of numbers; None: no bound on that side. NaN and infinity never fit."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    @property
    def bounds(self) -> dict[str, float]:
        """The existing bounds, lower first."""
        return {name: bound for name in BOUNDS if (bound := getattr(self, name)) is not None}

    def holds(self, x: float) -> bool:
        """Whether `x` fits."""
        return all(BOUNDS[name][0](x, bound) for name, bound in self.bounds.items())

    def __str__(self) -> str:
        bounds = {name: _show_bound(bound) for name, bound in self.bounds.items()}
        if len(bounds) < 2:
            return "".join(f"{BOUNDS[name][1]} {bound}" for name, bound in bounds.items())
        (low, least), (high, most) = bounds.items()
        if low == "least":
            return f"from {least} to {most}" if high == "most" else f"from {least} to below {most}"
        return f"above {least} and {'at most' if high == 'most' else 'below'} {most}"


def _show_bound(bound: float) -> str:
    """A bound as text, large powers of two as such."""
    power = int(bound).bit_length() - 1
    return f"2**{power}" if power > 16 and bound == 2**power else str(bound)


@dataclass(frozen=True)
class Known:
    """Allowed names that are not fixed: more can be registered."""

    names: Collection[str]


T = TypeVar("T")
POSITIONAL = object()
"""Marks a setting that is a word of the command, without an option."""
Positional: TypeAlias = Annotated[T, POSITIONAL]

Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, most=1)]
ShareBelowOne = Annotated[float, Range(least=0, below=1)]
Count = Annotated[int, Range(least=1)]
CountOrZero = Annotated[int, Range(least=0)]
Seed = Annotated[int, Range(least=0, most=2**62)]
Size = Annotated[int, Range(least=1, most=2**24)]
"""Length of an axis; a longer one does not fit into memory."""
Threads = Annotated[int, Range(least=1, most=1024)]
Workers = Annotated[int, Range(least=0, most=4096)]
Jobs = Annotated[int, Range(least=1, most=4096)]


class Settings:
    """Base of every dataclass of settings: checks each field against its declaration."""

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in field_types(kind).items():
            object.__setattr__(self, name, check_setting(name, getattr(self, name), hint))


def check_setting(name: str, value: Any, hint: Any) -> Any:
    """`value` as the plain Python value that `hint` declares.

    Args:
        name: name of the setting, for the message.
        value: the user's value.
        hint: a type, as declared beside a field: with `Range` or `Known`, Literal, unions with None, tuples.

    Raises:
        ValueError: the value has the wrong type, is not finite or is out of range.
    """
    kind, _ = _unwrap(hint)
    if get_origin(kind) not in (Union, types.UnionType):
        return _check(name, value, hint, declared=hint)
    options = [option for option in get_args(kind) if option is not type(None)]
    if value is None and len(options) < len(get_args(kind)):
        return None
    if len(options) == 1:
        return _check(name, value, options[0], declared=hint)
    for option in options:
        with contextlib.suppress(ValueError):
            return check_setting(name, value, option)
    raise ValueError(f"{name}: expected {words(hint)}, got {show(value)}")


def _check(name: str, value: Any, hint: Any, *, declared: Any) -> Any:
    """`check_setting` for one type; the message names the whole declaration."""
    kind, marks = _unwrap(hint)
    names = next((mark.names for mark in marks if isinstance(mark, Known)), None)
    if get_origin(kind) is Literal or names is not None:
        return _check_choice(name, value, names or get_args(kind))
    if get_origin(kind) is tuple:
        return _check_tuple(name, value, get_args(kind), declared)
    if get_origin(kind) is dict:
        return _check_mapping(name, value, declared)
    found = _plain(value, kind)
    if kind is int and found is not None and abs(found) >= 2**63:  # torch and TensorBoard have no larger ones
        raise ValueError(f"{name}: expected {words(declared)}, below 2**63, got {show(value)}")
    finite = found is not None and (kind is not float or math.isfinite(found))
    if not finite or not all(mark.holds(found) for mark in marks if isinstance(mark, Range)):
        raise ValueError(f"{name}: expected {words(declared)}, got {show(value)}")
    return found


def _check_choice(name: str, value: Any, choices: Collection[Any]) -> Any:
    plain = _plain(value, str) if isinstance(value, str) else value
    if isinstance(plain, str) and plain in choices:  # names may be known that are not listed
        return plain
    if any(type(plain) is type(choice) and plain == choice for choice in choices):
        return plain
    if isinstance(plain, str):
        check_names(name, [plain], map(str, choices))
    raise ValueError(f"{name}: expected one of {', '.join(map(str, choices))}, got {show(value)}")


def _check_tuple(name: str, value: Any, kinds: tuple[Any, ...], declared: Any) -> tuple[Any, ...]:
    items = value.tolist() if hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1 else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"{name}: expected {words(declared)}, got {show(value)}")
    each = (kinds[0],) * len(items) if kinds[-1:] == (Ellipsis,) else kinds
    if len(items) != len(each):
        raise ValueError(f"{name}: expected {words(declared)}, got {show(value)}")
    return tuple(check_setting(f"{name}[{i}]", x, kind) for i, (x, kind) in enumerate(zip(items, each, strict=True)))


def _check_mapping(name: str, value: Any, declared: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name}: expected {words(declared)}, got {show(value)}")
    return dict(value)


def _plain(value: Any, kind: Any) -> Any:
    """`value` as a plain Python value of `kind`; None if it is not one. A bool is not a number, nor a number a bool."""
    value = _scalar(value)
    if kind is bool:
        return value if isinstance(value, bool) else None
    if kind is str:
        text = value.value if isinstance(value, enum.Enum) else value
        return text if isinstance(text, str) and text else None
    if kind is Path:
        return Path(value) if isinstance(value, str | os.PathLike) and str(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind is int:
        return int(value) if isinstance(value, int) or value.is_integer() else None
    assert kind is float, f"{kind}: rlmin.settings has no check for this type; add one"
    try:
        return float(value)
    except OverflowError:  # of an int
        return math.inf


def _scalar(value: Any) -> Any:
    """A numpy scalar, or an array or tensor without axes, as a plain Python value; anything else unchanged."""
    return value.item() if hasattr(value, "dtype") and getattr(value, "shape", None) == () else value


def show(value: Any) -> str:
    """`value` for a message, shortened."""
    text = " ".join(repr(_scalar(value)).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def words(hint: Any) -> str:
    """The declaration `hint` in words: "a number above 0 or None"."""
    kind, marks = _unwrap(hint)
    if get_origin(kind) in (Union, types.UnionType):
        options = [words(option) for option in get_args(kind) if option is not type(None)]
        return " or ".join([*options, *(["None"] if type(None) in get_args(kind) else [])])
    names = next((mark.names for mark in marks if isinstance(mark, Known)), ())
    if names or get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, names or get_args(kind)))}"
    if get_origin(kind) is tuple:
        return _tuple_words(get_args(kind))
    if get_origin(kind) is dict:
        return "a mapping of names to values"
    plain = {int: "a whole number", float: "a number", bool: "True or False", str: "text", Path: "a path"}[kind]
    return " ".join([plain, *(str(mark) for mark in marks if isinstance(mark, Range))])


def from_text(text: str, hint: Any) -> Any:
    """The value of `text`, a word of a command line, for a declared `hint`; unreadable text stays text."""
    kind, _ = _unwrap(hint)
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if text == "None" and type(None) in options:
        return None
    if text in ("True", "False") and bool in options:
        return text == "True"
    numbers = {_unwrap(option)[0] for option in options} & {int, float}
    with contextlib.suppress(ValueError):
        return int(text) if numbers else text
    with contextlib.suppress(ValueError):
        return float(text)
    return text


def _tuple_words(kinds: tuple[Any, ...]) -> str:
    items = {words(kind) for kind in kinds if kind is not Ellipsis}
    many = f"a list of {len(kinds)}" if kinds[-1:] != (Ellipsis,) else "a list"
    return f"{many}, each {' or '.join(sorted(items))}"


def _unwrap(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type and its annotations."""
    return (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def limits(hint: Any) -> str:
    """All ranges in `hint`, in words; empty if there are none."""
    kind, marks = _unwrap(hint)
    own = [str(mark) for mark in marks if isinstance(mark, Range)]
    return ", ".join(dict.fromkeys([*own, *filter(None, map(limits, get_args(kind)))]))


@functools.cache
def field_types(kind: type) -> dict[str, Any]:
    """Field -> type, with its annotations."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


class About(NamedTuple):
    """Facts about one setting, for help and documentation."""

    hint: Any  # its type, with its annotations
    default: Any  # dataclasses.MISSING if it has to be given
    written: str  # the default as in the source; empty if there is none
    help: str  # the comment beside it


@functools.cache
def describe_settings(kind: type) -> dict[str, About]:
    """Every setting of a class, those of its bases first."""
    written, hints = dict[str, tuple[str, str]](), field_types(kind)
    for base in reversed(kind.__mro__):
        written |= _read_source(base) if issubclass(base, Settings) and base is not Settings else {}
    defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(kind)}
    return {name: About(hint, defaults[name], *written.get(name, ("", ""))) for name, hint in hints.items()}


def _read_source(kind: type) -> dict[str, tuple[str, str]]:
    """Field -> default and comment, from the source of one class; empty without source."""
    try:
        source = vars(kind).get("__source__") or textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return {}
    lines, (tree,) = source.splitlines(), ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    return {
        ast.unparse(line.target): (
            "" if line.value is None else ast.unparse(line.value),
            lines[line.lineno - 1].partition("  # ")[2],
        )
        for line in tree.body
        if isinstance(line, ast.AnnAssign)
    }
