"""MiniGrid's memory levels as tensors: see an object, walk a hallway, turn towards its twin.

Level. S x S cells; M = S // 2 is the middle row, y grows southwards. A start room, x = 1..3 and y = M-1..M+1, holds the
cue, a green key or ball, at (1, M-1). A hallway runs along y = M to x = E, where E = S - 3, or drawn from 4..S-3 in the
Random levels. At the junction x = E + 1 a key and a ball lie at y = M-2 and M+2 in random order. The agent starts at
(x, M), x drawn from 1..E, facing east.
Actions: 0 left, 1 right (turns), 2 forward; walls and objects block. With `actions=7`, minigrid's 3 pickup, 4 drop,
5 toggle and 6 done exist too; they only cost a step.
Observation: the view, [view, view, 3] of minigrid's (object, colour, state), see rlmin/envs/grid_views.py; with
`direction=True` a Dict of "image" and "direction" (0 east, 1 south, 2 west, 3 north).
End: at (E + 1, M-1) or (E + 1, M+1) the episode terminates; beside the cue's twin with reward
1 - 0.9 * step / max_steps, beside the other object with 0. All other rewards are 0. Step max_steps = 5 S^2 truncates.

Layouts: None draws all of this afresh for every episode; n draws one of the n layouts, start included, that minigrid
makes from the seeds 0..n-1.

Learning aid: with probability `near` the agent starts at x = 1, where it sees the cue. So it can learn to choose by
memory before it has discovered to look back for the cue. The default, 0, is the original game; the numbers below are
for it.

Quirks of the original, kept:

    look back         the start may lie past the cue, which is then behind the agent
    pickup = toggle   nothing can ever be carried or moved, so the grid never changes within an episode
    leaking light     occlusion lets light pass corners, so targets are seen from afar along the hallway
    last step         an end reached at step max_steps is both terminated and truncated

Returns (RETURNS). The ceiling is the optimum over policies with memory, by dynamic programming over beliefs. A policy
without memory that guesses at the junction has 0.5 success: that is the floor with a 3 x 3 view, everywhere, and with
7 x 7 in S11 and S13. But from a junction at x <= 7 a 7 x 7 view shows cue and targets at once, always in S7 and S9, at
times in the Random levels, and the floor is higher: turn by way of north to look back, then go where the cue says.
An agent that faces north on its way sees the same as one that has decided to go north; there the floor policy goes
forward with probability 0.087 (S7), 0.067 (S9), 0.046 (S13Random), 0.035 (S17Random). Gradient ascent over all policies
of the present view found no better.

As the grid never changes, a view depends only on layout, cell and direction. All views are computed once per level and
view size; a step looks one up. Any odd size from 7 to 501 is a level, "S501", and with a random hallway up to 101.

Source: minigrid 3.2.0, MemoryEnv (Chevalier-Boisvert et al. 2023, arXiv:2306.13831), step for step; 3 x 3 view and
numbered layouts as in Pleines et al. 2023.
"""

from typing import Any, TypeVar, Unpack

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import pad

from rlmin.envs import grid_views
from rlmin.envs.board import Board, Cell
from rlmin.envs.draws import integers, key, uniform
from rlmin.envs.grid_layouts import (
    BLOCKED,
    LANE,
    OTHER,
    TWIN,
    Tables,
    check_level,
    lane,
    number_layouts,
    read_level,
    tables,
)
from rlmin.envs.grid_views import BALL, KEY, WALL
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Game, Outcome, Shared, TensorEnv, Variant

LEFT, RIGHT, FORWARD = range(3)
Index = TypeVar("Index", int, Tensor)

RETURNS = {
    "S7": (0.242, (0.899, 0.978), (0.492, 0.970)),
    "S9": (0.261, (0.922, 0.984), (0.494, 0.975)),
    "S11": (0.272, (0.495, 0.986), (0.495, 0.979)),
    "S13": (0.280, (0.496, 0.988), (0.496, 0.981)),
    "S13Random": (0.330, (0.690, 0.991), (0.497, 0.986)),
    "S17Random": (0.358, (0.624, 0.993), (0.498, 0.990)),
}
"""Level -> mean return of random turns and steps; floor and ceiling with a 7 x 7 view; with a 3 x 3 view."""

GUESS = "no memory: walk to the junction, turn north"
LOOK = "no memory: look back from the junction, turn as seen; facing north, seldom go on"

VARIANTS = {
    f"GridMemory{level}{name}-v0": Variant(
        options={"level": level, "view_size": view_size},
        length=5 * read_level(level)[0] ** 2,
        random=random,
        floor=bounds[0],
        floor_policy=LOOK if bounds[0] > 0.5 else GUESS,
        ceiling=bounds[1],
        ceiling_policy="look back for the cue if it is out of sight, walk to its twin",
    )
    for level, (random, wide, narrow) in RETURNS.items()
    for name, view_size, bounds in (("", 7, wide), ("View3", 3, narrow))
}


