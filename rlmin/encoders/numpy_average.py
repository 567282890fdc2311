"""The gated average of minGRU and minLSTM as calls of numpy."""

import numpy as np
import torch

from rlmin.encoders.gated_average import GatedAverage
from rlmin.encoders.numpy_program import INSTEAD, After, Program, linear, negate


def check_known(mixer: GatedAverage) -> None:
    """Raise a ValueError for options that numpy calls cannot express."""
    if mixer.output_gate is not None:
        raise ValueError(f"export to numpy: a {type(mixer).__name__} with an output gate is not supported; {INSTEAD}")


def project(
    program: Program, name: str, mixer: GatedAverage, read: str, after: After, *, gates: int
) -> tuple[str, str]:
    """The memory, and the projection of `read` whose first `gates` parts have the opposite sign."""
    check_known(mixer)
    H = mixer.output_size
    h = program.remember(f"{name}.h", H)
    return h, program.product(f"{name}.mixer", read, *negate(after(linear(mixer.projection)), gates * H))


def approach(program: Program, name: str, h: str, candidate: str, gate: str, mixer: GatedAverage) -> str:
    """h += (activation(candidate) - h) * w, where `gate` holds -k."""
    reach = np.asarray(torch.as_tensor(mixer.largest_share()).detach().cpu(), dtype=np.float64)
    _activate(program, name, candidate, mixer)
    program.call("subtract", candidate, h, candidate)
    if mixer.hard:  # w = reach * clip(k / 4 + 1 / 2, 0, 1)
        program.call("multiply", gate, program.weight(f"{name}.slope", -reach / 4), gate)
        program.call("add", gate, program.weight(f"{name}.middle", reach / 2), gate)
        program.call("maximum", gate, "zero", gate)
        program.call("minimum", gate, program.weight(f"{name}.reach", reach), gate)
        program.call("multiply", candidate, gate, candidate)
    else:  # w = reach / (1 + exp(-k))
        program.sigmoid(gate)
        if np.any(reach != 1):
            program.call("multiply", candidate, program.weight(f"{name}.reach", reach), candidate)
        program.call("divide", candidate, gate, candidate)
    program.call("add", h, candidate, h)
    return h


def _activate(program: Program, name: str, candidate: str, mixer: GatedAverage) -> None:
    """The activation of the candidate, in place."""
    size = mixer.output_size
    if mixer.candidate == "tanh":
        program.call("tanh", candidate, candidate)
    if mixer.candidate == "silu":
        opposite = program.buffer(f"{name}.opposite", size)
        program.call("subtract", "zero", candidate, opposite)
        program.silu(opposite, candidate, size)
    if mixer.candidate == "g":  # x + 0.5 where x >= 0, else sigmoid(x)
        below = program.buffer(f"{name}.below", size, dtype="bool", fill=False)
        share = program.buffer(f"{name}.share", size)
        program.call("less", candidate, "zero", below)
        program.call("subtract", "zero", candidate, share)
        program.sigmoid(share)
        program.call("divide", "one", share, share)
        program.call("add", candidate, "half", candidate)
        program.call("copy_where", candidate, share, below)
