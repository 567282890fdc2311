"""States at the end of truncated episodes, kept over a rollout where it is not known which rows were truncated."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rlmin.types import Observation, State


class Reached(NamedTuple):
    """What a policy needs for the value of the states reached at one step."""

    t: int
    observation: Observation  # leaves [B, ...]; valid where an episode ended
    state: State  # [B, ...] memory after step t


class Chosen(NamedTuple):
    """The rows of them that were truncated."""

    place: Tensor  # [N] t * B + row
    observation: Observation  # leaves [N, ...]
    state: State  # [N, ...]


def choose_truncated(reached: Sequence[Reached], truncated: Tensor) -> Chosen | None:
    """The truncated rows among the states reached; None if there are none.

    It waits for a GPU once. Rows come step by step, so this copies no more than they need.

    Args:
        reached: at most one a step, in temporal order.
        truncated: [T, B] bool.
    """
    if not reached:
        return None
    steps = {one.t: one for one in reached}
    ends: list[list[int]] = truncated.nonzero().tolist()
    rows: dict[int, list[int]] = {}
    for t, row in ends:
        if t in steps:
            rows.setdefault(t, []).append(row)
    if not rows:
        return None
    found = [(steps[t], torch.tensor(which, device=truncated.device)) for t, which in rows.items()]
    return Chosen(
        torch.cat([one.t * truncated.shape[1] + which for one, which in found]),
        {name: torch.cat([one.observation[name][which] for one, which in found]) for name in reached[0].observation},
        _choose_states([one.state for one, _ in found], [which for _, which in found]),
    )


def _choose_states(states: list[State], rows: list[Tensor]) -> State:
    first = states[0]
    if isinstance(first, tuple):
        return tuple(_choose_states([state[i] for state in states], rows) for i in range(len(first)))
    return torch.cat([x[which] for x, which in zip(states, rows, strict=True) if isinstance(x, Tensor)])
