"""Dataset: logged episodes, end to end, as tensors: the form that every reader makes and every learner reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from rlmin.data.subset import rows_of
from rlmin.data.summary import summary
from rlmin.learning.returns import return_to_go


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The returns that count as 0 and as 100.

        score = 100 * (return - random) / (expert - random)

    Args:
        random, expert: returns, env units.
        source: source of the two numbers.
    """

    random: float
    expert: float
    source: str


@dataclass(frozen=True)
class Episode:
    """One logged episode of L steps, as gymnasium gives it.

    Args:
        observations: array [L + 1, ...], or nested dicts and tuples of arrays; the last is the final state.
        actions: [L, ...] in the environment's form.
        rewards: [L] float; reward[t] follows action[t].
        terminated: the last step ended in a terminal state; otherwise the episode was cut there.
    """

    observations: Any
    actions: Any
    rewards: Any
    terminated: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """E logged episodes with N steps in total, one after the other.

    The tensors may be memory-mapped and larger than the memory: index `step` by rows, never read all of it.

    Args:
        step: [N] TensorDict. "observation": the leaves, named as `rlmin.spaces` does; "action": [N, *event_shape] as
            an action head's `log_prob` takes it; "reward": [N] float32, env units.
        final: [E] TensorDict. "observation": the leaves of the state after the last step of each episode.
        first: [E + 1] int64; episode e is the steps first[e] .. first[e + 1] - 1.
        terminated: [E] bool; an episode that did not terminate was truncated.
        observation_space, action_space: of a single environment.
        name: for errors and reports.
        env: {"id", "kwargs", "workers"}: how to make the recorded environment; None if unknown.
        reference: the returns that count as 0 and 100; None if unknown.
        recipe: how it was made, as far as known; plain values.

    Raises:
        ValueError: the parts do not fit each other, there is no episode, or one has no step.
    """

    step: TensorDict
    final: TensorDict
    first: Tensor
    terminated: Tensor
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    name: str
    env: dict[str, Any] | None = None
    reference: Reference | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        N, E = self.step.batch_size[0], len(self.terminated)
        steps = int(self.first[-1]) if len(self.first) else 0
        for part, size, wanted in (
            ("final", len(self.final), E),
            ("first", len(self.first), E + 1),
            ("step", N, steps),
        ):
            if size != wanted:
                raise ValueError(f"dataset {self.name!r}: {part}: expected {wanted} entries, got {size}")
        if E == 0:
            raise ValueError(f"dataset {self.name!r}: expected at least one episode, got none")
        short = (self.lengths < 1).nonzero().flatten()
        if len(short) or self.first[0] != 0:
            raise ValueError(f"dataset {self.name!r}: episode {int(short[0]) if len(short) else 0}: has no step")

    @property
    def num_steps(self) -> int:
        """N."""
        return int(self.step.batch_size[0])

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.terminated)

    @property
    def lengths(self) -> Tensor:
        """[E] int64, steps of each episode."""
        return self.first.diff()

    @cached_property
    def returns(self) -> Tensor:
        """[E] float64, sum of the rewards of each episode, env units."""
        reward = self.step["reward"].numpy()
        return torch.from_numpy(np.add.reduceat(reward, self.first[:-1].numpy(), dtype=np.float64))

    def return_to_go(self) -> Tensor:
        """[N] float32, sum of the rewards from each step to the end of its episode, env units; see
        `rlmin.learning.returns`.

        G[t] = reward[t] + G[t + 1], and 0 beyond the end.
        """
        start = torch.zeros(self.num_steps, 1, dtype=torch.bool)
        start[self.first[:-1]] = True
        reward = torch.as_tensor(self.step["reward"]).double()  # rounded once, not at every step
        return return_to_go(reward[:, None], start)[:, 0].float()

    def episodes(self, select: Sequence[int] | Tensor) -> "Dataset":
        """The episodes `select`, in that order.

        Consecutive episodes share the memory of this dataset; other selections are copies. A copy of a memory-mapped
        dataset is memory-mapped, too, and its files are removed with it.

        Args:
            select: indices in 0..E-1, or [E] bool.

        Raises:
            ValueError: nothing is selected.
            IndexError: there is no such episode.
        """
        index = torch.as_tensor(select)
        index = index.nonzero().flatten() if index.dtype is torch.bool else index.to(torch.int64).flatten()
        if not len(index):
            raise ValueError(f"dataset {self.name!r}: no episode is selected")
        if int(index.min()) < 0 or int(index.max()) >= self.num_episodes:
            found = f"got {int(index.min())}..{int(index.max())}"
            raise IndexError(f"dataset {self.name!r}: expected episodes 0..{self.num_episodes - 1}, {found}")
        first = torch.cat([torch.zeros(1, dtype=torch.int64), self.lengths[index].cumsum(0)])
        return replace(
            self,
            step=rows_of(self.step, self.first[index], self.first[index + 1]),
            final=rows_of(self.final, index, index + 1),
            first=first,
            terminated=self.terminated[index],
        )

    def summary(self) -> str:
        """Episodes, lengths, returns, spaces, environment and reference scores, as text."""
        return summary(self)
