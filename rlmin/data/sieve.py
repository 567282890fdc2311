"""Leaving out bad episodes: each is tried alone, and a report says which are left out and why."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from rlmin.checks import warn_user
from rlmin.data.convert import Converter
from rlmin.data.skipped import Skipped
from rlmin.data.source import Block, Source


def sieve(source: Source, skipped: Skipped) -> Source:
    """The source without its bad episodes, which are found by reading it once.

    Args:
        source: its reader may leave out episodes, which it then adds to `skipped`.
        skipped: gets the rest of them.

    Raises:
        ValueError: no episode is left.

    Warns:
        UserWarning: the report, where an episode is left out.
    """
    steps = episodes = 0
    converter = Converter(source)
    for number, one in _number(source.blocks(), skipped):
        converter.episode = number
        try:
            converter.columns(one)
        except ValueError as error:
            skipped.add(number, error)
            continue
        steps, episodes = steps + int(one.length[0]), episodes + 1
    if not skipped.reasons:
        return source
    report = skipped.describe(episodes + len(skipped.reasons))
    if not episodes:
        raise ValueError(f"dataset {source.name!r}: no episode is good; {report}")
    warn_user(f"dataset {source.name!r}: {report}")

    def blocks() -> Iterator[Block]:
        return (one for number, one in _number(source.blocks(), skipped) if number not in skipped.reasons)

    return replace(
        source,
        num_steps=steps,
        num_episodes=episodes,
        blocks=blocks,
        fingerprint=lambda: f"{source.fingerprint()} without {sorted(skipped.reasons)}",
        recipe={**source.recipe, "skipped": report},
    )


def _number(blocks: Iterator[Block], skipped: Skipped) -> Iterator[tuple[int, Block]]:
    """Single episodes, with their numbers in the source."""
    number = 0
    for block in blocks:
        for one in _split(block):
            while number in skipped.unread:
                number += 1
            yield number, one
            number += 1


def _split(block: Block) -> Iterator[Block]:
    """A block an episode."""
    ends = np.cumsum(block.length)
    for e, end in enumerate(ends):
        rows, only = slice(int(end - block.length[e]), int(end)), slice(e, e + 1)
        yield Block(
            observation={name: x[rows] for name, x in block.observation.items()},
            final={name: x[only] for name, x in block.final.items()},
            action=block.action[rows],
            reward=block.reward[rows],
            length=block.length[only],
            terminated=block.terminated[only],
        )
