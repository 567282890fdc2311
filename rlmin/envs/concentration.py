"""Concentration: turn cards two at a time and find the pairs.

Rules. `decks` decks are shuffled and laid face down at C = 52 decks places; cards match by `deck_type`, colors (v = 2
kinds) or ranks (v = 13). An action turns the card at a place, Discrete(C).
Observation: at every place the kind of the card if it lies open, else v: MultiDiscrete([v + 1] * C). It shows the table
right after the turn, before cards are turned back: both cards after the second turn of a try, only the new one after
the next turn. Matched cards stay open.
Reward, with f = -1/(2C) and a hand of one or two cards, the one just turned included:

    the card just turned had been matched before   f for each card in hand; the hand goes back
    the first of a try                             0; it waits for the second
    the second, of equal kind, at another place    2/C, the pair stays open
    the second, otherwise                          2f; both go back

The episode terminates when all pairs are found, and is truncated after 2C steps.

Quirks of popgym: a matched card turned first counts as a whole try, at half the price; turning the same card twice is a
failed try; the length is written ceil(2C - C/(2C-1)), which is 2C; if the last pair is found at step 2C, the episode is
both terminated and truncated.

Returns: perfect memory, played greedily (turn a card whose partner is known, else a new one), scores 0.814 (Easy),
0.813 (Medium), 0.698 (Hard). Turning cards that are not open, at random, needs no memory and scores 0.451, 0.468,
-0.821: with two colours half of all tries match by luck. Only Hard separates agents with memory from agents without;
compared with random play (-0.191, -0.185, -0.834), the other two mostly measure whether the agent sees which cards lie
open.

Source: popgym 1.0.7, Concentration (Morad et al. 2023, arXiv:2303.01859), step for step.
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

KINDS = {"colors": (cards.COLOURS, cards.colour, "br"), "ranks": (cards.RANKS, cards.rank, cards.RANK_NAMES)}
"""deck_type -> how many kinds, which kind a card is, their names. popgym has no suits: 13 of each do not pair."""

COLUMNS = 13  # of the picture

VARIANTS = {
    f"Concentration{name}-v0": Variant(
        options={"decks": decks, "deck_type": deck_type},
        length=104 * decks,
        random=random,
        floor=floor,
        floor_policy="no memory: a card that is not open, at random",
        ceiling=ceiling,
        ceiling_policy="perfect memory, greedily",
    )
    for name, decks, deck_type, random, floor, ceiling in (
        ("Easy", 1, "colors", -0.191, 0.451, 0.814),
        ("Medium", 2, "colors", -0.185, 0.468, 0.813),
        ("Hard", 1, "ranks", -0.834, -0.821, 0.698),
    )
}


class Concentration(TensorEnv):
    """B games; see the module for the rules.

    Args:
        num_envs: B.
        decks: number of decks on the table, at least 1.
        deck_type: "colors" or "ranks": which cards make a pair.
        shared: device and render_mode, see `Shared`.
    """

    def __init__(
        self, num_envs: int = 1, *, decks: int = 1, deck_type: str = "ranks", **shared: Unpack[Shared]
    ) -> None:
        if decks < 1:
            raise ValueError(f"decks={decks}: expected at least 1")
        if deck_type not in KINDS:
            raise ValueError(f"deck_type={deck_type!r}: expected one of {', '.join(map(repr, KINDS))}")
        self.decks, self.cards = decks, 52 * decks
        self.face_down, self._kind, self._names = KINDS[deck_type]
        seen = spaces.MultiDiscrete([self.face_down + 1] * self.cards)
        super().__init__(num_envs, seen, spaces.Discrete(self.cards), **shared)

    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """kind [B, C] uint8: of the card at each place; open [B, C] uint8: the same where matched, else v.

        sight [B, 2] int64: the places turned last, -1 at the start and twice the same after a first card; waiting [B]
        bool: sight is the first card of a try; pairs, t [B] int64: pairs found and steps taken.
        """
        kind = self._kind(cards.shuffle(key(seed, episode), self.decks))
        nothing = torch.zeros_like(seed)
        return {
            "kind": kind,
            "open": torch.full_like(kind, self.face_down),
            "sight": torch.full((len(seed), 2), -1, device=seed.device),
            "waiting": torch.zeros_like(seed, dtype=torch.bool),
            "pairs": nothing,
            "t": nothing,
        }

    def advance(self, game: Game, action: Tensor) -> Outcome:
        kind, waiting, t = game["kind"], game["waiting"], game["t"] + 1
        hand = torch.stack((torch.where(waiting, game["sight"][:, 1], action), action), dim=1)
        turned, before = kind.gather(1, hand), game["open"].gather(1, hand)
        again = before[:, 1] != self.face_down  # the first of a hand that waits is never a matched card
        distinct = hand[:, 0] != hand[:, 1]
        match = waiting & ~again & distinct & (turned[:, 0] == turned[:, 1])
        failure = -1 / (2 * self.cards)
        lost = torch.where(again | waiting, failure + failure * waiting, 0.0)
        changes = {
            "open": game["open"].scatter(1, hand, torch.where(match.unsqueeze(1), turned, before)),
            "sight": hand,
            "waiting": ~(waiting | again),
            "pairs": game["pairs"] + match,
            "t": t,
        }
        reward = torch.where(match, 2 / self.cards, lost)
        return Outcome(changes, reward, terminated=self.success(game | changes), truncated=t >= 2 * self.cards)

    def observe(self, game: Game) -> Tensor:
        place = game["sight"].clamp(min=0)
        shown = torch.where(game["sight"] < 0, game["open"].gather(1, place), game["kind"].gather(1, place))
        return game["open"].scatter(1, place, shown)

    def success(self, game: Game) -> Tensor:
        return game["pairs"] == self.cards // 2

    def board(self, game: Game) -> Board:
        sight, matched = set(game["sight"].tolist()), (game["open"] != self.face_down).tolist()
        row = [
            Cell(self._names[kind], "cue" if i in sight else "goal" if matched[i] else "hidden")
            for i, kind in enumerate(game["kind"].tolist())
        ]
        lines = [
            f"step {int(game['t'])} of {2 * self.cards}, {int(game['pairs'])} of {self.cards // 2} pairs",
            f"in sight (yellow): {'the first of a try' if bool(game['waiting']) else 'a try is over'}",
            "green: matched, grey: closed",
        ]
        return Board([row[i : i + COLUMNS] for i in range(0, len(row), COLUMNS)], "\n".join(lines))


class ConcentrationEnv(Single):
    """One game, see the module."""

    game = Concentration
