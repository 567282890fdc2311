"""Heads: equal parts of a layer, and the options of cells that have no others."""

from dataclasses import dataclass
from typing import Annotated

from rlmin.encoders.base import check_counts
from rlmin.settings import Range, Settings

Heads = Annotated[int, Range(least=1, most=1024)]


@dataclass(frozen=True, kw_only=True)
class HeadOptions(Settings):
    """Options of a cell whose only choice is its number of heads."""

    heads: Heads = 4  # Number of heads


def size_of_head(hidden_size: int, heads: int) -> int:
    """Features of each head: hidden_size / heads, rounded up, so that any number of heads fits.

    Raises:
        ValueError: fewer than one head.
    """
    check_counts(heads=heads)
    return -(-hidden_size // heads)
