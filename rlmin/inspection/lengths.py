"""Lengths: size of the memory and returns far beyond the steps of training."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from rlmin.encoders.cell import cell_of
from rlmin.evaluation.play import PolicyActor, play
from rlmin.inspection.subject import Subject
from rlmin.inspection.trace import mixers
from rlmin.policy import Policy
from rlmin.types import State, Step, tensors_of
from rlmin.vector.episodes import Episode, EpisodeStatistics


class UnwipedActor(PolicyActor):
    """A policy whose memory continues across episodes: it sees no start after the first."""

    opened = False

    def __call__(self, step: Step) -> Tensor:
        going_on = torch.zeros_like(step.start) if self.opened else step.start
        self.opened = True
        return super().__call__(replace(step, start=going_on))


@dataclass(frozen=True, kw_only=True)
class Norms:
    """Size of the memory of each layer, root mean square over its units, as its age grows.

    Attributes:
        size: [M, L, B] float32; nan for ages that the row did not reach.
        episodes: return, length and success of every episode, and the age of the memory at its start.
    """

    size: Tensor
    episodes: tuple[tuple[int, Episode], ...] = ()


@torch.no_grad()
def norms(subject: Subject, *, steps: int, rows: int, unwiped: bool, **changes: Any) -> Norms:
    """Play and measure the memory after every step.

    Args:
        steps: M, at most.
        rows: B.
        unwiped: whether to play on with a memory that is never wiped; otherwise the first episode of each row.
        changes: other arguments of the environment.
    """
    policy = subject.policy
    vector = subject.vector(rows, **changes)
    actor = (UnwipedActor if unwiped else PolicyActor)(policy, rows)
    statistics, began = EpisodeStatistics(rows), torch.zeros(rows, dtype=torch.int64)
    sizes, ended, over = list[Tensor](), list[tuple[int, Episode]](), torch.zeros(rows, dtype=torch.bool)
    try:
        for t, step in enumerate(play(vector, actor, seed=subject.seed)):
            if t:
                sizes.append(size_of(policy, actor.state).masked_fill(over, float("nan")))
            done = (step.terminated | step.truncated).cpu()
            for row, episode in zip(done.nonzero().squeeze(-1).tolist(), statistics.update(step), strict=True):
                ended.append((int(began[row]), episode))
                began[row] = t
            over = over if unwiped else over | done
            if t == steps or bool(over.all()):
                break
    finally:
        vector.close()
    return Norms(size=torch.stack(sizes), episodes=tuple(ended))


def size_of(policy: Policy, state: State) -> Tensor:
    """[L, B] root mean square of the actor's memory in each layer, over all its parts."""
    actor = state[0]  # a tuple over trunks of tuples over layers of (convolution, mixer)
    sizes = []
    for layer in actor:
        parts = [x.flatten(1) for x in tensors_of(layer[1])]
        sizes.append(torch.cat(parts, 1).float().square().mean(1).sqrt())
    return torch.stack(sizes).cpu()


def by_age(episodes: tuple[tuple[int, Episode], ...], bins: int = 8) -> list[tuple[float, list[Episode]]]:
    """Episodes by the age of the memory at their start: (mean age, episodes) of bins of equal size."""
    ordered = sorted(episodes, key=lambda one: one[0])
    edges = [round(i * len(ordered) / bins) for i in range(bins + 1)]
    groups = [ordered[low:high] for low, high in pairwise(edges) if high > low]
    return [(sum(age for age, _ in group) / len(group), [episode for _, episode in group]) for group in groups]


def is_bounded_state(policy: Policy) -> bool:
    """Whether the memory is a fixed number of units whose size has a meaning, by the cell of every layer."""
    cells = [cell_of(mixer) for mixer in mixers(policy)]
    return all(cell is not None and cell.is_bounded for cell in cells)
