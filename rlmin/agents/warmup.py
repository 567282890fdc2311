"""Compiling the code of an agent's first update beforehand."""

from typing import cast

import torch

from rlmin.encoders.warmup import warm_up_encoder
from rlmin.policy import Policy, Trunk
from rlmin.scan import linear_scan
from rlmin.scan import warm_up as warm_up_scans


def warm_up_policy(policy: Policy, *, horizon: int, num_envs: int) -> None:
    """Compile the loops that this policy and its advantages need; on the CPU no others.

    Takes a few seconds the first time on a machine, and a fraction of one if the compiled code is on disk already.
    Weights, gradients and random numbers do not change.

    Args:
        policy: in any mode, on any device.
        horizon, num_envs: T and B of a rollout; on a GPU kernels are chosen by size.
    """
    device = next(policy.parameters()).device
    if device.type != "cpu":
        warm_up_scans(device, shape=(horizon, num_envs, policy.config.width))
        return
    for trunk in policy.trunks:
        warm_up_encoder(cast(Trunk, trunk).encoder)
    flat = torch.zeros(2, 1)
    linear_scan(flat, flat, flat[0], reverse=True)  # gae
