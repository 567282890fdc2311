"""Inputs: every leaf of an observation is embedded to [..., width] and the embeddings are summed.

    leaf                                      embedding
    Box, vector or matrix of numbers          (running normaliser) -> Linear -> SiLU -> Linear
    Box of uint8, three axes, a side >= 16    picture: / 255, convolutions, Linear; channels first or last
    Box of uint8, three axes, smaller         grid of symbols (as MiniGrid's raw image): a learned vector a symbol
    Discrete, MultiDiscrete, MultiBinary      one-hot -> Linear

Two leaves can be added by a switch: "previous_action" and "previous_reward". Where `start` is set they are "none", a
learned vector, whatever number or choice the tensor holds. Text (MiniGrid's mission) is no leaf: see rlmin.spaces.
"""

from collections.abc import Mapping
from typing import cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rlmin.heads import choice_sizes
from rlmin.normalize import RunningNorm
from rlmin.spaces import leaf_spaces
from rlmin.types import Observation

PREVIOUS_ACTION = "previous_action"
PREVIOUS_REWARD = "previous_reward"
SMALLEST_PICTURE = 16
"""Pixels on the shorter side below which a uint8 Box is read as a grid of symbols, not as intensities."""


class Inputs(nn.Module):
    """Sum of the embedded leaves of an observation.

        y = sum over leaves of embed[leaf](observation[leaf])

    Args:
        observation_space: of a single environment; Dict and Tuple may nest.
        width: size of the sum.
        action_space: of a single environment; read only for `previous_action`.
        previous_action, previous_reward: add these leaves.
        normalize: give numeric Box leaves a running normaliser.

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
    ) -> None:
        super().__init__()
        leaves = leaf_spaces(observation_space)
        for name, wanted in ((PREVIOUS_ACTION, previous_action), (PREVIOUS_REWARD, previous_reward)):
            if wanted and name in leaves:
                raise ValueError(f"{name}=True, but the environment's own observation has a leaf of that name")
        if previous_action and action_space is None:
            raise ValueError("previous_action=True needs action_space")
        self.names = tuple(leaves)  # module names must not hold dots, so leaves are kept by position
        self.embed = nn.ModuleList(_embedding(name, leaf, width, normalize) for name, leaf in leaves.items())
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

    @torch.no_grad()
    def update_normalizer(self, observation: Mapping[str, Tensor], keep: Tensor) -> None:
        """Merge a rollout's numeric leaves into the running statistics.

        Args:
            observation: leaves [T, B, ...].
            keep: [T, B] bool, rows that count.
        """
        for name, embed in zip(self.names, self.embed, strict=True):
            if isinstance(embed, Numbers) and embed.norm is not None:
                embed.norm.update(observation[name][keep].reshape(-1, embed.size))


class Numbers(nn.Module):
    """Numeric Box [..., *shape] -> [..., width]."""

    def __init__(self, shape: tuple[int, ...], width: int, normalize: bool) -> None:
        super().__init__()
        self.size = size = int(np.prod(shape))
        self.axes = len(shape)
        self.norm = RunningNorm((size,)) if normalize else None
        self.net = nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(cast(nn.Linear, self.net[0]).weight.dtype)
        x = x.flatten(x.ndim - self.axes) if self.axes else x.unsqueeze(-1)
        return cast(Tensor, self.net(x if self.norm is None else self.norm(x)))


class Choices(nn.Module):
    """Integers [..., *shape], entry l below sizes[l], -> [..., width]: a learned vector an entry and value, summed."""

    offset: Tensor

    def __init__(self, shape: tuple[int, ...], sizes: np.ndarray, width: int) -> None:
        super().__init__()
        self.axes, self.total = len(shape), int(sizes.sum())
        self.register_buffer("offset", torch.as_tensor(np.cumsum(sizes) - sizes), persistent=False)
        self.projection = nn.Linear(self.total, width)

    def forward(self, x: Tensor) -> Tensor:
        index = x.long().flatten(x.ndim - self.axes) if self.axes else x.long().unsqueeze(-1)
        one_hot = self.projection.weight.new_zeros((*index.shape[:-1], self.total))
        return cast(Tensor, self.projection(one_hot.scatter_(-1, index + self.offset, 1.0)))


class Symbols(nn.Module):
    """A small uint8 grid [..., rows, columns, channels] -> [..., width]: a learned vector a symbol and channel."""

    offset: Tensor
    SYMBOLS, SIZE = 256, 8

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        channels = shape[-1]
        self.register_buffer("offset", self.SYMBOLS * torch.arange(channels), persistent=False)
        self.table = nn.Embedding(self.SYMBOLS * channels, self.SIZE)
        self.projection = nn.Linear(int(np.prod(shape)) * self.SIZE, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.projection(self.table(x.long() + self.offset).flatten(-4)))


class Picture(nn.Module):
    """uint8 picture [..., H, W, C] or [..., C, H, W] -> [..., width]; the smallest outer axis holds the channels."""

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.channels_last = shape[-1] <= shape[0]
        channels, rows, columns = (shape[-1], *shape[:2]) if self.channels_last else shape
        # from 36 pixels on, the convolutions of Mnih et al. 2015; below, two that shrink by four in all
        layers = [(32, 8, 4), (64, 4, 2), (64, 3, 1)] if min(rows, columns) >= 36 else [(32, 3, 2), (64, 3, 2)]
        net: list[nn.Module] = []
        for out, kernel, stride in layers:
            net += [nn.Conv2d(channels, out, kernel, stride), nn.ReLU()]
            channels, rows, columns = out, (rows - kernel) // stride + 1, (columns - kernel) // stride + 1
        self.net = nn.Sequential(*net, nn.Flatten(), nn.Linear(channels * rows * columns, width))

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[:-3]
        x = x.flatten(0, -4).to(cast(nn.Conv2d, self.net[0]).weight.dtype) / 255
        x = x.permute(0, 3, 1, 2) if self.channels_last else x
        return cast(Tensor, self.net(x).view(*lead, -1))


class PreviousAction(nn.Module):
    """The action taken one step ago, in rlmin's own form; none[] where an episode starts."""

    def __init__(self, space: gym.Space[object], width: int) -> None:
        super().__init__()
        self.embed: nn.Module
        if isinstance(space, gym.spaces.Box):
            self.embed = nn.Linear(int(np.prod(space.shape)), width)
        else:
            sizes = choice_sizes(space)
            self.embed = Choices((len(sizes),), sizes, width)
        self.none = nn.Parameter(torch.zeros(width))

    def forward(self, action: Tensor, start: Tensor) -> Tensor:
        if action.is_floating_point():
            action = action.to(self.none.dtype)
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


def _embedding(name: str, space: gym.Space[object], width: int, normalize: bool) -> nn.Module:
    """The module for one leaf."""
    if isinstance(space, gym.spaces.Box):
        if space.dtype == np.uint8 and len(space.shape) == 3:
            rows_columns = sorted(space.shape)[1:]
            small = min(rows_columns) < SMALLEST_PICTURE
            return Symbols(space.shape, width) if small else Picture(space.shape, width)
        return Numbers(space.shape, width, normalize)
    try:
        return Choices(tuple(space.shape or ()), choice_sizes(space), width)
    except ValueError:
        raise ValueError(
            f"observation {name!r}: expected Box, Discrete, MultiDiscrete, MultiBinary or a Dict or Tuple of these, "
            f"got {space}"
        ) from None
