"""Packing: episodes of different lengths as batches [T, B], without padding (rows) or as short windows.

    PackedRows   B endless streams of whole episodes, end to end; a batch is the next T steps of each stream
    Windows      K steps from anywhere, each read with a fresh memory

Training draws endless batches; a measurement takes every step once. In both, `start` marks where the memory is wiped.
A row continues where the previous batch ended, so a memory carried from batch to batch has seen every episode
from its beginning, at any length.

All random numbers depend on (seed, counter), so the counter is enough to continue exactly.
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
    """Endless batches of a dataset.

    Args:
        dataset: the episodes; may be memory-mapped, since it is read by rows.
        rows: B.
        seed: of the order.
        episodes: indices of those to use; None: all.
        return_scale: env units of return that the policy sees as 1.

    Raises:
        ValueError: a size below 1, or no episode.
    """

    carries: ClassVar[bool]
    """Whether a batch continues the previous one, so that memory has to be carried."""

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
        self.step, self.rows, self.seed = dataset.step, rows, seed
        self.first = dataset.first.numpy()[chosen]
        self.length = dataset.lengths.numpy()[chosen]
        self.num_steps = int(self.length.sum())
        self.return_to_go = dataset.return_to_go() / return_scale

    steps: int
    """T of a batch."""
    columns: slice = slice(None)
    """The rows of a drawn batch that this process reads, of the rows of all processes."""

    def place(self, step: "TensorDict") -> None:
        """Gather batches from `step`, a copy of the data's steps on another device, where they then are."""
        self.step, self.return_to_go = step, self.return_to_go.to(step["reward"].device)

    @abstractmethod
    def draw(self) -> "TensorDict":
        """The next batch.

        Returns:
            [T, B]: "observation" (leaves), "action", "previous_action", "previous_reward" (of the step before in the
            same episode; any number where `start`), "return_to_go" [T, B, 1] float32 in units of the scale, "start"
            bool, and, where something is padded, "weight" float32, 0 for padding.
        """

    def once(self, batches: int | None = None) -> Iterator["TensorDict"]:
        """Every step exactly once, independently of `draw`: batches in the same form, with "weight".

        Pieces are dealt in random order to the row that is shortest so far; where a row has no step the weight is 0.

        Args:
            batches: largest number, from the beginning of that order; None: all.
        """
        streams: list[list[np.ndarray]] = [[] for _ in range(self.rows)]
        size = np.zeros(self.rows, dtype=np.int64)
        for piece in self._random(0).permutation(self._num_pieces()):
            row = int(size.argmin())
            if batches is not None and size[row] >= batches * self.steps:
                break
            streams[row].append(self._piece(int(piece)))
            size[row] += len(streams[row][-1])
        T = -(-int(size.max()) // self.steps) * self.steps
        T = T if batches is None else min(T, batches * self.steps)
        index, start = np.full((T, self.rows), -1, dtype=np.int64), np.zeros((T, self.rows), dtype=np.bool_)
        for row, pieces in enumerate(streams):
            steps = np.concatenate([*pieces, np.empty(0, dtype=np.int64)])[:T]
            index[: len(steps), row] = steps
            opens = np.cumsum([0, *(len(piece) for piece in pieces)])
            start[opens[opens < T], row] = True
        for t in range(0, T, self.steps):
            part = index[t : t + self.steps]
            batch = self._gather(part.clip(min=0), start[t : t + self.steps])
            batch["weight"] = torch.from_numpy((part >= 0).astype(np.float32))
            yield batch

    @abstractmethod
    def _num_pieces(self) -> int:
        """Number of pieces of steps in `once`."""

    @abstractmethod
    def _piece(self, piece: int) -> np.ndarray:
        """The steps of a piece, which begins with a fresh memory; -1 is no step."""

    def chunks(self, size: int) -> Iterator[Tensor]:
        """Every used step once, in order: index tensors of at most `size` steps."""
        before = self.length.cumsum() - self.length
        index = np.repeat(self.first - before, self.length) + np.arange(self.num_steps)
        yield from (torch.from_numpy(part) for part in np.split(index, range(size, len(index), size)))

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """The place in the order, as small tensors."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()` of a packing of the same dataset, sizes and seed."""

    def _random(self, counter: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, counter))

    def _gather(self, index: np.ndarray, start: np.ndarray) -> "TensorDict":
        """The batch of the steps `index` [T, B], which follow each other in time except where `start`."""
        where = torch.from_numpy(index).to(self.return_to_go.device)
        before = (where[:1] - 1).clamp(min=0)
        step, previous = self.step[where], self.step.select("action", "reward")[before]
        batch = step.exclude("reward")
        for name in ("action", "reward"):
            batch[f"previous_{name}"] = torch.cat([previous[name], step[name][:-1]])
        batch["return_to_go"] = self.return_to_go[where].unsqueeze(-1)
        batch["start"] = torch.from_numpy(start)  # a TensorDict brings it to its own device
        return batch
