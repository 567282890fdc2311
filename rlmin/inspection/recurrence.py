"""A memory as a sum over past steps, for cells that have terms.

    h[t] = keep[t] * h[t-1] + value[t]
         = sum over s <= t of (product of keep[s+1..t]) * value[s]        s from the last start on

Terms do not depend on the memory, so each belongs to exactly one step.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlmin.encoders import CELLS, Cell, Encoder
from rlmin.encoders.cell import Terms as Terms
from rlmin.encoders.cell import cell_of
from rlmin.scan import linear_scan
from rlmin.types import State, cat_states, map_state


def recurrences(mixers: Sequence[Encoder]) -> tuple[Encoder, ...]:
    """The mixers, if the memory of each is a sum over past steps; none otherwise."""
    cells = [cell_of(mixer) for mixer in mixers]
    return tuple(mixers) if all(cell is not None and cell.has_terms for cell in cells) else ()


def cell_with_terms(mixer: Encoder) -> Cell:
    """The registration of a mixer, whose memory has to be a sum over past steps.

    Raises:
        ValueError: it is not.
    """
    cell = cell_of(mixer)
    if cell is None or not cell.has_terms:
        some = ", ".join(known.name for known in CELLS.values() if known.has_terms)
        raise ValueError(f"{type(mixer).__name__}: its memory is not a sum over past steps; expected one of {some}")
    return cell


def terms(mixer: Encoder, x: Tensor) -> Terms:
    """The factor and the summand of a layer's memory at every step of x [T, ..., D].

    Raises:
        ValueError: the memory is not such a sum.
    """
    of = cell_with_terms(mixer).terms
    assert of is not None, "cell_with_terms has checked it"
    return of(mixer, x)


def output_of(mixer: Encoder, x: Tensor, memory: Tensor) -> Tensor:
    """[T, ..., H] output of a layer for x [T, ..., D] and `memory` [T, ..., *unit]."""
    cell = cell_with_terms(mixer)
    return memory if cell.read is None or cell.puts_out_memory(mixer) else cell.read(mixer, x, memory)


def memory_of(
    mixer: Encoder, x: Tensor, start: Tensor, state: "State | None" = None
) -> tuple[Tensor, Callable[[int], State]]:
    """The memory of a layer after each step, computed by the layer itself.

    Args:
        mixer: of a cell with terms.
        x: [T, B, D] its input; start: [T, B] bool.
        state: its state before x[0]; None: the initial one.

    Returns:
        [T, B, *unit], and its whole state after step t.
    """
    cell, state = cell_with_terms(mixer), mixer.initial_state(x.shape[1]) if state is None else state
    if cell.puts_out_memory(mixer):
        h, _ = mixer(x, state, start)
        return h, lambda t: h[t]
    states = []
    for t in range(len(x)):
        _, state = mixer.step(x[t], state, start[t])
        states.append(state)
    return torch.stack([cell.memory_of(state) for state in states]), lambda t: states[t]


def contribution(
    mixer: Encoder, x: Tensor, start: Tensor, *, group: int = 1, of: Sequence[int] | None = None
) -> Tensor:
    """The contribution of each step that is still in the memory.

        C[t, s] = (product of keep[s+1..t]) * value[s],   0 where an episode starts in s+1..t;   h[t] = sum of C[t]

    The memory without step s, all gates kept, is h - C[:, s]: exactly, not to first order.

    Args:
        mixer: of a cell with terms.
        x: [T, D] its input in one sequence, which begins with an empty memory.
        start: [T] bool, x[t] opens an episode.
        group: consecutive steps that count as one.
        of: groups to compute; None: all.

    Returns:
        [T, G, *unit] in the precision of x, G = ceil(T / group) or len(of).

    Raises:
        ValueError: see `terms`.
    """
    of = range(-(-len(x) // group)) if of is None else of
    time, which = torch.arange(len(x), device=x.device) // group, torch.tensor(of, device=x.device)
    written = terms(mixer, x)
    unit, value = written.value.shape[1:], written.value
    if written.opening is not None:
        opens = start | (torch.arange(len(x), device=x.device) == 0)
        value = torch.where(opens.view(-1, *[1] * len(unit)), written.opening, value)
    mine = (time[:, None] == which).view(len(x), len(of), *[1] * len(unit))
    added = torch.where(mine, value.unsqueeze(1), 0)
    keep = written.keep.expand(len(x), *unit).unsqueeze(1).expand_as(added)
    return _accumulate(keep, added, start[:, None].expand(-1, len(of)).contiguous())


def half_life(rate: Tensor) -> Tensor:
    """Steps after which half is left, log(2) / rate; infinite where nothing is forgotten, or a memory grows."""
    return torch.where(rate > 0, math.log(2) / rate, math.inf)


def deletion_error(mixer: Encoder, x: Tensor, start: Tensor, *, steps: Tensor, exact: Encoder | None = None) -> float:
    """The distance of h - C[:, s] from the layer's own memory when nothing is written at s.

    Args:
        mixer: the layer, whose own pass continues after s with keep[s] * h[s-1], in its own precision.
        x: [T, D] its input in one sequence, which begins with an empty memory.
        start: [T] bool.
        steps: [R] values of s.
        exact: layer of the contributions, in its own precision; None: `mixer`.

    Returns:
        the largest difference over T, R and the memory.
    """
    exact, T = mixer if exact is None else exact, len(x)
    of = contribution(exact, x.to(_dtype(exact)), start, of=steps.tolist())
    x, opens = x.to(_dtype(mixer))[:, None], start[:, None]
    whole, state_after = memory_of(mixer, x, opens)
    before = torch.cat([torch.zeros_like(whole[:1]), whole[:-1]])
    kept = terms(mixer, x).keep * before.masked_fill(start.view(-1, *[1] * (before.dim() - 1)), 0)
    begun = cat_states([_replace_memory(mixer, state_after(s), kept[s]) for s in steps.tolist()])
    later = steps + 1 + torch.arange(T)[:, None]  # [T, R] the steps that follow s, and some beyond the end
    at = later.clamp(max=T - 1)
    again, _ = memory_of(mixer, x[at, 0], opens[at, 0], begun)
    each = torch.arange(len(steps))
    behind = (whole[at, 0] - again - of[at, each])[later < T]
    inside = whole[steps, 0] - kept[steps, 0] - of[steps, each]
    return float(torch.cat([behind, inside]).abs().max())


def _replace_memory(mixer: Encoder, state: State, memory: Tensor) -> State:
    """`state` with `memory` as the part that the terms describe."""
    own = cell_with_terms(mixer).part_of(state)
    memory = torch.view_as_real(memory) if memory.is_complex() else memory
    return map_state(lambda part: memory.to(part.dtype) if part is own else part, state)


def _accumulate(keep: Tensor, value: Tensor, start: Tensor) -> Tensor:
    """h of h[t] = keep[t] * h[t-1] + value[t], [T, G, *unit], from zero; step by step for complex numbers."""
    nothing = value.new_zeros(value.shape[1:])
    if not value.is_complex() and not keep.is_complex():
        return linear_scan(keep.contiguous(), value, nothing, start)[0]
    h, found = nothing, []
    for t in range(len(value)):
        h = keep[t] * h.masked_fill(start[t].view(-1, *[1] * (h.dim() - 1)), 0) + value[t]
        found.append(h)
    return torch.stack(found)


def _dtype(mixer: Encoder) -> torch.dtype:
    return next(mixer.parameters()).dtype
