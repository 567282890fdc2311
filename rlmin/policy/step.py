"""A policy's step as one call, from what its stack reads to what its heads say: see `rlmin.encoders.stack_step`."""

from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from rlmin.encoders import Stack
from rlmin.encoders.stack_step import Ends, Fresh, Plan, plain
from rlmin.policy.heads import ActionHead, BoxHead, ChoiceHead, Distribution, ValueHead
from rlmin.policy.inputs import Inputs, Numbers
from rlmin.policy.trunk import Trunk
from rlmin.types import Observation, State


class PolicyStep(Fresh):
    """`Policy.step` in one call, where that is possible: one trunk, and a stack that can be stepped so."""

    def __init__(self) -> None:
        self._known: _Known | None = None

    def __call__(
        self, policy: nn.Module, observation: Observation, state: State, start: Tensor, mask: Tensor | None
    ) -> tuple[Distribution, Tensor, State] | None:
        """The result of `policy.step`, or None if its modules have to be called one by one."""
        if torch.compiler.is_compiling() or not plain(start):
            return None
        known = self._known
        if known is None or not known.plan.holds():
            known = self._known = _Known.of(policy)
        return None if known is None else known.run(observation, cast(tuple[State, ...], state), start, mask)


class _Known(NamedTuple):
    """A policy's parts: good for as long as the plan holds."""

    plan: Plan
    inputs: Inputs
    numbers: Numbers | None  # the module that embeds the observation, if the plan has its layers
    head: ActionHead
    critic: ValueHead

    @classmethod
    def of(cls, policy: Any) -> Self | None:
        """None if there is no call for such a policy."""
        trunks, actor, critic = policy.trunks, policy.action_head, policy.value_head
        trunk = trunks[0]
        if len(trunks) != 1 or type(trunk) is not Trunk or type(trunk.encoder) is not Stack:
            return None
        inputs = trunk.inputs
        if type(inputs) is not Inputs or type(actor) not in (ChoiceHead, BoxHead) or type(critic) is not ValueHead:
            return None
        heads = (actor.projection, critic.projection)
        if any(type(head) is not nn.Linear for head in heads):
            return None
        numbers = inputs.only_numbers
        owners = [policy, trunks, trunk, actor, critic, inputs, inputs.embed]
        owners, front = (owners, None) if numbers is None else ([*owners, numbers], numbers.net)
        plan = Plan(trunk.encoder, heads[0].weight.dtype, Ends(front, heads, tuple(owners)))
        return cls(plan, inputs, numbers, actor, critic)

    def run(
        self, observation: Observation, state: tuple[State, ...], start: Tensor, mask: Tensor | None
    ) -> tuple[Distribution, Tensor, State] | None:
        """One step; None where the modules have to be called."""
        inputs, numbers = self.inputs, self.numbers
        if not self.plan.usable or len(state) != 1:
            return None
        x = inputs(observation, start) if numbers is None else numbers.flat(observation[inputs.names[0]])
        done = self.plan.run(x, state[0], start)
        if done is None:
            return None
        (projected, value), after = done
        return self.head.distribution(projected, mask), self.critic.in_returns(value.view(-1)), (after,)
