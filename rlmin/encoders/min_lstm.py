"""minLSTM: a forget and an input gate that share one unit of weight; neither looks at the memory."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlmin.encoders.cell import Cell, FastStep, register
from rlmin.encoders.gate_options import GateOptions
from rlmin.encoders.gated_average import AVERAGE, GatedAverage
from rlmin.encoders.numpy_average import approach, project
from rlmin.encoders.numpy_program import After, NumpyForm, Program


class MinLSTM(GatedAverage):
    """One layer of minLSTM, with the paper's length independence scaling.

        forget[t], input[t], candidate[t] = projection(x[t])
        f, i = sigmoid(forget[t]), sigmoid(input[t])
        h[t] = f / (f + i) * h[t-1] + i / (f + i) * activation(candidate[t])

    There is no output gate and no second state. The candidate is tanh by default; the paper has the identity (its
    equations) or g (its log-space code). The last options change the share i / (f + i) and the output: see
    `GatedAverage`.

    Args:
        input_size: D, features of x.
        hidden_size: H, units of memory; the output is the memory itself.
        candidate: activation of the candidate: "tanh", "identity" or "g".
        time_scales: (shortest, longest) memory of the units before training, in steps, spread log-uniformly.
            Forget biases are set to log(tau - 1) and input biases to the opposite: then f + i = 1 and the share of
            the new is 1 / tau. (A forget bias alone cannot go beyond three steps: f is at most 1.)
            None leaves the biases as nn.Linear draws them (about 2 steps for every unit).
        slow_units: share of the units that begin 100 times as slow as the longest; see `spread_time_constants`.
        signed: whether the share of the candidate goes up to 2, so that decays lie in (-1, 1): a unit can change its
            sign, as parity needs.
        forget_floor: least share of the memory that stays, in [0, 1); 0 if signed. "rising": learned, and larger in
            every layer of a stack than in the one before; 0 in the first.
        hard_gate: whether a clipped line over log(i / f) replaces the sigmoid, so that gates can be fully open or shut.
        output_gate: whether y = output(rms(h) * silu(gate(x))) instead of y = h.

    Attributes:
        projection: nn.Linear(D, 3H), rows [forget; input; candidate].

    Raises:
        ValueError: an unknown candidate, time scales in the wrong order, or a floor beside signed.

    Source: Feng et al. 2024, section 3.2 (arXiv:2410.01201).
    """

    parts: ClassVar[int] = 3

    def set_bias(self, k: Tensor) -> None:
        """The forget gate's biases are -k, the input gate's are k."""
        self.projection.bias[: 2 * self.output_size] = torch.cat([-k, k])

    def gate(self, projected: Tensor) -> Tensor:
        """log(i / f), whose sigmoid is i / (f + i); finite even where both sigmoids underflow."""
        forget, input, _ = projected.chunk(3, dim=-1)
        return logsigmoid(input) - logsigmoid(forget)


def write_numpy(program: Program, name: str, mixer: MinLSTM, read: str, after: After) -> str:
    """One step for numpy: i / (f + i) = sigmoid(log i - log f), and -log sigmoid(x) = log(1 + exp(-x))."""
    H = mixer.output_size
    h, p = project(program, name, mixer, read, after, gates=2)
    gates = program.view(f"{p}.gates", p, "columns", 0, 2 * H)
    forget, input, candidate = (program.view(f"{p}.{i}", p, "columns", i * H, (i + 1) * H) for i in range(3))
    program.call("logaddexp", "zero", gates, gates)
    program.call("subtract", input, forget, input)
    return approach(program, name, h, candidate, input, mixer)


CELL = register(
    Cell(
        "min_lstm",
        MinLSTM,
        about="A gated average with a forget and an input gate that see the input only: trained in parallel over time.",
        options=GateOptions,
        to_numpy=NumpyForm(write_numpy),
        fast_step=FastStep("min_lstm", parts=3),
        **AVERAGE,
    )
)
