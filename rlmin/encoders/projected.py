"""One projection and the scan of its columns, by the fastest way that the tensors allow."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlmin.scan import min_gru_scan, min_lstm_scan
from rlmin.scan.dispatch import kernel_for

_SCANS: dict[int, Callable[..., tuple[Tensor, Tensor]]] = {2: min_gru_scan, 3: min_lstm_scan}


def scan_projection(
    projection: nn.Linear, x: Tensor, state: Tensor, start: Tensor, *, activation: str
) -> tuple[Tensor, Tensor]:
    """min_gru_scan (or min_lstm_scan, of three parts) of the columns of projection(x).

    Args:
        projection: D to 2H or 3H features, in the order of the scan's arguments.
        x: [T, B, D] float; state: [B, H] float; start: [T, B] bool.
        activation: of the candidate.

    Returns:
        h: [T, B, H]; last: [B, H].
    """
    if fits_cpu(projection, x, state):
        from rlmin.kernels.cell import projected_scan  # needs numba, which kernel_for has found

        return projected_scan(x, state, start, projection.weight, projection.bias, activation=activation)
    parts = projection.out_features // state.shape[1]
    return _SCANS[parts](*projection(x).chunk(parts, dim=-1), state, start, activation=activation)


def fits_cpu(layer: nn.Linear, x: Tensor, state: Tensor) -> bool:
    """Whether the numba cells can run: plain CPU tensors of one wide dtype, no torch.compile, no autocast."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and type(x) is Tensor
        and x.dtype in (torch.float32, torch.float64)
        and x.dtype == state.dtype == layer.weight.dtype
        and type(layer) is nn.Linear
        and not torch.is_autocast_enabled("cpu")
        and kernel_for(x.device).__name__ == "rlmin.scan.cpu"
    )


def fits_gpu(layer: nn.Linear, x: Tensor, state: Tensor) -> bool:
    """Whether the Triton kernels of GRU and LSTM can run: where scans use Triton, too, and outside of torch.compile."""
    return (
        not torch.compiler.is_compiling()
        and type(x) is Tensor
        and x.numel() > 0
        and x.dtype in (torch.float32, torch.float64)
        and x.dtype == state.dtype == layer.weight.dtype
        and type(layer) is nn.Linear
        and kernel_for(x.device).__name__ == "rlmin.scan.gpu"
    )
