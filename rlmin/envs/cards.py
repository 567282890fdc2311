"""Decks of cards, numbered as popgym numbers them.

    card    0 .. 52 decks - 1
    suit    card % 4             0 spades, 1 diamonds, 2 clubs, 3 hearts
    colour  card % 2
    rank    (card % 52) // 4     0 the ace .. 12 the king

A shuffled deck is a row of cards in the order in which they are dealt. (popgym deals from the end of its list: our
deck is its list reversed.)
"""

from typing import Any, Unpack

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs.draws import key, permutation
from rlmin.envs.tensor_env import Game, Shared, TensorEnv

SUITS, COLOURS, RANKS = 4, 2, 13
SUIT_NAMES, RANK_NAMES = "SDCH", "A23456789TJQK"  # letters, as the font of the pictures has no suits


def shuffle(key: Tensor, decks: int, first: int = 0) -> Tensor:
    """[B] keys -> [B, 52 decks] int64 cards in the order in which they are dealt; draws first..first + 52 decks - 1."""
    return permutation(key, first, 52 * decks)


def suit(card: Tensor) -> Tensor:
    """int64 cards -> uint8 in 0..3."""
    return (card % 4).to(torch.uint8)


def colour(card: Tensor) -> Tensor:
    """int64 cards -> uint8 in 0..1."""
    return (card % 2).to(torch.uint8)


def rank(card: Tensor) -> Tensor:
    """int64 cards -> uint8 in 0..12."""
    return (card % 52 // 4).to(torch.uint8)


def at(deck: Tensor, t: Tensor) -> Tensor:
    """deck[b, t[b]] of every row b: [B, C] and [B] int64 -> [B] int64."""
    return deck.gather(1, t.unsqueeze(1)).squeeze(1).long()


class CardGame(TensorEnv):
    """B games with a pile of shuffled decks that is dealt from its first card on."""

    def __init__(
        self, num_envs: int, seen: gym.Space[Any], answers: int, *, decks: int, **shared: Unpack[Shared]
    ) -> None:
        """Keep the sizes.

        Args:
            num_envs: B.
            seen: observation space of one game.
            answers: number of actions.
            decks: number of decks in the pile, at least 1.
            shared: device and render_mode, see `Shared`.
        """
        if decks < 1:
            raise ValueError(f"decks={decks}: expected at least 1")
        super().__init__(num_envs, seen, spaces.Discrete(answers), **shared)
        self.decks, self.cards, self.answers = decks, 52 * decks, answers

    def face(self, card: Tensor) -> Tensor:
        """What counts of int64 cards, uint8: their suits, unless a game overrides it."""
        return suit(card)

    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """deck [B, C] uint8: faces in the order in which they are dealt; t [B] int64: number of steps taken.

        said [B] uint8: the last action, `answers` before the first one; only pictures read it.
        """
        deck = self.face(shuffle(key(seed, episode), self.decks))
        said = torch.full_like(seed, self.answers, dtype=torch.uint8)
        return {"deck": deck, "t": torch.zeros_like(seed), "said": said}

    def observe(self, game: Game) -> Any:
        """The face of the card in sight."""
        return at(game["deck"], game["t"])
