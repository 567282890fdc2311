"""Inputs: every leaf of an observation is embedded to [..., width] and the embeddings are summed.

    read as             embedding
    picture             convolutions, Linear
    symbols             a grid, as MiniGrid's raw image: SiLU of a learned vector of each cell, the sum of its
                        channels' -> Linear
    numbers             of any shape: (running normaliser) -> Linear -> SiLU -> Linear
    "return_to_go"      kept within what was trained on -> Linear -> SiLU -> Linear
    choices             one-hot -> (running normaliser) -> Linear

What a leaf is read as is decided in rlmin.policy.readings. A picture is divided by its largest bound (255, or 1 of
floats in [-1, 1]); frames of a stack are channels. Integers among the numbers (uint8 or another type) are scaled to [0,
1] by the bounds of their Box, unless these are more than 65535 apart or the running normaliser is on; floats keep their
unit. Normalised, what is always the same (most walls of a grid) is 0 and what is rare (a key) stands out.

Two leaves can be added by a switch: "previous_action" and "previous_reward". Where `start` is set they are "none", a
learned vector, whatever number or choice the tensor holds. Text (MiniGrid's mission) is no leaf: see rlmin.spaces.
"""

import math
from collections.abc import Collection, Mapping
from typing import cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rlmin.distributed import ALONE, Moments, Ranks
from rlmin.kernels import block, feed_forward
from rlmin.policy.heads import box_unit, choice_sizes
from rlmin.policy.normalize import Range, RunningNorm
from rlmin.policy.readings import Reading, read_as
from rlmin.spaces import leaf_spaces
from rlmin.types import Observation
from rlmin.wrappers.return_to_go import RETURN_TO_GO

PREVIOUS_ACTION = "previous_action"
PREVIOUS_REWARD = "previous_reward"
WIDEST = 65535
"""Largest distance of the bounds of integers that are scaled; bounds farther apart only state what the type holds."""


class Inputs(nn.Module):
    """Sum of the embedded leaves of an observation.

        y = sum over leaves of embed[leaf](observation[leaf])

    Args:
        observation_space: of a single environment; Dict and Tuple may nest.
        width: size of the sum.
        action_space: of a single environment; read only for `previous_action`.
        previous_action, previous_reward: add these leaves.
        normalize: give numbers and choices a running normaliser.
        readings: of the leaves, see `rlmin.policy.readings`; None: as they look.

    Raises:
        ValueError: a leaf is not supported, a switched leaf's name is taken by the environment, or `previous_action`
            is set without an `action_space`.
    """

    def __init__(
        self,
        observation_space: gym.Space[object],
        width: int,
        *,
        action_space: gym.Space[object] | None = None,
        previous_action: bool = False,
        previous_reward: bool = False,
        normalize: bool = False,
        readings: Mapping[str, Reading] | None = None,
    ) -> None:
        super().__init__()
        leaves = leaf_spaces(observation_space)
        readings = read_as(leaves) if readings is None else readings
        check_switches(leaves, previous_action=previous_action, previous_reward=previous_reward)
        if previous_action and action_space is None:
            raise ValueError("previous_action=True needs action_space")
        self.names = tuple(leaves)  # module names must not hold dots, so leaves are kept by position
        self.embed = nn.ModuleList(_embedding(readings[name], width, normalize) for name in leaves)
        self.action = PreviousAction(action_space, width) if previous_action and action_space is not None else None
        self.reward = PreviousReward(width) if previous_reward else None

    def forward(self, observation: Observation, start: Tensor) -> Tensor:
        """Observation leaves [..., *leaf.shape] and start [...] bool -> [..., width]."""
        total: Tensor | None = None
        for name, embed in zip(self.names, self.embed, strict=True):
            part = embed(observation[name])
            total = part if total is None else total + part
        if self.action is not None:
            total = total + self.action(observation[PREVIOUS_ACTION], start)
        if self.reward is not None:
            total = total + self.reward(observation[PREVIOUS_REWARD], start)
        return cast(Tensor, total)

    @property
    def only_numbers(self) -> "Numbers | None":
        """The module that embeds the observation, if that is one leaf of numbers and nothing is added to it."""
        embed = self.embed[0] if len(self.embed) == 1 and self.action is None and self.reward is None else None
        return embed if type(embed) is Numbers else None

    @torch.no_grad()
    def update_normalizer(self, observation: Mapping[str, Tensor], keep: Tensor | None, ranks: Ranks = ALONE) -> None:
        """Merge the numbers and choices of all ranks' rollouts into the running statistics.

        Args:
            observation: leaves [T, B, ...]; one that is not there keeps the statistics it has.
            keep: [T, B] bool, rows that count; None: all of them.
        """
        for name, embed in zip(self.names, self.embed, strict=True):
            if isinstance(embed, Numbers | Choices) and embed.norm is not None and name in observation:
                x = observation[name]
                embed.update_normalizer(x.flatten(0, 1) if keep is None else x[keep], ranks)


