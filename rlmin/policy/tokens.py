"""Tokens: one step of an environment as several inputs of the memory, one after the other.

    tokens="fused"    previous action + return-to-go + observation, summed: one input a step (rlmin.policy.inputs)
    tokens="triple"   previous action, return-to-go, observation: three inputs a step, and three steps of memory

The sequence is that of the decision transformer, (return-to-go, observation, action) over and over, begun with the
action that came before, which is "none" where an episode starts. Features are those after the observation: there the
memory has read everything that came before the action. A token that the policy has no input for is left out; a
previous reward, where switched on, is summed with the previous action.

Source: Chen et al. 2021 (arXiv:2106.01345).
"""

from collections.abc import Mapping
from typing import cast

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlmin.distributed import ALONE, Ranks
from rlmin.encoders import Encoder
from rlmin.policy.inputs import PREVIOUS_ACTION, PREVIOUS_REWARD, Inputs, PreviousAction, PreviousReward, check_switches
from rlmin.policy.readings import Reading, read_as
from rlmin.spaces import leaf_spaces, without
from rlmin.types import Observation, State
from rlmin.wrappers.return_to_go import RETURN_TO_GO


class TokenInputs(nn.Module):
    """Observation leaves -> S tokens a step.

    Args:
        observation_space, width, action_space, previous_action, previous_reward, normalize, readings: see
            `rlmin.policy.inputs.Inputs`.

    Attributes:
        count: S, at most three.

    Raises:
        ValueError: see `rlmin.policy.inputs.Inputs`.
    """

    def __init__(
        self,
        observation_space: gym.Space[object],
        width: int,
        *,
        action_space: gym.Space[object],
        previous_action: bool = False,
        previous_reward: bool = False,
        normalize: bool = False,
        readings: Mapping[str, Reading] | None = None,
    ) -> None:
        super().__init__()
        leaves = leaf_spaces(observation_space)
        readings = read_as(leaves) if readings is None else readings
        check_switches(leaves, previous_action=previous_action, previous_reward=previous_reward)
        self.action = PreviousAction(action_space, width) if previous_action else None
        self.reward = PreviousReward(width) if previous_reward else None
        asked = {RETURN_TO_GO: leaves[RETURN_TO_GO]} if RETURN_TO_GO in leaves else {}
        self.asked = Inputs(spaces.Dict(asked), width, normalize=normalize, readings=readings) if asked else None
        seen = without(observation_space, RETURN_TO_GO)
        self.seen = Inputs(seen, width, normalize=normalize, readings=readings)
        self.count = 1 + bool(asked) + (previous_action or previous_reward)

    def forward(self, observation: Observation, start: Tensor) -> Tensor:
        """Observation leaves [..., B, *leaf.shape] and start [..., B] bool -> [..., S, B, width]."""
        tokens = []
        before = self._before(observation, start)
        if before is not None:
            tokens.append(before)
        if self.asked is not None:
            tokens.append(self.asked(observation, start))
        return torch.stack([*tokens, self.seen(observation, start)], dim=-3)

    def update_normalizer(self, observation: Observation, keep: Tensor | None, ranks: Ranks = ALONE) -> None:
        """See `rlmin.policy.inputs.Inputs.update_normalizer`."""
        for inputs in (self.asked, self.seen):
            if inputs is not None:
                inputs.update_normalizer(observation, keep, ranks)

    def _before(self, observation: Observation, start: Tensor) -> Tensor | None:
        """[..., B, width] of the previous action and reward; None where neither is switched on."""
        if self.action is None:
            return None if self.reward is None else cast(Tensor, self.reward(observation[PREVIOUS_REWARD], start))
        action = cast(Tensor, self.action(observation[PREVIOUS_ACTION], start))
        return action if self.reward is None else action + self.reward(observation[PREVIOUS_REWARD], start)


class TokenTrunk(nn.Module):
    """Tokens and memory: observation leaves -> features [..., H] at the last token of each step.

    The memory runs over T * S inputs; an episode that starts wipes it before the first of the S.
    """

    def __init__(self, inputs: TokenInputs, encoder: Encoder) -> None:
        super().__init__()
        self.inputs, self.encoder = inputs, encoder

    def forward(self, observation: Observation, state: State, start: Tensor) -> tuple[Tensor, State]:
        """Leaves [T, B, ...] -> features [T, B, H] and the memory after step T-1."""
        tokens = self.inputs(observation, start)
        opens = start.new_zeros(tokens.shape[:-1])  # [T, S, B]
        opens[:, 0] = start
        y, state = self.encoder(tokens.flatten(0, 1), state, opens.flatten(0, 1))
        return y[tokens.shape[1] - 1 :: tokens.shape[1]], state

    def step(self, observation: Observation, state: State, start: Tensor) -> tuple[Tensor, State]:
        """Leaves [B, ...] -> features [B, H] and the memory after this step: S steps of the encoder."""
        first, *others = self.inputs(observation, start).unbind(0)
        y, state = self.encoder.step(first, state, start)
        goes_on = torch.zeros_like(start)
        for token in others:
            y, state = self.encoder.step(token, state, goes_on)
        return y, state
