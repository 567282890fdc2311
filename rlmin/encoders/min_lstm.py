"""minLSTM: a forget and an input gate that share out one unit of weight, neither of which looks at the memory."""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

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


class MinLSTM(Encoder):
    """One layer of minLSTM, with the paper's length independence scaling.

        forget[t], input[t], candidate[t] = projection(x[t])
        f, i = sigmoid(forget[t]), sigmoid(input[t])
        h[t] = f / (f + i) * h[t-1] + i / (f + i) * activation(candidate[t])

    There is no output gate and no second state. The candidate is tanh by default, where the paper has the identity
    (its equations) or g (its log-space code).

    Args:
        input_size: D, features of x.
        hidden_size: H, units of memory; the output is the memory itself.
        candidate: activation of the candidate: "tanh", "identity" or "g".
        time_scales: (shortest, longest) in steps: how long units remember before training, spread log-uniformly.
            Forget biases are set to log(tau - 1) and input biases to the opposite: then f + i = 1 and the share of
            the new is 1 / tau. (A forget bias alone cannot go beyond three steps: f is at most 1.)
            None leaves the biases as nn.Linear draws them (about 2 steps for every unit).

    Attributes:
        projection: nn.Linear(D, 3H), rows [forget; input; candidate].

    Source: Feng et al. 2024, section 3.2 (arXiv:2410.01201).
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
        self.projection = nn.Linear(input_size, 3 * hidden_size)
        if time_scales is not None:
            bias = spread_bias(hidden_size, time_scales)
            with torch.no_grad():
                self.projection.bias[: 2 * hidden_size] = torch.cat([-bias, bias])

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
        forget, input, candidate = projected.to(before.dtype).chunk(3, dim=-1)
        h = torch.lerp(before, activate(self.candidate, candidate), share(forget, input))
        return h.to(projected.dtype), h

    def time_scale(self) -> Tensor:
        """[H] steps each unit remembers at x = 0, (f + i) / i of the biases; detached."""
        forget, input, _ = self.projection.bias.detach().chunk(3)
        return 1 / share(forget, input)


def share(forget: Tensor, input: Tensor) -> Tensor:
    """i / (f + i) from the gates' logits, finite even where both sigmoids underflow."""
    return torch.sigmoid(logsigmoid(input) - logsigmoid(forget))


def terms(mixer: MinLSTM, x: Tensor) -> Terms:
    """keep = f / (f + i), value = i / (f + i) * activation(candidate)."""
    forget, input, candidate = mixer.projection(x).chunk(3, dim=-1)
    gate = logsigmoid(input) - logsigmoid(forget)
    return Terms(softplus(gate), torch.sigmoid(gate) * activate(mixer.candidate, candidate))


def write_numpy(program: Program, name: str, mixer: MinLSTM, read: str, after: After) -> str:
    """One step for numpy: i / (f + i) = sigmoid(log i - log f), and -log sigmoid(x) = log(1 + exp(-x))."""
    H = mixer.output_size
    h = program.remember(f"{name}.h", H)
    p = program.product(f"{name}.mixer", read, *negated(after(linear(mixer.projection)), 2 * H))
    gates = program.view(f"{p}.gates", p, "columns", 0, 2 * H)
    forget, input, candidate = (program.view(f"{p}.{i}", p, "columns", i * H, (i + 1) * H) for i in range(3))
    program.call("logaddexp", "zero", gates, gates)
    program.call("subtract", input, forget, input)
    program.sigmoid(input)
    return approach(program, name, h, candidate, input, activation=mixer.candidate, size=H)


CELL = register(
    Cell(
        "min_lstm",
        MinLSTM,
        about="A gated average with a forget and an input gate that see the input only: trained in parallel over time.",
        options=GateOptions,
        terms=terms,
        to_numpy=NumpyForm(write_numpy),
        fast_step=FastStep("min_lstm", parts=3),
    )
)
