"""T-maze: remember one bit, seen at the start, to the end of a corridor.

Rules. A corridor runs along y = 0 from x = 0 to the junction x = J; two goals lie beside the junction at (J, +1) and
(J, -1), and one of them, drawn with equal chance for each episode, is right. The cue is read at x = 0.

    passive   starts on the cue, x = 0;                     J = length;      exactly length + 1 steps
    active    starts one step right of it, x = 1, o = 1;    J = length + 1;  exactly length + 3 steps

Actions: 0 right (+x), 1 up (+y), 2 left (-x), 3 down (-y). A move into a wall does nothing.
Observation, 2 floats: [0, y of the right goal] at x = 0 for the first time in an episode, [0, 0] there later and in
the corridor, [1, y] at the junction and on the goals.
Reward: at the last step 1 on the right goal, else 0; at every step before, -1/length where x < t - o, with t steps
taken and o the start (0 passive, 1 active): falling behind an agent that never wastes a step costs reward.
The last step terminates the episode. It is not a time limit: reward and value end there by the rules.

Returns: optimal 1, right-then-coin 0.5, always right 0, uniformly random about -1.

Source: Ni et al. 2023, arXiv:2307.03864 (T-Maze passive and active, with ambiguous position).
"""

from typing import Unpack

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs.board import Board, Cell
from rlmin.envs.draws import key
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Game, Outcome, Shared, TensorEnv, Variant

RIGHT, UP, LEFT, DOWN = range(4)

VARIANTS = {
    f"{name}-v0": Variant(
        options={"active": active},
        length=13 if active else 11,
        random=-0.97,
        floor=0.5,
        floor_policy="no memory: go right, then a coin decides",
        ceiling=1.0,
        ceiling_policy="read the cue, go right, turn as it said",
    )
    for name, active in (("TMaze", False), ("TMazeActive", True))
}


class TMaze(TensorEnv):
    """B T-mazes; every episode has the same length, so all end and begin together. See the module for the rules.

    Args:
        num_envs: B.
        length: corridor cells from the start to the junction.
        active: whether the agent starts one step away from the cue.
        shared: device and render_mode, see `Shared`.
    """

    def __init__(self, num_envs: int = 1, *, length: int = 10, active: bool = False, **shared: Unpack[Shared]) -> None:
        if length < 1:
            raise ValueError(f"length={length}: the corridor needs at least one cell")
        seen = spaces.Box(np.array([0, -1], dtype=np.float32), np.array([1, 1], dtype=np.float32))
        super().__init__(num_envs, seen, spaces.Discrete(4), **shared)
        self.length, self.active, self.begin = length, active, int(active)
        self.junction, self.steps = length + self.begin, length + 1 + 2 * self.begin
        self._right = torch.tensor([1, 0, -1, 0], device=self.device)
        self._up = torch.tensor([0, 1, 0, -1], device=self.device)

    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """goal, cue (what x = 0 shows at present), x, y, t: [B] int64; read [B] bool: the cue has been seen."""
        goal = torch.where(key(seed, episode) < 0, 1, -1)
        nothing = torch.zeros_like(goal)
        read = torch.full_like(goal, not self.active, dtype=torch.bool)
        cue = nothing if self.active else goal
        return {"goal": goal, "cue": cue, "x": nothing + self.begin, "y": nothing, "t": nothing, "read": read}

    def advance(self, game: Game, action: Tensor) -> Outcome:
        x, y, t = game["x"], game["y"], game["t"] + 1
        along = (x + self._right[action]).clamp(0, self.junction)
        across = (y + self._up[action]).clamp(-1, 1)
        x, y = torch.where(y == 0, along, x), torch.where(x == self.junction, across, y)
        first = (x == 0) & ~game["read"]
        over = t == self.steps
        lagging = (x < t - self.begin).float() / -self.length
        reward = torch.where(over, (y == game["goal"]).float(), lagging)
        changes = {"x": x, "y": y, "t": t, "cue": first * game["goal"], "read": game["read"] | first}
        return Outcome(changes, reward, terminated=over)

    def observe(self, game: Game) -> Tensor:
        end = game["x"] == self.junction
        return torch.stack((end, torch.where(end, game["y"], game["cue"])), dim=1).float()

    def success(self, game: Game) -> Tensor:
        return game["y"] == game["goal"]

    def board(self, game: Game) -> Board:
        x, y, goal = int(game["x"]), int(game["y"]), int(game["goal"])
        return Board([[self._cell(i, j, x, y, goal) for i in range(self.junction + 1)] for j in (1, 0, -1)])

    def _cell(self, i: int, j: int, x: int, y: int, goal: int) -> Cell:
        if (i, j) == (x, y):
            return Cell("A", "agent")
        if (i, j) == (self.junction, goal):
            return Cell("*", "goal")
        if j and i < self.junction:
            return Cell("#", "wall")
        return Cell("o", "cue") if (i, j) == (0, 0) else Cell()


class TMazeEnv(Single):
    """One T-maze, see the module."""

    game = TMaze
