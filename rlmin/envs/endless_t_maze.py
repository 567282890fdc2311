"""Endless T-maze: corridor after corridor, each with a new cue that replaces the last one.

Rules. An episode has `corridors` corridors. The first cell of each, x = 0, shows a cue: which way to turn at the far
end, x = length. The right turn opens the next corridor; a wrong turn, or none, ends the episode.
`uniform`: every corridor draws its length uniformly from 1 to `length`; otherwise all have `length`.
Actions: 0 turn left, 1 turn right, 2 forward. Turning inside a corridor changes nothing.
Observation, 3 floats: [the cue says left, the cue says right, x / length of this corridor]; 1 is the junction.
Reward: 1 for a right turn, -1 for a wrong one, -0.01 for any other step. Success: every turn was right.
An episode is truncated after 6 (length + 1) steps per corridor.

Returns: perfect `corridors` - 0.01 for each step in a corridor. An agent that goes forward and turns by a coin sees two
corridors on average; its right and wrong turns cancel out, and each step costs 0.01.

Source: Memory Retention Is Not Enough, AAMAS 2026 (arXiv:2601.15086): rules and rewards. Its code counts
cells; here the position is a share of the corridor, so that every junction looks the same.
"""

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs.board import Board, Cell
from rlmin.envs.draws import integers, key
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Game, Outcome, TensorEnv, Variant

LEFT, RIGHT, FORWARD = range(3)
PENALTY = 0.01
PATIENCE = 6  # most steps of an episode, as a multiple of those it needs


def _variant(corridors: int, length: int, uniform: bool, random: float) -> Variant:
    mean = (1 + length) / 2 if uniform else length
    return Variant(
        options={"corridors": corridors, "length": length, "uniform": uniform},
        length=PATIENCE * (length + 1) * corridors,
        random=random,
        floor=-PENALTY * mean * (2 - 2.0 ** (1 - corridors)),
        floor_policy="no memory: go forward, turn by a coin",
        ceiling=corridors - PENALTY * mean * corridors,
        ceiling_policy="go forward, turn as the last cue said",
    )


VARIANTS = {
    "EndlessTMaze-v0": _variant(5, 10, False, -0.95),
    "EndlessTMazeUniform-v0": _variant(5, 10, True, -0.74),
}


class EndlessTMaze(TensorEnv):
    """B games; see the module for the rules.

    Args:
        num_envs: B.
        corridors: number in an episode, at least 1.
        length: cells from a cue to its junction, at least 1; with `uniform`, the largest number.
        uniform: whether every corridor draws its own length.
        device, render_mode: as `TensorEnv`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        corridors: int = 5,
        length: int = 10,
        uniform: bool = False,
        device: torch.device | str = "cpu",
        render_mode: str | None = None,
    ) -> None:
        if corridors < 1 or length < 1:
            raise ValueError(f"corridors={corridors}, length={length}: expected at least 1 of each")
        seen = spaces.Box(np.zeros(3, np.float32), np.ones(3, np.float32))
        super().__init__(num_envs, seen, spaces.Discrete(3), device=device, render_mode=render_mode)
        self.corridors, self.length, self.uniform = corridors, length, uniform
        self.steps = PATIENCE * (length + 1) * corridors

    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """cue (0 left, 1 right) and length, [B, corridors]; corridor, x, t: [B]; all int64."""
        keys, index = key(seed, episode).unsqueeze(1), torch.arange(2 * self.corridors, device=self.device)
        cues, lengths = index.chunk(2)
        length = 1 + integers(keys, lengths, self.length)
        nothing = torch.zeros_like(seed)
        return {
            "cue": integers(keys, cues, 2),
            "length": length if self.uniform else torch.full_like(length, self.length),
            "corridor": nothing,
            "x": nothing,
            "t": nothing,
        }

    def advance(self, game: Game, action: Tensor) -> Outcome:
        x, t = game["x"], game["t"] + 1
        cue, length = self._here(game)
        junction = x == length
        right = junction & (action == cue)
        wrong = junction & ~right
        corridor = game["corridor"] + right
        x = (x + (~junction & (action == FORWARD))).masked_fill(right, 0)
        reward = right.float() - wrong.float() - PENALTY * (~junction).float()
        over = wrong | (corridor == self.corridors)
        changes = {"corridor": corridor, "x": x, "t": t}
        return Outcome(changes, reward, terminated=over, truncated=~over & (t == self.steps))

    def observe(self, game: Game) -> Tensor:
        cue, length = self._here(game)
        begins = (game["x"] == 0) & (game["corridor"] < self.corridors)
        return torch.stack((begins & (cue == LEFT), begins & (cue == RIGHT), game["x"] / length), dim=1).float()

    def success(self, game: Game) -> Tensor:
        return game["corridor"] == self.corridors

    def board(self, game: Game) -> Board:
        cue, length = (int(part) for part in self._here({name: part[None] for name, part in game.items()}))
        x, corridor = int(game["x"]), min(int(game["corridor"]) + 1, self.corridors)
        rows = []
        for side in (LEFT, FORWARD, RIGHT):
            lane = side == FORWARD
            row = [Cell() if lane else Cell("#", "wall") for _ in range(length)]
            row.append(Cell() if lane else Cell("*", "goal") if side == cue else Cell())
            if lane:
                row[0] = Cell("<" if cue == LEFT else ">", "cue")
                row[x] = Cell("A", "agent")
            rows.append(row)
        return Board(rows, f"corridor {corridor} of {self.corridors}, step {int(game['t'])}")

    def _here(self, game: Game) -> tuple[Tensor, Tensor]:
        """Cue and length [B] of the corridor that each agent is in; after the last corridor, of that one."""
        at = game["corridor"].clamp(max=self.corridors - 1).unsqueeze(-1)
        return game["cue"].gather(-1, at).squeeze(-1), game["length"].gather(-1, at).squeeze(-1)


class EndlessTMazeEnv(Single):
    """One game, see the module."""

    game = EndlessTMaze
