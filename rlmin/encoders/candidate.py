"""The candidate activations of minGRU and minLSTM, by name."""

from typing import Literal, TypeAlias, get_args

from torch import Tensor
from torch.nn.functional import silu

from rlmin.scan.activation import activate

Candidate: TypeAlias = Literal["tanh", "identity", "g", "silu"]
"""tanh: memory is bounded. identity: the vanilla cell of the paper, an average of linear features. g: x + 0.5 where
x >= 0 and sigmoid(x) elsewhere, positive, which the paper's log-space form needs (arXiv:2410.01201, appendix B).
silu: HGRN's; it has no kernel of its own."""


def apply_activation(name: str, x: Tensor) -> Tensor:
    """Apply the activation of this name to x."""
    return silu(x) if name == "silu" else activate(name, x)


def check_candidate(name: str) -> None:
    """Raise a ValueError that lists the names, at construction rather than at the first forward."""
    if name not in get_args(Candidate):
        raise ValueError(f"candidate: expected one of {', '.join(get_args(Candidate))}, got {name!r}")
