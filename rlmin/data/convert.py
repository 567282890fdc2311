"""Raw blocks to tensors: every value is checked, and errors name the episode and the step."""

import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rlmin.checks import warn_user
from rlmin.data.precision import find_loss
from rlmin.data.source import Block, Source
from rlmin.policy.heads import ActionHead, action_head, choice_sizes
from rlmin.spaces import Leaf, leaf_tensor, leaves_of

OVERSTEP = 1e-5
"""Share of a Box's width by which an action may exceed it without a warning: float32 rounding."""

REMEDY = "; leave the episode out or repair it before loading"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The tensors of one block of e episodes and n steps."""

    observation: dict[str, Tensor]  # leaf name -> [n, *shape]
    final: dict[str, Tensor]  # leaf name -> [e, *shape]
    action: Tensor  # [n, *event_shape]
    reward: Tensor  # [n] float32


class Converter:
    """Turns the blocks of a source, in order, into the columns of a Dataset."""

    def __init__(self, source: Source) -> None:
        """Args: source: the source of the blocks; a ValueError if its spaces are not supported."""
        self.source = source
        self.episode = 0  # number of the next block's first episode
        self.outside = 0  # actions beyond the bounds of their Box
        self.worst = ""
        self.lost: dict[str, tuple[int, int]] = {}  # column -> distinct values, and those that float32 leaves of them
        try:
            self.leaves = leaves_of(source.observation_space)
            self.head = _head(source.action_space)
        except ValueError as error:
            raise ValueError(f"dataset {source.name!r}: {error}") from error

    def columns(self, block: Block) -> Columns:
        """The tensors of the next block.

        Raises:
            ValueError: a value is not finite, not in its space or of the wrong type.
        """
        ends = np.cumsum(block.length)
        observation = {leaf.name: self._leaf(leaf, block.observation[leaf.name], ends) for leaf in self.leaves}
        final = {leaf.name: self._leaf(leaf, block.final[leaf.name], None, block.length) for leaf in self.leaves}
        action, reward = self._action(block.action, ends), self._reward(block.reward, ends)
        self.episode += len(block.length)
        return Columns(observation=observation, final=final, action=action, reward=reward)

    def finish(self) -> None:
        """Warn once of actions outside their Box in any block."""
        if self.outside:
            warnings.warn(
                f"dataset {self.source.name!r}: {self.outside} actions lie outside {self.source.action_space}, "
                f"the first is {self.worst}; they are kept, and the agent's own are clipped",
                stacklevel=5,
            )
        for column, (before, after) in self.lost.items():
            hint = f"float32 makes {after:,} of {before:,} different values; subtract a common part, or scale them"
            warn_user(f"dataset {self.source.name!r}: {column}: {hint}")

    def _note_loss(self, what: str, value: np.ndarray) -> None:
        found = find_loss(value) if what not in self.lost else None
        if found is not None:
            entry, before, after = found
            self.lost[what if value.ndim == 1 else f"{what}, entry {entry}"] = before, after

    def _leaf(self, leaf: Leaf, value: np.ndarray, ends: np.ndarray | None, length: np.ndarray | None = None) -> Tensor:
        what = f"observation {leaf.name!r}"
        if leaf.bounds is not None and value.dtype.kind in "biu":
            inside = (value >= leaf.bounds[0]) & (value <= leaf.bounds[1])
            self._require(inside, value, what, f"a value of {leaf.space}", ends, length)
        try:
            with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, which is reported below
                tensor = leaf_tensor(value, leaf, len(value), copy=False)
        except ValueError as error:
            raise ValueError(f"dataset {self.source.name!r}: {error}") from error
        if tensor.is_floating_point():
            self._require(torch.isfinite(tensor).numpy(), value, what, "a finite float32", ends, length)
            self._note_loss(what, value)
        return tensor

    def _action(self, value: np.ndarray, ends: np.ndarray) -> Tensor:
        space = self.source.action_space
        shape = tuple(space.shape or ())
        box = isinstance(space, gym.spaces.Box)
        value = value if box else as_choices(value, shape)
        if value.shape[1:] != shape or value.dtype.kind not in ("fiu" if box else "biu"):
            found = f"{list(value.shape[1:])} {value.dtype}"
            raise ValueError(f"dataset {self.source.name!r}: action: expected {list(shape)} of {space}, got {found}")
        if isinstance(space, gym.spaces.Box):
            given = value
            with np.errstate(over="ignore"):
                value = np.array(value, dtype=np.float32)
            self._require(np.isfinite(value), value, "action", "a finite float32", ends)
            self._note_loss("action", given)
            self._note_outside(value, space, ends)
        else:
            flat = value.reshape(len(value), -1).astype(np.int64)
            first = np.ravel(getattr(space, "start", 0))
            inside = (flat >= first) & (flat < first + choice_sizes(space))
            self._require(inside, flat, "action", f"a value of {space}", ends)
            value = flat.reshape(value.shape)
        return self.head.from_env(torch.from_numpy(value))

    def _note_outside(self, value: np.ndarray, space: gym.spaces.Box, ends: np.ndarray) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # of unbounded sides
            width = space.high.astype(np.float64) - space.low
            slack = np.where(np.isfinite(width), OVERSTEP * width, 0.0)
        outside = ((value < space.low - slack) | (value > space.high + slack)).reshape(len(value), -1).any(1)
        if outside.any() and not self.outside:
            row = int(outside.argmax())
            self.worst = f"{value[row].tolist()} in {self._place(row, ends).partition(': ')[2]}"
        self.outside += int(outside.sum())

    def _reward(self, value: np.ndarray, ends: np.ndarray) -> Tensor:
        with np.errstate(over="ignore"):
            reward = np.array(value, dtype=np.float32)
        self._require(np.isfinite(reward), value, "reward", "a finite float32", ends)
        self._note_loss("reward", value)
        return torch.from_numpy(reward)

    def _require(
        self,
        good: np.ndarray,
        value: np.ndarray,
        what: str,
        expected: str,
        ends: np.ndarray | None,
        length: np.ndarray | None = None,
    ) -> None:
        if good.all():
            return
        row, *entry = (int(i) for i in np.argwhere(~good)[0])
        found = value[(row, *entry)]
        at = f", entry {entry[0] if len(entry) == 1 else entry}" if entry else ""
        raise ValueError(f"{self._place(row, ends, length)}: {what}{at}: expected {expected}, got {found}{REMEDY}")

    def _place(self, row: int, ends: np.ndarray | None, length: np.ndarray | None = None) -> str:
        """The place of row `row` of the block; rows of final observations need `length` instead of `ends`."""
        if ends is None:
            assert length is not None, "one of both"
            episode, step = row, int(length[row])
        else:
            episode = int(np.searchsorted(ends, row, side="right"))
            step = row - (int(ends[episode - 1]) if episode else 0)
        return f"dataset {self.source.name!r}: episode {self.episode + episode}, step {step}"


def _head(space: gym.Space[Any]) -> ActionHead:
    with torch.random.fork_rng(devices=[]):  # its weights are not used, and loading data must not change random numbers
        return action_head(space, 1)


def as_choices(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Choices that were written as floats, or with an axis of one too many, as whole numbers [n, *shape]."""
    if value.shape[1:] == (*shape, 1):
        value = value.reshape(len(value), *shape)
    if value.dtype.kind == "f" and bool((value == np.round(value)).all()) and bool((np.abs(value) < 2**53).all()):
        return value.astype(np.int64)
    return value
