"""Random numbers by shard, so that they do not depend on the number of processes.

The environments of a run are cut into S shards of equal size, each with a stream of its own. A rank holds whole shards.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from rlmin.distributed.ranks import Ranks


class Streams:
    """The random numbers of the shards that a rank holds.

    Args:
        each: one generator a shard.
        shards: S of the run; a run of one shard draws from the agent's own generator, which saves itself.
    """

    def __init__(self, each: Sequence[torch.Generator], *, shards: int = 1) -> None:
        self.each, self.shards = list(each), shards

    def deal(self, windows: int, envs: int, parts: int) -> list[Tensor]:
        """Shuffled rows in minibatches, each with an equal part of every shard.

        Args:
            windows: windows of an environment; row w * envs + b is window w of environment b.
            envs: environments of this rank.
            parts: minibatches.

        Returns:
            `parts` index tensors.
        """
        size, dealt = envs // len(self.each), list[tuple[Tensor, ...]]()
        for shard, generator in enumerate(self.each):
            own = torch.randperm(windows * size, generator=generator, device=generator.device)
            dealt.append((own // size * envs + shard * size + own % size).chunk(parts))
        return [torch.cat(part) for part in zip(*dealt, strict=True)]

    def state_dict(self, ranks: Ranks) -> dict[str, Tensor]:
        """The states of all shards, by names that depend on the kind of device, whose random numbers they are."""
        if self.shards == 1:
            return {}
        states = ranks.gather(torch.stack([generator.get_state() for generator in self.each]))
        return {f"{self._prefix}{number}": state.clone() for number, state in enumerate(states)}

    def load_state_dict(self, saved: Mapping[str, Tensor], ranks: Ranks, *, seed: int) -> None:
        """Continue from `state_dict`, of any number of ranks; from `seed`, if another kind of device saved it."""
        if self.shards == 1:
            return
        first = ranks.rank * len(self.each)
        for number, generator in enumerate(self.each, first):
            state = saved.get(f"{self._prefix}{number}")
            if state is None:
                generator.manual_seed(_shard_seed(seed, number))
            else:
                generator.set_state(state)

    @property
    def _prefix(self) -> str:
        return f"generator.{self.each[0].device.type}."


Source: TypeAlias = torch.Generator | Streams | None
"""Where random numbers come from: one stream, that of each shard, or (None) torch's own."""


def make_streams(seed: int, shards: int, ranks: Ranks, generator: torch.Generator) -> Streams:
    """The streams of this rank's shards; a run of one shard draws from `generator`.

    Raises:
        ValueError: the ranks do not divide the shards.
    """
    mine = ranks.share(shards, "shards")
    if shards == 1:
        return Streams([generator])
    seeds = [_shard_seed(seed, number) for number in range(ranks.rank * mine, (ranks.rank + 1) * mine)]
    return Streams([torch.Generator(generator.device).manual_seed(x) for x in seeds], shards=shards)


def _shard_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, 2, number)).generate_state(1)[0])


def generators_of(source: Source) -> list[torch.Generator]:
    """Every generator of a source."""
    return source.each if isinstance(source, Streams) else [] if source is None else [source]


def fill_exponential(x: Tensor, source: Source) -> Tensor:
    """`x` [B, ...], filled with draws from the exponential distribution of rate 1."""
    return _fill(x, source, Tensor.exponential_)


def fill_normal(x: Tensor, source: Source) -> Tensor:
    """`x` [B, ...], filled with draws from the standard normal distribution."""
    return _fill(x, source, Tensor.normal_)


def _fill(x: Tensor, source: Source, draw: Callable[..., Tensor]) -> Tensor:
    """`x` [B, ...], its rows filled by `draw` from the generator of their shard."""
    if not isinstance(source, Streams):
        return draw(x, generator=source)
    for part, generator in zip(x.chunk(len(source.each)), source.each, strict=True):
        draw(part, generator=generator)
    return x
