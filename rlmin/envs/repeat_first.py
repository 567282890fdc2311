"""RepeatFirst: say at every step the suit of the first card that was dealt.

Rules. `decks` decks are shuffled together; C = 52 decks cards. The first card is seen at reset. At every step the agent
names a suit, then the next card is dealt and seen. The episode terminates when the last card is dealt: C - 1 steps.
Observation: the suit of the card just dealt, Discrete(4). Action: a suit, Discrete(4).
Reward: 1/(C-1) if the action is the suit of the first card, else -1/(C-1).

Returns: perfect 1; without memory -0.5, as one suit in four is right.

Source: popgym 1.0.7, RepeatFirst (Morad et al. 2023, arXiv:2303.01859), step for step.
"""

from typing import Unpack

import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs import cards
from rlmin.envs.board import Board, Cell
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Game, Outcome, Shared, Variant

SUITS = cards.SUITS

VARIANTS = {
    f"RepeatFirst{name}-v0": Variant(
        options={"decks": decks},
        length=52 * decks - 1,
        random=-0.5,
        floor=-0.5,
        floor_policy="no memory: any suit",
        ceiling=1.0,
        ceiling_policy="the first suit, remembered",
    )
    for name, decks in (("Easy", 1), ("Medium", 8), ("Hard", 16))
}


class RepeatFirst(cards.CardGame):
    """B games; see the module for the rules."""

    def __init__(self, num_envs: int = 1, *, decks: int = 1, **shared: Unpack[Shared]) -> None:
        """`decks`: number of decks in the pile, at least 1; rest: see `Shared`."""
        super().__init__(num_envs, spaces.Discrete(SUITS), SUITS, decks=decks, **shared)

    def advance(self, game: Game, action: Tensor) -> Outcome:
        share = 1 / (self.cards - 1)
        reward = torch.where(action == game["deck"][:, 0], share, -share)
        t = game["t"] + 1
        return Outcome({"t": t, "said": action.to(torch.uint8)}, reward, terminated=t == self.cards - 1)

    def board(self, game: Game) -> Board:
        t, deck, said = int(game["t"]), game["deck"].tolist(), int(game["said"])
        row = [Cell(cards.SUIT_NAMES[deck[0]], "goal"), Cell(cards.SUIT_NAMES[deck[t]], "cue")]
        lines = [f"card {t + 1} of {self.cards} in sight (yellow)", "to be named: the first card (green, hidden)"]
        if said < SUITS:
            lines.append(f"said {cards.SUIT_NAMES[said]}: {'right' if said == deck[0] else 'wrong'}")
        return Board([row], "\n".join(lines))


class RepeatFirstEnv(Single):
    """One game, see the module."""

    game = RepeatFirst
