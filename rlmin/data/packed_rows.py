"""PackedRows: endless streams of whole episodes, end to end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rlmin.data.packing import Packing

if TYPE_CHECKING:
    from tensordict import TensorDict

    from rlmin.data.dataset import Dataset


class PackedRows(Packing):
    """B endless streams of whole episodes, dealt out in a new random order every epoch; nothing is padded.

    A stream whose episode has ended takes the next of the order, so an epoch uses every step once.

    Args:
        horizon: T.
        stagger: every stream begins inside its first episode, at a random step, with a fresh memory; the steps before
            it are skipped once. Otherwise streams of episodes of equal length would stay in step, and each step of a
            batch would show the same time in all.
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
        self.steps, self.stagger = horizon, stagger
        self.dealt = 0  # episodes dealt since the beginning
        self.episode = np.full(rows, -1, dtype=np.int64)  # current episode of each stream; -1: none yet
        self.offset = np.zeros(rows, dtype=np.int64)  # steps of it already used
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
        flat = np.arange(self.rows * self.steps)
        index = np.repeat(begin - (ends - count), count) + flat
        start = np.zeros((self.rows, self.steps), dtype=np.bool_)
        start.flat[(ends - count)[opens]] = True
        start[:, 0] |= opening
        own = self.columns
        return self._gather(index.reshape(start.shape)[own].T.copy(), start[own].T.copy())

    def _advance(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Advance one stream by T steps; returns first step and length of each piece, and which open an episode."""
        at, behind = int(self.episode[row]), int(self.offset[row])
        left = int(self.length[at]) - behind if at >= 0 else 0
        dealt = self._deal(self.steps - left)
        pieces = np.concatenate([[at], dealt]) if left else dealt
        begin, count = self.first[pieces], self.length[pieces]
        opens = np.ones(len(pieces), dtype=np.bool_)
        if left:
            begin[0], count[0], opens[0] = begin[0] + behind, left, False
        over = int(count.sum()) - self.steps
        count[-1] -= over
        self.episode[row] = pieces[-1]
        self.offset[row] = self.length[pieces[-1]] - over
        return begin, count, opens

    def _deal(self, steps: int) -> np.ndarray:
        """The next episodes of the endless order, just enough for `steps` steps."""
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

    def _num_pieces(self) -> int:
        return len(self.first)

    def _piece(self, piece: int) -> np.ndarray:
        """A whole episode."""
        steps: np.ndarray = self.first[piece] + np.arange(self.length[piece])
        return steps

    def state_dict(self) -> dict[str, Tensor]:
        """Episodes dealt, and the place of each stream."""
        parts = {"dealt": np.array(self.dealt), "episode": self.episode, "offset": self.offset}
        return {name: torch.from_numpy(part.copy()) for name, part in parts.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()`.

        Raises:
            ValueError: it has another number of rows.
        """
        if len(state["episode"]) != self.rows:
            raise ValueError(f"packing: expected {self.rows} rows, got {len(state['episode'])}")
        self.dealt = int(state["dealt"])
        self.episode, self.offset = state["episode"].numpy().copy(), state["offset"].numpy().copy()
