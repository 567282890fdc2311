"""Compiling the code of an agent's first update beforehand."""

from typing import cast

import torch

from rlmin.encoders.warmup import warm_up_encoder
from rlmin.policy import Policy, Trunk
from rlmin.scan import linear_scan
from rlmin.scan.dispatch import kernel_for


def warm_up_policy(policy: Policy, *, horizon: int, num_envs: int, steps: int | None = None, rows: int = 1) -> None:
    """Compile the loops and kernels that this policy and its advantages need, and no others.

    Takes a few seconds the first time on a machine, and a fraction of one if the compiled code is on disk already.
    Weights, gradients and random numbers do not change.

    Args:
        policy: in any mode, on any device.
        horizon, num_envs: T and B of a rollout; off the CPU kernels are chosen by size.
        steps, rows: T (None: that of a rollout) and B of a minibatch.
    """
    device = next(policy.parameters()).device
    by_size = kernel_for(device).__name__ == "rlmin.scan.gpu"
    sizes = {"steps": steps or horizon, "rows": rows, "acting": num_envs} if by_size else {}
    for trunk in policy.trunks:
        warm_up_encoder(cast(Trunk, trunk).encoder, **sizes)
    flat = torch.zeros((horizon, num_envs) if by_size else (2, 1), device=device)
    linear_scan(flat, flat, flat[0], reverse=True)  # gae
