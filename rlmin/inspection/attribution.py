"""Attribution: which past step drove an action.

Three answers, from exact to complete:

    share     the origin of a layer's memory: h[t] is a sum over past steps (rlmin.inspection.recurrence), and
              share[t, s] = C[t, s] . h[t] / |h[t]|^2 adds up to 1 over s. Exact.
    effect    the influence of one step's part of that memory on the action: the layer outputs h[t] - C[t, s] at any t,
              and the network above it is run on that. The deletion is exact; the network is run, not linearised.
    input     the influence of the observation at s through the whole network: its input is replaced by the mean
              input. That passes through every layer, gates included, and the others are compared with it.

Effects compare the evidence for the action taken with and without step s; positive: s supported the action.

    effect[t, s] = evidence(log p(action[t])) - evidence(log p(action[t] without s))
    evidence(log p) = log p - log(1 - p), the log-odds, for choices: a confident policy's log p hardly changes
    evidence(log p) = log p, the log-density, for a point (Box)
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rlmin.encoders import Encoder
from rlmin.inspection.recurrence import contribution, memory_of, output_of, recurrences
from rlmin.inspection.trace import Trace, record_trace
from rlmin.policy import Policy
from rlmin.types import Observation

CELLS = 1 << 21
"""Numbers [N, R, H] of the variants that are run at once; bounds the memory in use."""


@dataclass(frozen=True, kw_only=True)
class LayerAttribution:
    """One layer's memory, split by its source steps; G = ceil(T / group) groups of steps."""

    share: Tensor  # [T, G] float64; sums to 1 over G wherever the memory is not 0
    log_prob: Tensor  # [T, G] float64, of the actions, without group g
    effect: Tensor  # [T, G] float64, nats
    error: float  # largest |sum of the contributions - the memory as the layer computed it|, over T and H


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """The influence of past steps on the actions of one sequence of T steps."""

    action: Tensor  # [T, ...] the explained actions
    log_prob: Tensor  # [T] float64, their log-probability (density, of a Box)
    layers: tuple[LayerAttribution, ...]  # from the bottom up; empty if the memory is not a sum
    input_log_prob: Tensor  # [T, G] float64, log-probability of the actions with the mean input in group g
    input_effect: Tensor  # [T, G] float64, nats: effect of that, through the whole network
    group: int  # consecutive steps in one column


@torch.no_grad()
def attribution(
    policy: Policy,
    leaves: Observation,
    start: Tensor,
    *,
    action: Tensor | None = None,
    action_mask: Tensor | None = None,
    group: int = 1,
    mean_input: Tensor | None = None,
) -> Attribution:
    """Attribute a policy's actions to past steps.

    Everything is computed in float64, on a copy of the policy. A step has no influence beyond the episode that it
    belongs to. Encoders without terms (see `rlmin.encoders.Cell`) only get the effect of the input.

    Args:
        policy: the policy; if its critic has a memory of its own, the actor's is used.
        leaves: [T, ...] its observations in one sequence, with previous action and reward if it reads them (see
            `Policy.with_previous`); the memory was empty at first.
        start: [T] bool, leaves[t] opens an episode.
        action: [T, ...] the actions to explain, in rlmin's form; None: the most likely ones.
        action_mask: [T, A] bool, the legal actions; None: all.
        group: consecutive steps that are removed together, for long sequences.
        mean_input: [S, D] replacement of an input, S being the inputs of a step (1, or up to 3 tokens); None: the mean
            over the sequence.

    Raises:
        ValueError: no step, or a group that is not positive.
    """
    if group < 1 or not len(start):
        raise ValueError(f"expected at least one step, and a group of at least 1; got {len(start)} steps, {group=}")
    exact = copy.deepcopy(policy).double().eval()
    mask = None if action_mask is None else action_mask[:, None]
    trace = record_trace(exact, {name: leaf[:, None] for name, leaf in leaves.items()}, start[:, None], mask)
    plain = trace.run(x=trace.x)
    action = plain.mode()[:, 0] if action is None else action
    explain = _Explained(trace, action, plain.log_prob(action[:, None]), group)
    seen = _zero_input(explain, mean_input)
    return Attribution(
        action=action,
        log_prob=explain.log_prob[:, 0],
        layers=tuple(_layer(explain, layer, mixer) for layer, mixer in enumerate(recurrences(trace.mixers))),
        input_log_prob=seen,
        input_effect=explain.effect(seen),
        group=group,
    )