class Numbers(nn.Module):
    """Numeric Box [..., *shape] -> [..., width]."""

    low: Tensor
    span: Tensor

    def __init__(self, space: gym.spaces.Box, width: int, normalize: bool, *, keep_range: bool = False) -> None:
        super().__init__()
        self.size = size = int(np.prod(space.shape))
        self.axes = len(space.shape)
        self.scaled = np.issubdtype(space.dtype, np.integer) and not normalize
        if self.scaled:
            low, high = (bound.reshape(size).astype(np.int64) for bound in (space.low, space.high))
            span = high.astype(np.float64) - low  # float64: the whole of int64 would wrap
            bounded = (span > 0) & (span <= WIDEST)
            self.register_buffer("low", torch.from_numpy(np.where(bounded, low, 0)), persistent=False)
            self.register_buffer(
                "span", torch.from_numpy(np.where(bounded, span, 1).astype(np.float32)), persistent=False
            )
        self.norm = Range((size,)) if keep_range else RunningNorm((size,)) if normalize else None
        self.net = nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        first, act, second = cast(tuple[nn.Linear, nn.Module, nn.Linear], tuple(self.net))
        x = self.flat(x)
        is_known = type(act) is nn.SiLU
        if is_known and block.usable(x, first.weight):
            return block.silu_mlp(x, first, second)
        if is_known and feed_forward.usable(x, first.weight):
            return feed_forward.silu_mlp(x, first, second)
        return cast(Tensor, second(act(first(x))))

    def flat(self, x: Tensor) -> Tensor:
        """[..., *shape] -> [..., size], scaled and normalised: what `net` reads."""
        dtype = cast(nn.Linear, self.net[0]).weight.dtype
        if self.axes != 1:
            x = x.flatten(x.ndim - self.axes) if self.axes else x.unsqueeze(-1)
        x = (x.long() - self.low).to(dtype) / self.span.to(dtype) if self.scaled else x.to(dtype)
        return x if self.norm is None else cast(Tensor, self.norm(x))

    def update_normalizer(self, x: Tensor, ranks: Ranks = ALONE) -> None:
        """Merge the [N, *shape] of all ranks."""
        if self.norm is not None:
            self.norm.update(x.reshape(-1, self.size), ranks)


class Choices(nn.Module):
    """Integers [..., *shape], entry l below sizes[l], -> [..., width]: a learned vector an entry and value, summed."""

    offset: Tensor
    RARE = 1e-3
    """Added to variances. It limits how far an entry stands out that is rarer than about one step in a thousand."""

    def __init__(self, shape: tuple[int, ...], sizes: np.ndarray, width: int, *, normalize: bool = False) -> None:
        super().__init__()
        self.axes, self.total = len(shape), int(sizes.sum())
        self.register_buffer("offset", torch.as_tensor(np.cumsum(sizes) - sizes), persistent=False)
        self.norm = RunningNorm((self.total,), clip=math.inf, eps=self.RARE) if normalize else None
        self.projection = nn.Linear(self.total, width)

    def forward(self, x: Tensor) -> Tensor:
        index, weight = self._index(x), self.projection.weight
        plain = self.norm is None and not torch.is_grad_enabled()
        if plain and weight.is_cpu and not torch.is_autocast_enabled("cpu"):
            rows = nn.functional.embedding(index, weight.t())  # a product with zeros costs more
            return rows.sum(-2) + self.projection.bias
        one_hot = weight.new_zeros((*index.shape[:-1], self.total)).scatter_(-1, index, 1.0)
        return cast(Tensor, self.projection(one_hot if self.norm is None else self.norm(one_hot)))

    def update_normalizer(self, x: Tensor, ranks: Ranks = ALONE) -> None:
        """Merge the [N, *shape] of all ranks."""
        if self.norm is not None:
            place = self._index(x).flatten()
            count = place.new_zeros(self.total).scatter_add_(0, place, torch.ones_like(place))  # bincount would wait
            share = count.double() / max(len(x), 1)
            self.norm.merge(ranks.pool(Moments(len(x), share, share * (1 - share))))

    def _index(self, x: Tensor) -> Tensor:
        """[..., *shape] -> [..., entries] int64: the places of the ones."""
        return (x.long().flatten(x.ndim - self.axes) if self.axes else x.long().unsqueeze(-1)) + self.offset


