"""The contract of every encoder: one set of weights, run over a rollout or a step at a time, with exact resets.

The laws are in encoder_laws.py. Each is also given an encoder that is broken in the way the law is there to notice.
"""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from encoder_laws import (
    LAWS,
    Law,
    T,
    a_reset_is_the_same_as_being_born_there,
    gradients,
    inputs,
    leaves,
    never,
    one_pass_equals_any_split,
    rows_do_not_mix,
    sometimes,
    step_by_step_equals_one_pass,
    the_past_never_sees_the_future,
)
from torch import Tensor

from rlmin.encoders import (
    FFM,
    GRU,
    LRU,
    LSTM,
    MIXERS,
    MLP,
    Aaren,
    Attention,
    CausalConv,
    DeltaNet,
    Encoder,
    GatedLinear,
    GateLoop,
    MinGRU,
    MinLSTM,
    Stack,
)
from rlmin.encoders.gated_linear import Form
from rlmin.types import State, map_state

D, H = 4, 5


def make_gated_linear(form: Form) -> Callable[[], Encoder]:
    return lambda: GatedLinear(D, H, form=form, heads=2)


ALONE: dict[str, Callable[[], Encoder]] = {
    "min_gru": lambda: MinGRU(D, H),
    "min_gru identity": lambda: MinGRU(D, H, candidate="identity"),
    "min_gru g": lambda: MinGRU(D, H, candidate="g", time_scales=None),
    "min_lstm": lambda: MinLSTM(D, H),
    "min_lstm identity": lambda: MinLSTM(D, H, candidate="identity"),
    "min_lstm g": lambda: MinLSTM(D, H, candidate="g", time_scales=None),
    "min_gru signed": lambda: MinGRU(D, H, signed=True),
    "min_gru with floor and output gate": lambda: MinGRU(D, H, candidate="silu", forget_floor=0.5, output_gate=True),
    "min_lstm signed, hard gate": lambda: MinLSTM(D, H, signed=True, hard_gate=True),
    "gru": lambda: GRU(D, H),
    "lstm": lambda: LSTM(D, H),
    "attention": lambda: Attention(D, H),
    "attention of one head over 3": lambda: Attention(D, H, heads=1, context=3),
    "attention over 7 without order": lambda: Attention(D, H, heads=2, context=7, rotary=False),
    "aaren": lambda: Aaren(D, H),
    "aaren of one head": lambda: Aaren(D, H, heads=1),
    "conv": lambda: CausalConv(D),
    "conv of width 2": lambda: CausalConv(D, width=2),
    "lru": lambda: LRU(D, H),
    "gate_loop": lambda: GateLoop(D, H),
    "ffm": lambda: FFM(D, H, traces=3, contexts=2),
    **{f"gated_linear {form}": make_gated_linear(form) for form in get_args(Form)},
    "delta_net plain": lambda: DeltaNet(D, H, heads=2, decay="none", negative=True),
    "delta_net of two products": lambda: DeltaNet(D, H, heads=2, decay="key", products=2),
    "mlp": lambda: MLP(D, H),
}


def stack(mixer: str, conv: int, mlp: int) -> Callable[[], Encoder]:
    return lambda: Stack(D, H, mixer=mixer, conv=conv, mlp=mlp)


PARTS = [("min_gru", c, m) for c in (4, 0) for m in (2, 0)]  # what a block may have is no matter of the mixer
WHOLE = [(mixer, 4, 2) for mixer in MIXERS if mixer != "min_gru"]
STACKS = {f"stack {mixer} conv {c} mlp {m}": stack(mixer, c, m) for mixer, c, m in PARTS + WHOLE}
STACKS["stack of rg_lru, rg_lru and attention"] = lambda: Stack(
    D, H, mixer="rg_lru+rg_lru+attention", layers=4, context=3
)
STACKS["stack as HGRN"] = lambda: Stack(D, H, candidate="silu", forget_floor="rising", output_gate=True)
ENCODERS = ALONE | STACKS


class Broken(Encoder):
    """A minGRU; each subclass spoils one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.output_size = D, H
        self.inner = MinGRU(D, H)

    def initial_state(self, B: int) -> State:
        return self.inner.initial_state(B)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        return self.inner(x, state, start)

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        return self.inner.step(x, state, start)


class StepsWithoutResets(Broken):
    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        return self.inner.step(x, state, torch.zeros_like(start))


class StepsWithoutGradient(Broken):
    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        return self.inner.step(x, map_state(Tensor.detach, state), start)


class ForgetsWhatItIsGiven(Broken):
    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        return self.inner(x, self.initial_state(x.shape[1]), start)


class CutsTheGradientOfMemory(Broken):
    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        return self.inner(x, map_state(Tensor.detach, state), start)


class ResetsOneStepLate(Broken):
    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        return self.inner(x, state, torch.cat([torch.zeros_like(start[:1]), start[:-1]]))


class LetsGradientThroughResets(Broken):
    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        y, last = self.inner(x, state, start)
        return y + (x - x.detach()).sum(), last


class ResetsEveryone(Broken):
    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        return self.inner(x, state, start.any(1, keepdim=True).expand_as(start))


class MixesRows(Broken):
    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        y, last = self.inner(x, state, start)
        return y + y.mean(1, keepdim=True), last


class LooksAhead(Broken):
    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        y, last = self.inner(x, state, start)
        return y + y.roll(-1, 0), last


BREAKS: list[tuple[Law, type[Broken]]] = [
    (step_by_step_equals_one_pass, StepsWithoutResets),
    (step_by_step_equals_one_pass, StepsWithoutGradient),
    (one_pass_equals_any_split, ForgetsWhatItIsGiven),
    (one_pass_equals_any_split, CutsTheGradientOfMemory),
    (a_reset_is_the_same_as_being_born_there, ResetsOneStepLate),
    (a_reset_is_the_same_as_being_born_there, LetsGradientThroughResets),
    (rows_do_not_mix, ResetsEveryone),
    (rows_do_not_mix, MixesRows),
    (the_past_never_sees_the_future, LooksAhead),
]


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("law", LAWS)
def test_every_encoder_keeps_the_law(law: Law, name: str) -> None:
    torch.manual_seed(0)
    law(ENCODERS[name]().double())


@pytest.mark.parametrize("law", LAWS)
def test_the_encoder_that_the_broken_ones_spoil_keeps_the_law(law: Law) -> None:
    torch.manual_seed(0)
    law(Broken().double())


@pytest.mark.parametrize(("law", "broken"), BREAKS)
def test_a_law_notices_an_encoder_that_breaks_it(law: Law, broken: type[Broken]) -> None:
    torch.manual_seed(0)
    with pytest.raises(AssertionError):
        law(broken().double())


@pytest.mark.parametrize("name", [name for name in ENCODERS if "mlp" not in name.split()[:2]])
def test_a_reset_matters_where_there_is_memory(name: str) -> None:
    torch.manual_seed(0)
    encoder = ENCODERS[name]().double()
    x, before = inputs(encoder)
    reset, _ = encoder(x, before, sometimes)
    unreset, _ = encoder(x, before, never)
    assert not torch.allclose(reset, unreset)


@pytest.mark.parametrize("name", [name for name in ENCODERS if "mlp" in name.split()[:2]])
def test_the_control_sees_the_present_only(name: str) -> None:
    torch.manual_seed(0)
    encoder = ENCODERS[name]().double()
    x, before = inputs(encoder)
    assert leaves(before) == []
    for t in range(T):
        dx = gradients([encoder(x, before, sometimes)[0][t]], [x])[0]
        assert [s for s in range(T) if dx[s].any()] == [t]
