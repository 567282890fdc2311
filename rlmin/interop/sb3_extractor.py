"""minGRU and minLSTM as features extractors of any stable-baselines3 algorithm: a memory of the last K observations.

    env = VecFrameStack(env, 16)
    model = SAC("MlpPolicy", env, policy_kwargs={
        "features_extractor_class": MinGruExtractor, "features_extractor_kwargs": {"frames": 16}})

SAC, DQN and PPO choose each action from one observation, so they cannot carry a memory from step to step. They can see
a window of the last K; the extractor runs the scan over it, from an empty memory at its oldest frame. That costs K
steps per action, and older observations are lost: use RecurrentPPO or rlmin's own agents to remember whole episodes.
"""

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import Tensor

from rlmin.encoders import Stack

SMALLEST_PICTURE = 36
"""Smallest side in pixels for NatureCNN's convolutions."""


class MinGruExtractor(BaseFeaturesExtractor):
    """The memory's last output over a window of frames.

        y[0..K-1] = stack(frame[0..K-1]),   features = y[K-1]

    Leading frames of zeros count as VecFrameStack's padding at the start of an episode: the memory is wiped after them.
    A NatureCNN reads pictures of at least 36 x 36, frame by frame; everything else is read as numbers.

    Args:
        observation_space: a Box, [K, ...] with time as its first axis (gymnasium's FrameStackObservation), or [K * D]
            or pictures [K * C, H, W] (VecFrameStack) if `frames` is given.
        features_dim: H, size of the features and of the memory.
        frames: K of VecFrameStack; None: the first axis is K.
        layers, mlp, options: of `rlmin.encoders.Stack`.

    Raises:
        ValueError: the space is not such a window.
    """

    mixer: ClassVar[str] = "min_gru"

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 128,
        *,
        frames: int | None = None,
        layers: int = 2,
        mlp: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(observation_space, features_dim)
        self.frame_shape = _frame(type(self).__name__, observation_space, frames)
        self.picture: NatureCNN | None = None
        size = int(np.prod(self.frame_shape))
        if is_image_space(observation_space) and min(self.frame_shape[-2:]) >= SMALLEST_PICTURE:
            self.frame_shape = (1, *self.frame_shape)[-3:]
            self.picture = NatureCNN(spaces.Box(0, 255, self.frame_shape, np.uint8), size := features_dim)
        self.memory = Stack(size, features_dim, mixer=self.mixer, layers=layers, mlp=mlp, **options)

    def forward(self, observation: Tensor) -> Tensor:
        """Windows [B, ...], as stable-baselines3 has preprocessed them -> [B, H]. Gradients flow through the window."""
        B = len(observation)
        x = observation.reshape(B, -1, *self.frame_shape).transpose(0, 1)  # [K, B, ...]
        K = len(x)
        filling = (x == 0).flatten(2).all(2).cummin(0).values
        start = torch.cat([torch.ones_like(filling[:1]), filling[:-1]])
        flat = x.flatten(2) if self.picture is None else self.picture(x.flatten(0, 1)).view(K, B, -1)
        y, _ = self.memory(flat.contiguous(), self.memory.initial_state(B), start)
        return y[-1]


class MinLstmExtractor(MinGruExtractor):
    """`MinGruExtractor` with minLSTM."""

    mixer: ClassVar[str] = "min_lstm"


def _frame(who: str, space: spaces.Space[Any], frames: int | None) -> tuple[int, ...]:
    """Shape of one frame of a window."""
    if not isinstance(space, spaces.Box) or not space.shape:
        raise ValueError(
            f"{who}: expected a Box, got {space}; gymnasium.wrappers.FlattenObservation makes one of a Dict"
        )
    if frames is not None and frames < 1:
        raise ValueError(f"{who}: frames={frames}: expected at least 1, the K of VecFrameStack(env, K)")
    first, *rest = space.shape
    if frames is None:
        if not rest:
            hint = "give frames=K, the K of VecFrameStack(env, K)"
            raise ValueError(f"{who}: expected frames [K, ...], got observations of shape {list(space.shape)}; {hint}")
        return tuple(rest)
    if len(space.shape) not in (1, 3) or first % frames:
        raise ValueError(
            f"{who}: frames={frames} must divide the first axis of observations [K * D] or [K * C, H, W], "
            f"got {list(space.shape)}"
        )
    return (first // frames, *rest)
