"""Values of Python and numpy as strict JSON and back, equal and of the same type; no name in it can become code.

    tuple, set, bytes, path, date, array     {"$tuple": [...]}, {"$bytes": "..."}, ...
    dict with other keys than text           {"$dict": [[key, value], ...]}
    numpy scalar                             the number of Python that equals it

Anything else, an object or a function, has no such form.
"""

import base64
import math
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path, PurePath
from typing import Any

import numpy as np

INTEGERS = {f"{kind}int{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)}
NUMBERS = {"bool", "float16", "float32", "float64"} | INTEGERS
"""Types of numbers that an array may have."""

MOST = 100_000
"""Most numbers of an array in a header."""

DIGITS = 4000
"""Most digits of a whole number: Python reads no longer one."""

OPEN: dict[str, Callable[[Any], Any]] = {
    "$tuple": lambda x: tuple(decode(part) for part in x),
    "$set": lambda x: {decode(part) for part in x},
    "$frozenset": lambda x: frozenset(decode(part) for part in x),
    "$dict": lambda x: {decode(key): decode(value) for key, value in x},
    "$bytes": lambda x: base64.b64decode(x, validate=True),
    "$path": lambda x: Path(_text(x)),
    "$date": lambda x: date.fromisoformat(x),
    "$datetime": lambda x: datetime.fromisoformat(x),
    "$array": lambda x: _array(x),
}


def encode(x: Any, name: str = "value") -> Any:
    """`x` as JSON, strict but for NaN and infinity; `decode` makes `x` of it again.

    Args:
        x: anything.
        name: what it is, for the message.

    Raises:
        TypeError: it has no such form; the message names the part.
    """
    try:
        return _encode(x, name)
    except RecursionError:
        raise TypeError(f"{name}: nested too deeply to be written to a file") from None


def decode(x: Any) -> Any:
    """What `encode` was given.

    Raises:
        ValueError: this is not what it returns.
    """
    if isinstance(x, list):
        return [decode(part) for part in x]
    if not isinstance(x, dict):
        return x
    tag, *others = [*x] or [""]
    if others or not tag.startswith("$"):
        return {key: decode(part) for key, part in x.items()}
    try:
        return OPEN[tag](x[tag])
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"expected a value that rlmin wrote, found {tag} ({error!r:.100})") from None


def readable(x: Any) -> Any:
    """`x`, which can be encoded, as a person would write it in YAML: lists for tuples, text for paths."""
    match x:
        case dict():
            return {key if isinstance(key, str | int) else str(key): readable(part) for key, part in x.items()}
        case list() | tuple():
            return [readable(part) for part in x]
        case set() | frozenset():
            return sorted((readable(part) for part in x), key=repr)
        case np.ndarray():
            return x.tolist()
        case PurePath():
            return str(x)
        case str():
            return str(x)  # not the class of a text that is marked
        case _:
            return x


def _encode(x: Any, name: str) -> Any:
    if isinstance(x, np.generic) and x.dtype.kind in "biufSU":  # item() of a time is another thing
        x = x.item()
    kind = type(x)
    if x is None or kind in (bool, float) or (isinstance(x, str) and _is_plain_text(x)):
        return x if kind in (bool, float, type(None)) else str(x)
    if kind is int and x.bit_length() < DIGITS * math.log2(10):
        return x
    if kind is list:
        return [_encode(part, f"{name}[{i}]") for i, part in enumerate(x)]
    if kind is tuple:
        return {"$tuple": [_encode(part, f"{name}[{i}]") for i, part in enumerate(x)]}
    if kind is dict:
        return _encode_dict(x, name)
    if kind in (set, frozenset):
        return {f"${kind.__name__}": [_encode(part, f"an entry of {name}") for part in sorted(x, key=repr)]}
    if kind is bytes:
        return {"$bytes": base64.b64encode(x).decode()}
    if kind is type(Path()):
        return {"$path": str(x)}
    if kind in (date, datetime):
        return {f"${kind.__name__}": x.isoformat()}
    if kind is np.ndarray and str(x.dtype) in NUMBERS and x.size <= MOST:
        return {"$array": [str(x.dtype), list(x.shape), x.reshape(-1).tolist()]}
    raise TypeError(f"{name}: cannot be written to a file, it is of type {kind.__name__}")


def _encode_dict(x: dict[Any, Any], name: str) -> Any:
    if all(isinstance(key, str) and not key.startswith("$") for key in x):
        return {str(key): _encode(part, f"{name}[{key!r}]") for key, part in x.items()}
    pairs = [[_encode(key, f"a key of {name}"), _encode(part, f"{name}[{key!r}]")] for key, part in x.items()]
    return {"$dict": pairs}


def _is_plain_text(x: str) -> bool:
    """Text, or text with a mark of rlmin's own on it; the member of an enum is more than its text."""
    return type(x) is str or type(x).__module__ == "rlmin.files.trust"


def _text(x: Any) -> str:
    if not isinstance(x, str):
        raise TypeError(f"expected text, got {x!r:.50}")
    return x


def _array(x: Any) -> np.ndarray[Any, Any]:
    dtype, shape, numbers = x
    plain = isinstance(numbers, list) and all(type(number) in (bool, int, float) for number in numbers)
    if dtype not in NUMBERS or not plain or math.prod(shape) != len(numbers):
        raise ValueError("array: its type, shape and numbers do not fit")
    return np.array(numbers, dtype=dtype).reshape(shape)
