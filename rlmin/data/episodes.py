"""Episodes in memory or from an iterator as a source of blocks."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rlmin.data.dataset import Episode
from rlmin.data.skipped import Skipped
from rlmin.data.source import BLOCK_BYTES, Block, Source
from rlmin.data.space_of import space_of
from rlmin.spaces import Leaf, leaves_of, require_leaf


def open_episodes(
    episodes: Sequence[Episode],
    *,
    name: str,
    observation_space: gym.Space[Any] | None = None,
    action_space: gym.Space[Any] | None = None,
    skipped: Skipped | None = None,
) -> Source:
    """Episodes that are in memory.

    Args:
        episodes: at least one.
        name: for errors.
        observation_space, action_space: of a single environment; None: derived from the values, see `space_of`.
        skipped: gets bad episodes, which are left out; None: they are errors.

    Raises:
        ValueError: there is no episode, or one has no step or parts of different lengths.
    """
    wrong = {e: type(x).__name__ for e, x in enumerate(episodes) if not isinstance(x, Episode)}
    for e, kind in wrong.items():
        raise TypeError(f"dataset {name!r}: episode {e}: expected a rlmin.data.Episode, got {kind}")
    where = f"dataset {name!r}"
    if skipped is not None:
        _skip_unlike(episodes, where, skipped)
    good = [episode for e, episode in enumerate(episodes) if skipped is None or e not in skipped.reasons]
    if not good:
        found = "none" if skipped is None or not skipped.reasons else f"none: {skipped.describe(len(episodes))}"
        raise ValueError(f"{where}: expected at least one episode, got {found}")
    lengths = [_length(episode, f"{where}: episode {e}") for e, episode in enumerate(good)]
    seen = observation_space or space_of([x.observations for x in good], where=f"{where}: observations")
    taken = action_space or space_of([x.actions for x in good], where=f"{where}: actions", action=True)

    def blocks() -> Iterator[Block]:
        return blocks_of(episodes, seen, taken, name=name, skipped=skipped)

    return Source(
        name=name,
        observation_space=seen,
        action_space=taken,
        num_steps=sum(lengths),
        num_episodes=len(good),
        blocks=blocks,
        fingerprint=lambda: _digest(blocks()),
    )


def _skip_unlike(episodes: Sequence[Episode], where: str, skipped: Skipped) -> None:
    """Leave out episodes without a step, and those whose arrays have other shapes than most."""
    shapes = dict[int, str]()
    for e, episode in enumerate(episodes):
        try:
            _length(episode, f"{where}: episode {e}")
            shapes[e] = f"{_shapes(episode.observations)}, actions {_shapes(episode.actions)}"
        except ValueError as error:
            skipped.add(e, error, unread=True)
    usual = Counter(shapes.values()).most_common(1)
    for e, shape in shapes.items():
        if shape != usual[0][0]:
            skipped.add(
                e, ValueError(f"episode {e}: observations {shape} a step, most have {usual[0][0]}"), unread=True
            )


def _shapes(x: Any) -> str:
    """The shapes of arrays a step, nested like them."""
    if isinstance(x, Mapping):
        return f"({', '.join(f'{key}: {_shapes(part)}' for key, part in x.items())})"
    if isinstance(x, tuple):
        return f"({', '.join(map(_shapes, x))})"
    return str(list(_array(x, "array").shape[1:]))


def blocks_of(
    episodes: Iterable[Episode],
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    *,
    name: str,
    skipped: Skipped | None = None,
) -> Iterator[Block]:
    """Blocks of some megabytes from single episodes; bad ones are left out where there is a list for them.

    Raises:
        ValueError: an episode has no step, lacks a leaf of the space, or has parts of other lengths or shapes.
    """
    try:
        leaves = leaves_of(observation_space)
    except ValueError as error:
        raise ValueError(f"dataset {name!r}: {error}") from error
    held: list[_Parts] = []
    size = 0
    for e, episode in enumerate(episodes):
        if skipped is not None and e in skipped.unread:
            continue
        try:
            held.append(_Parts(episode, leaves, action_space.shape, f"dataset {name!r}: episode {e}"))
        except ValueError as error:
            if skipped is None:
                raise
            skipped.add(e, error, unread=True)
            continue
        size += held[-1].nbytes
        if size >= BLOCK_BYTES:
            yield _join(held, leaves)
            held, size = [], 0
    if held:
        yield _join(held, leaves)


class _Parts:
    """The arrays of one episode, checked against each other."""

    def __init__(
        self, episode: Episode, leaves: tuple[Leaf, ...], action_shape: tuple[int, ...] | None, where: str
    ) -> None:
        L = _length(episode, where)
        self.observation = {leaf.name: _observations(episode, leaf, L, where) for leaf in leaves}
        self.action = _without_axis(_array(episode.actions, f"{where}: actions"), action_shape)
        self.reward = _without_axis(_array(episode.rewards, f"{where}: rewards"), ())
        for what, x, shape in (("actions", self.action, action_shape), ("rewards", self.reward, ())):
            if x.shape[1:] != shape:
                raise ValueError(f"{where}: {what}: expected {shape} a step, got {x.shape[1:]}")
        self.length, self.terminated = L, bool(episode.terminated)
        self.nbytes = self.action.nbytes + sum(x.nbytes for x in self.observation.values())


def _without_axis(x: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """`x` [L, *shape], of which an axis of one too many is taken away."""
    return x[..., 0] if shape is not None and x.shape[1:] == (*shape, 1) else x


def _join(held: list[_Parts], leaves: tuple[Leaf, ...]) -> Block:
    return Block(
        observation={x.name: np.concatenate([part.observation[x.name][:-1] for part in held]) for x in leaves},
        final={x.name: np.stack([part.observation[x.name][-1] for part in held]) for x in leaves},
        action=np.concatenate([part.action for part in held]),
        reward=np.concatenate([part.reward for part in held]),
        length=np.array([part.length for part in held]),
        terminated=np.array([part.terminated for part in held]),
    )


def _length(episode: Episode, where: str) -> int:
    """L, checked to be the same for actions and rewards."""
    found = {part: _size(getattr(episode, part), f"{where}: {part}") for part in ("actions", "rewards")}
    L = found["actions"]
    if found["rewards"] != L:
        raise ValueError(f"{where}: expected as many rewards as actions, {L}, got {found['rewards']}")
    if L == 0:
        raise ValueError(f"{where}: has no step; leave it out")
    return L


def _observations(episode: Episode, leaf: Leaf, L: int, where: str) -> np.ndarray:
    value = _array(require_leaf(episode.observations, leaf, f" in {where}"), f"{where}: observation {leaf.name!r}")
    if len(value) != L + 1:
        hint = "; the state after the last action is missing" if len(value) == L else ""
        raise ValueError(
            f"{where}: observation {leaf.name!r}: expected {L + 1} for {L} actions, got {len(value)}{hint}"
        )
    if value.shape[1:] != leaf.shape:
        raise ValueError(f"{where}: observation {leaf.name!r}: expected {leaf.shape}, got {value.shape[1:]} a step")
    return value


def _size(value: Any, where: str) -> int:
    try:
        return len(value)
    except TypeError:
        raise ValueError(f"{where}: expected one for each step, got {type(value).__name__}") from None


def _array(value: Any, where: str) -> np.ndarray:
    if isinstance(value, dict | tuple):
        raise ValueError(f"{where}: expected an array, got a {type(value).__name__}")
    try:
        array = np.asarray(value)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{where}: expected an array, got lists of different lengths") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{where}: expected numbers, got {array.dtype}")
    if not array.ndim:
        raise ValueError(f"{where}: expected one for each step, got a number")
    return array


def _digest(blocks: Iterator[Block]) -> str:
    hasher = hashlib.sha256()
    for block in blocks:
        columns = {**block.observation, **{f"final {name}": x for name, x in block.final.items()}}
        rest = {"action": block.action, "reward": block.reward, "length": block.length, "ends": block.terminated}
        for name, x in (columns | rest).items():
            hasher.update(f"{name} {x.dtype} {x.shape}".encode())
            hasher.update(np.ascontiguousarray(x).view(np.uint8).data)
    return hasher.hexdigest()
