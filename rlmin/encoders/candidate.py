"""The candidate activations of minGRU and minLSTM, by name."""

from typing import Literal, TypeAlias

from rlmin.scan import ACTIVATIONS

Candidate: TypeAlias = Literal["tanh", "identity", "g"]
"""tanh: memory is bounded. identity: the vanilla cell of the paper, an average of linear features. g: x + 0.5 where
x >= 0 and sigmoid(x) elsewhere, positive, which the paper's log-space form needs (arXiv:2410.01201, appendix B)."""


def check_candidate(name: str) -> None:
    """Raise a ValueError that lists the names, here and not at the first forward."""
    if name not in ACTIVATIONS:
        raise ValueError(f"candidate: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")
