"""Views of a minigrid agent: those of all cells and directions of many grids, computed at once.

    grid     [K, S, S] uint8, grid[k, x, y] one of UNSEEN, EMPTY, WALL, KEY, BALL; x to the east, y to the south
    view     [view, view]: i from left to right, j from far to near; the agent stands at (view // 2, view - 1), looking
             along -j. Beyond the grid there are walls.

Occlusion is minigrid's own sweep, quirks included: rows from near to far, each from left to right and back; a cell that
is lit and no wall lights the next cell of its row and, one row farther, the cells ahead of both. So light passes
diagonally between two walls, and round corners.

Source: minigrid 3.2.0, `gen_obs_grid`, `Grid.slice`, `Grid.rotate_left`, `Grid.process_vis`.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

UNSEEN, EMPTY, WALL, KEY, BALL = range(5)

SYMBOLS = torch.tensor([[0, 0, 0], [1, 0, 0], [2, 5, 0], [5, 1, 0], [6, 1, 0]], dtype=torch.uint8)
"""Minigrid's (object, colour, state): nothing seen, empty, a grey wall, a green key, a green ball."""

FORWARD = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]])
"""Direction -> step (x, y): 0 east, 1 south, 2 west, 3 north."""


def offsets(view: int) -> Tensor:
    """[4, view, view, 2] int64: where view cell (i, j) lies in the world, (x, y) from the agent, by direction."""
    ahead = view - 1 - torch.arange(view).view(1, 1, view, 1)
    aside = torch.arange(view).view(1, view, 1, 1) - view // 2
    east, south = FORWARD.view(4, 1, 1, 2).unbind(-1)
    right = torch.stack((-south, east), dim=-1)
    return ahead * FORWARD.view(4, 1, 1, 2) + aside * right


def slices(grid: Tensor, view: int, rows: range) -> Tensor:
    """[K, S, S] grids -> [K, S, R, 4, view, view] uint8: the turned excerpt at (x, rows[y]) facing each direction."""
    size, margin = grid.shape[1], view - 1
    walled = pad(grid, [margin] * 4, value=WALL)
    x = (margin + torch.arange(size)).view(size, 1, 1, 1, 1) + offsets(view)[..., 0]
    y = (margin + torch.tensor(rows)).view(1, len(rows), 1, 1, 1) + offsets(view)[..., 1]
    index = x * walled.shape[1] + y
    return walled.flatten(1)[:, index.flatten()].view(-1, *index.shape)


def lit(view: Tensor) -> Tensor:
    """[..., view, view] excerpts -> bool of the same shape: cells that no wall hides."""
    size = view.shape[-1]
    clear = (view != WALL).movedim((-2, -1), (0, 1)).contiguous()
    mask = torch.zeros_like(clear)
    mask[size // 2, size - 1] = True
    for j in reversed(range(size)):
        for here, side in _sweep(size):
            light = mask[here, j] & clear[here, j]
            mask[side, j] |= light
            if j > 0:
                mask[here, j - 1] |= light
                mask[side, j - 1] |= light
    return mask.movedim((0, 1), (-2, -1))


def views(grid: Tensor, view: int, rows: range, *, occlusion: bool = True) -> Tensor:
    """Every view of every grid from some of its rows.

    Args:
        grid: [K, S, S] uint8.
        view: odd.
        rows: the R values of y.
        occlusion: False lets the agent see through walls.

    Returns:
        [K, S, R, 4, view, view, 3] uint8: the symbols seen at (x, rows[y]) facing each direction; meaningless where
        that is not an empty cell.
    """
    seen = slices(grid, view, rows)
    return SYMBOLS[(seen * lit(seen) if occlusion else seen).int()]


def _sweep(size: int) -> list[tuple[int, int]]:
    """(cell, the next one of its row) from left to right, then from right to left."""
    return [(i, i + 1) for i in range(size - 1)] + [(i, i - 1) for i in range(size - 1, 0, -1)]
