"""Returns, lengths and successes of finished episodes, from the stream of `Step` records."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from rlmin.distributed import ALONE, Ranks
from rlmin.types import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One finished episode."""

    return_: float  # sum of rewards, env units, no discount
    length: int  # transitions, without filler rows
    success: bool | None  # None: unknown


class EpisodeStatistics:
    """Running sums per environment, the last `window` episodes, and totals.

    Rows with `filler` set made no transition: they do not count, and their running sums start again. So the record of a
    reset() may be passed like any other.
    """

    def __init__(self, num_envs: int, *, window: int = 100) -> None:
        """Args: num_envs: B. window: number of finished episodes in the means."""
        self._return = torch.zeros(num_envs, dtype=torch.float64)
        self._length = torch.zeros(num_envs, dtype=torch.int64)
        self._window: deque[Episode] = deque(maxlen=window)
        self._steps = torch.zeros((), dtype=torch.int64)
        self._episodes = 0
        self.pending: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []  # ended, return, length, success
        """The ends in the records added since the last `settle`: [B] each."""

    def update(self, step: Step) -> list[Episode]:
        """Add one record.

        Args:
            step: of the same B environments, on any one device.

        Returns:
            the episodes that ended with it, in the order of the environments.

        Raises:
            ValueError: another number of environments.
        """
        self.settle()
        self.add(step)
        return self._read(ALONE, None)

    def add(self, step: Step) -> None:
        """As `update`, but ends are read only in `settle`, so that nothing waits for a GPU."""
        if step.reward.shape != self._return.shape:
            raise ValueError(f"reward: expected [B={len(self._return)}], got {list(step.reward.shape)}")
        if self._return.device != step.reward.device:
            self._return, self._length = self._return.to(step.reward.device), self._length.to(step.reward.device)
            self._steps = self._steps.to(step.reward.device)
        real = ~step.filler
        self._return = (self._return + step.reward) * real  # float64: a long episode of small rewards stays exact
        self._length = (self._length + 1) * real
        self._steps = self._steps + real.sum()
        ended = (step.terminated | step.truncated) & real
        self.pending.append((ended, self._return, self._length, step.success))
        self._return, self._length = self._return * ~ended, self._length * ~ended

    def settle(self, ranks: Ranks = ALONE) -> None:
        """Count the episodes that ended in the records added since the last call, and keep the last ones.

        Those of all ranks; a property asks this rank alone, and finds nothing after such a call. Only the last `window`
        leave the device: a rollout of thousands of short episodes costs no more than one of a hundred.
        """
        self._read(ranks, self._window.maxlen)

    def _read(self, ranks: Ranks, most: int | None) -> list[Episode]:
        """Count what has ended; the last `most` of these episodes (None: all), in temporal order."""
        if not self.pending:
            return []
        pending, self.pending = self.pending, []
        ends, returns, lengths, successes = zip(*pending, strict=True)
        place = torch.stack(ends).flatten().nonzero().squeeze(-1)  # waits for a GPU, once
        count = len(place)
        if ranks.is_alone and count == 0:
            return []
        place = place if most is None else place[-most:]
        unknown = torch.full_like(ends[0], -1, dtype=torch.int8)
        outcomes = [unknown if success is None else success.to(torch.int8) for success in successes]
        columns = [torch.stack(column).flatten()[place] for column in (returns, lengths, outcomes)]
        columns = _exchange(place, len(ends[0]), columns, ranks)
        rows = zip(*torch.stack([x.double() for x in columns]).tolist(), strict=True)  # one transfer
        episodes = [Episode(return_=r, length=int(n), success=None if won < 0 else bool(won)) for r, n, won in rows]
        self._window.extend(episodes)
        self._episodes += count if ranks.is_alone else int(ranks.sum(torch.tensor(count)))
        return episodes

    def running(self) -> dict[str, Tensor]:
        """The sums of the unfinished episodes and the count of steps; not copies."""
        return {"return": self._return, "length": self._length, "steps": self._steps}

    def run_on(self, running: dict[str, Tensor]) -> None:
        """Continue from `running()`; the tensors are only read."""
        self._return, self._length, self._steps = (running[name] for name in ("return", "length", "steps"))

    @property
    def episodes(self) -> int:
        """Finished episodes since construction."""
        self.settle()
        return self._episodes

    @property
    def steps(self) -> int:
        """Transitions since construction, filler rows not counted."""
        return int(self._steps)

    @property
    def mean_return(self) -> float | None:
        """Over the window; None before the first end."""
        return _mean([episode.return_ for episode in self.finished])

    @property
    def mean_length(self) -> float | None:
        """Over the window; None before the first end."""
        return _mean([float(episode.length) for episode in self.finished])

    @property
    def success_rate(self) -> float | None:
        """Over the episodes of the window whose success is known; None if there is none."""
        return _mean([float(episode.success) for episode in self.finished if episode.success is not None])

    @property
    def finished(self) -> deque[Episode]:
        """The last `window` finished episodes."""
        self.settle()
        return self._window

    def state_dict(self, ranks: Ranks = ALONE) -> dict[str, Tensor]:
        """The whole state of all ranks, as new tensors, for an exact resume."""
        self.settle()
        success = [-1 if episode.success is None else int(episode.success) for episode in self._window]
        return {
            "return": ranks.gather(self._return.cpu()).clone(),
            "length": ranks.gather(self._length.cpu()).clone(),
            "steps": ranks.sum(self._steps.cpu()).clone(),
            "episodes": torch.tensor(self._episodes),
            "window_return": torch.tensor([episode.return_ for episode in self._window], dtype=torch.float64),
            "window_length": torch.tensor([episode.length for episode in self._window], dtype=torch.int64),
            "window_success": torch.tensor(success, dtype=torch.int64),
        }

    def load_state_dict(self, state: dict[str, Tensor], ranks: Ranks = ALONE) -> None:
        """Continue from `state_dict()`, of any number of ranks; the window keeps its own size.

        Raises:
            ValueError: another number of environments.
        """
        num_envs = len(self._return) * ranks.size
        if state["return"].shape != (num_envs,):
            raise ValueError(f"state: expected [B={num_envs}], got {list(state['return'].shape)}")
        state = state | {name: ranks.part(state[name]) for name in ("return", "length")}
        if not ranks.is_main:  # the sum over ranks is what was saved
            state["steps"] = torch.zeros_like(state["steps"])
        self.pending.clear()
        device = self._return.device
        self.run_on({name: state[name].clone().to(device) for name in ("return", "length", "steps")})
        self._episodes = int(state["episodes"])
        names = ("window_return", "window_length", "window_success")
        rows = zip(*(state[name].tolist() for name in names), strict=True)
        finished = [Episode(return_=r, length=n, success=None if won < 0 else bool(won)) for r, n, won in rows]
        self._window.clear()
        self._window.extend(finished)


def _exchange(place: Tensor, num_envs: int, columns: list[Tensor], ranks: Ranks) -> list[Tensor]:
    """Columns [N] of episodes of all ranks, in the order of one process: by time, then by environment.

    Args:
        place: [N] of this rank, t * num_envs + row of the end of each episode.
    """
    if ranks.is_alone:
        return columns
    time, row = place // num_envs, place % num_envs
    place = (time * ranks.size + ranks.rank) * num_envs + row
    found = ranks.gather(torch.stack([place, *columns], 1).double().cpu())
    found = found[found[:, 0].argsort()]
    return [x.to(column.dtype) for x, column in zip(found[:, 1:].unbind(1), columns, strict=True)]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
