"""Trace: one recorded pass of sequences through a policy, which can be run again with a change."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from rlmin.encoders import Encoder, Stack
from rlmin.encoders.block import Block
from rlmin.policy import Policy
from rlmin.policy.heads import Distribution
from rlmin.types import Observation


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The record of the actor's trunk; N = T inputs, or S times as many if a step is S tokens."""

    policy: Policy
    tokens: int  # S, inputs of the memory a step
    x: Tensor  # [N, B, D] what the stack read
    start: Tensor  # [N, B] bool
    read: tuple[Tensor, ...]  # [N, B, H] what the mixer of each layer read
    memory: tuple[Tensor, ...]  # [N, B, H] what it put out
    action_mask: Tensor | None  # [T, B, A]

    @property
    def steps(self) -> Tensor:
        """[T, S, B, D] what the stack read, by steps."""
        return self.x.view(-1, self.tokens, *self.x.shape[1:])

    @property
    def mixers(self) -> tuple[Encoder, ...]:
        """The mixer of each layer."""
        return mixers(self.policy)

    @torch.no_grad()
    def run(self, *, x: Tensor | None = None, memory: tuple[int, Tensor] | None = None) -> Distribution:
        """The actions of R variants of the one sequence traced (B = 1).

        Args:
            x: [N, R, D] what the stack reads instead; None: what it did read.
            memory: a layer, and [N, R, H] what its mixer puts out instead. Everything above runs on that.

        Returns:
            the distributions [T, R].
        """
        stack = stack_of(self.policy)
        changed = x if x is not None else cast(tuple[int, Tensor], memory)[1]
        rows = changed.shape[1]
        read = self.x.expand(-1, rows, -1).contiguous() if x is None else x
        with replace_output(self.mixers[memory[0]], memory[1]) if memory is not None else _keep_output():
            y, _ = stack(read, stack.initial_state(rows), self.start.expand(-1, rows).contiguous())
        return cast(Distribution, self.policy.action_head(y[self.tokens - 1 :: self.tokens], self.action_mask))


def stack_of(policy: Policy) -> Stack:
    """The memory the actor reads."""
    return cast(Stack, cast(Any, policy.trunks[0]).encoder)


def mixers(policy: Policy) -> tuple[Encoder, ...]:
    """The mixer of each layer of the memory that the actor reads."""
    return tuple(cast(Block, block).mixer for block in stack_of(policy).blocks)


@torch.no_grad()
def record_trace(policy: Policy, leaves: Observation, start: Tensor, action_mask: Tensor | None = None) -> Trace:
    """Run sequences that begin with an empty memory.

    Args:
        policy: in the precision it is to be run in.
        leaves: [T, B, ...] observations, previous action and reward among them where the policy reads them.
        start: [T, B] bool.
        action_mask: [T, B, A] bool, or None.
    """
    stack = stack_of(policy)
    seen: dict[nn.Module, tuple[Tensor, Tensor, Tensor]] = {}  # module -> x, start, y

    def note(module: nn.Module, inputs: tuple[Any, ...], outputs: tuple[Tensor, Any]) -> None:
        seen[module] = (inputs[0], inputs[2], outputs[0])

    hooks = [module.register_forward_hook(note) for module in (stack, *mixers(policy))]
    try:
        policy.unroll(leaves, policy.initial_state(start.shape[1]), start, action_mask)
    finally:
        for hook in hooks:
            hook.remove()
    x, opens, _ = seen[stack]
    return Trace(
        policy=policy,
        tokens=len(x) // len(start),
        x=x,
        start=opens,
        read=tuple(seen[mixer][0] for mixer in mixers(policy)),
        memory=tuple(seen[mixer][2] for mixer in mixers(policy)),
        action_mask=action_mask,
    )


@contextmanager
def replace_output(module: nn.Module, output: Tensor) -> Iterator[None]:
    """Within the block, `module` (an encoder) puts out `output`, whatever it reads."""
    hook = module.register_forward_hook(lambda _module, _inputs, outputs: (output, outputs[1]))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _keep_output() -> Iterator[None]:
    yield