class GridMemory(TensorEnv):
    """B memory levels; see the module for the rules.

    Args:
        num_envs: B.
        level: one of `LEVELS`, or "S" and another odd size up to 501, or up to 101 with "Random" behind it.
        view_size: odd, at least 3.
        layouts: number of numbered layouts; None for a fresh one each episode.
        actions: 3, or 7 for all of minigrid's.
        direction: whether the agent observes the compass too.
        near: share of episodes that start beside the cue, in [0, 1]; fresh layouts only.
        shared: device and render_mode, see `Shared`.

    Raises:
        ValueError: an unknown level, an even or too small view, layouts below 1, another number of actions, `near`
            outside [0, 1] or with numbered layouts.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        level: str = "S9",
        view_size: int = 7,
        layouts: int | None = None,
        actions: int = 3,
        direction: bool = False,
        near: float = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        check_level(level, view_size, layouts)
        if actions not in (3, 7):
            raise ValueError(f"actions={actions}: expected 3, or 7 for all of minigrid's")
        if not 0 <= near <= 1 or (near and layouts is not None):
            raise ValueError(f"near={near}, layouts={layouts}: expected near in [0, 1], and 0 with numbered layouts")
        image = spaces.MultiDiscrete(np.broadcast_to((11, 6, 4), (view_size, view_size, 3)), dtype=np.uint8)
        seen = spaces.Dict({"image": image, "direction": spaces.Discrete(4)}) if direction else image
        super().__init__(num_envs, seen, spaces.Discrete(actions), **shared)
        self.level, self.view_size, self.layouts, self.compass = level, view_size, layouts, direction
        self.near = near
        self.size, _ = read_level(level)
        self._first_row = lane(self.size).start
        self.middle, self.max_steps = self.size // 2, 5 * self.size**2
        self.tables = Tables(*(table.to(self.device) for table in tables(level, view_size)))
        self._ground = self.tables.ground.flatten()
        self._numbered = number_layouts(level, layouts or 0).to(self.device)
        self._draws = torch.arange(4, device=self.device).unbind()
        self._turn = torch.tensor([-1, 1, 0, 0, 0, 0, 0], device=self.device)
        self._east, self._south = grid_views.FORWARD.to(self.device).unbind(1)

    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """kind, x, y, direction, t (steps taken): [B] int64."""
        stream, (first, second, third, fourth) = key(seed, episode), self._draws
        if self.layouts is None:
            number = integers(stream, first, len(self.tables.ends))
            last = self.tables.ends[number]
            if self.near:
                last = torch.where(uniform(stream, fourth) < self.near, 1, last)
            x = 1 + integers(stream, second, last)
            kind = 4 * number + integers(stream, third, 4)
        else:
            kind, x = self._numbered[integers(stream, first, self.layouts)].unbind(1)
        nothing = torch.zeros_like(x)
        return {"kind": kind, "x": x, "y": nothing + self.middle, "direction": nothing, "t": nothing}

    def advance(self, game: Game, action: Tensor) -> Outcome:
        kind, t = game["kind"], game["t"] + 1
        direction = (game["direction"] + self._turn[action]) & 3
        moves = action == FORWARD
        x, y = game["x"] + moves * self._east[direction], game["y"] + moves * self._south[direction]
        free = self._ground[self._place(kind, x, y)] != BLOCKED
        x, y = torch.where(free, x, game["x"]), torch.where(free, y, game["y"])
        ground = self._ground[self._place(kind, x, y)]
        reward = (ground == TWIN) * (1 - 0.9 * (t.double() / self.max_steps))
        changes = {"x": x, "y": y, "direction": direction, "t": t}
        return Outcome(changes, reward, terminated=ground >= TWIN, truncated=t >= self.max_steps)

    def observe(self, game: Game) -> Any:
        place = self._place(game["kind"], game["x"], game["y"]) * 4 + game["direction"]
        image = self.tables.views.index_select(0, place)
        return {"image": image, "direction": game["direction"]} if self.compass else image

    def success(self, game: Game) -> Tensor:
        return self._ground[self._place(game["kind"], game["x"], game["y"])] == TWIN

    def board(self, game: Game) -> Board:
        kind, x, y, direction = (int(game[name]) for name in ("kind", "x", "y", "direction"))
        seen = self._view_cells(kind, x, y, direction)
        ground = pad(
            self.tables.ground[kind], (self._first_row, self.size - LANE - self._first_row), value=BLOCKED
        ).tolist()
        grid = self.tables.grid[kind].tolist()
        rows = [[_cell(grid[i][j], ground[i][j], bool(seen[i, j])) for i in range(self.size)] for j in range(self.size)]
        rows[y][x] = Cell(">v<^"[direction], "agent")
        caption = f"step {int(game['t'])} of {self.max_steps}: + right end, - wrong end"
        return Board(rows, f"{caption}\nyellow, o, X, K, B: seen now; k key, b ball out of sight")

    def _place(self, kind: Index, x: Index, y: Index) -> Index:
        """The position in the tables, which hold the lane around the hallway: of one cell, or [B] each -> [B]."""
        return (kind * self.size + x) * LANE + y - self._first_row

    def _view_cells(self, kind: int, x: int, y: int, direction: int) -> Tensor:
        """[S, S] bool: the cells of the world in the agent's view."""
        place = self._place(kind, x, y) * 4 + direction
        there = grid_views.offsets(self.view_size)[direction] + torch.tensor([x, y])
        inside = ((there >= 0) & (there < self.size)).all(-1)
        shown = there[inside & (self.tables.views[place, ..., 0].cpu() != grid_views.UNSEEN)]
        seen = torch.zeros(self.size, self.size, dtype=torch.bool)
        seen[shown[:, 0], shown[:, 1]] = True
        return seen


class GridMemoryEnv(Single):
    """One memory level, see the module."""

    game = GridMemory


def _cell(code: int, ground: int, seen: bool) -> Cell:
    """A square of the board: what is there, and whether the agent sees it."""
    if code == WALL:
        return Cell("X", "wall") if seen else Cell("#", "hidden")
    if code in (KEY, BALL):
        name = "KB"[code == BALL]
        return Cell(name, "cue") if seen else Cell(name.lower(), "hidden")
    if ground in (TWIN, OTHER):
        return Cell("+-"[ground == OTHER], "goal" if ground == TWIN else "bad")
    return Cell("o" if seen else "", "seen" if seen else "empty")
