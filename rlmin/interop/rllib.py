"""A policy of rlmin as an RLModule of RLlib: the memory travels in RLlib's state columns.

    config.rl_module(rl_module_spec=RLModuleSpec(
        module_class=PolicyRLModule, model_config={"encoder": "min_gru", "width": 64, "max_seq_len": 32}))

RLlib cuts episodes into sequences [B, T, ...], padded with zeros at the end, and gives the state before each. No
sequence goes on after an episode has ended, so nothing is reset inside. Acting is a sequence of one step.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.policy import Policy, PolicyConfig
from rlmin.policy.heads import BoxHead, Categorical, ChoiceHead, Gaussian
from rlmin.policy.policy import PolicyOutput
from rlmin.spaces import leaf_tensor, leaves_of
from rlmin.types import map_state, tensors_of

try:
    from ray.rllib.core.columns import Columns
    from ray.rllib.core.distribution.torch.torch_distribution import TorchMultiCategorical
    from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.core.rl_module.torch import TorchRLModule
except ImportError as error:
    raise ImportError(f'RLlib is not installed ({error}); install it with `pip install "rlmin[rllib]"`') from error

OF_RLLIB = {field.name for field in fields(DefaultModelConfig)} - {field.name for field in fields(PolicyConfig)}
"""Keys of `model_config` that RLlib reads or adds; all others are those of `PolicyConfig`."""


class PolicyRLModule(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]  # ray has no types
    """A policy of rlmin, for RLlib's learners and environment runners.

        Discrete          logits [B, T, n]
        MultiDiscrete     logits [B, T, n_1 + n_2 + ...]
        Box               mean and log_std [B, T, 2 A]; -1 and 1 are the bounds, as in RLlib's `normalize_actions`

    `model_config` holds the fields of `rlmin.PolicyConfig`, and RLlib's "max_seq_len": the steps of a sequence in
    training. Without a memory (`encoder="mlp"`) the columns have no axis of time.

    Raises:
        ValueError: an action space whose actions RLlib counts or scales in another way, a setting that reads what RLlib
            does not carry from step to step, or a setting that does not exist.
    """

    def setup(self) -> None:
        """Build the policy; RLlib calls it."""
        given = dict(self.model_config or {})
        settings = {name: value for name, value in given.items() if name not in OF_RLLIB}
        for name in ("previous_action", "previous_reward"):
            if settings.get(name):
                raise ValueError(f"{name}=True: RLlib does not carry it from step to step; train without")
        self.policy = Policy(self.observation_space, self.action_space, PolicyConfig(**settings))
        _check_actions(self.policy)
        self._leaves = leaves_of(self.policy.observation_space)
        self._zero = self.policy.initial_state(1)
        if tensors_of(self._zero) and "max_seq_len" not in given:
            raise ValueError(f"model_config: a memory needs max_seq_len, the steps of a sequence; got {sorted(given)}")
        if isinstance(self.action_space, spaces.MultiDiscrete):
            sizes = [int(n) for n in self.action_space.nvec]
            self.action_dist_cls = TorchMultiCategorical.get_partial_dist_cls(space=self.action_space, input_lens=sizes)

    def get_initial_state(self) -> dict[str, Any]:
        """The memory before the first step of an episode, a tensor a key; empty where there is no memory."""
        return {str(i): x[0].detach().cpu().numpy() for i, x in enumerate(tensors_of(self._zero))}

    def compute_values(self, batch: Mapping[str, Any], embeddings: Any = None) -> Tensor:
        """Values [B, T]; `embeddings` are those that the training pass has computed already."""
        found: Tensor = self._unroll(batch)[Columns.VF_PREDS] if embeddings is None else embeddings
        return found

    def _forward(self, batch: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        found = self._unroll(batch)
        del found[Columns.VF_PREDS]
        return found

    def _forward_train(self, batch: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        found = self._unroll(batch)
        return found | {Columns.EMBEDDINGS: found.pop(Columns.VF_PREDS)}  # so that the values take no second pass

    def _unroll(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        carried = batch.get(Columns.STATE_IN) if tensors_of(self._zero) else None
        observation, (T, B) = self._read(batch[Columns.OBS], timed=carried is not None)
        parts = iter([] if carried is None else [carried[str(i)] for i in range(len(carried))])
        state = map_state(lambda _: next(parts), self._zero) if carried else self.policy.initial_state(B)
        start = torch.zeros(T, B, dtype=torch.bool, device=next(self.parameters()).device)
        out = self.policy.unroll(observation, state, start)
        columns = {Columns.ACTION_DIST_INPUTS: _inputs_of(self.policy, out), Columns.VF_PREDS: out.value}
        if carried is None:
            return {name: x[0] for name, x in columns.items()}
        after = {str(i): x for i, x in enumerate(tensors_of(out.state))}
        return {name: x.transpose(0, 1) for name, x in columns.items()} | {Columns.STATE_OUT: after}

    def _read(self, observed: Any, *, timed: bool) -> tuple[dict[str, Tensor], tuple[int, int]]:
        """Observation leaves [T, B, ...] of RLlib's [B, T, ...], or of [B, ...] where there is no time; and T, B."""
        found, lead = {}, (0, 0)
        for leaf in self._leaves:
            x = observed
            for part in leaf.path:
                x = x[part]
            x = x.transpose(0, 1) if timed else x.unsqueeze(0)
            lead = (x.shape[0], x.shape[1])
            flat = leaf_tensor(x.reshape(-1, *x.shape[2:]), leaf, x.shape[0] * x.shape[1], copy=False)
            found[leaf.name] = flat.reshape(*lead, *leaf.shape)
        return found, lead


def _check_actions(policy: Policy) -> None:
    """Refuse action spaces whose actions are other numbers in RLlib."""
    space, head = policy.action_space, policy.action_head
    if isinstance(head, ChoiceHead) and isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        if space.shape in ((), (len(head.sizes),)) and not np.any(space.start):
            return
    elif isinstance(head, BoxHead) and isinstance(space, spaces.Box) and len(space.shape) == 1:
        if head.squash:
            raise ValueError("squash=True: RLlib would read a Gaussian; train without squash")
        bounded = space.bounded_below & space.bounded_above
        if bounded.all() or not bounded.any():
            return
    raise ValueError(
        f"action space {space}: expected a Discrete or a flat MultiDiscrete that counts from 0, or a Box of one axis "
        "that is bounded everywhere or nowhere, since RLlib reads other actions in another way"
    )


def _inputs_of(policy: Policy, out: PolicyOutput) -> Tensor:
    """Inputs [T, B, ...] of RLlib's distribution."""
    distribution = out.distribution
    if isinstance(distribution, Categorical):
        assert isinstance(policy.action_head, ChoiceHead)
        sizes = policy.action_head.sizes
        return torch.cat([distribution.logits[..., i, :n] for i, n in enumerate(sizes)], dim=-1)
    assert isinstance(distribution, Gaussian)
    return torch.cat([distribution.mean, distribution.log_std.expand_as(distribution.mean)], dim=-1)
