"""minGRU and minLSTM as the sums they are.

    h[t] = keep[t] * h[t-1] + value[t]
         = sum over s <= t of (product of keep[s+1..t]) * value[s]        s from the last start on

Gates and candidates never look at the memory, so each term belongs to one step and nothing else is in it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from rlmin.encoders import Encoder, MinGRU, MinLSTM
from rlmin.scan import linear_scan, min_gru_scan, min_lstm_scan
from rlmin.scan.activation import activate

Recurrence: TypeAlias = MinGRU | MinLSTM
"""An encoder whose memory is a sum over past steps."""


class Terms(NamedTuple):
    """What a layer multiplies its memory by and adds to it at every step."""

    rate: Tensor  # [T, ..., H] -log(keep), at least 0; exact where keep itself would be rounded to 1
    value: Tensor  # [T, ..., H]

    @property
    def keep(self) -> Tensor:
        """[T, ..., H] in [0, 1]."""
        return torch.exp(-self.rate)


def recurrences(mixers: Sequence[Encoder]) -> tuple[Recurrence, ...]:
    """The mixers, where the memory of each is a sum over past steps; none where one is not."""
    found = tuple(mixer for mixer in mixers if isinstance(mixer, MinGRU | MinLSTM))
    return found if len(found) == len(mixers) else ()


def terms(mixer: Encoder, x: Tensor) -> Terms:
    """The terms of a layer that reads x.

        minGRU     keep = 1 - sigmoid(gate)         value = sigmoid(gate) * activation(candidate)
        minLSTM    keep = f / (f + i)               value = i / (f + i) * activation(candidate)

    Args:
        mixer: MinGRU or MinLSTM.
        x: [T, ..., D] what it reads.

    Raises:
        ValueError: another encoder, whose memory is no such sum.
    """
    if isinstance(mixer, MinGRU):
        gate, candidate = mixer.projection(x).chunk(2, dim=-1)
    elif isinstance(mixer, MinLSTM):
        forget, input, candidate = mixer.projection(x).chunk(3, dim=-1)
        gate = logsigmoid(input) - logsigmoid(forget)
    else:
        raise ValueError(f"{type(mixer).__name__}: expected MinGRU or MinLSTM, whose memory is a sum over past steps")
    return Terms(softplus(gate), torch.sigmoid(gate) * activate(mixer.candidate, candidate))


def contribution(
    mixer: Encoder, x: Tensor, start: Tensor, *, group: int = 1, of: Sequence[int] | None = None
) -> Tensor:
    """What each step put into the memory, as far as it is still there.

        C[t, s] = (product of keep[s+1..t]) * value[s],   0 where an episode starts in s+1..t;   h[t] = sum of C[t]

    The memory without step s, all gates kept, is h - C[:, s]: exactly, not to first order.

    Args:
        mixer: MinGRU or MinLSTM.
        x: [T, D] what it reads, of one sequence that begins with an empty memory.
        start: [T] bool, x[t] opens an episode.
        group: consecutive steps that count as one.
        of: the groups wanted; None: all.

    Returns:
        [T, G, H] in the precision of x, G = ceil(T / group) or len(of).

    Raises:
        ValueError: see `terms`.
    """
    of = range(-(-len(x) // group)) if of is None else of
    time, which = torch.arange(len(x), device=x.device) // group, torch.tensor(of, device=x.device)
    mine = (time[:, None] == which).unsqueeze(-1)  # [T, G, 1]
    written = terms(mixer, x)
    added = torch.where(mine, written.value.unsqueeze(1), 0)
    keep = written.keep.unsqueeze(1).expand_as(added).contiguous()
    h, _ = linear_scan(keep, added, added.new_zeros(added.shape[1:]), start[:, None].expand(-1, len(of)).contiguous())
    return h


def half_life(rate: Tensor) -> Tensor:
    """Steps after which half is left, log(2) / rate; infinite where nothing is forgotten."""
    return math.log(2) / rate


def deletion_error(
    mixer: Recurrence, x: Tensor, start: Tensor, *, steps: Tensor, exact: Recurrence | None = None
) -> float:
    """How far h - C[:, s] is from the layer's own scan, run again with nothing written at s.

    Args:
        mixer: whose scan is run, in its own precision.
        x: [T, D] what it reads, of one sequence that begins with an empty memory.
        start: [T] bool.
        steps: [R] the s to try.
        exact: whose contributions are taken, in its own precision; None: those of `mixer`.

    Returns:
        the largest difference over T, R and H.
    """
    exact = mixer if exact is None else exact
    of = contribution(exact, x.to(exact.projection.weight.dtype), start, of=steps.tolist())
    opens = start[:, None].expand(-1, len(steps)).contiguous()
    columns: Tensor = mixer.projection(x.to(mixer.projection.weight.dtype))[:, None].repeat(1, len(steps), 1)
    whole = _scanned(mixer, columns, opens)
    H = mixer.output_size
    columns[steps, torch.arange(len(steps)), -H:] = -1e9 if mixer.candidate == "g" else 0  # activated, that is 0
    return float((whole - _scanned(mixer, columns, opens) - of).abs().max())


def _scanned(mixer: Recurrence, columns: Tensor, start: Tensor) -> Tensor:
    """[T, R, H] the memory that comes of projected inputs [T, R, 2H or 3H]."""
    none = columns.new_zeros(columns.shape[1], mixer.output_size)
    if isinstance(mixer, MinGRU):
        gate, candidate = (part.contiguous() for part in columns.chunk(2, dim=-1))
        return min_gru_scan(gate, candidate, none, start, activation=mixer.candidate)[0]
    forget, input, candidate = (part.contiguous() for part in columns.chunk(3, dim=-1))
    return min_lstm_scan(forget, input, candidate, none, start, activation=mixer.candidate)[0]
