"""The gated average of minGRU and minLSTM as calls of numpy."""

from rlmin.encoders.numpy_program import Program


def approach(program: Program, name: str, h: str, candidate: str, gate: str, *, activation: str, size: int) -> str:
    """h += (activation(candidate) - h) / gate, where 1 / gate is the share of the new."""
    if activation == "tanh":
        program.call("tanh", candidate, candidate)
    if activation == "g":  # x + 0.5 where x >= 0, else sigmoid(x)
        below = program.buffer(f"{name}.below", size, dtype="bool", fill=False)
        share = program.buffer(f"{name}.share", size)
        program.call("less", candidate, "zero", below)
        program.call("subtract", "zero", candidate, share)
        program.sigmoid(share)
        program.call("divide", "one", share, share)
        program.call("add", candidate, "half", candidate)
        program.call("copy_where", candidate, share, below)
    program.call("subtract", candidate, h, candidate)
    program.call("divide", candidate, gate, candidate)
    program.call("add", h, candidate, h)
    return h
