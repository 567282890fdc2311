"""The layouts of MiniGrid's memory levels, and the tables in which a step looks everything up.

A layout's kind is 4 n + 2 cue + order. n numbers the possible ends E of the hallway, the nearest first. cue is 0 for
the key, 1 for the ball. order is 0 if the ball lies north of the junction, 1 if the key does. See
rlmin/envs/grid_memory.py for the geometry.

Source: minigrid 3.2.0, `MemoryEnv._gen_grid`; its draws are end (if random), start x, cue, order, in that sequence.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from gymnasium.utils import seeding
from torch import Tensor

from rlmin.envs.grid_views import BALL, EMPTY, KEY, WALL, views

BLOCKED, FREE, TWIN, OTHER = range(4)
"""Roles of a cell; TWIN and OTHER, beside the objects of the junction, end the episode."""

LEVELS = {
    "S7": (7, False),
    "S9": (9, False),
    "S11": (11, False),
    "S13": (13, False),
    "S13Random": (13, True),
    "S17Random": (17, True),
}
"""Level -> size S, and whether the hallway's end is random."""


def check_level(level: str, view_size: int, layouts: int | None) -> None:
    """Raise a ValueError for an unknown level, an even or too small view, or layouts below 1."""
    if level not in LEVELS:
        raise ValueError(f"level={level!r}: expected one of {', '.join(LEVELS)}")
    if view_size < 3 or view_size % 2 == 0:
        raise ValueError(f"view_size={view_size}: expected an odd number, at least 3")
    if layouts is not None and layouts < 1:
        raise ValueError(f"layouts={layouts}: expected at least 1, or None for fresh ones")


class Tables(NamedTuple):
    """The tables of a level, for K kinds of layout."""

    ends: Tensor  # [K // 4] int64: E
    ground: Tensor  # [K, S, S] uint8: BLOCKED, FREE, TWIN or OTHER
    grid: Tensor  # [K, S, S] uint8: as grid_views
    views: Tensor  # [K * S * S * 4, view, view, 3] uint8


@lru_cache
def tables(level: str, view_size: int) -> Tables:
    """The tables of a level, on the CPU; made once, so nobody may write into them."""
    size, random = LEVELS[level]
    ends = range(4, size - 2) if random else [size - 3]
    kinds = [(end, cue, order) for end in ends for cue in range(2) for order in range(2)]
    grid, ground = (torch.stack(parts) for parts in zip(*(_layout(size, *kind) for kind in kinds), strict=True))
    return Tables(torch.tensor(ends), ground, grid, views(grid, view_size).flatten(0, 3))


def number_layouts(level: str, count: int) -> Tensor:
    """[count, 2] int64, (kind, start x) of the layouts that minigrid makes from the seeds 0..count-1."""
    size, random = LEVELS[level]
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
