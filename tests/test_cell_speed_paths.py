"""Every fast path of a cell on the CPU gives what the plain one gives: values, gradients, resets, any layout."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from rlmin.encoders import GRU, LSTM, RWKV6, RWKV7, SRWM, DeltaNet, Encoder, GatedLinear, Mamba, MinGRU, MinLSTM
from rlmin.encoders import gru as gru_module
from rlmin.encoders import lstm as lstm_module
from rlmin.encoders import mamba as mamba_module
from rlmin.encoders import projected as projected_module
from rlmin.encoders import srwm as srwm_module
from rlmin.kernels import cell as cpu_cell
from rlmin.kernels import selective, self_reference
from rlmin.scan import cpu, cpu_memory, outer, outer_cpu
from rlmin.types import State, map_state

T, B, D, H = 11, 5, 4, 7
CELLS: dict[str, Callable[[], Encoder]] = {
    "min_gru": lambda: MinGRU(D, H),
    "min_gru identity": lambda: MinGRU(D, H, candidate="identity"),
    "min_gru g": lambda: MinGRU(D, H, candidate="g"),
    "min_lstm": lambda: MinLSTM(D, H),
    "gru": lambda: GRU(D, H),
    "lstm": lambda: LSTM(D, H),
    "mamba": lambda: Mamba(D, H, states=3),
    "mamba signed": lambda: Mamba(D, H, states=3, signed=True),
    "gated_linear": lambda: GatedLinear(D, H, heads=2),
    "delta_net": lambda: DeltaNet(D, H, heads=2),
    "rwkv7": lambda: RWKV7(D, H, heads=2),
    "srwm": lambda: SRWM(D, H, heads=2),
    "srwm whole vectors": lambda: SRWM(D, 16, heads=1),
}
every_cell = pytest.mark.parametrize("name", CELLS)
never = torch.zeros(T, B, dtype=torch.bool)
sometimes = never.clone()
for row, steps in enumerate([[0, 6], [4, 5], [T - 1], list(range(T)), []]):
    sometimes[steps, row] = True


@pytest.fixture(autouse=True)
def the_fast_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RLMIN_KERNEL", raising=False)
    yield


def random(*size: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def leaves(state: State) -> list[Tensor]:
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, tuple) else [state]


def everything(encoder: Encoder, start: Tensor, x: Tensor | None = None) -> list[Tensor]:
    """Outputs, and gradients of x, the memory and the weights, of a loss on all outputs."""
    dtype = next(encoder.parameters()).dtype
    x = (random(T, B, D, seed=1, dtype=dtype) if x is None else x).requires_grad_()
    before = map_state(lambda zero: random(*zero.shape, seed=2, dtype=dtype).requires_grad_(), encoder.initial_state(B))
    y, last = encoder(x, before, start)
    outputs = [y, *leaves(last)]
    upstream = [random(*out.shape, seed=3, dtype=dtype) for out in outputs]
    return [*outputs, *torch.autograd.grad(outputs, [x, *leaves(before), *encoder.parameters()], upstream)]


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (projected_module, gru_module, lstm_module):
        monkeypatch.setattr(module, "fits_cpu", lambda *_: False)
    for other in (mamba_module, outer, srwm_module):
        monkeypatch.setattr(other, "runs_loops", lambda _: False)


@every_cell
@pytest.mark.parametrize("start", [sometimes, never], ids=["resets", "no resets"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_the_fast_path_is_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, name: str, start: Tensor, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    encoder = CELLS[name]().to(dtype)
    fast = everything(encoder, start)
    wrong = everything(encoder, start.roll(1, dims=1) if start.any() else sometimes)
    slow(monkeypatch)
    plain = everything(encoder, start)
    torch.testing.assert_close(fast, plain, rtol=tolerance, atol=tolerance)
    assert not all(torch.allclose(a, b, atol=1e-3) for a, b in zip(wrong, plain, strict=True))


@every_cell
def test_inputs_of_any_layout_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    torch.manual_seed(0)
    encoder = CELLS[name]().double()
    want = everything(encoder, sometimes)
    scattered = random(T, B, D, seed=1).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    flags = sometimes.t().contiguous().t()
    torch.testing.assert_close(everything(encoder, flags, scattered), want)
    for module in (cpu, selective, self_reference, outer_cpu):
        monkeypatch.setattr(module, "_PARALLEL_SIZE", 1)
    monkeypatch.setattr(cpu, "_PARALLEL_STEP", 1)
    torch.set_num_threads(3)
    torch.testing.assert_close(everything(encoder, sometimes), want)


@pytest.mark.parametrize("name", ["min_gru", "min_lstm"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_cell_in_pieces_is_the_cell(monkeypatch: pytest.MonkeyPatch, name: str, steps: int) -> None:
    torch.manual_seed(0)
    encoder = CELLS[name]().double()
    want = everything(encoder, sometimes)
    monkeypatch.setattr(cpu_cell, "_steps", lambda *_: steps)
    torch.testing.assert_close(everything(encoder, sometimes), want)
    with torch.no_grad():
        y, _ = encoder(random(T, B, D, seed=1), random(B, H, seed=2), sometimes)
    torch.testing.assert_close(y, want[0])


@pytest.mark.parametrize("name", ["min_gru", "min_lstm"])
def test_the_gradient_of_a_cell_can_be_differentiated_and_kept(name: str) -> None:
    torch.manual_seed(0)
    encoder = CELLS[name]().double()
    x, before = random(3, 2, D, seed=1).requires_grad_(), random(2, H, seed=2).requires_grad_()

    def run(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor) -> Any:
        return cpu_cell.projected_scan(x, state, sometimes[:3, :2], weight, bias, activation="tanh")

    inputs = (x, before, *encoder.parameters())
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)
    loss = run(*inputs)[0].square().sum()
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, inputs), first)


@pytest.mark.parametrize("signed", [False, True])
def test_the_gradient_of_a_selective_scan_can_be_differentiated(signed: bool) -> None:
    sizes = (3, 2, 4), (3, 2, 4), (3, 2, 2), (3, 2, 2), (4, 2), (2, 4, 2)  # dt, value, b, c, rate, state
    inputs = [random(*size, seed=seed).requires_grad_() for seed, size in enumerate(sizes)]

    def run(*x: Tensor) -> Any:
        dt, value, b, c, rate, state = x
        return selective.selective_scan(dt, value, b, c, rate, state, sometimes[3:6, :2], signed=signed)

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_the_gradient_of_a_self_referential_walk_can_be_differentiated() -> None:
    sizes = (3, 2, 2, 3), (2, 13, 3), (2, 2, 13, 3)  # u, base, state
    inputs = [random(*size, seed=seed).requires_grad_() for seed, size in enumerate(sizes)]

    def run(*x: Tensor) -> Any:
        u, base, state = x
        return self_reference.walk(srwm_module._walk_steps, u, base, state, sometimes[3:6, :2])

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


STEPS: dict[str, Callable[[], Encoder]] = {
    "gla": lambda: GatedLinear(D, 32, heads=2),
    "retnet": lambda: GatedLinear(D, 32, heads=2, form="retnet"),
    "mamba2": lambda: GatedLinear(D, 32, heads=2, form="mamba2"),
    "delta": lambda: DeltaNet(D, 32, heads=2),
    "delta product": lambda: DeltaNet(D, 32, heads=2, products=2, decay="key"),
    "plain delta": lambda: DeltaNet(D, 32, heads=2, decay="none"),
    "rwkv6": lambda: RWKV6(D, 32, heads=2),
    "rwkv7": lambda: RWKV7(D, 32, heads=2),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_step_without_gradients_is_the_step(name: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    encoder, x, start = STEPS[name]().to(dtype), random(B, D, seed=1, dtype=dtype), sometimes[0]
    before = random(*encoder.initial_state(B).shape, seed=2, dtype=dtype)  # type: ignore[union-attr]
    before[start] = torch.nan
    wanted = encoder.step(x, before, start)
    with torch.no_grad():
        torch.testing.assert_close(encoder.step(x, before, start), wanted, rtol=tolerance, atol=tolerance)
        turned = before.transpose(-1, -2).contiguous().transpose(-1, -2)
        flags = start.repeat_interleave(2)[::2]
        torch.testing.assert_close(encoder.step(x, turned, flags), wanted, rtol=tolerance, atol=tolerance)
        others = encoder.step(x, before.nan_to_num(1.0), torch.zeros_like(start))[1]
    assert isinstance(others, Tensor) and isinstance(wanted[1], Tensor)
    assert not torch.allclose(others[start], wanted[1][start]) and torch.allclose(
        others[~start], wanted[1][~start], atol=1e-5
    )


def test_only_the_gradients_that_are_wanted_are_computed() -> None:
    encoder = MinGRU(D, H).double()
    encoder.projection.bias.requires_grad_(False)
    y, _ = encoder(random(T, B, D, seed=1), encoder.initial_state(B), sometimes)
    (grad,) = torch.autograd.grad(y.sum(), [encoder.projection.weight])
    assert grad.shape == encoder.projection.weight.shape and grad.any()


@every_cell
def test_autocast_and_other_layers_take_the_plain_path(name: str) -> None:
    encoder, x = CELLS[name](), torch.randn(T, B, D)
    layer = torch.nn.Linear(D, D)
    assert projected_module.fits_cpu(layer, x, x[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not projected_module.fits_cpu(layer, x, x[0])
        y, last = encoder(x, encoder.initial_state(B), sometimes)
    assert all(part.dtype == torch.float32 for part in leaves(last))
    torch.testing.assert_close(y.float(), encoder(x, encoder.initial_state(B), sometimes)[0], rtol=0.1, atol=0.1)
    assert not projected_module.fits_cpu(torch.nn.modules.linear.NonDynamicallyQuantizableLinear(D, D), x, x[0])


def test_memory_is_handed_out_again_only_when_nothing_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_memory, "_spare", [])
    size = cpu_memory._LARGE // 4
    tensor = cpu_memory.empty(size, dtype=torch.float32)
    address, view = tensor.data_ptr(), tensor.view(2, -1)[1]
    del tensor
    assert cpu_memory.empty(size, dtype=torch.float32).data_ptr() != address
    del view
    again = cpu_memory.empty(2, size // 4, dtype=torch.float64)
    assert again.data_ptr() == address and again.shape == (2, size // 4) and not again._is_view()


def test_spare_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_memory, "_spare", [])
    monkeypatch.setattr(cpu_memory, "_LIMIT", 3 * cpu_memory._LARGE)
    tensors = [cpu_memory.empty(cpu_memory._LARGE + i, dtype=torch.uint8) for i in range(5)]
    del tensors
    assert len(cpu_memory._spare) == 2
