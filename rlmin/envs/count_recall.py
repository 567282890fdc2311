"""CountRecall: say how many cards of the queried kind have been dealt so far.

Rules. Two piles of C = 52 decks cards are shuffled, one of values and one of queries. `deck_type` says what a kind is:
n kinds of m = C/n cards each (colors n = 2, suits 4, ranks 13). The first value and the first query are
seen at reset. At every step the agent answers, then the next pair is dealt and seen. The episode terminates when the
last pair is dealt: C - 1 steps.
Observation: (value, query), MultiDiscrete([n, n]). Action: a count, Discrete(m + 1).
Reward: 1/(C-1) if the action is the number of values dealt so far that are of the kind now queried, the value in sight
included, else -1/(C-1).

Quirks of popgym: its `error_clamp` is never used, and is left out here; its info holds the counts, ours is empty. Until
2026 (and in the paper) its action space was Discrete(m), so an agent could not answer the full count m:
`paper_actions=True`. Perfect play then scores 1 - 2(C-m)/((m+1)(C-1)): Easy 0.962, Medium 0.944, Hard 0.891.

Returns: perfect 1; random 2/(m+1) - 1. The floor policy counts only steps: the likeliest count given the step number
and the two kinds in sight (exact, from hypergeometric laws); without those two -0.443 (Easy), -0.509, -0.422; one fixed
answer -0.923, -0.924, -0.881.

Source: popgym 1.0.7, CountRecall (Morad et al. 2023, arXiv:2303.01859), step for step.
"""

from typing import Unpack

import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs import cards
from rlmin.envs.board import Board, Cell
from rlmin.envs.draws import key
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Game, Outcome, Shared, TensorEnv, Variant

KINDS = {
    "colors": (cards.COLOURS, cards.colour, "br"),
    "suits": (cards.SUITS, cards.suit, cards.SUIT_NAMES),
    "ranks": (cards.RANKS, cards.rank, cards.RANK_NAMES),
}
"""deck_type -> how many kinds, which kind a card is, their names."""

VARIANTS = {
    f"CountRecall{name}-v0": Variant(
        options={"decks": decks, "deck_type": deck_type},
        length=52 * decks - 1,
        random=2 / (52 * decks // KINDS[deck_type][0] + 1) - 1,
        floor=floor,
        floor_policy="no counting: the likeliest count given the step number and the cards in sight",
        ceiling=1.0,
        ceiling_policy="every kind, counted",
    )
    for name, decks, deck_type, floor in (
        ("Easy", 1, "colors", -0.4054),
        ("Medium", 2, "suits", -0.4920),
        ("Hard", 4, "ranks", -0.4144),
    )
}


class CountRecall(TensorEnv):
    """B games; see the module for the rules.

    Args:
        num_envs: B.
        decks: number of decks in a pile, at least 1.
        deck_type: "colors", "suits" or "ranks": what is counted.
        paper_actions: Discrete(m) as in the paper instead of Discrete(m + 1).
        shared: device and render_mode, see `Shared`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        decks: int = 1,
        deck_type: str = "colors",
        paper_actions: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        if decks < 1:
            raise ValueError(f"decks={decks}: expected at least 1")
        if deck_type not in KINDS:
            raise ValueError(f"deck_type={deck_type!r}: expected one of {', '.join(map(repr, KINDS))}")
        self.decks, self.cards, self.deck_type = decks, 52 * decks, deck_type
        kinds, self._kind, self._names = KINDS[deck_type]
        self.most = self.cards // kinds
        super().__init__(
            num_envs,
            spaces.MultiDiscrete([kinds, kinds]),
            spaces.Discrete(self.most if paper_actions else self.most + 1),
            **shared,
        )
        self._kinds = torch.arange(kinds, device=self.device)

    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """value, query [B, C] uint8: kinds in the order in which they are dealt; t [B] int64: the pair in sight.

        count [B, n] int16: values dealt so far of each kind; said [B] int16: the last action, -1 before the first one,
        only pictures read it.
        """
        own = key(seed, episode)
        value = self._kind(cards.shuffle(own, self.decks))
        query = self._kind(cards.shuffle(own, self.decks, first=self.cards))
        count = (value[:, :1] == self._kinds).to(torch.int16)
        said = torch.full_like(seed, -1, dtype=torch.int16)
        return {"value": value, "query": query, "count": count, "t": torch.zeros_like(seed), "said": said}

    def advance(self, game: Game, action: Tensor) -> Outcome:
        share, t = 1 / (self.cards - 1), game["t"] + 1
        right = action == cards.at(game["count"], cards.at(game["query"], game["t"]))
        count = game["count"] + (cards.at(game["value"], t).unsqueeze(1) == self._kinds)
        changes = {"t": t, "count": count, "said": action.to(torch.int16)}
        return Outcome(changes, torch.where(right, share, -share), terminated=t == self.cards - 1)

    def observe(self, game: Game) -> Tensor:
        t = game["t"]
        return torch.stack((cards.at(game["value"], t), cards.at(game["query"], t)), dim=1)

    def board(self, game: Game) -> Board:
        t, said, names = int(game["t"]), int(game["said"]), self._names
        value, query, count = (game[name].tolist() for name in ("value", "query", "count"))
        kinds = [Cell(name, "cue" if i == value[t] else "empty") for i, name in enumerate(names)]
        counts = [Cell(str(number), "goal" if i == query[t] else "hidden") for i, number in enumerate(count)]
        lines = [
            f"pair {t + 1} of {self.cards}: dealt {names[value[t]]} (yellow), how many {names[query[t]]} (green)?",
            "below the kinds: how many so far (hidden)",
        ]
        if said >= 0:
            asked = query[t - 1]
            answer = value[:t].count(asked)
            lines.append(f"said {said} for {names[asked]}: {'right' if said == answer else f'wrong, it was {answer}'}")
        return Board([kinds, counts], "\n".join(lines))


class CountRecallEnv(Single):
    """One game, see the module."""

    game = CountRecall
