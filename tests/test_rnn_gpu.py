"""GRU and LSTM by Triton's kernels: values and gradients of the walk of torch operations, with resets."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rlmin.encoders import GRU, LSTM
from rlmin.types import tensors_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def kernel() -> None:
    gpu = pytest.importorskip("rlmin.scan.gpu", reason="Triton is not installed", exc_type=ImportError)
    if not (gpu.INTERPRETED or DEVICE == "cuda"):
        pytest.skip("without TRITON_INTERPRET=1 only a GPU runs them")


def run(
    cell: Any, x: Tensor, state: Any, start: Tensor, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    monkeypatch.setenv("RLMIN_KERNEL", kernel)
    y, last = cell(x, state, start)
    outputs = [y, *tensors_of(last)]
    weights = [
        torch.randn(part.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(i))
        for i, part in enumerate(outputs)
    ]
    loss = sum(
        ((part * weight.to(x.device)).sum() for part, weight in zip(outputs, weights, strict=True)), x.new_zeros(())
    )
    return outputs, torch.autograd.grad(loss, [x, *tensors_of(state), *cell.parameters()])


@pytest.mark.parametrize("make", [GRU, LSTM])
@pytest.mark.parametrize(("T", "B", "D", "H"), [(7, 3, 5, 6), (1, 2, 3, 4), (4, 17, 2, 33)])
@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_they_are_the_walk_of_torch(
    make: Any, T: int, B: int, D: int, H: int, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    cell = make(D, H).to(DEVICE, torch.float64)
    x = torch.randn(T, B, D, dtype=torch.float64, device=DEVICE, requires_grad=True)
    start = (torch.rand(T, B) < rate).to(DEVICE)
    zeros = cell.initial_state(B)
    parts = [torch.randn_like(part).requires_grad_() for part in tensors_of(zeros)]
    state = parts[0] if isinstance(zeros, Tensor) else tuple(parts)
    found, wanted = (run(cell, x, state, start, kernel, monkeypatch) for kernel in ("gpu", "portable"))
    torch.testing.assert_close(found, wanted)
    if T > 1 and rate == 0.4:
        without = run(cell, x, state, torch.zeros_like(start), "gpu", monkeypatch)
        assert not torch.allclose(without[0][0], wanted[0][0]), "resets count"


@pytest.mark.parametrize("make", [GRU, LSTM])
def test_a_step_is_one_product_and_one_launch(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlmin.kernels import rnn_gpu

    launches, launch = list[str](), rnn_gpu._launch
    monkeypatch.setattr(rnn_gpu, "_launch", lambda kernel, *more: launches.append("x") or launch(kernel, *more))  # type: ignore[func-returns-value]
    torch.manual_seed(0)
    cell = make(3, 4).to(DEVICE)
    x, start = (
        torch.randn(5, 2, 3, device=DEVICE, requires_grad=True),
        torch.zeros(5, 2, dtype=torch.bool, device=DEVICE),
    )
    state = cell.initial_state(2)
    monkeypatch.setenv("RLMIN_KERNEL", "gpu")
    y, _ = cell(x, state, start)
    y.sum().backward()
    assert len(launches) == 2 * 5
