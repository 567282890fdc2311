"""YAML as plain values, in bounded time and memory whoever wrote it.

A file of a kilobyte can stand for gigabytes (aliases of aliases), or nest deeper than any stack: the parser's events
are counted before anything is built, and an alias counts as all that it stands for. A key given twice is an error: one
of the two settings would vanish.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from rlmin.files.read_bounded import read_bounded

BYTES = 2**20
"""Most bytes of a file."""
VALUES = 100_000
"""Most values of a file, counted where they are used: an alias of a list of ten counts as eleven."""
DEPTH = 50

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # twenty times as fast, where it is there
_OPENING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def read_yaml(path: Path) -> Any:
    """What a YAML file says; None for an empty one.

    Raises:
        ValueError: it cannot be read, or is larger or nests deeper than any file of settings.
    """
    content = read_bounded(path, most=BYTES, form="YAML")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not readable as YAML (no UTF-8: {error})") from None
    return parse_yaml(text, where=str(path))


def parse_yaml(text: str, *, where: str) -> Any:
    """What YAML in a text says.

    Args:
        text: one document.
        where: origin of the text, for the error message.

    Raises:
        ValueError: it is no YAML, or too much of it.
    """
    try:
        _check_size(text)
        return yaml.load(text, Loader=_Loader)  # of plain values, as yaml.SafeLoader
    except _TooMuch as error:
        raise ValueError(f"{where}: {error}") from None
    except Exception as error:  # a bad number, date or tag raises whatever it raises in yaml's constructors
        words = " ".join(str(error).replace(' in "<unicode string>"', "").split()) or type(error).__name__
        words = words if len(words) <= 300 else f"{words[:300]} ..."
        raise ValueError(f"{where}: not readable as YAML ({words})") from None


class _TooMuch(Exception):
    pass


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Plain values; a key given twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set[Hashable]()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands there twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return found


def _check_size(text: str) -> None:
    """Raise `_TooMuch` if the values that a text stands for are too many, or nest too deep."""
    sizes, depths, anchors = (
        [0],
        [0],
        [""],
    )  # one entry for each open list or dict: its values, and their depth below it
    known: dict[str, tuple[int, int]] = {}  # anchor -> values and depth
    for event in yaml.parse(text, Loader=_SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in known:  # it holds itself, or is none
                raise _TooMuch(f"alias *{event.anchor}: expected an anchor that was closed before")
            size, depth = known[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            size, depth = 1, 0
            if event.anchor:
                known[event.anchor] = size, depth
        elif isinstance(event, _OPENING):
            sizes.append(1)
            depths.append(0)
            anchors.append(event.anchor or "")
            known.pop(anchors[-1], None)
            size, depth = 0, 0
        elif isinstance(event, _CLOSING):
            size, depth, anchor = sizes.pop(), depths.pop() + 1, anchors.pop()
            if anchor:
                known[anchor] = size, depth
        else:
            continue
        sizes[-1] += size
        depths[-1] = max(depths[-1], depth)
        if sum(sizes) > VALUES:
            raise _TooMuch(f"expected at most {VALUES:,} values, aliases counted as what they stand for")
        if len(sizes) - 1 + depths[-1] > DEPTH:
            raise _TooMuch(f"expected values at most {DEPTH} deep")
