"""MineSweeper: clear a field without hitting a mine, seeing only the last count.

Rules. `mines` mines lie hidden on `size` x `size` cells, every set of cells with equal chance. At every step the agent
opens a cell.
Observation: the mines among the cell just opened and its eight neighbours, Discrete(min(mines + 1, 10)); 0 at reset.
Action: (row, column), MultiDiscrete([size, size]).
Reward, with T = size^2 - mines: 1/T for a clear cell, -0.5/(T - 2) for one already open, -0.5 - 1/T for a mine.
End: terminates at a mine, or when every clear cell is open; truncates after T steps.

Quirks of the original, kept: the first cell may be a mine; a count of 0 opens no neighbours; a mine counts itself;
one wasted step makes clearing the whole field impossible, as exactly T steps are allowed.

Returns, Easy / Medium / Hard: 1 for a cleared field; deduction from one count at a time, with the least risky cell
where nothing follows, 0.700 / 0.312 / 0.294; every cell at most once, in random order, -0.234 / -0.391 / -0.427;
uniformly random -0.231 / -0.401 / -0.433.

Source: popgym 1.0.7, MineSweeper (Morad et al. 2023, arXiv:2303.01859), step for step. (The paper's version allows one
step more.)
"""

from typing import Unpack

import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs.board import Board, Cell
from rlmin.envs.draws import key, permutation
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Game, Outcome, Shared, TensorEnv, Variant

CLEAR, MINE, OPEN = range(3)

VARIANTS = {
    f"MineSweeper{name}-v0": Variant(
        options={"size": size, "mines": mines},
        length=size**2 - mines,
        random=floor,
        floor=floor,
        floor_policy="no memory: random cells",
        ceiling=ceiling,
        ceiling_policy="deduction from one count at a time, else the least risky cell (not the optimum)",
    )
    for name, size, mines, floor, ceiling in (
        ("Easy", 4, 2, -0.231, 0.700),
        ("Medium", 6, 6, -0.401, 0.312),
        ("Hard", 8, 10, -0.433, 0.294),
    )
}


def around(size: int) -> Tensor:
    """[size^2, size^2] float: 1 where two cells are the same or neighbours."""
    i = torch.arange(size)
    near = (i.unsqueeze(1) - i).abs() <= 1
    return torch.kron(near.float(), near.float())


class MineSweeper(TensorEnv):
    """B games; see the module for the rules."""

    def __init__(self, num_envs: int = 1, *, size: int = 4, mines: int = 2, **shared: Unpack[Shared]) -> None:
        """`size`: cells along each side; `mines`: at least 1, and at least 3 cells are clear; rest: see `Shared`."""
        if mines < 1 or size**2 - mines < 3:
            raise ValueError(f"size={size}, mines={mines}: expected at least 1 mine and 3 clear cells")
        seen, action = spaces.Discrete(min(mines + 1, 10)), spaces.MultiDiscrete([size, size])
        super().__init__(num_envs, seen, action, **shared)
        self.size, self.mines, self.length = size, mines, size**2 - mines
        self._around = around(size).to(self.device)

    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """field, near [B, size^2] uint8, row by row: CLEAR, MINE or OPEN, and the mines around a cell.

        left, t, seen [B] int64: clear cells, steps, the observation.
        """
        hidden, nothing = permutation(key(seed, episode), 0, self.size**2)[:, : self.mines], torch.zeros_like(seed)
        field = torch.zeros(len(seed), self.size**2, device=self.device).scatter(1, hidden, 1.0)
        near = (field @ self._around).to(torch.uint8)
        return {
            "field": field.to(torch.uint8),
            "near": near,
            "left": nothing + self.length,
            "t": nothing,
            "seen": nothing,
        }

    def advance(self, game: Game, action: Tensor) -> Outcome:
        cell = (action[:, :1] * self.size + action[:, 1:]).long()
        found = game["field"].gather(1, cell)
        mine, clear = (found == MINE).squeeze(1), (found == CLEAR).squeeze(1)
        field = game["field"].scatter(1, cell, torch.where(found == MINE, MINE, OPEN).to(torch.uint8))
        left, t = game["left"] - clear.long(), game["t"] + 1
        gain = 1 / self.length
        reward = torch.where(clear, gain, torch.where(mine, -0.5 - gain, -0.5 / (self.length - 2)))
        seen = game["near"].gather(1, cell).squeeze(1).long()
        changes = {"field": field, "left": left, "t": t, "seen": seen}
        over = mine | (left == 0)
        return Outcome(changes, reward, terminated=over, truncated=(t == self.length) & ~over)

    def observe(self, game: Game) -> Tensor:
        return game["seen"]

    def success(self, game: Game) -> Tensor:
        return game["left"] == 0

    def board(self, game: Game) -> Board:
        field, near = (game[name].view(self.size, self.size).tolist() for name in ("field", "near"))
        rows = [[_cell(field[i][j], near[i][j]) for j in range(self.size)] for i in range(self.size)]
        caption = f"count in sight: {int(game['seen']) if int(game['t']) else 'none'}"
        return Board(rows, f"{caption}\nclear cells left: {int(game['left'])}, steps {int(game['t'])} of {self.length}")


def _cell(state: int, near: int) -> Cell:
    return Cell(str(near), "seen") if state == OPEN else Cell("*" if state == MINE else "", "hidden")


class MineSweeperEnv(Single):
    """One game, see the module."""

    game = MineSweeper
