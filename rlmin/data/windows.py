"""Windows: a few steps from any place, read with a fresh memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rlmin.data.packing import Packing

if TYPE_CHECKING:
    from tensordict import TensorDict

    from rlmin.data.dataset import Dataset


class Windows(Packing):
    """Windows of K steps drawn uniformly over all steps, each with a fresh memory: for attention over K steps.

    A window begins at the drawn step, anywhere in its episode, and is padded if the episode ends first:
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
        self._windows = -(-self.length // length)  # of each episode, in `once`

    def draw(self) -> "TensorDict":
        """B windows [K, B]: see `Packing.draw`."""
        position = self._random(self.drawn).integers(self.num_steps, size=self.rows)
        self.drawn += 1
        episode = np.searchsorted(self.ends, position, side="right")
        last = self.first[episode] + self.length[episode] - 1
        begin = last - (self.ends[episode] - 1 - position)
        begin, last = begin[self.columns], last[self.columns]
        index = begin + np.arange(self.steps)[:, None]
        start = np.zeros(index.shape, dtype=np.bool_)
        start[0] = True
        batch = self._gather(np.minimum(index, last), start)
        batch["weight"] = torch.from_numpy((index <= last).astype(np.float32))
        return batch

    def _num_pieces(self) -> int:
        return int(self._windows.sum())

    def _piece(self, piece: int) -> np.ndarray:
        """A window of its own, beside those before and after it; the last of an episode is filled up."""
        ends = self._windows.cumsum()
        episode = int(np.searchsorted(ends, piece, side="right"))
        begin = (piece - (ends[episode] - self._windows[episode])) * self.steps
        steps = np.arange(begin, begin + self.steps)
        return np.where(steps < self.length[episode], self.first[episode] + steps, -1)

    def state_dict(self) -> dict[str, Tensor]:
        """Batches drawn."""
        return {"drawn": torch.tensor(self.drawn)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`."""
        self.drawn = int(state["drawn"])
