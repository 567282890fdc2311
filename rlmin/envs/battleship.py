"""Battleship: find four ships by shooting, and see only whether the last shot hit.

Rules. Ships of 2, 3, 3 and 4 cells lie on a square of `size` x `size` cells, along its rows or columns, touching or
not, never overlapping. At every step the agent shoots at a cell; the square itself is never shown.
Observation: 1 if the last shot hit, 0 if it missed or no shot was fired yet, Discrete(2).
Action: (row, column), MultiDiscrete([size, size]).
Reward: 1/12 for a hit, -1/(size^2 - 12) for a miss. A cell hit before is a miss from then on.
End: terminates when all 12 cells are hit, truncates after size^2 shots. Both ends are reported where the
last allowed shot sinks the last ship.

Placement, ship by ship: the original draws a start, an axis and a direction until the ship fits. It can reach a place
from either end of the ship, so every free place has the same chance. Here the place is drawn directly.

Returns, Easy / Medium / Hard: all-knowing 1; density search 0.546 / 0.590 / 0.611 (shoot where the most places of a
ship remain, each counted tenfold for every hit that it covers); a sweep row by row 0.165 / 0.172 / 0.177; every cell
once, in random order, 1/13 = 0.077; uniformly random -0.449 / -0.416 / -0.399.

Source: popgym 1.0.7, Battleship (Morad et al. 2023, arXiv:2303.01859), step for step.
"""

from collections.abc import Sequence
from typing import Unpack

import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs.board import Board, Cell
from rlmin.envs.draws import key, uniform
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Game, Outcome, Shared, TensorEnv, Variant

SHIPS = (2, 3, 3, 4)

VARIANTS = {
    f"Battleship{name}-v0": Variant(
        options={"size": size},
        length=size**2,
        random=floor,
        floor=floor,
        floor_policy="no memory: random shots",
        ceiling=ceiling,
        ceiling_policy="density search: most places of a ship left, hits remembered (not the optimum)",
    )
    for name, size, floor, ceiling in (
        ("Easy", 8, -0.449, 0.546),
        ("Medium", 10, -0.416, 0.590),
        ("Hard", 12, -0.399, 0.611),
    )
}


def places(ship: int, size: int) -> Tensor:
    """[P, size^2] float: the cells of every place of a ship of `ship` cells; P = 2 size (size - ship + 1)."""
    cells = torch.arange(size**2).view(size, size)
    along = cells.unfold(1, ship, 1).reshape(-1, ship)
    across = cells.unfold(0, ship, 1).reshape(-1, ship)
    taken = torch.cat((along, across))
    return torch.zeros(len(taken), size**2).scatter(1, taken, 1.0)


class Battleship(TensorEnv):
    """B games; see the module for the rules.

    Args:
        num_envs: B.
        size: cells along each side.
        ships: cells of each ship, in the order in which they are placed. Refused if the last might find no
            place: a ship of n cells blocks at most n + 1 rows and columns.
        shared: device and render_mode, see `Shared`.
    """

    def __init__(
        self, num_envs: int = 1, *, size: int = 10, ships: Sequence[int] = SHIPS, **shared: Unpack[Shared]
    ) -> None:
        if not ships or min(ships) < 1 or max(ships) > size or sum(ship + 1 for ship in ships[:-1]) >= 2 * size:
            raise ValueError(f"size={size}, ships={tuple(ships)}: expected ships that always find a place")
        action = spaces.MultiDiscrete([size, size])
        super().__init__(num_envs, spaces.Discrete(2), action, **shared)
        self.size, self.length, self.needed = size, size**2, sum(ships)
        self._places = [places(ship, size).to(self.device) for ship in ships]

    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """ship, shot [B, size^2] bool, row by row; hits, t, seen [B] int64: cells hit, shots, the observation."""
        index, nothing = torch.arange(len(self._places), device=self.device).unsqueeze(1), torch.zeros_like(seed)
        random = uniform(key(seed, episode), index)
        ship = torch.zeros(len(seed), self.length, device=self.device)
        for luck, place in zip(random, self._places, strict=True):
            free = (ship @ place.T == 0).cumsum(dim=1)
            chosen = (luck * free[:, -1]).long().unsqueeze(1)
            ship = ship + place[(free <= chosen).sum(dim=1)]
        shot = torch.zeros_like(ship, dtype=torch.bool)
        return {"ship": ship.bool(), "shot": shot, "hits": nothing, "t": nothing, "seen": nothing}

    def advance(self, game: Game, action: Tensor) -> Outcome:
        cell = (action[:, :1] * self.size + action[:, 1:]).long()
        hit = (game["ship"].gather(1, cell) & ~game["shot"].gather(1, cell)).squeeze(1)
        hits, t = game["hits"] + hit, game["t"] + 1
        changes = {"shot": game["shot"].scatter(1, cell, True), "hits": hits, "t": t, "seen": hit.long()}
        reward = torch.where(hit, 1 / self.needed, -1 / (self.length - self.needed))
        return Outcome(changes, reward, terminated=hits == self.needed, truncated=t >= self.length)

    def observe(self, game: Game) -> Tensor:
        return game["seen"]

    def success(self, game: Game) -> Tensor:
        return game["hits"] == self.needed

    def board(self, game: Game) -> Board:
        ship, shot = (game[name].view(self.size, self.size).tolist() for name in ("ship", "shot"))
        rows = [[_cell(ship[i][j], shot[i][j]) for j in range(self.size)] for i in range(self.size)]
        seen = "hit" if int(game["seen"]) else "miss"
        caption = f"last shot: {seen if int(game['t']) else 'none'}"
        return Board(
            rows, f"{caption}\nhits {int(game['hits'])} of {self.needed}, shots {int(game['t'])} of {self.length}"
        )


def _cell(ship: bool, shot: bool) -> Cell:
    if shot:
        return Cell("X", "bad") if ship else Cell("o", "seen")
    return Cell("S", "hidden") if ship else Cell()


class BattleshipEnv(Single):
    """One game, see the module."""

    game = Battleship
