"""Returns, lengths and successes of finished episodes, from the stream of `Step` records."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from rlmin.types import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One finished episode."""

    return_: float  # sum of rewards, env units, no discount
    length: int  # transitions, without filler rows
    success: bool | None  # None: the env does not say


class EpisodeStatistics:
    """Running sums per environment, the last `window` episodes, and totals.

    Rows with `filler` set made no transition: they are not counted, and their running sums start anew. So the record
    of a reset() may be passed like any other.
    """

    def __init__(self, num_envs: int, *, window: int = 100) -> None:
        """Args: num_envs: B. window: how many finished episodes the means are taken over."""
        self._return = torch.zeros(num_envs, dtype=torch.float64)
        self._length = torch.zeros(num_envs, dtype=torch.int64)
        self._window: deque[Episode] = deque(maxlen=window)
        self._steps = torch.zeros((), dtype=torch.int64)
        self._episodes = 0

    def update(self, step: Step) -> list[Episode]:
        """Add one record.

        Args:
            step: of the same B environments, on any one device.

        Returns:
            the episodes it ended, in the order of the environments.

        Raises:
            ValueError: another number of environments.
        """
        if step.reward.shape != self._return.shape:
            raise ValueError(f"reward: expected [B={len(self._return)}], got {list(step.reward.shape)}")
        if self._return.device != step.reward.device:
            self._return, self._length = self._return.to(step.reward.device), self._length.to(step.reward.device)
            self._steps = self._steps.to(step.reward.device)
        real = ~step.filler
        self._return = (self._return + step.reward) * real  # float64: a long episode of small rewards stays exact
        self._length = (self._length + 1) * real
        self._steps += real.sum()
        ended = (step.terminated | step.truncated) & real
        if not bool(ended.any()):
            return []
        episodes = self._finish(ended, step.success)
        self._return, self._length = self._return * ~ended, self._length * ~ended
        return episodes

    def _finish(self, ended: Tensor, success: Tensor | None) -> list[Episode]:
        told = [None] * int(ended.sum()) if success is None else success[ended].tolist()
        columns = zip(self._return[ended].tolist(), self._length[ended].tolist(), told, strict=True)
        episodes = [Episode(return_=total, length=length, success=won) for total, length, won in columns]
        self._window.extend(episodes)
        self._episodes += len(episodes)
        return episodes

    @property
    def episodes(self) -> int:
        """Finished episodes since construction."""
        return self._episodes

    @property
    def steps(self) -> int:
        """Transitions since construction, filler rows not counted."""
        return int(self._steps)

    @property
    def mean_return(self) -> float | None:
        """Over the window; None before the first end."""
        return _mean([episode.return_ for episode in self._window])

    @property
    def mean_length(self) -> float | None:
        """Over the window; None before the first end."""
        return _mean([float(episode.length) for episode in self._window])

    @property
    def success_rate(self) -> float | None:
        """Over the episodes of the window that say; None if none does."""
        return _mean([float(episode.success) for episode in self._window if episode.success is not None])

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, as tensors of its own, for an exact resume."""
        success = [-1 if episode.success is None else int(episode.success) for episode in self._window]
        return {
            "return": self._return.cpu().clone(),
            "length": self._length.cpu().clone(),
            "steps": self._steps.cpu().clone(),
            "episodes": torch.tensor(self._episodes),
            "window_return": torch.tensor([episode.return_ for episode in self._window], dtype=torch.float64),
            "window_length": torch.tensor([episode.length for episode in self._window], dtype=torch.int64),
            "window_success": torch.tensor(success, dtype=torch.int64),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()`; the window keeps its own size.

        Raises:
            ValueError: another number of environments.
        """
        if state["return"].shape != self._return.shape:
            raise ValueError(f"state: expected [B={len(self._return)}], got {list(state['return'].shape)}")
        self._return, self._length = state["return"].clone(), state["length"].clone()
        self._steps, self._episodes = state["steps"].clone(), int(state["episodes"])
        names = ("window_return", "window_length", "window_success")
        rows = zip(*(state[name].tolist() for name in names), strict=True)
        finished = [Episode(return_=r, length=n, success=None if won < 0 else bool(won)) for r, n, won in rows]
        self._window.clear()
        self._window.extend(finished)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
