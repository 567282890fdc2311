"""The gated average behind minGRU and minLSTM, with options that turn it into other memories."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from rlmin.encoders.base import Encoder, one, wipe
from rlmin.encoders.candidate import Candidate, apply_activation, check_candidate
from rlmin.encoders.cell import Terms
from rlmin.encoders.gate_options import compute_reach
from rlmin.encoders.projected import scan_projection
from rlmin.encoders.rising_floors import Floor, RisingFloors
from rlmin.encoders.root_mean_square import RootMeanSquare
from rlmin.encoders.time_scale import TimeScales, spread_bias
from rlmin.scan import ACTIVATIONS, linear_scan
from rlmin.settings import Share, Size
from rlmin.settings.boundary import checked
from rlmin.types import State


class GatedAverage(Encoder):
    """One layer of a memory that moves a share of the way to a candidate.

        k[t], candidate[t] = from projection(x[t])
        w[t] = reach * sigmoid(k[t])                             hard_gate: reach * clip(k[t] / 4 + 1/2, 0, 1)
        h[t] = h[t-1] + w[t] * (activation(candidate[t]) - h[t-1])
        y[t] = h[t]                                              output_gate: output(rms(h[t]) * silu(gate(x[t])))

    reach is 1 by default. It is 1 - forget_floor with a floor, so that 1 - w never falls below the floor, and 2 if
    signed: then the decay 1 - w lies in (-1, 1), and w = 2 mirrors the memory at the candidate. The plain cell has a
    kernel of its own; all others run `linear_scan`.

    A rising floor belongs to all layers of a stack, see `RisingFloors`. A cell on its own is a first layer: its floor
    is 0.

    Attributes:
        projection: nn.Linear(D, parts * H), the candidate's rows last.
        output_gate: nn.Linear(D, H), or None.
        output: nn.Linear(H, H) without bias, and norm: RootMeanSquare(H); with an output gate only.
    """

    parts: ClassVar[int]  # rows of the projection, in units of H
    output_gate: nn.Linear | None

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        *,
        candidate: Candidate = "tanh",
        time_scales: TimeScales = (2.0, 256.0),
        slow_units: Share = 0.0,
        signed: bool = False,
        forget_floor: Floor = 0.0,
        hard_gate: bool = False,
        output_gate: bool = False,
    ) -> None:
        """Weights and options, see the subclass; the weights of a plain cell are one nn.Linear."""
        super().__init__()
        check_candidate(candidate)
        self.reach = compute_reach(signed, forget_floor)
        self.input_size, self.output_size = input_size, hidden_size
        self.candidate, self.hard = candidate, hard_gate
        self.projection = nn.Linear(input_size, self.parts * hidden_size)
        self.output_gate = None
        if output_gate:
            self.output_gate = nn.Linear(input_size, hidden_size)
            self.norm = RootMeanSquare(hidden_size)
            self.output = nn.Linear(hidden_size, hidden_size, bias=False)
        self.rises = forget_floor == "rising"
        self._layer: tuple[RisingFloors, int] | None = None  # in a tuple, as one layer alone has them for a child
        without_options = self.reach == 1 and not (hard_gate or output_gate or self.rises)
        self.is_plain = without_options and candidate in ACTIVATIONS
        self._spread = None if time_scales is None else (time_scales, slow_units)
        self._begin()

    @torch.no_grad()
    def _begin(self) -> None:
        """Set the gate biases so that units have the time scales asked for."""
        if self._spread is not None:
            self.set_bias(self._place_bias(*self._spread))

    @abstractmethod
    def set_bias(self, k: Tensor) -> None:
        """Set the biases of the projection so that the gate is k [H] where x = 0."""

    def _place_bias(self, time_scales: tuple[float, float], slow_units: float) -> Tensor:
        """[H] values of k that give the units these time scales: w = 1 / tau."""
        reach = self.reach if self._layer is None else self._layer[0].first_reach(self._layer[1])
        shortest, longest = (reach * tau for tau in time_scales)
        if reach < 1:  # no unit can forget faster than the floor lets it
            shortest, longest = max(shortest, 2.0), max(longest, 2.0)
        bias = spread_bias(self.output_size, (shortest, longest), slow_units)
        return 4 * torch.sigmoid(bias) - 2 if self.hard else bias

    def rise(self, floors: RisingFloors, layer: int) -> None:
        """Be this layer of a stack with these floors; gate biases are set anew."""
        self._layer = floors, layer
        self._begin()

    @property
    def follows(self) -> bool:
        """Whether the floor depends on weights that all layers of a stack share."""
        return self._layer is not None

    def largest_share(self) -> float | Tensor:
        """The share of the candidate that a gate wide open lets in; [H] below a rising floor."""
        return self.reach if self._layer is None else 1 - self._layer[0](self._layer[1])

    @abstractmethod
    def gate(self, projected: Tensor) -> Tensor:
        """k [..., H] of the columns [..., parts * H] of the projection."""

    def share(self, k: Tensor) -> Tensor:
        """w [..., H] of k."""
        w = (k / 4 + 0.5).clamp(0, 1) if self.hard else torch.sigmoid(k)
        reach = self.largest_share()
        return w if isinstance(reach, float) and reach == 1 else reach * w

    def initial_state(self, B: int) -> Tensor:
        """[B, H] zeros."""
        return self.zeros(B, self.output_size)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, H]."""
        self.check_input(x, start, state)
        before = one(state)
        if self.is_plain:
            return scan_projection(self.projection, x, before, start, activation=self.candidate)
        projected = self.projection(x)
        w, candidate = self.split(projected.to(before.dtype))
        h, last = linear_scan(1 - w, w * candidate, before, start)
        return self.read(x, h.to(projected.dtype)), last

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, H]."""
        before = wipe(one(state), start)
        projected = self.projection(x)
        w, candidate = self.split(projected.to(before.dtype))
        h = torch.lerp(before, candidate, w)
        return self.read(x, h.to(projected.dtype)), h

    def read(self, x: Tensor, memory: Tensor) -> Tensor:
        """The output [..., H] of x [..., D] and the memory [..., H]."""
        if self.output_gate is None:
            return memory
        y: Tensor = self.output(self.norm(memory) * silu(self.output_gate(x)))
        return y

    def time_scale(self) -> Tensor:
        """[H] steps each unit remembers at x = 0, 1 / w; detached."""
        return 1 / self.share(self.gate(self.projection.bias.detach())).detach()

    def split(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """w, and the candidate after its activation."""
        candidate = projected[..., -self.output_size :]
        return self.share(self.gate(projected)), apply_activation(self.candidate, candidate)


def terms(mixer: GatedAverage, x: Tensor) -> Terms:
    """keep = 1 - w, value = w * activation(candidate)."""
    projected = mixer.projection(x)
    w, candidate = mixer.split(projected)
    if mixer.reach == 1 and not mixer.hard and not mixer.rises:
        return Terms(softplus(mixer.gate(projected)), w * candidate)
    rate = torch.where(w < 1, -torch.log1p(-w), -torch.log(w - 1))
    return Terms(rate, w * candidate, torch.where(w > 1, -1.0, 1.0).to(w.dtype))


def read(mixer: GatedAverage, x: Tensor, memory: Tensor) -> Tensor:
    """The output of a layer, given its memory."""
    return mixer.read(x, memory)


def has_output_gate(mixer: GatedAverage) -> bool:
    """Whether the output differs from the memory."""
    return mixer.output_gate is not None


def couple(mixers: Sequence[GatedAverage]) -> None:
    """Give the layers of a stack their common floors, if floors rise; the first layer holds them."""
    first = mixers[0]
    if first.rises:
        first.floors = RisingFloors(len(mixers), first.output_size)
        for layer, mixer in enumerate(mixers):
            mixer.rise(first.floors, layer)


AVERAGE: dict[str, Any] = {"terms": terms, "read": read, "reads": has_output_gate, "couple": couple}
"""What every gated average can do, for its registration."""
