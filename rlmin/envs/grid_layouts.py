"""The layouts of MiniGrid's memory levels, and the tables in which a step looks everything up.

A layout's kind is 4 n + 2 cue + order. n numbers the possible ends E of the hallway, the nearest first. cue is 0 for
the key, 1 for the ball. order is 0 if the ball lies north of the junction, 1 if the key does. See
rlmin/envs/grid_memory.py for the geometry.

Source: minigrid 3.2.0, `MemoryEnv._gen_grid`; its draws are end (if random), start x, cue, order, in that sequence.
"""

import re
from functools import lru_cache
from typing import NamedTuple

import torch
from gymnasium.utils import seeding
from torch import Tensor

from rlmin.envs.grid_views import BALL, EMPTY, KEY, WALL, views

BLOCKED, FREE, TWIN, OTHER = range(4)
"""Roles of a cell; TWIN and OTHER, beside the objects of the junction, end the episode."""

LEVELS = ("S7", "S9", "S11", "S13", "S13Random", "S17Random")
"""Levels with an id of their own."""
SMALLEST, LARGEST, LARGEST_RANDOM = 7, 501, 101
"""Smallest size S; largest, and largest with a random end of the hallway, which makes a table for every end."""
LANE = 5
"""Number of rows around the hallway that hold every cell an agent can stand on, and the walls beside them."""


def read_level(level: str) -> tuple[int, bool]:
    """The size S of a level, and whether the hallway's end is random; ValueError for an unknown level."""
    found = re.fullmatch(r"S([1-9][0-9]{0,2})(Random)?", str(level))
    size, random = (int(found[1]), found[2] is not None) if found else (0, False)
    largest = LARGEST_RANDOM if random else LARGEST
    if size % 2 == 0 or not SMALLEST <= size <= largest:
        sizes = f"an odd size from {SMALLEST} to {LARGEST}, or to {LARGEST_RANDOM} with Random"
        raise ValueError(f"level={level!r}: expected {', '.join(LEVELS)}, or another name of their form with {sizes}")
    return size, random


def lane(size: int) -> range:
    """The rows y of a grid in its `LANE`."""
    return range(size // 2 - LANE // 2, size // 2 + LANE // 2 + 1)


def check_level(level: str, view_size: int, layouts: int | None) -> None:
    """Raise a ValueError for an unknown level, an even or too small view, or layouts below 1."""
    read_level(level)
    if view_size < 3 or view_size % 2 == 0:
        raise ValueError(f"view_size={view_size}: expected an odd number, at least 3")
    if layouts is not None and layouts < 1:
        raise ValueError(f"layouts={layouts}: expected at least 1, or None for fresh ones")


class Tables(NamedTuple):
    """The tables of a level, for K kinds of layout."""

    ends: Tensor  # [K // 4] int64: E
    ground: Tensor  # [K, S, LANE] uint8: BLOCKED, FREE, TWIN or OTHER
    grid: Tensor  # [K, S, S] uint8: as grid_views
    views: Tensor  # [K * S * LANE * 4, view, view, 3] uint8


@lru_cache
def tables(level: str, view_size: int) -> Tables:
    """The tables of a level, on the CPU; made once, so nobody may write into them."""
    size, random = read_level(level)
    ends = range(4, size - 2) if random else [size - 3]
    kinds = [(end, cue, order) for end in ends for cue in range(2) for order in range(2)]
    grid, ground = (torch.stack(parts) for parts in zip(*(_layout(size, *kind) for kind in kinds), strict=True))
    rows = lane(size)
    seen = views(grid, view_size, rows).flatten(0, 3)
    return Tables(torch.tensor(ends), ground[:, :, rows.start : rows.stop].contiguous(), grid, seen)


def number_layouts(level: str, count: int) -> Tensor:
    """[count, 2] int64, (kind, start x) of the layouts that minigrid makes from the seeds 0..count-1."""
    size, random = read_level(level)
    rows = []
    for seed in range(count):
        draws, _ = seeding.np_random(seed)
        end = int(draws.integers(4, size - 2)) if random else size - 3
        x, cue, order = int(draws.integers(1, end + 1)), int(draws.integers(0, 2)), int(draws.integers(0, 2))
        rows.append((4 * (end - 4) * random + 2 * cue + order, x))
    return torch.tensor(rows, dtype=torch.int64).view(count, 2)


def _layout(size: int, end: int, cue: int, order: int) -> tuple[Tensor, Tensor]:
    """Grid and ground, [S, S] uint8."""
    middle, junction = size // 2, end + 1
    grid = torch.full((size, size), EMPTY, dtype=torch.uint8)
    grid[[0, -1]] = grid[:, [0, -1]] = WALL
    grid[1:5, [middle - 2, middle + 2]] = WALL
    grid[4:end, [middle - 1, middle + 1]] = WALL
    grid[end, :middle] = grid[end, middle + 1 :] = WALL
    grid[junction + 1] = WALL
    grid[1, middle - 1] = (KEY, BALL)[cue]
    grid[junction, middle - 2], grid[junction, middle + 2] = ((BALL, KEY), (KEY, BALL))[order]
    ground = (grid == EMPTY).to(torch.uint8) * FREE
    north = cue != order
    ground[junction, middle - 1], ground[junction, middle + 1] = (TWIN, OTHER) if north else (OTHER, TWIN)
    return grid, ground
