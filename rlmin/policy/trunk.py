"""Trunk: what a policy reads and remembers, below its heads."""

from torch import Tensor, nn

from rlmin.encoders import Encoder
from rlmin.policy.inputs import Inputs
from rlmin.types import Observation, State


class Trunk(nn.Module):
    """Inputs and memory: observation leaves -> features [..., H]."""

    def __init__(self, inputs: Inputs, encoder: Encoder) -> None:
        super().__init__()
        self.inputs, self.encoder = inputs, encoder

    def forward(self, observation: Observation, state: State, start: Tensor) -> tuple[Tensor, State]:
        """Leaves [T, B, ...] -> features [T, B, H] and the memory after step T-1."""
        return self.encoder(self.inputs(observation, start), state, start)

    def step(self, observation: Observation, state: State, start: Tensor) -> tuple[Tensor, State]:
        """Leaves [B, ...] -> features [B, H] and the memory after this step."""
        return self.encoder.step(self.inputs(observation, start), state, start)
