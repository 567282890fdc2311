"""Packing: episodes of different lengths as batches [T, B], without padding (rows) or as short windows.

    PackedRows   B endless streams of whole episodes, end to end; a batch is the next T steps of each stream
    Windows      K steps from anywhere, each read with a fresh memory

Both say by `start` where the memory is wiped. A row goes on where the batch before left off, so a memory that is
carried from batch to batch has seen every episode from its beginning, however long it is.

Everything random is drawn from (seed, counter), and a counter is all that has to be kept to go on exactly.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from tensordict import TensorDict

    from rlmin.data.dataset import Dataset


class Packing(ABC):
    """Batches of a dataset, without end.

    Args:
        dataset: the episodes; may be memory-mapped, it is read by rows.
        rows: B.
        seed: of the order.
        episodes: indices of those to use; None: all.
        return_scale: env units of return that are shown as 1.

    Raises:
        ValueError: a size below 1, or no episode.
    """

    carries: ClassVar[bool]
    """Whether a batch goes on where the one before ended, so that memory is to be carried."""

    def __init__(
        self,
        dataset: "Dataset",
        *,
        rows: int,
        seed: int = 0,
        episodes: Sequence[int] | Tensor | None = None,
        return_scale: float = 1.0,
    ) -> None:
        chosen = np.arange(dataset.num_episodes) if episodes is None else np.asarray(episodes, dtype=np.int64)
        if rows < 1:
            raise ValueError(f"rows={rows}: expected at least 1")
        if not len(chosen):
            raise ValueError(f"dataset {dataset.name!r}: no episode is selected")
        self.dataset, self.rows, self.seed = dataset, rows, seed
        self.first = dataset.first.numpy()[chosen]
        self.length = dataset.lengths.numpy()[chosen]
        self.num_steps = int(self.length.sum())
        self.return_to_go = dataset.return_to_go() / return_scale

    @abstractmethod
    def draw(self) -> "TensorDict":
        """The next batch.

        Returns:
            [T, B]: "observation" (leaves), "action", "previous_action", "previous_reward" (of the step before in the
            same episode; any number where `start`), "return_to_go" [T, B, 1] float32 in units of the scale, "start"
            bool, and, where something is padded, "weight" float32, 0 for padding.
        """

    def chunks(self, size: int) -> Iterator[Tensor]:
        """Every step used, once, in order: index tensors of at most `size` steps."""
        before = self.length.cumsum() - self.length
        index = np.repeat(self.first - before, self.length) + np.arange(self.num_steps)
        yield from (torch.from_numpy(part) for part in np.split(index, range(size, len(index), size)))

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Where the order stands, as small tensors."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()` of a packing of the same dataset, sizes and seed."""

    def _random(self, counter: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, counter))

    def _gather(self, index: np.ndarray, start: np.ndarray) -> "TensorDict":
        """The batch of the steps `index` [T, B], which follow each other in time except where `start`."""
        where = torch.from_numpy(index)
        before = (where[:1] - 1).clamp(min=0)
        step, previous = self.dataset.step[where], self.dataset.step.select("action", "reward")[before]
        batch = step.exclude("reward")
        for name in ("action", "reward"):
            batch[f"previous_{name}"] = torch.cat([previous[name], step[name][:-1]])
        batch["return_to_go"] = self.return_to_go[where].unsqueeze(-1)
        batch["start"] = torch.from_numpy(start)
        return batch


