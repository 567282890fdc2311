"""Memories and policies inside TorchRL: thin modules on TensorDicts, in collectors and in losses.

    step mode        a TensorDict of any batch shape is one step of as many rows: collecting
    sequence mode    [*rows, T], TorchRL's order with time last, is run in one pass from the state of its first step,
                     memory wiped where `is_init` is set: losses. `torchrl.modules.set_recurrent_mode(True)` switches

Both modes compute the same numbers. A state of several tensors is a nested TensorDict, ("recurrent_state", "0"), ...;
step mode writes it below "next", from which TorchRL carries it on, and sequence mode writes none.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from gymnasium import spaces
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from rlmin.checks import check_names, require
from rlmin.encoders import Encoder
from rlmin.policy import Policy, PolicyOutput
from rlmin.policy.heads import BoxHead, Categorical, ChoiceHead, Gaussian
from rlmin.spaces import Leaf, leaf_tensor, leaves_of
from rlmin.types import State, map_state, tensors_of

IS_INIT, STATE, VALUE = "is_init", "recurrent_state", "state_value"

Key = str | tuple[str, ...]


class RecurrentModule(TensorDictModuleBase):  # type: ignore[misc]  # tensordict has no types
    """The common part of both modules: state and sequences in TorchRL's layout.

    Args:
        zero: the state of one row.
        inputs: keys to read beside `is_init` and the state.
        outputs: keys to write beside the state.

    Raises:
        ImportError: torchrl is not installed.
    """

    def __init__(self, zero: State, inputs: Sequence[Key], outputs: Sequence[Key]) -> None:
        super().__init__()
        self._in_sequence = require("torchrl.modules", extra="torchrl").recurrent_mode
        self._zero = zero
        self.state_keys = [(STATE, str(i)) for i in range(len(tensors_of(zero)))]
        self.inputs, self.outputs = list(inputs), list(outputs)
        self.in_keys = [*inputs, IS_INIT, *self.state_keys]
        self.out_keys = [*outputs, *(("next", *key) for key in self.state_keys)]

    @abstractmethod
    def run(self, x: Mapping[Key, Tensor], state: State, start: Tensor, *, step: bool) -> tuple[list[Tensor], State]:
        """Inputs [B, ...] (`step`) or [T, B, ...], state [B, ...], start -> outputs of the same axes, state after."""

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """One step, or a sequence: see the module.

        Raises:
            ValueError: the TensorDict lacks a key, or has no time.
        """
        missing = [key for key in self.in_keys if key not in tensordict.keys(True)]
        if missing:
            kept = missing[0] == IS_INIT or missing[0] in self.state_keys
            hint = "; append InitTracker() and make_tensordict_primer() to the environment" if kept else ""
            raise ValueError(f"the TensorDict has no {missing[0]!r}{hint}")
        return self._sequence(tensordict) if self._in_sequence() else self._step(tensordict)

    def make_tensordict_primer(self) -> Any:
        """The transform that adds the state to an environment: zeros at each reset.

        Returns:
            torchrl.envs.TensorDictPrimer, to be appended after InitTracker().
        """
        from torchrl.data import Unbounded
        from torchrl.envs import TensorDictPrimer

        zeros = [x[0] for x in tensors_of(self._zero)]
        specs = {key: Unbounded(x.shape, dtype=x.dtype) for key, x in zip(self.state_keys, zeros, strict=True)}
        return TensorDictPrimer(specs, default_value=0.0, expand_specs=True)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        lead = tensordict.shape
        rows = lead.numel()

        def flat(key: Key) -> Tensor:
            x: Tensor = tensordict.get(key)
            return x.reshape(rows, *x.shape[len(lead) :])

        start = flat(IS_INIT).reshape(rows)
        outputs, after = self.run({key: flat(key) for key in self.inputs}, self._state(flat), start, step=True)
        for key, x in zip(self.out_keys, [*outputs, *tensors_of(after)], strict=True):
            tensordict.set(key, x.reshape(*lead, *x.shape[1:]))
        return tensordict

    def _sequence(self, tensordict: TensorDictBase) -> TensorDictBase:
        lead = tensordict.shape
        if not lead:
            raise ValueError(
                "a sequence needs a TensorDict of batch [*rows, T], this one has no batch; leave "
                "set_recurrent_mode(True) to act"
            )
        rows, T = lead[:-1].numel(), lead[-1]

        def time_major(key: Key) -> Tensor:
            x: Tensor = tensordict.get(key)
            return x.reshape(rows, T, *x.shape[len(lead) :]).transpose(0, 1)

        start = time_major(IS_INIT).reshape(T, rows)
        state = self._state(lambda key: time_major(key)[0])
        outputs, _ = self.run({key: time_major(key) for key in self.inputs}, state, start, step=False)
        for key, x in zip(self.outputs, outputs, strict=True):
            tensordict.set(key, x.transpose(0, 1).reshape(*lead, *x.shape[2:]))
        return tensordict

    def _state(self, get: Any) -> State:
        """The state, tensor by tensor, in the structure of `initial_state`."""
        found = iter([get(key) for key in self.state_keys])
        return map_state(lambda _: next(found), self._zero)


class EncoderModule(RecurrentModule):
    """A memory of rlmin: features in, features out.

    Args:
        encoder: any `rlmin.encoders.Encoder`, a `Stack` for instance.
        in_key: features [..., D].
        out_key: features [..., H].
    """

    def __init__(self, encoder: Encoder, *, in_key: Key = "observation", out_key: Key = "embed") -> None:
        super().__init__(encoder.initial_state(1), [in_key], [out_key])
        self.encoder = encoder

    def run(self, x: Mapping[Key, Tensor], state: State, start: Tensor, *, step: bool) -> tuple[list[Tensor], State]:
        """See `RecurrentModule.run`."""
        (seen,) = x.values()
        y, state = (self.encoder.step if step else self.encoder)(seen.to(_dtype(self.encoder)), state, start)
        return [y], state


class PolicyModule(RecurrentModule):
    """A policy of rlmin: observation leaves in; parameters of the action distribution, and the value, out.

        Discrete    "logits" [..., n]
        Box         "loc", "scale" [..., A], in the environment's unit
        value       "state_value" [..., 1]

    Args:
        policy: with a Discrete (from 0) or flat Box action space.
        outputs: the outputs to write; None: all.

    Raises:
        ImportError: torchrl is not installed.
        ValueError: another action space, observations that have no keys in TorchRL, an unknown output, or a policy
            that reads the previous action or reward, which TorchRL does not carry from step to step.
    """

    def __init__(self, policy: Policy, *, outputs: Sequence[str] | None = None) -> None:
        for name in ("previous_action", "previous_reward"):
            if getattr(policy.config, name):
                raise ValueError(f"{name}=True: TorchRL does not carry it from step to step; make the policy without")
        described = _action_keys(policy)
        check_names("output", outputs or (), [*described, VALUE])
        space = policy.observation_space if VALUE in (outputs or (VALUE,)) else policy.acting_space
        self._leaves: dict[Key, Leaf] = {_key(leaf): leaf for leaf in leaves_of(space)}
        super().__init__(policy.initial_state(1), list(self._leaves), list(outputs or (*described, VALUE)))
        self.policy = policy

    def run(self, x: Mapping[Key, Tensor], state: State, start: Tensor, *, step: bool) -> tuple[list[Tensor], State]:
        """See `RecurrentModule.run`."""
        observation = {leaf.name: _leaf(x[key], leaf, start) for key, leaf in self._leaves.items()}
        out = (self.policy.step if step else self.policy.unroll)(observation, state, start)
        found = self._name_outputs(out)
        return [found[name] for name in self.outputs], out.state

    def actor(self, action_spec: Any, **options: Any) -> Any:
        """TorchRL's ProbabilisticActor on this module.

        Args:
            action_spec: spec of the environment's actions: one-hot or categorical.
            options: options of ProbabilisticActor; by default it returns the log-probability.
        """
        from torch.distributions import Categorical as Choice
        from torchrl.data import OneHot
        from torchrl.modules import IndependentNormal, OneHotCategorical, ProbabilisticActor

        keys = _action_keys(self.policy)
        kind = IndependentNormal if len(keys) == 2 else OneHotCategorical if isinstance(action_spec, OneHot) else Choice
        settings = {"distribution_class": kind, "return_log_prob": True, **options}
        return ProbabilisticActor(self, in_keys=list(keys), **settings)

    def critic(self) -> "PolicyModule":
        """The same policy, writing "state_value" alone."""
        return PolicyModule(self.policy, outputs=(VALUE,))

    def _name_outputs(self, out: PolicyOutput) -> dict[Key, Tensor]:
        head, distribution = self.policy.action_head, out.distribution
        found: dict[Key, Tensor] = {VALUE: out.value.unsqueeze(-1)}
        if isinstance(distribution, Categorical):
            return found | {"logits": distribution.logits.squeeze(-2)}
        assert isinstance(distribution, Gaussian) and isinstance(head, BoxHead), "PolicyModule takes no other"
        scale = (head.scale * distribution.log_std.exp()).expand_as(distribution.mean)
        return found | {"loc": head.centre + head.scale * distribution.mean, "scale": scale}


def _action_keys(policy: Policy) -> tuple[str, ...]:
    """The keys that describe an action."""
    head, space = policy.action_head, policy.action_space
    if isinstance(head, ChoiceHead) and isinstance(space, spaces.Discrete) and space.start == 0:
        return ("logits",)
    if isinstance(head, BoxHead) and head.squash:
        raise ValueError("squash=True: loc and scale would be those of an action before its tanh; train without squash")
    if isinstance(head, BoxHead) and len(head.env_shape) == 1:
        return ("loc", "scale")
    raise ValueError(f"action space {space}: expected a Discrete that counts from 0, or a Box of one axis")


def _key(leaf: Leaf) -> Key:
    """TorchRL's key of a leaf."""
    if not all(isinstance(part, str) for part in leaf.path):
        raise ValueError(f"observation {leaf.name!r}: part of a Tuple, which has no key in TorchRL; use a Dict")
    path = tuple(str(part) for part in leaf.path)
    return path if len(path) > 1 else path[0] if path else leaf.name


def _leaf(x: Tensor, leaf: Leaf, start: Tensor) -> Tensor:
    """A leaf [*start.shape, ...] as the policy reads it; a choice may be one-hot, as is TorchRL's default."""
    lead = start.shape
    if isinstance(leaf.space, spaces.Discrete) and x.ndim == len(lead) + 1:
        x = x.to(torch.uint8).argmax(-1)
    flat = x.reshape(lead.numel(), *x.shape[len(lead) :])
    return leaf_tensor(flat, leaf, lead.numel(), copy=False).reshape(*lead, *leaf.shape)


def _dtype(encoder: Encoder) -> torch.dtype:
    return next(encoder.parameters()).dtype
