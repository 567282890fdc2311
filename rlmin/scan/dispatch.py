"""Which kernel runs: the fastest one that the device and the installed packages allow, unless one is asked for.

A kernel is a module with six functions, `{linear,gru,lstm}_{forward,backward}`; `reference.py` shows what each takes
and returns. All of them see [T, B, D] inputs, a [B, D] state in the dtype of the carry and a [T, B] bool start or None,
and return fresh tensors. RLMIN_KERNEL=reference|portable|cpu forces one of them.
"""

import functools
import importlib
import os
import warnings
from types import ModuleType

import torch

KERNELS = ("reference", "portable", "cpu")


def kernel_for(device: torch.device) -> ModuleType:
    """The module that runs tensors of `device`.

    Raises:
        ValueError: RLMIN_KERNEL names no kernel, or one that cannot run on this device.
        ImportError: RLMIN_KERNEL=cpu and numba cannot be imported.
    """
    forced = os.environ.get("RLMIN_KERNEL")
    if forced:
        return _forced(forced, device.type)
    return _automatic(device.type)


def _forced(name: str, device: str) -> ModuleType:
    if name not in KERNELS:
        raise ValueError(f"RLMIN_KERNEL: expected one of {', '.join(KERNELS)}, got {name!r}")
    if name == "cpu" and device != "cpu":
        raise ValueError(f"RLMIN_KERNEL=cpu: expected CPU tensors, got {device}; unset it or use portable")
    return _load(name)


@functools.cache
def _automatic(device: str) -> ModuleType:
    if device != "cpu":
        return _load("portable")
    try:
        return _load("cpu")
    except ImportError as error:
        message = f"rlmin.scan: numba is not usable ({error}), scans on CPU run several times slower; pip install numba"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return _load("portable")


@functools.cache
def _load(name: str) -> ModuleType:
    return importlib.import_module(f"rlmin.scan.{name}")