def mean_input(policy: Policy, leaves: Observation, start: Tensor) -> Tensor:
    """[S, D] the mean input of the memory over T and B, with which `attribution` replaces an input.

    Row by row, as pictures need much memory.

    Args:
        leaves: [T, B, ...]; start: [T, B] bool.
    """
    rows = [slice(row, row + 1) for row in range(start.shape[1])]
    means = [
        record_trace(policy, {name: leaf[:, row] for name, leaf in leaves.items()}, start[:, row]).steps.mean((0, 2))
        for row in rows
    ]
    return torch.stack(means).mean(0)


def evidence(log_prob: Tensor, *, choices: bool) -> Tensor:
    """[...] log-odds for choices, up to 34.5 (where 1 - p is 1e-15); the log-density itself for points."""
    if not choices:
        return log_prob
    log_prob = log_prob.clamp(max=-1e-15)
    return log_prob - torch.log(-torch.expm1(log_prob))


def by_lag(effect: Tensor, start: Tensor, *, group: int = 1) -> tuple[Tensor, Tensor]:
    """Sums of |effect| by the lag between cause and action.

    Args:
        effect: [T, G].
        start: [T] bool.
        group: steps of a column.

    Returns:
        [G] sums of |effect| at lags of 0, 1, ... groups, over the steps whose episode is that old, and [G] the number
        of these steps.
    """
    T, G = effect.shape
    time = torch.arange(T)
    opened = torch.where(start, time, 0).cummax(0).values // group
    cause = torch.arange(G)
    lag = (time // group)[:, None] - cause
    within = (lag >= 0) & (cause >= opened[:, None])
    total, count = torch.zeros(G, dtype=effect.dtype), torch.zeros(G, dtype=effect.dtype)
    total.index_add_(0, lag[within], effect[within].abs())
    return total, count.index_add_(0, lag[within], torch.ones_like(effect[within]))


@dataclass(frozen=True)
class _Explained:
    """A traced sequence and its actions."""

    trace: Trace
    action: Tensor  # [T, ...]
    log_prob: Tensor  # [T, 1]
    group: int

    @property
    def groups(self) -> int:
        """G."""
        return -(-len(self.action) // self.group)

    def each(self, numbers: int = 0) -> Iterator[range]:
        """The groups, as many at a time as fit into memory; numbers: size of one row and input if that is larger."""
        size = max(1, CELLS // self.trace.x.shape[0] // max(numbers, self.trace.x.shape[-1]))
        return (range(first, min(first + size, self.groups)) for first in range(0, self.groups, size))

    def log_prob_of(self, of: range, *, x: Tensor | None = None, memory: tuple[int, Tensor] | None = None) -> Tensor:
        """[T, len(of)] log-probabilities of the actions in these variants: see `Trace.run`."""
        taken = self.action[:, None].expand(-1, len(of), *self.action.shape[1:])
        return self.trace.run(x=x, memory=memory).log_prob(taken)

    def effect(self, log_prob: Tensor) -> Tensor:
        """[T, G] evidence lost with these log-probabilities."""
        choices = not self.action.is_floating_point()
        return evidence(self.log_prob, choices=choices) - evidence(log_prob, choices=choices)


def _layer(explain: _Explained, layer: int, mixer: Encoder) -> LayerAttribution:
    trace = explain.trace
    read = trace.read[layer]
    h, _ = memory_of(mixer, read, trace.start)
    last = slice(trace.tokens - 1, None, trace.tokens)  # a step is explained where its last token was read
    share, log_prob, total = [], [], torch.zeros_like(h)
    for of in explain.each(h[0].numel()):
        part = contribution(mixer, read[:, 0], trace.start[:, 0], group=explain.group * trace.tokens, of=of)
        total += part.sum(1, keepdim=True)
        size = h.abs().square().flatten(2).sum(-1).clamp(min=1e-300)
        share.append(((part * h.conj()).real.flatten(2).sum(-1) / size)[last])
        without = output_of(mixer, read.expand(-1, len(of), -1), h - part)
        log_prob.append(explain.log_prob_of(of, memory=(layer, without)))
    found = torch.cat(log_prob, 1)
    error = float((total - h).abs().max())
    return LayerAttribution(share=torch.cat(share, 1), log_prob=found, effect=explain.effect(found), error=error)


def _zero_input(explain: _Explained, mean: Tensor | None) -> Tensor:
    trace = explain.trace
    steps = trace.steps
    mean = steps.mean((0, 2)) if mean is None else mean.to(steps.dtype)
    group = torch.arange(len(steps)) // explain.group
    found = []
    for of in explain.each():
        gone = (group[:, None] == torch.tensor(of))[:, None, :, None]  # [T, 1, R, 1]
        x = torch.where(gone, mean[:, None], steps).flatten(0, 1)
        found.append(explain.log_prob_of(of, x=x))
    return torch.cat(found, 1)
