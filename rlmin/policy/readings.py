"""How each leaf of an observation is read, decided here and nowhere else.

    leaf                                                                          read as
    Box of uint8, two to four axes, picture of at least 16 x 16                   picture
    Box of other numbers, three or four axes, at least 16 x 16, 1, 3 or 4
        channels, bounds within [-1, 255] (whole numbers: [0, 65535])             picture
    Box of uint8, three axes, smaller                                             symbols
    any other Box                                                                 numbers
    Discrete, MultiDiscrete, MultiBinary                                          choices

The settings `pictures`, `symbols` and `numbers` name leaves that are to be read otherwise. A space that is one leaf has
the name "observation", the parts of a Dict have their keys, deeper ones "sensors.left".

Axes of a picture: [rows, columns], with channels behind them or, where that axis is smaller, before them; a fourth
axis, the first, is a stack of frames. Of symbols the channels come first only as [at most 4, n, n] with n > 4.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from rlmin.checks import check_names, warn_user

Kind = Literal["picture", "symbols", "numbers", "choices"]

SMALLEST_PICTURE = 16
"""Pixels on the shorter side below which a Box is not taken for a picture."""
LEAST_SIDE = 7
"""Pixels that the convolutions need."""
COLOURS = (1, 3, 4)
"""Channels of a picture of numbers that are not uint8."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How one leaf is read.

    Attributes:
        name: of the leaf.
        space: its own.
        kind: what it is taken for.
        axes: of pictures and symbols: the places of (frames, channels, rows, columns) in the shape; None: no such axis.
        doubt: what speaks against this reading, and which setting changes it; "" if nothing does.
    """

    name: str
    space: gym.Space[Any]
    kind: Kind
    axes: tuple[int | None, int | None, int, int] | None = None
    doubt: str = ""

    @property
    def largest(self) -> float:
        """The divisor of a picture: its largest bound in size; 1 if it has none."""
        assert isinstance(self.space, gym.spaces.Box), "of pictures"
        found = float(max(abs(self.space.low.max()), abs(self.space.low.min()), abs(self.space.high.max())))
        return found if np.isfinite(found) and found > 0 else 1.0

    def __str__(self) -> str:
        shape = "x".join(map(str, self.space.shape or ())) or "one"
        axes = ""
        if self.axes is not None:
            frames, channels = self.axes[:2]
            size = self.space.shape or ()
            axes = f", {size[self.axes[2]]} x {size[self.axes[3]]}"
            axes += "" if channels is None else f", {size[channels]} channels on axis {channels}"
            axes += "" if frames is None else f", {size[frames]} frames"
        return f"{self.name}: {shape} {self.space.dtype}, read as {self.kind}{axes}"


def read_as(
    leaves: Mapping[str, gym.Space[Any]],
    *,
    pictures: Collection[str] = (),
    symbols: Collection[str] = (),
    numbers: Collection[str] = (),
) -> dict[str, Reading]:
    """How each leaf is read: see the top of this file.

    Args:
        leaves: by name, see `rlmin.spaces.leaf_spaces`.
        pictures, symbols, numbers: leaves that are to be read as these.

    Raises:
        ValueError: a name that no leaf has, or two settings name it, or it cannot be read so.
    """
    asked: dict[str, Kind] = {}
    kinds: tuple[tuple[str, Kind, Iterable[str]], ...] = (
        ("pictures", "picture", pictures),
        ("symbols", "symbols", symbols),
        ("numbers", "numbers", numbers),
    )
    for setting, kind, names in kinds:
        for name in names:
            try:
                check_names("leaf of the observation", [name], leaves)
            except ValueError as error:
                raise ValueError(f"{setting}: {error}") from None
            if asked.get(name, kind) != kind:
                raise ValueError(f"{setting}: leaf {name!r} is named by two of pictures, symbols and numbers")
            asked[name] = kind
    return {name: _make_reading(name, space, asked.get(name)) for name, space in leaves.items()}


def warn_of_doubts(readings: Mapping[str, Reading]) -> None:
    """Warn if a leaf may be something else than its reading says."""
    for reading in readings.values():
        if reading.doubt:
            warn_user(f"{reading}; {reading.doubt}")


def _make_reading(name: str, space: gym.Space[Any], asked: Kind | None) -> Reading:
    if not isinstance(space, gym.spaces.Box):
        if asked is not None:
            raise ValueError(f"observation {name!r}: only a Box is read as {asked}, this is {space}")
        return Reading(name=name, space=space, kind="choices")
    kind = asked or _guess(space)
    if kind == "numbers":
        doubt = _doubt_of_numbers(name, space) if asked is None else ""
        return Reading(name=name, space=space, kind=kind, doubt=doubt)
    axes = _axes(space.shape, kind)
    _check(name, space, kind, axes)
    assert axes is not None, "checked"
    doubt = ""
    if kind == "symbols" and asked is None and min(space.shape[axes[2]], space.shape[axes[3]]) >= 10:
        doubt = f"if it shows colours, say pictures=[{name!r}]; if not, symbols=[{name!r}]"
    return Reading(name=name, space=space, kind=kind, axes=axes, doubt=doubt)


def _guess(space: gym.spaces.Box) -> Kind:
    shape, kind = space.shape, np.dtype(space.dtype).kind
    axes = _axes(shape, "picture")
    if axes is None or kind not in "iuf" or 0 in shape:
        return "numbers"
    large = min(shape[axes[2]], shape[axes[3]]) >= SMALLEST_PICTURE
    if space.dtype == np.uint8:
        return "picture" if large else "symbols" if len(shape) == 3 else "numbers"
    low, high = float(space.low.min()), float(space.high.max())
    bounded = low >= -1 and high <= 255 if kind == "f" else low >= 0 and high <= 65535
    coloured = axes[1] is not None and shape[axes[1]] in COLOURS
    return "picture" if large and coloured and bounded else "numbers"


def _axes(shape: tuple[int, ...], kind: Kind) -> tuple[int | None, int | None, int, int] | None:
    """Places of frames, channels, rows, columns; None where there are too few axes, or too many."""
    if len(shape) == 2 and kind == "picture":
        return None, None, 0, 1
    if len(shape) == 3 and kind == "symbols":
        first = shape[0] <= 4 < shape[1] == shape[2]
        return (None, 0, 1, 2) if first else (None, 2, 0, 1)
    if len(shape) == 3 and kind == "picture":
        return (None, 2, 0, 1) if shape[2] <= shape[0] else (None, 0, 1, 2)
    if len(shape) == 4 and kind == "picture":
        return (0, 3, 1, 2) if shape[3] <= shape[1] else (0, 1, 2, 3)
    return None


def _check(name: str, space: gym.spaces.Box, kind: Kind, axes: tuple[int | None, int | None, int, int] | None) -> None:
    """Raise a ValueError if a leaf cannot be read so."""
    if kind == "picture":
        if axes is None or min(space.shape[axes[2]], space.shape[axes[3]]) < LEAST_SIDE:
            wanted = f"two to four axes and at least {LEAST_SIDE} x {LEAST_SIDE} pixels"
            raise ValueError(f"observation {name!r}: a picture has {wanted}, this is {space}")
        return
    whole = np.issubdtype(space.dtype, np.integer)
    if axes is None or not whole or space.low.min() < 0 or space.high.max() > 255:
        raise ValueError(f"observation {name!r}: symbols are whole numbers in 0..255 on three axes, this is {space}")


def _doubt_of_numbers(name: str, space: gym.spaces.Box) -> str:
    """Whether a Box that is flattened looks like a picture."""
    sides = sorted(space.shape)[-2:]
    least = 2 * SMALLEST_PICTURE if len(space.shape) == 2 else SMALLEST_PICTURE
    if len(space.shape) < 2 or sides[0] < least:
        return ""
    if len(space.shape) > 4:
        return f"it is flattened: if it holds pictures, bring it to four axes; if not, say numbers=[{name!r}]"
    return f"it is flattened: if it is a picture, say pictures=[{name!r}]; if not, numbers=[{name!r}]"
