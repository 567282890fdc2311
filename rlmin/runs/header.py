"""The header of a checkpoint: its entries, checked before anything is built from them.

A file may come from a stranger, so every entry has a type and a range, and the size of the file bounds the memory that
it makes us allocate. The class of `config` checks its entries, see `rlmin.settings`.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from rlmin.files.plain import decode, encode
from rlmin.spaces.as_json import space_from_json

LONGEST = 16 * 2**20
"""Largest number of letters of a header."""
LARGEST = 2**62
"""Largest count."""
ENCODED = ("env", "run", "dataset")
"""Entries whose values come from users, see `rlmin.files.plain`."""

Check = Callable[[Any], bool]


def whole(least: int = 0, most: int = LARGEST) -> Check:
    """A whole number in a range."""
    return lambda x: type(x) is int and least <= x <= most


def text(x: Any) -> bool:
    """Text of a sensible length."""
    return isinstance(x, str) and len(x) <= 4096


def number(x: Any) -> bool:
    """A finite number."""
    return type(x) in (int, float) and math.isfinite(x)


def mapping(x: Any) -> bool:
    """Values by name."""
    return isinstance(x, dict) and all(isinstance(key, str) for key in x)


def score(x: Any) -> bool:
    """Result of an evaluation during training; older files have no standard error."""
    needed = {"mean_return", "num_timesteps"}
    return mapping(x) and needed <= x.keys() <= needed | {"error"} and all(map(number, x.values()))


def or_none(check: Check) -> Check:
    """None, or a value that passes the check."""
    return lambda x: x is None or check(x)


REQUIRED: dict[str, Check] = {
    "agent": text,
    "env": mapping,
    "seed": whole(),
    "config": mapping,
    "num_timesteps": whole(),
    "num_updates": whole(),
    "total_timesteps": whole(),
    "observation_space": mapping,
    "action_space": mapping,
}
OPTIONAL: dict[str, Check] = {
    "rlmin": text,
    "run": mapping,
    "seconds": lambda x: number(x) and x >= 0,
    "dataset": mapping,
    "env.workers": whole(0, 4096),
    "env.id": or_none(text),
    "env.kwargs": lambda x: isinstance(x, dict),
    "run.device": text,
    "run.threads": or_none(whole(1, 1024)),
    "run.eval_episodes": whole(0),
    "run.eval_kwargs": or_none(lambda x: isinstance(x, dict)),
    "run.save_interval": whole(1),
    "run.wandb": or_none(text),
    "run.wandb_id": or_none(text),
    "run.data": mapping,
    "run.data.returns": lambda x: isinstance(x, list) and len(x) > 0 and all(map(number, x)),
    "run.data.mean": number,
    "run.data.reference": or_none(mapping),
    "run.evaluations": whole(0, 10**9),
    "run.best": score,
    "run.last": score,
    "run.watchdog": mapping,
    "run.watchdog.interval": whole(1),
    "run.watchdog.next": whole(),
    "run.watchdog.played": whole(),
    "dataset.source": or_none(text),
    "dataset.name": text,
    "dataset.digest": text,
    "dataset.episodes": whole(),
    "dataset.steps": whole(),
    "dataset.skip_bad_episodes": lambda x: x is True,
}


def write_header(header: Mapping[str, Any]) -> str:
    """The text of a header.

    Raises:
        TypeError: an entry cannot be written.
    """
    return json.dumps({key: encode(x, key) if key in ENCODED else x for key, x in header.items()})


def read_header_text(content: str, *, where: str) -> dict[str, Any]:
    """The entries of a header, spaces still as written.

    Raises:
        ValueError: `write_header` did not write it, or an entry is missing, of another type or out of range.
    """
    if len(content) > LONGEST:
        raise ValueError(f"{where}: expected a header of at most {LONGEST:,} letters, got {len(content):,}")
    try:
        header: dict[str, Any] = json.loads(content)
        if not mapping(header):
            raise ValueError("expected entries by name")
        header |= {key: decode(header[key]) for key in ENCODED if key in header}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: damaged header ({error!s:.200})") from None
    for key, check in REQUIRED.items():
        if key not in header or not check(header[key]):
            raise ValueError(f"{where}: damaged header, {key} is {_show(header.get(key, 'missing'))}")
    for key, check in OPTIONAL.items():
        found = _dig(header, key)
        if found is not _NOTHING and not check(found):
            raise ValueError(f"{where}: damaged header, {key} is {_show(found)}")
    header["env"] = {"id": None, "kwargs": {}, "workers": 0} | header["env"]
    return header


def rebuild_spaces(header: dict[str, Any], *, elements: int, where: str) -> None:
    """Make the spaces of a header, in place.

    Args:
        header: see `read_header_text`.
        elements: number of weights in the same file. A policy has at least about as many as its spaces have entries
            and choices, so much larger spaces cannot belong to this file.
        where: the file, for the message.

    Raises:
        ValueError: a space is invalid or too large.
    """
    for key in ("observation_space", "action_space"):
        try:
            header[key] = space_from_json(header[key], most=4 * elements + 2**16)
        except ValueError as error:
            raise ValueError(f"{where}: damaged header, {key}: {error!s:.200}") from None


_NOTHING = object()


def _dig(header: Mapping[str, Any], path: str) -> Any:
    """The value at a path like "run.data.mean"; _NOTHING if the path ends before it."""
    found: Any = header
    for key in path.split("."):
        if not isinstance(found, dict) or key not in found:
            return _NOTHING
        found = found[key]
    return found


def _show(x: Any) -> str:
    shown = repr(x)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
