"""Ranks: the processes that train one agent, and what they exchange.

Every rank plays its share of the environments, or reads its share of the data, and takes the same gradient steps with
the same weights. All exchanges are collective: every rank makes the same calls in the same order. One process is a run
of one rank; then every method returns its argument.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

LARGEST_IN_PAIRS = 1_000_000
"""Bytes up to which more than two CPU ranks exchange whole tensors; larger ones go around a ring in pieces."""


class LostRank(ConnectionError):
    """Another process of the run has ended, or has not answered within the time limit."""


class Moments(NamedTuple):
    """Number of rows, their mean and their variance (float64, without Bessel's correction)."""

    rows: int
    mean: Tensor
    var: Tensor


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of its run.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local: number of this process on its machine, from 0.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process logs, evaluates and writes files."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self.size == 1

    def share(self, total: int, name: str) -> int:
        """This rank's share of `total`, the setting `name`.

        Raises:
            ValueError: the ranks do not divide it.
        """
        if total % self.size:
            near = -(-total // self.size) * self.size
            message = f"{name}={total}: {self.size} processes need a multiple of {self.size}"
            raise ValueError(f"{message}, for example {name}={near}")
        return total // self.size

    def part(self, x: Tensor) -> Tensor:
        """This rank's rows [b, ...] of a tensor [B, ...] of all ranks."""
        rows = self.share(len(x), "rows")
        return x[self.rank * rows : (self.rank + 1) * rows]

    def sum(self, x: Tensor) -> Tensor:
        """The sum of the ranks' tensors of one shape."""
        return x if self.is_alone else self._reduce(x, dist.ReduceOp.SUM)

    def max(self, x: Tensor) -> Tensor:
        """The largest of the ranks' tensors of one shape, entry by entry."""
        return x if self.is_alone else self._reduce(x, dist.ReduceOp.MAX)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return flag if self.is_alone else bool(self.max(torch.tensor(int(flag))))

    def gather(self, x: Tensor) -> Tensor:
        """The rows [b, ...] of all ranks, one rank after the other; b may differ."""
        if self.is_alone:
            return x
        sizes = [torch.zeros((), dtype=torch.int64) for _ in range(self.size)]
        with _name_loss():
            dist.all_gather(sizes, torch.tensor(len(x)))
        most = max(int(size) for size in sizes)
        sent = torch.zeros((most, *x.shape[1:]), dtype=_sent_as(x.dtype), device=x.device)
        sent[: len(x)] = x.detach()
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        with _name_loss():
            dist.all_gather(parts, sent)
        return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)]).to(x.dtype)

    def _gather_alike(self, x: Tensor) -> Tensor:
        """The tensors [...] of all ranks, of one shape, as [size, ...]: one exchange, where `gather` takes two."""
        parts = x.new_zeros(self.size, *x.shape)
        parts[self.rank] = x
        return self.sum(parts)

    def broadcast(self, x: Tensor) -> Tensor:
        """The main rank's tensor; that of the others gives shape, dtype and device."""
        if self.is_alone:
            return x
        sent = x.detach().to(_sent_as(x.dtype), copy=True).contiguous()
        with _name_loss():
            dist.broadcast(sent, src=0)
        return sent.to(x.dtype)

    def broadcast_text(self, text: str) -> str:
        """The main rank's text."""
        if self.is_alone:
            return text
        content = torch.tensor(list(text.encode()), dtype=torch.uint8)
        rows = int(self.broadcast(torch.tensor(len(content))))
        return bytes(self.broadcast(content if self.is_main else content.new_zeros(rows)).tolist()).decode()

    def moments(self, x: Tensor) -> Moments:
        """Number, mean and variance of the rows of [N, *shape], of all ranks; N may be 0."""
        x = x.double()
        if len(x) == 0:
            return self.pool(Moments(0, x.new_zeros(x.shape[1:]), x.new_zeros(x.shape[1:])))
        return self.pool(Moments(len(x), x.mean(0), x.var(0, correction=0)))

    def pool(self, own: Moments) -> Moments:
        """The moments of all ranks' rows together, from those of each (Chan et al. 1979)."""
        if self.is_alone:
            return own
        count = own.mean.new_full((1,), own.rows)
        parts = self._gather_alike(torch.cat([count, own.mean.flatten(), own.var.flatten()]))
        counts, (means, variances) = parts[:, :1], parts[:, 1:].chunk(2, dim=1)
        total = counts.sum().clamp(min=1)
        mean = (counts * means).sum(0) / total
        var = (counts * (variances + (means - mean).square())).sum(0) / total
        return Moments(int(counts.sum()), mean.view(own.mean.shape), var.view(own.var.shape))

    def mean_and_std(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (with Bessel's correction) of all ranks' [N], in their dtype."""
        if self.is_alone:
            return x.mean(), x.std()
        count, mean, var = self.moments(x)
        return mean.to(x.dtype), (var * (count / max(count - 1, 1))).sqrt().to(x.dtype)

    def check_same(self, tensors: Mapping[str, Tensor], *, when: str) -> None:
        """Raise a FloatingPointError on every rank if the tensors are not the same bits on all."""
        if self.is_alone:
            return
        hasher = hashlib.blake2b(digest_size=8)
        for x in tensors.values():
            hasher.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        digests = self.gather(torch.tensor([int.from_bytes(hasher.digest(), "little", signed=True)]))
        other = [rank for rank, digest in enumerate(digests.tolist()) if digest != digests[0]]
        if other:
            raise FloatingPointError(
                f"weights: those of process {other[0]} differ from those of process 0 at {when}; nothing was saved. "
                "Do all processes have the same versions and the same kind of device?"
            )

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.any(False)

    @contextmanager
    def first_on_machine(self) -> Iterator[None]:
        """One rank of each machine runs the block first, the others after it: what it compiled is on disk then."""
        if self.local > 0:
            self.barrier()
        yield
        if self.local == 0:
            self.barrier()

    def _reduce(self, x: Tensor, how: Any) -> Tensor:
        x = x.detach().contiguous()
        pairs = x.device.type == "cpu" and self.size & (self.size - 1) == 0
        with _name_loss():
            if pairs and (self.size == 2 or x.nbytes <= LARGEST_IN_PAIRS):
                return self._reduce_in_pairs(x, torch.add if how == dist.ReduceOp.SUM else torch.maximum)
            total = x.clone()
            dist.all_reduce(total, how)
        return total

    def _reduce_in_pairs(self, total: Tensor, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Every rank and its partner exchange what they have so far; partners are 1, 2, 4, ... ranks away.

        gloo's own reduction cuts the tensor into pieces and passes them around in a ring. Between processes of one
        machine each hop costs about as much as the whole of a small tensor, and this has fewer (`rlmin bench ranks`).
        Both partners add the same two numbers, so all ranks get the same bits.
        """
        distance = 1
        while distance < self.size:
            partner, other = self.rank ^ distance, torch.empty_like(total)
            sending = dist.isend(total, partner)
            dist.recv(other, partner)
            assert sending is not None, "both are in the group"
            sending.wait()
            total = join(total, other)
            distance *= 2
        return total


ALONE = Ranks()
"""A run of one process."""


def _sent_as(dtype: torch.dtype) -> torch.dtype:
    """The type that stands for `dtype` in an exchange: gloo has no bool."""
    return torch.uint8 if dtype == torch.bool else dtype


@contextmanager
def _name_loss() -> Iterator[None]:
    """An error of the connection as a `LostRank`."""
    try:
        yield
    except RuntimeError as error:
        late = "has not answered in time" if "imed out" in str(error) else "has ended"
        raise LostRank(f"another process of this run {late}") from error
