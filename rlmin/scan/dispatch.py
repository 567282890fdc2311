"""Choice of the kernel: the fastest one that the device and the installed packages allow, unless the user forces one.

A kernel is a module with two functions, `forward` and `backward`, whose first argument is the name of a scan, one of
its `SCANS`. `reference.py` shows the arguments and results. They read [T, B, D] inputs, a [B, D] state in the dtype of
the carry and a [T, B] bool start or None, and return fresh tensors. RLMIN_KERNEL=reference|portable|cpu|gpu forces one
of them. A scan that the kernel does not have runs in the portable one.
"""

import functools
import importlib
import os
import warnings
from types import ModuleType

import torch

KERNELS = ("reference", "portable", "cpu", "gpu")

_GPU_REMEDY = (
    "Triton compiles it at first use and needs a C compiler and the Python headers: install gcc (or set the "
    "environment variable CC) and python3-dev; pip install triton if the package is missing"
)


def kernel_for(device: torch.device) -> ModuleType:
    """The module that runs tensors of `device`.

    Raises:
        ValueError: RLMIN_KERNEL names no kernel, or one that cannot run on this device.
        ImportError: RLMIN_KERNEL=cpu and numba cannot be imported, or RLMIN_KERNEL=gpu and Triton cannot.
    """
    forced = os.environ.get("RLMIN_KERNEL")
    if forced:
        return _load_forced(forced, device.type)
    return _automatic(device)


def kernel_of(scan: str, device: torch.device) -> ModuleType:
    """The module that runs a scan on `device`: see `kernel_for`."""
    kernel = kernel_for(device)
    return kernel if scan in kernel.SCANS else _load("portable")


def runs_loops(x: torch.Tensor) -> bool:
    """Whether numba's loops can run beside the scans: on a plain CPU tensor that nothing traces or transforms."""
    return (
        type(x) is torch.Tensor
        and x.is_cpu
        and not torch.compiler.is_compiling()
        and not torch._C._is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None
        and kernel_for(x.device).__name__ == "rlmin.scan.cpu"
    )


def _load_forced(name: str, device: str) -> ModuleType:
    if name not in KERNELS:
        raise ValueError(f"RLMIN_KERNEL: expected one of {', '.join(KERNELS)}, got {name!r}")
    if name == "cpu" and device != "cpu":
        raise ValueError(f"RLMIN_KERNEL=cpu: expected CPU tensors, got {device}; unset it or use portable")
    kernel = _load(name)
    if name == "gpu" and device != "cuda" and not (device == "cpu" and kernel.INTERPRETED):
        hint = "unset it, or set TRITON_INTERPRET=1 before the start to run the kernel in Triton's interpreter"
        raise ValueError(f"RLMIN_KERNEL=gpu: expected CUDA tensors, got {device}; {hint}")
    return kernel


@functools.cache
def _automatic(device: torch.device) -> ModuleType:
    if device.type == "cuda":
        return _gpu_or_portable(device)
    if device.type != "cpu":
        return _load("portable")
    try:
        return _load("cpu")
    except ImportError as error:
        message = f"rlmin.scan: numba is not usable ({error}), scans on CPU run several times slower; pip install numba"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return _load("portable")


def _gpu_or_portable(device: torch.device) -> ModuleType:
    """The GPU kernel if its smallest call succeeds. A failure of the compiler must not stop the user.

    The call runs on the GPU that will run the scans: another one may be older, or be reserved for others.
    """
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("rlmin.scan: the first scan compiles, which a CUDA graph cannot hold; call warm_up() before")
    try:
        kernel = _load("gpu")
        x = torch.zeros(1, 1, 1, device=device)
        kernel.forward("linear", (x, x), x[0], None, False)
        return kernel
    except Exception as error:  # compiler, driver and cache raise errors of their own
        message = f"rlmin.scan: the GPU kernel is not usable ({type(error).__name__}: {error}), scans run slower. "
        warnings.warn(message + _GPU_REMEDY, RuntimeWarning, stacklevel=2)
        return _load("portable")


@functools.cache
def _load(name: str) -> ModuleType:
    return importlib.import_module(f"rlmin.scan.{name}")
