"""HigherLower: guess whether the next card is higher or lower than the one in sight.

Rules. `decks` decks are shuffled together; C = 52 decks cards. The first card is seen at reset. At every step the agent
guesses, then the next card is dealt and seen. The episode terminates when the last card is dealt: C - 1 steps.
Observation: the rank of the card in sight, 0 (the ace) to 12 (the king), Discrete(13).
Action, Discrete(2): 0 higher, 1 lower. Reward: 1/C if right, -1/C if wrong, 0 between equal ranks.

Quirk of popgym: the shares are 1/C although only C - 1 guesses are made.

Returns: the threshold policy, which has no memory, scores 84/169 = 0.497 with any number of decks. Perfect card
counting scores only 0.527 (Easy), 0.516 (Medium), 0.511 (Hard), so memory is worth a few hundredths here. Random 0.

Source: popgym 1.0.7, HigherLower (Morad et al. 2023, arXiv:2303.01859), step for step.
"""

from typing import Unpack

import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs import cards
from rlmin.envs.board import Board, Cell
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Game, Outcome, Shared, Variant

HIGHER, LOWER = range(2)
RANKS = cards.RANKS

VARIANTS = {
    f"HigherLower{name}-v0": Variant(
        options={"decks": decks},
        length=52 * decks - 1,
        random=0.0,
        floor=84 / 169,
        floor_policy="no memory: higher below the seven, else lower",
        ceiling=ceiling,
        ceiling_policy="card counting: the likelier side, given every card seen",
    )
    for name, decks, ceiling in (("Easy", 1, 0.527), ("Medium", 2, 0.516), ("Hard", 3, 0.511))
}


class HigherLower(cards.CardGame):
    """B games; see the module for the rules."""

    def __init__(self, num_envs: int = 1, *, decks: int = 1, **shared: Unpack[Shared]) -> None:
        """`decks`: number of decks in the pile, at least 1; rest: see `Shared`."""
        super().__init__(num_envs, spaces.Discrete(RANKS), 2, decks=decks, **shared)

    def face(self, card: Tensor) -> Tensor:
        return cards.rank(card)

    def advance(self, game: Game, action: Tensor) -> Outcome:
        share, t = 1 / self.cards, game["t"] + 1
        now, then = cards.at(game["deck"], game["t"]), cards.at(game["deck"], t)
        right = (then > now) == (action == HIGHER)
        reward = torch.where(right, share, -share) * (then != now)
        return Outcome({"t": t, "said": action.to(torch.uint8)}, reward, terminated=t == self.cards - 1)

    def board(self, game: Game) -> Board:
        t, deck, said = int(game["t"]), game["deck"].tolist(), int(game["said"])
        left = [deck[t + 1 :].count(rank) for rank in range(RANKS)]
        names = [Cell(name, "cue" if rank == deck[t] else "empty") for rank, name in enumerate(cards.RANK_NAMES)]
        lines = [f"card {t + 1} of {self.cards} in sight (yellow)", "below: cards of each rank still to come (hidden)"]
        if said < 2:
            before, now = deck[t - 1], deck[t]
            verdict = "equal" if before == now else "right" if (now > before) == (said == HIGHER) else "wrong"
            lines.append(f"said {('higher', 'lower')[said]} than {cards.RANK_NAMES[before]}: {verdict}")
        return Board([names, [Cell(str(count), "hidden") for count in left]], "\n".join(lines))


class HigherLowerEnv(Single):
    """One game, see the module."""

    game = HigherLower
