"""Compile what the first update of an encoder would compile, and nothing else."""

import torch

from rlmin.encoders.base import Encoder


def warm_up_encoder(encoder: Encoder) -> None:
    """Run `encoder` forwards and backwards over two steps of one row, one of which starts an episode.

    The first time, this compiles CPU loops for some seconds; later it loads them from disk in a fraction of a second.
    It compiles only the loops of this encoder and its dtype: a minGRU needs two of the sixteen. Weights and gradients
    do not change, so a thread may do this while environments are being made.
    """
    weight = next(encoder.parameters())
    x = torch.zeros(2, 1, encoder.input_size, dtype=weight.dtype, device=weight.device)
    start = torch.tensor([[True], [False]], device=weight.device)
    wanted = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        y, _ = encoder(x, encoder.initial_state(1), start)
        if wanted:
            torch.autograd.grad(y.sum(), wanted, allow_unused=True)
    with torch.no_grad():
        encoder(x, encoder.initial_state(1), start)
        encoder.step(x[0], encoder.initial_state(1), start[0])
