"""The options of minGRU and minLSTM against their definition, step by step, and what they are good for."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from rlmin.encoders import MinGRU, MinLSTM, Stack
from rlmin.encoders.gate_options import GateOptions
from rlmin.encoders.gated_average import GatedAverage
from rlmin.inspection.recurrence import contribution, deletion_error, memory_of

T, B, D, H = 9, 3, 4, 5
OPTIONS: list[dict[str, Any]] = [
    {"signed": True},
    {"signed": True, "hard_gate": True, "candidate": "identity"},
    {"forget_floor": 0.9, "candidate": "silu", "output_gate": True},
    {"hard_gate": True, "candidate": "g", "time_scales": None},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options))
every_cell = pytest.mark.parametrize("cls", [MinGRU, MinLSTM])
start = torch.zeros(T, B, dtype=torch.bool)
start[[0, 4, 5, 8], [0, 1, 1, 2]] = True


def random(*size: int, seed: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made(cls: type[GatedAverage], options: dict[str, Any]) -> Any:
    """A cell whose gates reach both ends."""
    torch.manual_seed(0)
    cell: Any = cls(D, H, **options)
    with torch.no_grad():
        cell.projection.weight.mul_(6)
    return cell.double()


def by_hand(cell: Any, x: Tensor, h: Tensor, options: dict[str, Any]) -> Tensor:
    """h = a h + (1 - a) c, written down from the decay a."""
    found = []
    for t in range(T):
        h = torch.where(start[t, :, None], torch.zeros_like(h), h)
        *gates, v = cell.projection(x[t]).split(H, dim=-1)
        if len(gates) == 1:
            keep = 1 - torch.sigmoid(gates[0])
        else:
            f, i = torch.sigmoid(gates[0]), torch.sigmoid(gates[1])
            keep = f / (f + i)
        if options.get("hard_gate"):
            keep = (0.5 + (keep / (1 - keep)).log() / 4).clip(0, 1)
        if options.get("signed"):
            keep = 2 * keep - 1
        floor = options.get("forget_floor", 0)
        keep = floor + (1 - floor) * keep
        name = options.get("candidate", "tanh")
        g = torch.where(v >= 0, v + 0.5, v.sigmoid())
        h = keep * h + (1 - keep) * {"tanh": v.tanh(), "identity": v, "silu": v * v.sigmoid(), "g": g}[name]
        y = h
        if options.get("output_gate"):
            size = (h.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            y = cell.output(cell.norm.weight * h / size * silu(cell.output_gate(x[t])))
        found.append(y)
    return torch.stack(found)


@every_cell
@every_option
def test_an_option_is_its_definition(cls: type[GatedAverage], options: dict[str, Any]) -> None:
    cell, x, h = made(cls, options), random(T, B, D, seed=1).requires_grad_(), random(B, H, seed=2).requires_grad_()
    y, _ = cell(x, h, start)
    want = by_hand(cell, x, h, options)
    torch.testing.assert_close(y, want, rtol=1e-10, atol=1e-10)
    weights = [x, h, *cell.parameters()]
    found, wanted = (torch.autograd.grad((z * random(T, B, H, seed=3)).sum(), weights) for z in (y, want))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)
    assert not torch.allclose(y, made(cls, {})(x, h, start)[0])


@every_cell
def test_units_begin_with_the_time_scales_asked_for(cls: type[GatedAverage]) -> None:
    every: list[dict[str, Any]] = [{"signed": True}, {"hard_gate": True}, {"signed": True, "hard_gate": True}]
    for options in every:
        cell: Any = cls(D, 3, time_scales=(4.0, 16.0), **options)
        torch.testing.assert_close(cell.time_scale(), torch.tensor([4.0, 8.0, 16.0]))
    floored: Any = cls(D, 3, forget_floor=0.9)
    torch.testing.assert_close(floored.time_scale()[[0, -1]], torch.tensor([20.0, 256.0]))


@every_cell
@every_option
@torch.no_grad()
def test_shares_of_the_memory_stay_exact(cls: type[GatedAverage], options: dict[str, Any]) -> None:
    cell, x = made(cls, options), random(T, 1, D, seed=1)
    begins = torch.arange(T) % 4 == 0
    memory, _ = memory_of(cell, x, begins[:, None])
    torch.testing.assert_close(contribution(cell, x[:, 0], begins).sum(1), memory[:, 0])
    assert deletion_error(cell, x[:, 0], begins, steps=torch.arange(T)) < 1e-12


def test_one_signed_unit_is_the_parity_of_any_length() -> None:
    """w = 2 and c = 1/2 where a 1 is shown, w = 0 where a 0 is: h goes from 0 to 1 and back. No share up to 1 can."""
    cell = MinGRU(1, 1, signed=True, hard_gate=True, candidate="identity", time_scales=None)
    with torch.no_grad():
        cell.projection.weight.copy_(torch.tensor([[4.0], [0.0]]))
        cell.projection.bias.copy_(torch.tensor([-2.0, 0.5]))
    bits = torch.randint(0, 2, (4096, 8, 1), generator=torch.Generator().manual_seed(0)).float()
    never = torch.zeros(4096, 8, dtype=torch.bool)
    y, _ = cell(bits, cell.initial_state(8), never)
    assert torch.equal(y, bits.cumsum(0) % 2)
    cell.reach = 1.0
    assert not torch.equal(cell(bits, cell.initial_state(8), never)[0].round(), bits.cumsum(0) % 2)


@pytest.mark.parametrize("mixer", ["min_gru", "min_lstm"])
@every_option
def test_a_step_of_a_stack_is_that_of_its_modules(mixer: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    stack = Stack(D, H, mixer=mixer, **options)
    x, state, first = torch.randn(B, D), stack.initial_state(B), torch.zeros(B, dtype=torch.bool)
    y, _ = stack.step(x, state, first)
    with torch.no_grad():
        torch.testing.assert_close(stack.step(x, state, first)[0], y)
    torch.testing.assert_close(stack(x[None], state, first[None])[0][0], y)


def test_what_does_not_go_together_is_refused() -> None:
    for make in (MinGRU, MinLSTM):
        with pytest.raises(ValueError, match=r"forget_floor=0.5: expected 0 where signed"):
            make(D, H, signed=True, forget_floor=0.5)
    with pytest.raises(ValueError, match="expected 0 where signed"):
        GateOptions(signed=True, forget_floor=0.1)
    with pytest.raises(ValueError, match="forget_floor: expected a number from 0 to below 1"):
        GateOptions(forget_floor=1.0)
