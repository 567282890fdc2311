"""Decks of cards, numbered as popgym numbers them.

    card    0 .. 52 decks - 1
    suit    card % 4             0 spades, 1 diamonds, 2 clubs, 3 hearts
    colour  card % 2
    rank    (card % 52) // 4     0 the ace .. 12 the king

A shuffled deck is a row of cards in the order in which they are dealt. (popgym deals from the end of its list: our
deck is its list reversed.)
"""

import torch
from torch import Tensor

from rlmin.envs.draws import permutation

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
