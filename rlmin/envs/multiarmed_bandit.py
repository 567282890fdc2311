"""MultiarmedBandit: find out which arm pays, then pull it.

Rules. Each of `arms` arms pays with a probability of its own, drawn uniformly from [0, 1) for the episode. At every
step the agent pulls one.
Observation: 1 if the last pull paid, else 0; 0 at reset; Discrete(2). Action: an arm, Discrete(arms).
Reward, with T = `length`: 1/T if it paid, else -1/T. Truncates after T steps.

Quirk of the original, kept: probabilities are float32 (multiples of 2^-24), and the random number that decides a
payment is rounded to float32 before it is compared. The original shows the probabilities in `info`; here only the
state holds them.

Returns, Easy / Medium / Hard: always the best arm 0.818 / 0.905 / 0.935 (that is (n - 1)/(n + 1)); Thompson sampling
0.635 / 0.729 / 0.770; win-stay, lose-shift 0.470 / 0.550 / 0.585; uniformly random, or any fixed arm, 0.

Source: popgym 1.0.7, MultiarmedBandit (Morad et al. 2023, arXiv:2303.01859), step for step.
"""

from typing import Unpack

import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs.board import Board, Cell
from rlmin.envs.draws import integers, key, uniform
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Game, Outcome, Shared, TensorEnv, Variant

VARIANTS = {
    f"MultiarmedBandit{name}-v0": Variant(
        options={"arms": arms, "length": length},
        length=length,
        random=0.0,
        floor=floor,
        floor_policy="win-stay, lose-shift to a random other arm: memory of the last pull alone",
        ceiling=ceiling,
        ceiling_policy="Thompson sampling from a uniform prior",
    )
    for name, arms, length, floor, ceiling in (
        ("Easy", 10, 200, 0.470, 0.635),
        ("Medium", 20, 400, 0.550, 0.729),
        ("Hard", 30, 600, 0.585, 0.770),
    )
}


class MultiarmedBandit(TensorEnv):
    """B games; see the module for the rules."""

    def __init__(self, num_envs: int = 1, *, arms: int = 10, length: int = 200, **shared: Unpack[Shared]) -> None:
        """`arms`, `length`: number of arms and of steps, at least 1; rest: see `Shared`."""
        if arms < 1 or length < 1:
            raise ValueError(f"arms={arms}, length={length}: expected at least 1")
        super().__init__(num_envs, spaces.Discrete(2), spaces.Discrete(arms), **shared)
        self.arms, self.length = arms, length

    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """chance [B, arms] float32; t, seen, arm [B] int64: steps, the observation, the arm last pulled (-1: none)."""
        index, nothing = torch.arange(self.arms, device=self.device), torch.zeros_like(seed)
        chance = integers(key(seed, episode).unsqueeze(1), index, 1 << 24).float() * 2.0**-24
        return {"chance": chance, "t": nothing, "seen": nothing, "arm": nothing - 1}

    def luck(self, game: Game) -> Tensor:
        """[B] float64 in [0, 1): a pull pays if this is below the arm's probability."""
        return uniform(key(game["seed"], game["episode"]), self.arms + game["t"])

    def advance(self, game: Game, action: Tensor) -> Outcome:
        chance = game["chance"].gather(1, action.unsqueeze(1)).squeeze(1)
        paid, t = self.luck(game).float() < chance, game["t"] + 1
        reward = torch.where(paid, 1 / self.length, -1 / self.length)
        return Outcome({"t": t, "seen": paid.long(), "arm": action.long()}, reward, truncated=t >= self.length)

    def observe(self, game: Game) -> Tensor:
        return game["seen"]

    def board(self, game: Game) -> Board:
        arm, chance = int(game["arm"]), game["chance"].tolist()
        paid = bool(game["seen"])
        pulled = Cell("+1" if paid else "-1", "goal" if paid else "bad")
        hidden = [Cell(f".{min(99, round(100 * p)):02d}", "hidden") for p in chance]
        rows = [[pulled if i == arm else Cell() for i in range(self.arms)], hidden]
        caption = "no pull yet" if arm < 0 else f"arm {arm} {'paid' if paid else 'did not pay'}"
        return Board(rows, f"{caption}, step {int(game['t'])} of {self.length}; below: probabilities (hidden)")


class MultiarmedBanditEnv(Single):
    """One game, see the module."""

    game = MultiarmedBandit
