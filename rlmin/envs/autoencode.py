"""Autoencode: watch a deck being dealt, then name its suits in reverse order.

Rules. `decks` decks are shuffled together; C = 52 decks cards. The first card is seen at reset, in mode WATCH.

    WATCH, C - 1 steps   the action is ignored, the next card is dealt and seen; reward 0
    PLAY, C steps        the action names the suit of the last card not yet named: 1/C if right, else -1/C

Observation: Tuple(mode, suit) = Tuple(Discrete(2), Discrete(4)) with PLAY = 0, WATCH = 1. Action: a suit, Discrete(4).
The episode terminates with the last PLAY step: 2C - 1 steps.

Quirks of popgym: the observation that shows the last card already says PLAY, and that card is the first to be named;
after it the suit is always 0, that of the card with number 0.

Returns: perfect 1; without memory -0.5 + 1.5/C (Easy -0.471, Medium -0.486, Hard -0.490): the last card is named while
it is in sight, and a fixed suit thereafter; random -0.5. A return R means that (R + 0.5)/1.5 C cards were recalled.

Source: popgym 1.0.7, Autoencode (Morad et al. 2023, arXiv:2303.01859), step for step.
"""

from typing import Unpack

import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs import cards
from rlmin.envs.board import Board, Cell
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Game, Outcome, Shared, Variant

PLAY, WATCH = range(2)
SUITS = cards.SUITS
COLUMNS = 26  # of the picture

VARIANTS = {
    f"Autoencode{name}-v0": Variant(
        options={"decks": decks},
        length=104 * decks - 1,
        random=-0.5,
        floor=-0.5 + 1.5 / (52 * decks),
        floor_policy="no memory: the last card while it is in sight, then always suit 0",
        ceiling=1.0,
        ceiling_policy="all cards, remembered",
    )
    for name, decks in (("Easy", 1), ("Medium", 2), ("Hard", 3))
}


class Autoencode(cards.CardGame):
    """B games; see the module for the rules."""

    def __init__(self, num_envs: int = 1, *, decks: int = 1, **shared: Unpack[Shared]) -> None:
        """`decks`: number of decks in the pile, at least 1; rest: see `Shared`."""
        seen = spaces.Tuple((spaces.Discrete(2), spaces.Discrete(SUITS)))
        super().__init__(num_envs, seen, SUITS, decks=decks, **shared)

    def advance(self, game: Game, action: Tensor) -> Outcome:
        last, t = self.cards - 1, game["t"]
        right = action == cards.at(game["deck"], (2 * last - t).clamp(max=last))
        reward = torch.where(right, 1 / self.cards, -1 / self.cards) * (t >= last)
        t = t + 1
        return Outcome({"t": t, "said": action.to(torch.uint8)}, reward, terminated=t == 2 * last + 1)

    def observe(self, game: Game) -> tuple[Tensor, Tensor]:
        last, t = self.cards - 1, game["t"]
        suit = cards.at(game["deck"], t.clamp(max=last)) * (t <= last)
        return torch.where(t < last, WATCH, PLAY), suit

    def board(self, game: Game) -> Board:
        last, t, said = self.cards - 1, int(game["t"]), int(game["said"])
        deck = game["deck"].tolist()
        asked = 2 * last - t if t >= last else None
        row = [Cell(cards.SUIT_NAMES[suit], self._colour(i, t, asked)) for i, suit in enumerate(deck)]
        lines = [f"WATCH: card {t + 1} of {self.cards} in sight (yellow)"]
        if asked is not None:
            lines = [f"PLAY: {max(asked + 1, 0)} cards to be named from the end (green: the next)"]
        if t > last:
            right = deck[2 * last - t + 1] == said
            lines.append(f"said {cards.SUIT_NAMES[said]}: {'right' if right else 'wrong'}")
        return Board([row[i : i + COLUMNS] for i in range(0, len(row), COLUMNS)], "\n".join(lines))

    def _colour(self, i: int, t: int, asked: int | None) -> str:
        if asked is None:
            return "cue" if i == t else "hidden"
        if i == asked:
            return "goal"
        return "hidden" if i < asked else "empty"


class AutoencodeEnv(Single):
    """One game, see the module."""

    game = Autoencode
