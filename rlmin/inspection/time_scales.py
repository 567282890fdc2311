"""Time scales: how long each unit of a memory with terms remembers, by its bias and in play."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlmin.encoders import Encoder
from rlmin.inspection.recurrence import half_life, recurrences, terms
from rlmin.inspection.subject import Played
from rlmin.inspection.trace import mixers, record_trace
from rlmin.policy import Policy


@dataclass(frozen=True)
class TimeScales:
    """Half-lives of one layer's units in steps; may be infinite.

    Attributes:
        bias: [H] float64, at x = 0: what `memory/log10_time_scale` in TensorBoard says, as a half-life.
        played: [H] float64, of the mean rate of forgetting over what was played.
        gate: [Q] float64 quantiles 0..1 of the half-lives of every single gate, step and unit.
    """

    bias: Tensor
    played: Tensor
    gate: Tensor


QUANTILES = 501
"""Points of the distribution of single gates."""


@torch.no_grad()
def time_scales(policy: Policy, episodes: Played) -> tuple[TimeScales, ...]:
    """Half-lives in every layer.

        half_life = log(2) / rate,   rate = -log(keep)

    A unit's memory after steps 1..n is the product of its keep gates, exp(-sum of rates): so rates are averaged over
    steps, not gates or half-lives. The first gate of an episode does not count, as there is nothing to forget.

    Args:
        policy: of a cell with terms, as minGRU and minLSTM are.
        episodes: what it played.

    Returns:
        one entry a layer, from the bottom up; none for other encoders, or where every episode is one input long.
    """
    layers = recurrences(mixers(policy))
    if not layers:
        return ()
    played = [_rates(policy, layers, episodes.row(row)) for row in range(episodes.start.shape[1])]
    tokens, rates = played[0][0], [torch.cat(of) for of in zip(*(of for _, of in played), strict=True)]
    if not len(rates[0]):
        return ()
    keep, found = torch.linspace(0, 1, QUANTILES, dtype=torch.float64), []
    for mixer, rate in zip(layers, rates, strict=True):
        each = torch.quantile(_thin(rate.flatten()), 1 - keep)
        bias = terms(mixer, next(mixer.parameters()).new_zeros(1, 1, mixer.input_size)).rate.double().flatten()
        found.append(TimeScales(*(half_life(x * tokens) for x in (bias, rate.mean(0), each))))
    return tuple(found)


def _rates(policy: Policy, layers: Sequence[Encoder], row: Played) -> tuple[int, list[Tensor]]:
    """Number of inputs a step, and the rates that count, [inputs, H] a layer; of one row, to save memory."""
    trace = record_trace(policy, row.leaves, row.start)
    read = zip(layers, trace.read, strict=False)
    return trace.tokens, [terms(mixer, x).rate.double()[~trace.start].flatten(1) for mixer, x in read]


def share_beyond(scale: Tensor, steps: float) -> float:
    """Share of half-lives longer than so many steps."""
    return float((scale > steps).double().mean())


def _thin(x: Tensor, most: int = 1_000_000) -> Tensor:
    """Every k-th number, so that no more than `most` are sorted."""
    return x[:: math.ceil(len(x) / most)]
