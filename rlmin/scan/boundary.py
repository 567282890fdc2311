"""Checks of the scans' arguments, as a kernel would misread bad ones; and the precision of the memory."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def check_tensors(**tensors: Tensor) -> None:
    """Raise a ValueError for the first argument that is not a tensor."""
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise ValueError(f"{name}: expected a tensor, got {type(x).__name__}")


def check_float(name: str, x: Tensor, dtype: torch.dtype, device: torch.device) -> None:
    """Raise a ValueError if `x` cannot be combined with tensors of `dtype` on `device`."""
    if not x.dtype.is_floating_point:
        raise ValueError(f"{name}: expected a float dtype, got {x.dtype}")
    if (x.dtype is torch.float64) != (dtype is torch.float64):
        raise ValueError(f"{name}: expected float64 for all or for none, got {x.dtype} beside {dtype}")
    if x.device != device:
        raise ValueError(f"{name}: expected device {device}, got {x.device}")


def check_start(start: Tensor | None, lead: str, value: Tensor) -> None:
    """Raise a ValueError if `start` is neither None nor [T, B] bools, given `value` [T, B, ...] called `lead`."""
    if start is None:
        return
    check_tensors(start=start)
    if start.dtype is not torch.bool:
        raise ValueError(f"start: expected bool, got {start.dtype}; try start.bool()")
    if start.shape != value.shape[:2]:
        T, B = value.shape[:2]
        hint = "; rlmin is time-major, this looks like [B, T]" if T != B and list(start.shape) == [B, T] else ""
        found = f"got {list(start.shape)}{hint}"
        raise ValueError(f"start: expected [T={T}, B={B}] as {lead} is {list(value.shape)}, {found}")
    if start.device != value.device:
        raise ValueError(f"start: expected device {value.device}, got {start.device}")


def carry_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64 inputs, else float32."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Context without autocast: sums over an episode keep the precision of the state."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()
