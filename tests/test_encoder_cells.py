"""Each encoder against an independent definition: torch.nn, the paper's published code, or numbers done by hand."""

import pytest
import torch
from minGRU_pytorch import minGRU as LogSpaceMinGRU
from torch import Tensor, nn

from rlmin.encoders import GRU, LSTM, MIXERS, CausalConv, Encoder, MinGRU, MinLSTM, Stack
from rlmin.encoders.conv import _CausalConv
from rlmin.encoders.gru import _GRU
from rlmin.encoders.lstm import _LSTM
from rlmin.types import State, map_state

T, B, D, H = 10, 3, 4, 5
never = torch.zeros(T, B, dtype=torch.bool)
sometimes = never.clone()
sometimes[[0, 4, 5, 9], [0, 1, 1, 2]] = True


def random(*size: int, seed: int) -> Tensor:
    draw = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return draw.requires_grad_()


def weigh(*outputs: Tensor) -> Tensor:
    """A scalar in which every element has a weight of its own."""
    return torch.stack([(y * torch.arange(1.0, y.numel() + 1).view(y.shape).cos()).sum() for y in outputs]).sum()


def copy_torch_weights(encoder: GRU | LSTM, module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Give `encoder` the weights of `module`; pairs of parameters whose gradients must agree."""
    names = ["weight_ih_l0", "bias_ih_l0", "weight_hh_l0", "bias_hh_l0"]
    pairs: list[tuple[Tensor, Tensor]] = [
        (ours, module.get_parameter(name)) for ours, name in zip(encoder.parameters(), names, strict=True)
    ]
    with torch.no_grad():
        for ours, theirs in pairs:
            ours.copy_(theirs)
    return pairs


def test_gru_is_torch_gru() -> None:
    torch.manual_seed(0)
    ours, theirs = GRU(D, H).double(), nn.GRU(D, H).double()
    pairs = copy_torch_weights(ours, theirs)
    x, h = random(T, B, D, seed=1), random(B, H, seed=2)
    y, last = ours(x, h, never)
    want, want_last = theirs(x, h.unsqueeze(0))
    assert isinstance(last, Tensor)
    torch.testing.assert_close((y, last), (want, want_last[0]))
    got_grad = torch.autograd.grad(weigh(y, last), [x, h, *(p for p, _ in pairs)])
    want_grad = torch.autograd.grad(weigh(want, want_last[0]), [x, h, *(p for _, p in pairs)])
    torch.testing.assert_close(got_grad, want_grad)


def test_lstm_is_torch_lstm() -> None:
    torch.manual_seed(0)
    ours, theirs = LSTM(D, H).double(), nn.LSTM(D, H).double()
    pairs = copy_torch_weights(ours, theirs)
    x, h, c = random(T, B, D, seed=1), random(B, H, seed=2), random(B, H, seed=3)
    y, last = ours(x, (h, c), never)
    want, want_last = theirs(x, (h.unsqueeze(0), c.unsqueeze(0)))
    got, want = [y, *last], [want, *(part[0] for part in want_last)]
    torch.testing.assert_close(got, want)
    got_grad = torch.autograd.grad(weigh(*got), [x, h, c, *(p for p, _ in pairs)])
    want_grad = torch.autograd.grad(weigh(*want), [x, h, c, *(p for _, p in pairs)])
    torch.testing.assert_close(got_grad, want_grad)


def test_min_gru_with_candidate_g_is_the_log_space_form_of_the_paper() -> None:
    torch.manual_seed(0)
    ours, theirs = MinGRU(D, D, candidate="g").double(), LogSpaceMinGRU(D).double()
    hidden, gate = theirs.to_hidden_and_gate.weight.chunk(2)
    with torch.no_grad():
        ours.projection.weight.copy_(torch.cat([gate, hidden]))
        ours.projection.bias.zero_()
    x, h = random(T, B, D, seed=1), random(B, D, seed=2).detach().abs().requires_grad_()
    y, last = ours(x, h, never)
    want, want_last = theirs(x.transpose(0, 1), h.unsqueeze(1), return_next_prev_hidden=True)
    assert isinstance(last, Tensor)
    torch.testing.assert_close((y, last), (want.transpose(0, 1), want_last[:, 0]))
    *got_grad, dweight = torch.autograd.grad(weigh(y, last), [x, h, ours.projection.weight])
    outputs = weigh(want.transpose(0, 1), want_last[:, 0])
    *want_grad, dtheirs = torch.autograd.grad(outputs, [x, h, theirs.to_hidden_and_gate.weight])
    torch.testing.assert_close(got_grad, want_grad)
    torch.testing.assert_close(dweight, torch.cat(dtheirs.chunk(2)[::-1]))


def test_min_lstm_is_its_equations() -> None:
    torch.manual_seed(0)
    encoder = MinLSTM(D, H).double()
    x, h = random(T, B, D, seed=1), random(B, H, seed=2)
    y, _ = encoder(x, h, sometimes)
    for t in range(T):
        forget, input, candidate = (x[t] @ encoder.projection.weight.t() + encoder.projection.bias).chunk(3, dim=-1)
        f, i = torch.sigmoid(forget), torch.sigmoid(input)
        h = torch.where(sometimes[t, :, None], 0, h)
        h = f / (f + i) * h + i / (f + i) * torch.tanh(candidate)
        torch.testing.assert_close(y[t], h)


def test_the_convolution_by_hand() -> None:
    """One feature, weights 1, 10, 100, 1000 from now backwards, bias 0.5: each answer shows its inputs as digits."""
    conv = CausalConv(1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1.0], [10.0], [100.0], [1000.0]]))
        conv.bias.fill_(0.5)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).view(6, 1, 1)
    start = torch.tensor([False, False, False, True, False, False]).view(6, 1)
    before = torch.tensor([7.0, 8.0, 9.0]).view(1, 3, 1)  # the newest first
    y, last = conv(x, before, start)
    want = [1 + 70 + 800 + 9000.5, 2 + 10 + 700 + 8000.5, 3 + 20 + 100 + 7000.5, 4.5, 5 + 40.5, 6 + 50 + 400.5]
    assert y.flatten().tolist() == want
    assert isinstance(last, Tensor)
    assert last.flatten().tolist() == [6, 5, 4]
    _, soon = conv(x[:5], before, start[:5])
    assert isinstance(soon, Tensor)
    assert soon.flatten().tolist() == [5, 4, 0]


def test_a_new_convolution_is_nearly_the_identity() -> None:
    torch.manual_seed(0)
    conv = CausalConv(64)
    x = torch.randn(T, B, 64)
    y, _ = conv(x, conv.initial_state(B), never)
    error = (y - x).square().mean().sqrt()
    assert 0.05 < error < 0.4  # near it, and not so near that all lags look the same to the optimiser


def test_the_hand_written_gradients_are_the_numerical_ones() -> None:
    gates, states = random(4, 2, 12, seed=1), [random(2, 3, seed=seed) for seed in (2, 3)]
    start = torch.tensor([[True, False], [False, True], [False, True], [False, False]])
    weight, bias = random(12, 3, seed=4), random(9, seed=5)
    assert torch.autograd.gradcheck(_GRU.apply, (gates[..., :9], states[0], start, weight[:9], bias))
    assert torch.autograd.gradcheck(_LSTM.apply, (gates, *states, start, weight))
    last = random(2, 3, 12, seed=6)
    assert torch.autograd.gradcheck(_CausalConv.apply, (gates, last, start, random(4, 12, seed=7), random(12, seed=8)))


@pytest.mark.parametrize("encoder_class", [MinGRU, MinLSTM])
def test_time_scales_start_log_uniform_between_the_two_ends(encoder_class: type[MinGRU] | type[MinLSTM]) -> None:
    encoder = encoder_class(D, H, time_scales=(2.0, 32.0))
    torch.testing.assert_close(encoder.time_scale(), torch.tensor([2.0, 4.0, 8.0, 16.0, 32.0]))
    assert not encoder.time_scale().requires_grad
    longer = encoder_class(D, H, time_scales=(2.0, 33.0)).time_scale()
    assert not torch.allclose(longer, encoder.time_scale())


@pytest.mark.parametrize("encoder_class", [MinGRU, MinLSTM])
def test_a_unit_of_time_scale_tau_takes_in_one_part_in_tau(encoder_class: type[MinGRU] | type[MinLSTM]) -> None:
    encoder = encoder_class(D, H, candidate="identity", time_scales=(2.0, 32.0))
    h = torch.ones(B, H)
    with torch.no_grad():
        encoder.projection.bias[-H:] = 0.0
        y, _ = encoder.step(torch.zeros(B, D), h, never[0])
    torch.testing.assert_close(y, (1 - 1 / encoder.time_scale()).expand(B, H))


@pytest.mark.parametrize("wrong", [(1.0, 10.0), (0.5, 10.0), (10.0, 2.0), (2.0, float("inf"))])
def test_time_scales_in_the_wrong_order_are_an_error(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"time_scales(\[1\])?: expected (1 < shortest <= longest|a number, got inf)"):
        MinGRU(D, H, time_scales=wrong)


@pytest.mark.parametrize("mixer", MIXERS)
def test_memory_stays_float32_under_autocast(mixer: str) -> None:
    torch.manual_seed(0)
    encoder = Stack(D, H, mixer=mixer)
    x = torch.randn(T, B, D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encoder.embed(x).dtype == torch.bfloat16  # autocast is really on
        y, last = encoder(x, encoder.initial_state(B), sometimes)
        torch.autograd.grad(weigh(y, *leaves(last)), list(encoder.parameters()))
        state, ys = encoder.initial_state(B), []
        for t in range(T):
            y_t, state = encoder.step(x[t], state, sometimes[t])
            ys.append(y_t)
    for part in [*leaves(last), *leaves(state)]:
        assert part.dtype == torch.float32
    torch.testing.assert_close(torch.stack(ys), y, rtol=0.05, atol=0.05)
    exact, _ = encoder(x, encoder.initial_state(B), sometimes)
    assert (y - exact).norm() < 0.05 * exact.norm()  # in all: a norm of two features can turn rounding into a sign


def leaves(state: State) -> list[Tensor]:
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, tuple) else [state]


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_reset_recovers_from_a_memory_that_is_not_finite(mixer: str) -> None:
    torch.manual_seed(0)
    encoder = Stack(D, H, mixer=mixer)
    x, start = torch.randn(T, B, D, requires_grad=True), never.index_fill(0, torch.tensor([0]), True)
    zero = encoder.initial_state(B)
    poison = map_state(lambda part: torch.full_like(part, torch.nan), zero)
    y, _ = encoder(x, poison, start)
    want, _ = encoder(x, zero, start)
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(torch.autograd.grad(weigh(y), x), torch.autograd.grad(weigh(want), x))
    torch.testing.assert_close(encoder.step(x[0], poison, start[0])[0], y[0])


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_new_stack_answers_features_of_order_one(mixer: str) -> None:
    torch.manual_seed(0)
    encoder = Stack(16, 64, mixer=mixer, layers=3)
    y, _ = encoder(torch.randn(32, 8, 16), encoder.initial_state(8), torch.zeros(32, 8, dtype=torch.bool))
    assert 0.5 < y.std() < 2


def test_the_memory_of_an_agent_that_has_seen_nothing_is_zero() -> None:
    for mixer in MIXERS:
        state = Stack(D, H, mixer=mixer).initial_state(B)
        map_state(check_zero, state)


def check_zero(part: Tensor) -> Tensor:
    assert part.shape[0] == B and part.dtype == torch.float32 and not part.any()
    return part


def test_the_memoryless_control_has_no_convolution_even_when_asked() -> None:
    assert Stack(D, H, mixer="mlp", conv=4).initial_state(B) == (((), ()), ((), ()))
    assert Stack(D, H, mixer="gru", conv=4).initial_state(B) != (((), ()), ((), ()))


def test_options_reach_the_mixer() -> None:
    encoder = Stack(D, H, mixer="min_lstm", candidate="g", time_scales=(3.0, 4.0))
    mixers = [module for module in encoder.modules() if isinstance(module, MinLSTM)]
    assert [mixer.candidate for mixer in mixers] == ["g", "g"]
    assert all(round(float(mixer.time_scale().max()), 3) == 4.0 for mixer in mixers)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"mixer: expected one of min_gru, .*got 'mingru'; did you mean 'min_gru'\?"):
        Stack(D, H, mixer="mingru")
    with pytest.raises(ValueError, match=r"norm: expected one of layer, rms, none, got 'layernorm'; did you mean"):
        Stack(D, H, norm="layernorm")
    with pytest.raises(ValueError, match="no candidate 'relu'; known: g, identity, silu, tanh"):
        MinGRU(D, H, candidate="relu")  # type: ignore[arg-type]


@pytest.mark.parametrize("encoder", [MinGRU(D, H), LSTM(D, H), CausalConv(D), Stack(D, H)])
def test_a_batch_major_input_is_an_error_that_says_so(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match=r"start: expected \[T=10, B=3\], got \[3, 10\]"):
        encoder(torch.zeros(T, B, D), encoder.initial_state(B), never.t())
    with pytest.raises(ValueError, match=r"x: expected \[T, B, D=4\], got \[10, 3, 5\]"):
        encoder(torch.zeros(T, B, D + 1), encoder.initial_state(B), never)


def test_the_state_of_another_encoder_is_an_error() -> None:
    x = torch.zeros(T, B, D)
    with pytest.raises(TypeError, match="state: expected one tensor, got a tuple of 2"):
        GRU(D, H)(x, LSTM(D, H).initial_state(B), never)
    with pytest.raises(TypeError, match="state: expected a tuple of 2, got one tensor"):
        LSTM(D, H)(x, GRU(D, H).initial_state(B), never)
    with pytest.raises(TypeError, match="state: expected a tuple of 3, got a tuple of 2"):
        Stack(D, H, layers=3)(x, Stack(D, H, layers=2).initial_state(B), never)
