"""The memory that a training sequence begins with: an intervention for memories that have to last longer than training.

A memory that always begins empty has seen only the states that one training sequence can reach. Play for longer, and it
enters states that no gradient ever looked at. So let sequences begin elsewhere.

Source: Buitrago Ruiz and Gu 2025 (arXiv:2507.02782): zero, carried (truncated backpropagation through time), noise and
the final state of another sequence (state passing).
"""

from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from rlmin.distributed import ALONE, Ranks
from rlmin.types import State, map_state

InitialState: TypeAlias = Literal["carried", "zero", "noise", "other"]
"""carried: what it was; an episode opens with nothing. zero: nothing, also within an episode. noise, other: carried
within an episode. An episode that opens with the sequence begins with normal noise, of the mean, deviation and range
that each number has over the rows, or with the memory that another row had last."""
STARTS = ("previous_action", "previous_reward", "normalize_return")
"""Settings that need to know where an episode opens."""


class Opening:
    """Changes the memory before the first step of a rollout or batch; of all rows, whatever the number of ranks.

    Args:
        kind: see `InitialState`; "carried" changes nothing.
        seed: of the noise, together with the number of the sequence: a resumed run draws the same.
        ranks: those that hold the rows.
    """

    def __init__(self, kind: InitialState, *, seed: int = 0, ranks: Ranks = ALONE) -> None:
        self.kind, self.seed, self.ranks = kind, seed, ranks

    @torch.no_grad()
    def __call__(self, state: State, empty: State, start: Tensor, *, number: int) -> tuple[State, Tensor]:
        """The memory to begin with, and the flags that are left: a row that is given a memory must not wipe it.

        Args:
            state: [B, ...] memory after the sequence before.
            empty: [B, ...] memory of those that have seen nothing.
            start: [B] bool, the first observation opens an episode.
            number: of the sequence; no two have the same.
        """
        if self.kind == "zero":
            return empty, start
        if not self.hides_starts:
            return state, start
        generator = torch.Generator().manual_seed(_seed_of(self.seed, number))

        def begin(own: Tensor) -> Tensor:
            every = self.ranks.gather(own)
            given = self.ranks.part(_draw_like(every, generator) if self.kind == "noise" else every.roll(1, 0))
            return torch.where(start.view(-1, *[1] * (own.dim() - 1)), given, own)

        return map_state(begin, state), torch.zeros_like(start)

    @property
    def changes(self) -> bool:
        """Whether it does anything."""
        return self.kind != "carried"

    @property
    def hides_starts(self) -> bool:
        """Whether an episode that opens with a sequence begins with a memory."""
        return self.kind in ("noise", "other")


def check_initial_state(settings: object) -> None:
    """Raise a ValueError if another of these settings does not go together with their `initial_state`."""
    kind = getattr(settings, "initial_state")  # noqa: B009, of settings of any agent
    for name in STARTS if Opening(kind).hides_starts else ():
        if getattr(settings, name, False):
            raise ValueError(
                f"initial_state={kind!r} hides where an episode opens, which {name} needs: set {name}=False"
            )


def _draw_like(every: Tensor, generator: torch.Generator) -> Tensor:
    """Normal numbers with the mean, deviation and range that each has over the rows."""
    noise = torch.randn(every.shape, generator=generator).to(every)
    found = every.mean(0) + every.std(0, correction=0) * noise
    return torch.clamp(found, every.amin(0), every.amax(0))


def _seed_of(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, 3, number)).generate_state(1)[0])
