"""minGRU: a gated average whose gate never looks at the memory, hence a scan."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from rlmin.encoders.base import Encoder, one, wipe
from rlmin.encoders.candidate import Candidate, check_candidate
from rlmin.encoders.cell import Cell, FastStep, Terms, register
from rlmin.encoders.gate_options import GateOptions
from rlmin.encoders.numpy_average import approach
from rlmin.encoders.numpy_program import After, NumpyForm, Program, linear, negated
from rlmin.encoders.projected import scan_projection
from rlmin.encoders.time_scale import TimeScales, spread_bias
from rlmin.scan.activation import activate
from rlmin.settings import Size
from rlmin.settings.boundary import checked
from rlmin.types import State


class MinGRU(Encoder):
    """One layer of minGRU.

        gate[t], candidate[t] = projection(x[t])
        h[t] = h[t-1] + sigmoid(gate[t]) * (activation(candidate[t]) - h[t-1])

    Gate and candidate see x[t] only, never h[t-1]: that makes h a linear recurrence and a parallel scan possible.
    The candidate is tanh by default, where the paper has the identity (its equations) or g (its log-space code).

    Args:
        input_size: D, features of x.
        hidden_size: H, units of memory; the output is the memory itself.
        candidate: activation of the candidate: "tanh", "identity" or "g".
        time_scales: (shortest, longest) in steps: how long units remember before training, spread log-uniformly
            over the gate biases; None leaves the biases as nn.Linear draws them (about 2 steps for every unit).

    Attributes:
        projection: nn.Linear(D, 2H), rows [gate; candidate].

    Source: Feng et al. 2024, section 3.1 (arXiv:2410.01201).
    """

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        *,
        candidate: Candidate = "tanh",
        time_scales: TimeScales = (2.0, 256.0),
    ) -> None:
        super().__init__()
        check_candidate(candidate)
        self.input_size, self.output_size = input_size, hidden_size
        self.candidate = candidate
        self.projection = nn.Linear(input_size, 2 * hidden_size)
        if time_scales is not None:
            with torch.no_grad():
                self.projection.bias[:hidden_size] = spread_bias(hidden_size, time_scales)

    def initial_state(self, B: int) -> Tensor:
        """[B, H] zeros."""
        return self.zeros(B, self.output_size)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, H]."""
        self.check_input(x, start, state)
        return scan_projection(self.projection, x, one(state), start, activation=self.candidate)

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, H]."""
        before = wipe(one(state), start)
        projected = self.projection(x)
        gate, candidate = projected.to(before.dtype).chunk(2, dim=-1)
        h = torch.lerp(before, activate(self.candidate, candidate), torch.sigmoid(gate))
        return h.to(projected.dtype), h

    def time_scale(self) -> Tensor:
        """[H] steps each unit remembers at x = 0, 1 / sigmoid(gate bias); detached."""
        return 1 / torch.sigmoid(self.projection.bias.detach()[: self.output_size])


def terms(mixer: MinGRU, x: Tensor) -> Terms:
    """keep = 1 - sigmoid(gate), value = sigmoid(gate) * activation(candidate)."""
    gate, candidate = mixer.projection(x).chunk(2, dim=-1)
    return Terms(softplus(gate), torch.sigmoid(gate) * activate(mixer.candidate, candidate))


def write_numpy(program: Program, name: str, mixer: MinGRU, read: str, after: After) -> str:
    """One step for numpy: see `NumpyForm`."""
    H = mixer.output_size
    h = program.remember(f"{name}.h", H)
    p = program.product(f"{name}.mixer", read, *negated(after(linear(mixer.projection)), H))
    gate, candidate = (program.view(f"{p}.{i}", p, "columns", i * H, (i + 1) * H) for i in range(2))
    program.sigmoid(gate)
    return approach(program, name, h, candidate, gate, activation=mixer.candidate, size=H)


CELL = register(
    Cell(
        "min_gru",
        MinGRU,
        about="A gated average whose gate sees the input only: trained in parallel over time.",
        options=GateOptions,
        terms=terms,
        to_numpy=NumpyForm(write_numpy),
        fast_step=FastStep("min_gru", parts=2),
    )
)
