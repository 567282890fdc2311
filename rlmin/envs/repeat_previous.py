"""RepeatPrevious: say at every step the suit of the card that was dealt k - 1 cards before the one in sight.

Rules. `decks` decks are shuffled together; C = 52 decks cards. The first card is seen at reset. At every step the agent
names a suit, then the next card is dealt and seen. The episode terminates when the last card is dealt: C - 1 steps.
Observation: the suit of the card just dealt, Discrete(4). Action: a suit, Discrete(4).
Reward: 0 while fewer than k cards lie on the table; then 1/(C-k) if the action is the suit of the k-th card from the
end, else -1/(C-k). The card in sight is the first from the end.

Quirk of popgym: its documentation says "k timesteps ago", but its code means the observation k - 1 steps ago; k = 1 is
the card in sight. (Its k = 0 asks for the very first card: that is RepeatFirst, so k = 0 is refused here.)

Returns: perfect 1; without memory 26 decks/(C-1) - 1, as a suit other than the one in sight is slightly likelier
(Easy -0.490, Medium -0.495, Hard -0.497); any suit -0.5. Counting suits, with no idea of their order, and naming the
commonest of the cards before the one in sight scores -0.321, -0.422, -0.445: such a score is no evidence of order.

Source: popgym 1.0.7, RepeatPrevious (Morad et al. 2023, arXiv:2303.01859), step for step.
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
COLUMNS = 16  # of the picture

VARIANTS = {
    f"RepeatPrevious{name}-v0": Variant(
        options={"decks": decks, "k": k},
        length=52 * decks - 1,
        random=-0.5,
        floor=26 * decks / (52 * decks - 1) - 1,
        floor_policy="no memory: a suit other than the one in sight",
        ceiling=1.0,
        ceiling_policy="the suit k - 1 cards ago, remembered",
    )
    for name, decks, k in (("Easy", 1, 4), ("Medium", 2, 32), ("Hard", 3, 64))
}


class RepeatPrevious(cards.CardGame):
    """B games; see the module for the rules.

    Args:
        num_envs: B.
        decks: number of decks in the pile, at least 1.
        k: place from the end of the card asked for, 1 (the one in sight) to 52 decks - 1.
        shared: device and render_mode, see `Shared`.
    """

    def __init__(self, num_envs: int = 1, *, decks: int = 1, k: int = 4, **shared: Unpack[Shared]) -> None:
        super().__init__(num_envs, spaces.Discrete(SUITS), SUITS, decks=decks, **shared)
        if not 1 <= k < self.cards:
            raise ValueError(f"k={k}: expected 1..{self.cards - 1} with decks={decks}")
        self.k = k

    def advance(self, game: Game, action: Tensor) -> Outcome:
        share = 1 / (self.cards - self.k)
        asked = game["t"] + 1 - self.k
        right = action == cards.at(game["deck"], asked.clamp(min=0))
        reward = torch.where(right, share, -share) * (asked >= 0)
        t = game["t"] + 1
        return Outcome({"t": t, "said": action.to(torch.uint8)}, reward, terminated=t == self.cards - 1)

    def board(self, game: Game) -> Board:
        t, deck, said = int(game["t"]), game["deck"].tolist(), int(game["said"])
        first = max(0, t + 1 - self.k)
        table = [Cell(cards.SUIT_NAMES[deck[i]], self._colour(i, t)) for i in range(first, t + 1)]
        rows = [table[i : i + COLUMNS] for i in range(0, len(table), COLUMNS)]
        lines = [f"card {t + 1} of {self.cards} in sight (yellow)", f"to be named: k = {self.k} from the end (green)"]
        if said < SUITS:
            before = t - self.k
            verdict = "nothing asked" if before < 0 else "right" if deck[before] == said else "wrong"
            lines.append(f"said {cards.SUIT_NAMES[said]}: {verdict}")
        return Board(rows, "\n".join(lines))

    def _colour(self, i: int, t: int) -> str:
        if i == t + 1 - self.k:
            return "goal"
        return "cue" if i == t else "hidden"


class RepeatPreviousEnv(Single):
    """One game, see the module."""

    game = RepeatPrevious