class Symbols(nn.Module):
    """A grid [..., rows, columns, channels], or with channels first, of 0..255 -> [..., width].

        y = projection(SiLU(sum over channels c of table[c, x[..., c]]))

    Channels tell of one object (what it is, its colour), so they meet in their cell before cells are summed: else a red
    key beside a grey ball would have everything that a red ball has.
    """

    offset: Tensor
    SYMBOLS, SIZE = 256, 16

    def __init__(self, shape: tuple[int, ...], width: int, *, channels_first: bool = False) -> None:
        super().__init__()
        self.channels_first = channels_first
        rows, columns, channels = (*shape[1:], shape[0]) if channels_first else shape
        self.register_buffer("offset", self.SYMBOLS * torch.arange(channels), persistent=False)
        self.table = nn.Embedding(self.SYMBOLS * channels, self.SIZE)
        self.projection = nn.Linear(rows * columns * self.SIZE, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(-3, -1) if self.channels_first else x
        cell = self.table(x.long() + self.offset).sum(-2)
        return cast(Tensor, self.projection(nn.functional.silu(cell).flatten(-3)))


class Picture(nn.Module):
    """Picture [..., H, W, C], [..., C, H, W], [..., H, W] or a stack [..., F, of these] -> [..., width]."""

    def __init__(self, reading: Reading, width: int) -> None:
        super().__init__()
        shape = reading.space.shape or ()
        assert reading.axes is not None, "of a picture"
        self.largest, self.shape = reading.largest, shape
        self.order = tuple(axis for axis in reading.axes if axis is not None)  # frames, channels, rows, columns
        rows, columns = (shape[axis] for axis in self.order[-2:])
        channels = math.prod(shape) // (rows * columns)
        # from 36 pixels on, the convolutions of Mnih et al. 2015; below, two that shrink by four in all
        layers = [(32, 8, 4), (64, 4, 2), (64, 3, 1)] if min(rows, columns) >= 36 else [(32, 3, 2), (64, 3, 2)]
        net: list[nn.Module] = []
        for out, kernel, stride in layers:
            net += [nn.Conv2d(channels, out, kernel, stride), nn.ReLU()]
            channels, rows, columns = out, (rows - kernel) // stride + 1, (columns - kernel) // stride + 1
        self.net = nn.Sequential(*net, nn.Flatten(), nn.Linear(channels * rows * columns, width))

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: x.ndim - len(self.shape)]
        x = x.reshape(-1, *self.shape).to(cast(nn.Conv2d, self.net[0]).weight.dtype) / self.largest
        x = x.permute(0, *(1 + axis for axis in self.order))
        x = x.flatten(1, -3) if len(self.order) > 2 else x.unsqueeze(1)
        return cast(Tensor, self.net(x).view(*lead, -1))


class PreviousAction(nn.Module):
    """The action taken one step ago, in rlmin's own form; none[] where an episode starts.

    A point beyond the bounds is read as the environment took it, at the bound, as it stands in logged data.
    """

    def __init__(self, space: gym.Space[object], width: int) -> None:
        super().__init__()
        self.embed: nn.Module
        if isinstance(space, gym.spaces.Box):
            self.embed = nn.Linear(int(np.prod(space.shape)), width)
            low, high, centre, scale = box_unit(space)
            for name, bound in (("least", low), ("most", high)):
                unit = torch.as_tensor((bound - centre) / scale, dtype=torch.float32)
                self.register_buffer(name, unit, persistent=False)
        else:
            sizes = choice_sizes(space)
            self.embed = Choices((len(sizes),), sizes, width)
        self.none = nn.Parameter(torch.zeros(width))

    least: Tensor
    most: Tensor

    def forward(self, action: Tensor, start: Tensor) -> Tensor:
        if action.is_floating_point():
            action = torch.clamp(action, self.least, self.most).to(self.none.dtype)
        return torch.where(start.unsqueeze(-1), self.none, self.embed(action))


class PreviousReward(nn.Module):
    """The reward received one step ago, env units; none[] where an episode starts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(1, width)
        self.none = nn.Parameter(torch.zeros(width))

    def forward(self, reward: Tensor, start: Tensor) -> Tensor:
        reward = reward.to(self.none.dtype).unsqueeze(-1)
        return torch.where(start.unsqueeze(-1), self.none, self.embed(reward))


def check_switches(leaves: Collection[str], *, previous_action: bool, previous_reward: bool) -> None:
    """Raise a ValueError if a leaf that a switch adds has the name of one of the environment's own."""
    for name, wanted in ((PREVIOUS_ACTION, previous_action), (PREVIOUS_REWARD, previous_reward)):
        if wanted and name in leaves:
            raise ValueError(f"{name}=True, but the environment's own observation has a leaf of that name")


def _embedding(reading: Reading, width: int, normalize: bool) -> nn.Module:
    """The module for one leaf."""
    name, space = reading.name, reading.space
    if isinstance(space, gym.spaces.Box):
        if reading.kind == "picture":
            return Picture(reading, width)
        if reading.kind == "symbols" and reading.axes is not None:
            return Symbols(space.shape, width, channels_first=reading.axes[1] == 0)
        # a return-to-go has a unit of its own, the return scale; beyond what was trained on it would mislead
        return Numbers(space, width, normalize, keep_range=name == RETURN_TO_GO)
    try:
        return Choices(tuple(space.shape or ()), choice_sizes(space), width, normalize=normalize)
    except ValueError:
        raise ValueError(
            f"observation {name!r}: expected Box, Discrete, MultiDiscrete, MultiBinary or a Dict or Tuple of these, "
            f"got {space}"
        ) from None
