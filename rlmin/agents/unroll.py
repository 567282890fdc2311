"""The training pass over a minibatch, through torch.compile."""

from collections.abc import Callable

import torch
from torch import Tensor

from rlmin.policy import Policy, PolicyOutput
from rlmin.types import Observation, State

Unroll = Callable[[Observation, State, Tensor, Tensor | None], PolicyOutput]


def compile_unroll(policy: Policy) -> Unroll:
    """`policy.unroll` through torch.compile, for one shape of minibatch.

    The first call takes tens of seconds. Only this pass is compiled, not acting; the two agree within
    rounding.

    Raises:
        RuntimeError: from the first call, if there is no compiler.
    """
    from torch._dynamo.exc import BackendCompilerFailed  # here, because it takes seconds to import

    fast: Unroll = torch.compile(policy.unroll, dynamic=False)

    def unroll(observation: Observation, state: State, start: Tensor, mask: Tensor | None) -> PolicyOutput:
        try:
            return fast(observation, state, start, mask)
        except BackendCompilerFailed as error:
            raise RuntimeError(
                f"compile=True: torch.compile failed ({error.__cause__ or error}). It needs a C++ compiler for the CPU "
                "(g++, or the environment variable CXX), and Triton with a C compiler for a GPU; without them leave "
                "compile off"
            ) from error

    return unroll
