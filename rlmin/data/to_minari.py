"""Any source as a Minari dataset, in the environment's own form and without loss; text is left out."""

import time
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlmin.data.convert import Converter, as_choices
from rlmin.data.recorder import Recorded, make_stored_space, nest
from rlmin.data.source import Block, Source
from rlmin.data.writer import DatasetWriter
from rlmin.runs.progress import Progress
from rlmin.spaces import leaves_of


def check_source(source: Source, *, progress: bool = False) -> np.ndarray:
    """Read everything once, and check every value.

    Returns:
        [E] float64 returns of the episodes.

    Raises:
        ValueError: a value is not finite, not in its space or of the wrong type.
    """
    converter, returns = Converter(source), list[np.ndarray]()
    for block in _watch(source, "checked  ", progress):
        converter.columns(block)
        first = np.cumsum(block.length) - block.length
        returns.append(np.add.reduceat(block.reward.reshape(-1).astype(np.float64), first))
    converter.finish()
    return np.concatenate(returns)


def write_source(source: Source, writer: DatasetWriter, *, progress: bool = False) -> None:
    """Add every episode of a source that has been checked."""
    space, paths = space_to_store(source), {leaf.name: leaf.path for leaf in leaves_of(source.observation_space)}
    number = 0
    for block in _watch(source, "written  ", progress):
        for e, end in enumerate(np.cumsum(block.length)):
            a, b = int(end - block.length[e]), int(end)
            seen = {
                path: np.concatenate([block.observation[name][a:b], block.final[name][e : e + 1]])
                for name, path in paths.items()
            }
            episode = Recorded(
                row=0,
                turn=number,
                observations=nest(space, seen, ()),
                actions=_actions(block.action[a:b], source.action_space),
                rewards=block.reward[a:b].reshape(-1).astype(np.float64),
                terminated=bool(block.terminated[e]),
            )
            writer.add(episode, seed=None, about={"source": source.name, "episode": number})
            number += 1


def space_to_store(source: Source) -> gym.Space[Any]:
    """The observation space of the dataset: that of the source, without text.

    Raises:
        ValueError: a part cannot be stored.
    """
    return make_stored_space(_without_text(source.observation_space))


def _without_text(space: gym.Space[Any]) -> gym.Space[Any]:
    if isinstance(space, spaces.Dict):
        kept = {name: part for name, part in space.spaces.items() if not _is_text(part)}
        return spaces.Dict([(name, _without_text(part)) for name, part in kept.items()])
    return space


def _is_text(space: gym.Space[Any]) -> bool:
    return isinstance(space, spaces.Text) or (space.dtype is not None and space.dtype.kind == "U")


def _actions(value: np.ndarray, space: gym.Space[Any]) -> np.ndarray:
    """[L, ...] in the type of the space."""
    value = value if isinstance(space, spaces.Box) else as_choices(value, tuple(space.shape or ()))
    return value.astype(space.dtype, copy=False)


def _watch(source: Source, what: str, progress: bool) -> Iterator[Block]:
    """The blocks, with a progress bar in steps."""
    done, began = 0, time.perf_counter()
    with Progress(source.num_steps, enabled=progress) as shown:
        for block in source.blocks():
            yield block
            done += len(block.reward)
            shown.update(done, done / max(time.perf_counter() - began, 1e-9), what)
