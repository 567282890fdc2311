"""minGRU: a gated average whose gate never looks at the memory, hence a scan."""

from typing import ClassVar

from torch import Tensor

from rlmin.encoders.cell import Cell, FastStep, register
from rlmin.encoders.gate_options import GateOptions
from rlmin.encoders.gated_average import AVERAGE, GatedAverage
from rlmin.encoders.numpy_average import approach, project
from rlmin.encoders.numpy_program import After, NumpyForm, Program


class MinGRU(GatedAverage):
    """One layer of minGRU.

        gate[t], candidate[t] = projection(x[t])
        h[t] = h[t-1] + sigmoid(gate[t]) * (activation(candidate[t]) - h[t-1])

    Gate and candidate see x[t] only, never h[t-1]. So h is a linear recurrence, which a parallel scan can compute. The
    candidate is tanh by default; the paper has the identity (its equations) or g (its log-space code). The last options
    change the share sigmoid(gate) and the output: see `GatedAverage`.

    Args:
        input_size: D, features of x.
        hidden_size: H, units of memory; the output is the memory itself.
        candidate: activation of the candidate: "tanh", "identity" or "g".
        time_scales: (shortest, longest) memory of the units before training, in steps, spread log-uniformly over the
            gate biases; None leaves the biases as nn.Linear draws them (about 2 steps for every unit).
        slow_units: share of the units that begin 100 times as slow as the longest; see `spread_time_constants`.
        signed: whether the share goes up to 2, so that decays lie in (-1, 1): a unit can change its sign, as parity
            needs.
        forget_floor: least share of the memory that stays, in [0, 1); 0 if signed. "rising": learned, and larger in
            every layer of a stack than in the one before; 0 in the first.
        hard_gate: whether a clipped line replaces the sigmoid, so that gates can be fully open or shut.
        output_gate: whether y = output(rms(h) * silu(gate(x))) instead of y = h.

    Attributes:
        projection: nn.Linear(D, 2H), rows [gate; candidate].

    HGRN, in its real form, is candidate="silu", output_gate=True and forget_floor="rising".

    Raises:
        ValueError: an unknown candidate, time scales in the wrong order, or a floor beside signed.

    Source: Feng et al. 2024, section 3.1 (arXiv:2410.01201). Signs: Grazzi et al. 2024 (arXiv:2411.12537). Floor and
    output gate: Qin et al. 2023 (arXiv:2311.04823).
    """

    parts: ClassVar[int] = 2

    def set_bias(self, k: Tensor) -> None:
        """The first H biases are k."""
        self.projection.bias[: self.output_size] = k

    def gate(self, projected: Tensor) -> Tensor:
        """The first H columns."""
        return projected[..., : self.output_size]


def write_numpy(program: Program, name: str, mixer: MinGRU, read: str, after: After) -> str:
    """One step for numpy: see `NumpyForm`."""
    H = mixer.output_size
    h, p = project(program, name, mixer, read, after, gates=1)
    gate, candidate = (program.view(f"{p}.{i}", p, "columns", i * H, (i + 1) * H) for i in range(2))
    return approach(program, name, h, candidate, gate, mixer)


CELL = register(
    Cell(
        "min_gru",
        MinGRU,
        about="A gated average whose gate sees the input only: trained in parallel over time.",
        options=GateOptions,
        to_numpy=NumpyForm(write_numpy),
        fast_step=FastStep("min_gru", parts=2),
        **AVERAGE,
    )
)
