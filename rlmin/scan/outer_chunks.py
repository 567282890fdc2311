"""`outer_scan`, one chunk at a time: a triangle of products inside each chunk, and a matrix from chunk to chunk.

Inside a chunk that a memory S enters, with G the sum of the log decays from its last start up to and with a step,

    y[i]  = sum over j <= i of (query[i] . key[j] exp(G[i] - G[j])) value[j]  +  (query[i] exp(G[i]))' S
    S'    = exp(G[C]) * S  +  sum over j of (key[j] exp(G[C] - G[j])) value[j]'

The part that a step removes, u[i] = probe[i]' S[i-1], depends on earlier steps. It solves a triangular system per
chunk, whose right side is linear in S, so y and S' are linear in S too. Only S passes from chunk to chunk.

Resets: `same` marks pairs of steps without a start between them, `fresh` steps that still see S, `last` steps that the
end still sees. Other pairs are masked, not decayed.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

LEAST_OF_HEAD, LEAST_OF_KEY = -20.0, -8.0
"""The smallest log decay of a whole head, and of single key features."""
STEPS = 16
"""Steps of a chunk if steps remove something or keys decay on their own; exponents then stay below 75."""
STEPS_OF_SUM = 32
"""Steps of a chunk otherwise."""


class Removal(NamedTuple):
    """S[t] has add[t] (probe[t]' S[t-1]) in it; each is [T, B, heads, K]."""

    probe: Tensor
    add: Tensor  # may be the very tensor that is the key


class Segments(NamedTuple):
    """The starts of [N, B] chunks of C steps."""

    same: Tensor  # [N, B, 1, C, C]
    fresh: Tensor  # [N, B, 1, C, 1]
    last: Tensor  # [N, B, 1, C, 1]


class Chunks(NamedTuple):
    """Chunks as maps of the S [K, V] that enters: y = inner + outer @ S if fresh, S' = keep * S + move @ S + add."""

    inner: Tensor  # [N, B, heads, C, V]
    outer: Tensor  # [N, B, heads, C, K]
    keep: Tensor  # [N, B, heads, 1 or K, 1]
    move: Tensor | None  # [N, B, heads, K, K]
    add: Tensor  # [N, B, heads, K, V]


def outer_chunks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    state: Tensor,
    start: Tensor | None,
    removal: Removal | None,
    exclusive: bool,
) -> tuple[Tensor, Tensor]:
    """See `outer_scan`; log_decay is [T, B, heads, 1 or K], 0 where start, and T is at least 1."""
    T, B = query.shape[:2]
    wide = STEPS if removal is not None or log_decay.shape[-1] > 1 else STEPS_OF_SUM
    C = min(T, wide)
    start = query.new_zeros(T, B, dtype=torch.bool) if start is None else start
    segments = _segments(start, C)
    shared = removal is not None and removal.add is key
    query, key, value, log_decay = (_cut(x, C) for x in (query, key, value, log_decay))
    if removal is not None:
        removal = Removal(_cut(removal.probe, C), key if shared else _cut(removal.add, C))
    chunks = _chunks(query, key, value, _Decays(log_decay, segments), removal, exclusive)
    begins = _cut_flags(start, C)
    S, entered = state, []
    moves = [None] * len(begins) if chunks.move is None else chunks.move.unbind(0)
    for keep, move, add, begin in zip(chunks.keep.unbind(0), moves, chunks.add.unbind(0), begins, strict=True):
        S = S.masked_fill(begin[0].view(B, 1, 1, 1), 0)
        entered.append(S)
        after = S.masked_fill(begin.any(0).view(B, 1, 1, 1), 0)
        S = torch.addcmul(add, keep, after)
        if move is not None:
            S = S + move @ after
    y = chunks.inner + torch.where(segments.fresh, chunks.outer @ torch.stack(entered), 0)
    return y.permute(0, 3, 1, 2, 4).flatten(0, 1)[:T], S


