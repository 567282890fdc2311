"""The boundary: arguments of public functions, checked against the types that their signatures declare.

    @checked
    def learn(self, total_timesteps: Count, *, progress_bar: bool = False) -> Self: ...

`learn(-5)` is then "total_timesteps: expected a whole number of at least 1, got -5", as for a setting. Numbers,
switches, text, paths, choices and lists of these are kept as plain Python values; tensors, devices, dicts, spaces,
environments and objects of rlmin's own classes are checked by type. Arguments of type `Any` are left to the function.
"""

import functools
import inspect
import os
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, ParamSpec, TypeVar, Union, get_args, get_origin

import torch
from torch import Tensor

from rlmin.checks import check_text, existing, find_near
from rlmin.settings.fields import check_setting, show
from rlmin.settings.sb3_answers import OF_ARGUMENT

P = ParamSpec("P")
R = TypeVar("R")
Check = Callable[[str, Any], Any]

PLAIN = (int, float, bool, str, Path, type(None))


class Checked(NamedTuple):
    """The checks of a function's arguments."""

    positions: tuple[tuple[str, Check | None], ...]  # arguments that can be given by position
    names: dict[str, Check]
    known: frozenset[str] | None  # names of arguments; None: any is accepted


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a function before it runs; see the module.

    Raises:
        ValueError: (from the returned function) an argument has the wrong type, is not finite or is out of range.
    """
    plan: list[Checked] = []  # made at the first call, when every name in an annotation is known

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if not plan:
            plan.append(_plan(function))
        positions, names, known = plan[0]
        if known is not None and not known.issuperset(kwargs):
            raise TypeError(_unknown(function.__name__, next(name for name in kwargs if name not in known), known))
        given: list[Any] = list(args)
        for i, (name, check) in enumerate(positions[: len(given)]):
            if check is not None:
                given[i] = check(name, given[i])
        named: dict[str, Any] = {
            name: names[name](name, value) if name in names else value for name, value in kwargs.items()
        }
        return function(*given, **named)

    return run


def accept_names(**ours: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let keywords have another library's name too: `accept_names(path="folder")`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            named: dict[str, Any] = {ours.get(name, name): value for name, value in kwargs.items()}
            return function(*args, **named)

        return run

    return decorate


def _plan(function: Callable[..., Any]) -> Checked:
    parameters = inspect.signature(function).parameters.values()
    found = {one.name: check_of(_resolve(one.annotation, function)) for one in parameters}
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    return Checked(
        tuple((one.name, found[one.name]) for one in parameters if one.kind in by_position),
        {name: check for name, check in found.items() if check is not None},
        None if takes_any else frozenset(found),
    )


def _unknown(function: str, name: str, known: frozenset[str]) -> str:
    """The text of an error for an argument that a function does not have."""
    names = sorted(known - {"self", "cls"})
    near = find_near(name, names)
    hint = OF_ARGUMENT.get(name) or (f"did you mean {near!r}?" if near else f"known: {', '.join(names)}")
    return f"{function}: no argument {name!r}; {hint}"


def _resolve(hint: Any, function: Callable[..., Any]) -> Any:
    """A type from its text; Any if only a type checker knows the names in it."""
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, getattr(function, "__globals__", {}))
    except NameError:
        return Any


def check_of(hint: Any) -> Check | None:
    """The check of an argument of this type; None: no check."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kinds = {_origin(option) for option in options}
    optional = type(None) in kinds
    kinds.discard(type(None))
    if Tensor in kinds:
        return functools.partial(_tensor, optional) if kinds == {Tensor} else None
    if torch.device in kinds:
        return functools.partial(_device, optional)
    if kinds == {str, Path}:
        return functools.partial(_path, optional)
    if kinds and kinds <= {dict, Mapping}:
        named = any(get_args(option)[:1] == (str,) for option in options)
        return functools.partial(_dict, optional, named)
    if len(kinds) == 1 and (kind := kinds.pop()) not in PLAIN and _is_class(kind):
        return functools.partial(_instance, kind, optional)
    return functools.partial(_setting, hint) if all(map(_is_plain, options)) else None


def _is_class(kind: Any) -> bool:
    """Whether only instances of `kind` are accepted."""
    known = ("rlmin.", "gymnasium.")
    return isinstance(kind, type) and kind.__module__.startswith(known) and not getattr(kind, "_is_protocol", False)


def _origin(hint: Any) -> Any:
    inner = hint.__origin__ if get_origin(hint) is Annotated else hint
    return get_origin(inner) or inner


def _is_plain(hint: Any) -> bool:
    kind = hint.__origin__ if get_origin(hint) is Annotated else hint
    if get_origin(kind) is tuple:
        return all(part is Ellipsis or _is_plain(part) for part in get_args(kind))
    return get_origin(kind) is Literal or kind in PLAIN


def _setting(hint: Any, name: str, value: Any) -> Any:
    return check_setting(name, value, hint)


def _tensor(optional: bool, name: str, value: Any) -> Any:
    if not isinstance(value, Tensor) and not (optional and value is None):
        raise ValueError(f"{name}: expected a tensor{' or None' * optional}, got {show(value)}")
    return value


def _instance(kind: type, optional: bool, name: str, value: Any) -> Any:
    if not isinstance(value, kind) and not (optional and value is None):
        raise TypeError(f"{name}: expected {kind.__name__}{' or None' * optional}, got {show(value)}")
    return value


def _device(optional: bool, name: str, value: Any) -> Any:
    return value if optional and value is None else existing(value, name=name)


def _path(optional: bool, name: str, value: Any) -> Any:
    if optional and value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(f"{name}: expected a path{' or None' * optional}, got {show(value)}")
    check_text(name, os.fspath(value))
    return value


def _dict(optional: bool, named: bool, name: str, value: Any) -> Any:
    if not isinstance(value, Mapping) and not (optional and value is None):
        raise ValueError(f"{name}: expected a dict{' or None' * optional}, got {show(value)}")
    strange = next((key for key in value or () if not isinstance(key, str)), None) if named else None
    if strange is not None:
        raise ValueError(f"{name}: expected names as keys, got {show(strange)}")
    return value
