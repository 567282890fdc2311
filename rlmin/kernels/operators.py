"""The fused operations that run away from the CPU's own loops, as operators of torch, and when they are used."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rlmin.scan.dispatch import kernel_for

_LIBRARY: Any = torch.library.Library("rlmin", "FRAGMENT")  # type: ignore[no-untyped-call]


def usable(x: Tensor, weight: Tensor, *, autocast: bool = False) -> bool:
    """Whether `x` can go through a fused operation with weights like `weight`.

    Not on the CPU with numba, which has loops of its own, nor under `torch.compile`, which fuses such operations. Under
    autocast only with `autocast`: then `x` may be in half precision, too, and is read as float32.
    """
    mixed = torch.is_autocast_enabled(x.device.type) if x.device.type in ("cpu", "cuda") else False
    return (
        x.device.type in ("cpu", "cuda")
        and x.numel() > 0
        and (weight.dtype is torch.float32 if mixed else x.dtype is weight.dtype)
        and (mixed or x.dtype in (torch.float32, torch.float64))
        and (autocast or not mixed)
        and not torch.compiler.is_compiling()
        and kernel_for(x.device).__name__ != "rlmin.scan.cpu"
    )


def load_gpu(name: str, device: torch.device) -> ModuleType | None:
    """The module `name` of Triton kernels, where scans on `device` use Triton, too."""
    if kernel_for(device).__name__ != "rlmin.scan.gpu":
        return None
    return importlib.import_module(f"rlmin.kernels.{name}")  # Triton may be missing, and is slow to import


def define(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """The operator of this schema, in the library `rlmin`.

    Args:
        run: does the work; it chooses the kernel when it is called.
        fake: the same results, empty.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"rlmin::{name}", fake, lib=_LIBRARY)
    operator: Callable[..., Any] = getattr(torch.ops.rlmin, name).default
    return operator