class PackedRows(Packing):
    """B endless streams of whole episodes, dealt out in a new random order every epoch; nothing is padded.

    A stream whose episode has ended takes the next of the order, so an epoch uses every step once.

    Args:
        horizon: T.
        stagger: every stream begins inside its first episode, at a random step, with a fresh memory; what lies before
            it is left out, this once. Streams of episodes of equal length would otherwise be at the same time of
            their episodes for ever, and so would every step of a batch.
        dataset, rows, seed, episodes, return_scale: see `Packing`.
    """

    carries = True

    def __init__(
        self,
        dataset: "Dataset",
        *,
        rows: int,
        horizon: int,
        stagger: bool = False,
        seed: int = 0,
        episodes: Sequence[int] | Tensor | None = None,
        return_scale: float = 1.0,
    ) -> None:
        super().__init__(dataset, rows=rows, seed=seed, episodes=episodes, return_scale=return_scale)
        if horizon < 1:
            raise ValueError(f"horizon={horizon}: expected at least 1")
        self.horizon, self.stagger = horizon, stagger
        self.dealt = 0  # episodes, since the beginning
        self.episode = np.full(rows, -1, dtype=np.int64)  # at which each stream is; -1: at none yet
        self.offset = np.zeros(rows, dtype=np.int64)  # steps of it that are behind
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))  # epoch, permutation

    def draw(self) -> "TensorDict":
        """The next T steps of every stream: see `Packing.draw`."""
        opening = self.dealt == 0
        if opening and self.stagger:
            self.episode = np.concatenate([self._deal(1) for _ in range(self.rows)])
            self.offset = np.random.default_rng((self.seed, 0, 1)).integers(self.length[self.episode])
        rows = [self._advance(row) for row in range(self.rows)]
        begin, count, opens = (np.concatenate(part) for part in zip(*rows, strict=True))
        ends = count.cumsum()
        flat = np.arange(self.rows * self.horizon)
        index = np.repeat(begin - (ends - count), count) + flat
        start = np.zeros((self.rows, self.horizon), dtype=np.bool_)
        start.flat[(ends - count)[opens]] = True
        start[:, 0] |= opening
        return self._gather(index.reshape(start.shape).T.copy(), start.T.copy())

    def _advance(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Move one stream on by T steps: first step and length of each piece of an episode, and which open one."""
        at, behind = int(self.episode[row]), int(self.offset[row])
        left = int(self.length[at]) - behind if at >= 0 else 0
        dealt = self._deal(self.horizon - left)
        pieces = np.concatenate([[at], dealt]) if left else dealt
        begin, count = self.first[pieces], self.length[pieces]
        opens = np.ones(len(pieces), dtype=np.bool_)
        if left:
            begin[0], count[0], opens[0] = begin[0] + behind, left, False
        over = int(count.sum()) - self.horizon
        count[-1] -= over
        self.episode[row] = pieces[-1]
        self.offset[row] = self.length[pieces[-1]] - over
        return begin, count, opens

    def _deal(self, steps: int) -> np.ndarray:
        """The next episodes of the order, just enough for `steps` steps; the order has no end."""
        taken = [np.empty(0, dtype=np.int64)]
        while steps > 0:
            epoch, at = divmod(self.dealt, len(self.first))
            rest = self._epoch(epoch)[at:]
            enough = int(np.searchsorted(self.length[rest].cumsum(), steps)) + 1
            taken.append(rest[:enough])
            self.dealt += len(taken[-1])
            steps -= int(self.length[taken[-1]].sum())
        return np.concatenate(taken)

    def _epoch(self, epoch: int) -> np.ndarray:
        """The order of the episodes in an epoch."""
        if self._order[0] != epoch:
            self._order = epoch, self._random(epoch).permutation(len(self.first))
        return self._order[1]

    def state_dict(self) -> dict[str, Tensor]:
        """Episodes dealt, and where each stream is."""
        parts = {"dealt": np.array(self.dealt), "episode": self.episode, "offset": self.offset}
        return {name: torch.from_numpy(part.copy()) for name, part in parts.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`.

        Raises:
            ValueError: it is that of another number of rows.
        """
        if len(state["episode"]) != self.rows:
            raise ValueError(f"packing: expected {self.rows} rows, got {len(state['episode'])}")
        self.dealt = int(state["dealt"])
        self.episode, self.offset = state["episode"].numpy().copy(), state["offset"].numpy().copy()


class Windows(Packing):
    """Windows of K steps drawn uniformly over all steps, each with a fresh memory: for attention over K steps.

    A window begins at the step drawn, wherever in its episode, and is padded at the end where the episode ends first:
    padding repeats the last step, with weight 0.

    Args:
        length: K.
        dataset, rows, seed, episodes, return_scale: see `Packing`.

    Source: the sampling of Chen et al. 2021 (arXiv:2106.01345), which pads in front.
    """

    carries = False

    def __init__(
        self,
        dataset: "Dataset",
        *,
        rows: int,
        length: int,
        seed: int = 0,
        episodes: Sequence[int] | Tensor | None = None,
        return_scale: float = 1.0,
    ) -> None:
        super().__init__(dataset, rows=rows, seed=seed, episodes=episodes, return_scale=return_scale)
        if length < 1:
            raise ValueError(f"windows={length}: expected at least 1 step")
        self.steps = length
        self.drawn = 0  # batches, since the beginning
        self.ends = self.length.cumsum()

    def draw(self) -> "TensorDict":
        """B windows [K, B]: see `Packing.draw`."""
        position = self._random(self.drawn).integers(self.num_steps, size=self.rows)
        self.drawn += 1
        episode = np.searchsorted(self.ends, position, side="right")
        last = self.first[episode] + self.length[episode] - 1
        begin = last - (self.ends[episode] - 1 - position)
        index = begin + np.arange(self.steps)[:, None]
        start = np.zeros(index.shape, dtype=np.bool_)
        start[0] = True
        batch = self._gather(np.minimum(index, last), start)
        batch["weight"] = torch.from_numpy((index <= last).astype(np.float32))
        return batch

    def state_dict(self) -> dict[str, Tensor]:
        """Batches drawn."""
        return {"drawn": torch.tensor(self.drawn)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`."""
        self.drawn = int(state["drawn"])
