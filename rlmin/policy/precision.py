"""Precision of float32 products and convolutions on a GPU.

TF32 keeps 10 of the 23 bits behind the point of each factor and adds in float32, which tensor cores do several times
as fast. torch's own switches are off for products and on for convolutions, so pictures are read in TF32 unless somebody
changes them. Acting and training sum in different orders, so their log-probabilities differ by the rounding of a
factor.
"""

import torch

EXACT, ROUNDED = 1e-5, 1e-2
"""Largest log-ratio of acting and training in nats, in float32 and in TF32; 2**-24 and 2**-11 are the roundings."""


def set_tf32(device: torch.device, tf32: bool | None) -> None:
    """Set torch's switches for this process, if the device is a GPU; None leaves them as they are."""
    if tf32 is not None and device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32


def uses_tf32(device: torch.device) -> bool:
    """Whether products or convolutions of float32 may round to TF32 on the device."""
    if device.type != "cuda":
        return False
    try:
        return torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    except RuntimeError:  # torch's older and newer switches were mixed, and it will not say
        return True


def consistency_tolerance(device: torch.device) -> float:
    """Largest log-ratio of acting and training that rounding explains on the device."""
    return ROUNDED if uses_tf32(device) else EXACT
