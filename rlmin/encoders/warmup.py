"""Compile what the first update of an encoder would compile, and nothing else."""

import torch

from rlmin.encoders.base import Encoder


def warm_up_encoder(encoder: Encoder, *, steps: int = 2, rows: int = 1, acting: int = 1) -> None:
    """Run `encoder` forwards and backwards over a few steps, one of which starts an episode, and over a single one.

    The first time, this compiles CPU loops for some seconds; later it loads them from disk in a fraction of a second.
    It compiles only the loops of this encoder and its dtype: a minGRU needs two of the sixteen. Weights and gradients
    do not change, so a thread may do this while environments are being made.

    Args:
        steps, rows: T and B of a minibatch. They make no difference on the CPU; on a GPU kernels are chosen by size.
        acting: B of the single step.
    """
    weight = next(encoder.parameters())
    x = torch.zeros(steps, rows, encoder.input_size, dtype=weight.dtype, device=weight.device)
    start = torch.zeros(steps, rows, dtype=torch.bool, device=weight.device)
    start[0] = True
    wanted = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        y, _ = encoder(x, encoder.initial_state(rows), start)
        if wanted:
            torch.autograd.grad(y.sum(), wanted, allow_unused=True)
    with torch.no_grad():
        encoder(x, encoder.initial_state(rows), start)
        encoder.step(x.new_zeros(acting, x.shape[2]), encoder.initial_state(acting), start.new_ones(acting))