def _chunks(
    query: Tensor, key: Tensor, value: Tensor, decays: "_Decays", removal: Removal | None, exclusive: bool
) -> Chunks:
    fresh = decays.segments.fresh
    outer = query * decays.since(exclusive) * fresh
    reads = decays.pairs(query, key, exclusive)
    lasting = (key * decays.till_end()).transpose(-1, -2)
    if removal is None:
        return Chunks(reads @ value, outer, decays.whole(), None, lasting @ value)
    probe, add = removal
    V = value.shape[-1]
    system = torch.eye(key.shape[-2], dtype=key.dtype, device=key.device) - decays.pairs(probe, add, True)
    seen = torch.cat([decays.pairs(probe, key, True) @ value, probe * decays.since(True) * fresh], -1)
    solved = torch.linalg.solve_triangular(system, seen, upper=False, unitriangular=True)
    found, of_state = torch.split(solved, [V, key.shape[-1]], -1)  # u[i] = found[i] + of_state[i]' S
    if add is key:
        removed, undone, both = reads, lasting, value + found
        inner, written = reads @ both, lasting @ both
    else:
        removed, undone = decays.pairs(query, add, exclusive), (add * decays.till_end()).transpose(-1, -2)
        inner, written = reads @ value + removed @ found, lasting @ value + undone @ found
    return Chunks(inner, outer + removed @ of_state, decays.whole(), undone @ of_state, written)


class _Decays:
    """Products of decays inside chunks [N, B, heads, C, 1 or K] of log decays."""

    def __init__(self, log_decay: Tensor, segments: Segments) -> None:
        self.segments = segments
        self.triangle = torch.ones_like(segments.same[:1, :1]).tril()
        self.until = (segments.same & self.triangle).to(log_decay.dtype) @ log_decay  # a cumsum from the last start on
        self.before = self.until - log_decay

    def pairs(self, x: Tensor, y: Tensor, before: bool) -> Tensor:
        """[N, B, heads, C, C] x[i] . y[j] times the decay after j, up to and with i; or up to before i, for j < i."""
        reach = self.before if before else self.until
        seen = self.segments.same & (self.triangle.tril(-1) if before else self.triangle)
        if reach.shape[-1] == 1:
            span = (reach - self.until.transpose(-1, -2)).masked_fill(~seen, -torch.inf)  # before exp: none overflows
            return torch.where(seen, (x @ y.transpose(-1, -2)) * span.exp(), 0)
        middle = self.until[..., self.until.shape[-2] // 2, None, :]  # so both exponents are about half as large
        product = (x * (reach - middle).exp()) @ (y * (middle - self.until).exp()).transpose(-1, -2)
        return torch.where(seen, product, 0)

    def since(self, before: bool) -> Tensor:
        """[N, B, heads, C, 1 or K] share left of the memory that entered."""
        return (self.before if before else self.until).exp()

    def till_end(self) -> Tensor:
        """[N, B, heads, C, 1 or K] share left of a step at the end of its chunk, 0 if a start follows."""
        return (self.until[..., -1:, :] - self.until).masked_fill(~self.segments.last, -torch.inf).exp()

    def whole(self) -> Tensor:
        """[N, B, heads, 1 or K, 1] share left after a whole chunk without a start."""
        return self.until[..., -1, :, None].exp()


def _segments(start: Tensor, C: int) -> Segments:
    number = _cut_flags(start, C).transpose(1, 2).cumsum(-1).unsqueeze(2)  # [N, B, 1, C]
    same = number.unsqueeze(-1) == number.unsqueeze(-2)
    return Segments(same, (number == 0).unsqueeze(-1), (number == number[..., -1:]).unsqueeze(-1))


def _cut_flags(start: Tensor, C: int) -> Tensor:
    """[T, B] as [N, C, B]."""
    start = pad(start, (0, 0, 0, -len(start) % C))
    return start.view(len(start) // C, C, start.shape[1])


def _cut(x: Tensor, C: int) -> Tensor:
    """[T, B, heads, D] as [N, B, heads, C, D]; the steps that the last chunk lacks write and forget nothing."""
    x = pad(x, (0, 0, 0, 0, 0, 0, 0, -len(x) % C))
    return x.view(len(x) // C, C, *x.shape[1:]).permute(0, 2, 3, 1, 4)
