"""Floors that rise with depth: HGRN against the paper's recurrence, and the weights that its layers share."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import anything, make
from torch import Tensor

from rlmin import PPO, load, verify_consistency
from rlmin.encoders import MinGRU, Stack
from rlmin.encoders.gate_options import GateOptions
from rlmin.encoders.rising_floors import RisingFloors
from rlmin.export.agreement import largest_difference
from rlmin.export.numpy_export import pack_numpy
from rlmin.export.numpy_policy import NumpyPolicy

T, B, H, LAYERS = 9, 3, 5, 3
HGRN: dict[str, Any] = {"candidate": "silu", "output_gate": True, "forget_floor": "rising"}
PLAIN: dict[str, Any] = {"mixer": "min_gru", "layers": LAYERS, "conv": 0, "mlp": 0, "norm": "rms"}
start = torch.zeros(T, B, dtype=torch.bool)
start[[0, 4, 5, 8], [0, 1, 1, 2]] = True


def made(**options: Any) -> Stack:
    """A stack of random weights, the floors among them."""
    torch.manual_seed(0)
    stack = Stack(H, H, **PLAIN, **(HGRN | options)).double()
    with torch.no_grad():
        for weight in stack.parameters():
            weight.add_(torch.randn_like(weight))
    return stack


def by_hand(stack: Any, x: Tensor) -> Any:
    """HGRN as its authors write it down: the forget gate is gamma + (1 - gamma) mu, step by step."""
    share = torch.softmax(stack.blocks[0].mixer.floors.weight, 0)
    gamma = share.cumsum(0) - share[0]
    for layer, block in enumerate(stack.blocks):
        cell, h, found = block.mixer, torch.zeros(B, H, dtype=x.dtype), []
        inputs = x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt() * block.norm.weight
        for t in range(T):
            h = torch.where(start[t, :, None], torch.zeros_like(h), h)
            update, c = cell.projection(inputs[t]).split(H, -1)
            mu = torch.sigmoid(-update)
            f = gamma[layer] + (1 - gamma[layer]) * mu
            h = f * h + (1 - f) * c * torch.sigmoid(c)
            g = cell.output_gate(inputs[t])
            size = (h.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            found.append(cell.output(cell.norm.weight * h / size * g * torch.sigmoid(g)))
        x = x + torch.stack(found)
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt() * stack.norm.weight


def test_min_gru_with_three_options_is_hgrn() -> None:
    stack = made()
    x = torch.randn(T, B, H, dtype=torch.float64, requires_grad=True)
    y, _ = stack(x, stack.initial_state(B), start)
    want = by_hand(stack, x)
    torch.testing.assert_close(y, want, rtol=1e-10, atol=1e-10)
    of, into = torch.randn_like(y), [x, *stack.parameters()]
    found, wanted = (torch.autograd.grad((z * of).sum(), into) for z in (y, want))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)
    fixed = Stack(H, H, **PLAIN, **(HGRN | {"forget_floor": 0.5})).double()
    fixed.load_state_dict(stack.state_dict(), strict=False)
    assert not torch.allclose(fixed(x, fixed.initial_state(B), start)[0], want)


def test_floors_rise_from_zero_and_stay_below_one() -> None:
    floors = RisingFloors(5, 4)
    torch.testing.assert_close(torch.stack([floors(layer)[0] for layer in range(5)]), torch.arange(5) / 5)
    torch.nn.init.normal_(floors.weight, std=3)
    every = torch.stack([floors(layer) for layer in range(5)])
    assert bool((every[0] == 0).all() and (every.diff(dim=0) > 0).all() and (every[-1] < 1).all())


def test_units_begin_with_the_time_scales_that_the_floors_allow() -> None:
    stack: Any = Stack(H, 4, **(PLAIN | {"layers": 2}), forget_floor="rising", time_scales=(2.0, 16.0))
    first, second = (block.mixer.time_scale() for block in stack.blocks)
    torch.testing.assert_close(first, torch.tensor([2.0, 4.0, 8.0, 16.0]))
    torch.testing.assert_close(second, torch.tensor([4.0, 2 ** (8 / 3), 2 ** (10 / 3), 16.0]))
    short: Any = Stack(H, 4, **(PLAIN | {"layers": 4}), forget_floor="rising", time_scales=(2.0, 3.0))
    torch.testing.assert_close(short.blocks[3].mixer.time_scale(), torch.full((4,), 8.0))


def test_layers_share_one_weight_which_is_kept_once_and_copied_with_them() -> None:
    stack = made()
    names = [name for name in stack.state_dict() if "floors" in name]
    assert names == ["blocks.0.mixer.floors.weight"]
    twin: Any = copy.deepcopy(stack)
    x, state = torch.randn(T, B, H, dtype=torch.float64), stack.initial_state(B)
    before = stack(x, state, start)[0]
    with torch.no_grad():
        twin.blocks[0].mixer.floors.weight[2] += 3
    assert torch.equal(stack(x, state, start)[0], before)
    assert not torch.allclose(twin(x, state, start)[0], before)
    twin.load_state_dict(stack.state_dict())
    assert torch.equal(twin(x, state, start)[0], before)


def test_a_cell_on_its_own_is_a_first_layer() -> None:
    torch.manual_seed(0)
    alone = MinGRU(H, H, forget_floor="rising")
    plain = MinGRU(H, H)
    plain.load_state_dict(alone.state_dict())
    x = torch.randn(T, B, H)
    torch.testing.assert_close(alone(x, alone.initial_state(B), start)[0], plain(x, plain.initial_state(B), start)[0])


@pytest.mark.parametrize("encoder", ["min_gru", "min_lstm"])
def test_an_agent_acts_as_it_trains_and_is_kept(encoder: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"width": 8, "layers": 3, "num_envs": 2, "horizon": 16}
    agent = PPO("rlmin/RepeatFirstEasy-v0", encoder=encoder, **sizes, **HGRN)
    agent.learn(64)
    assert verify_consistency(agent) < 1e-5
    floors: Any = agent.policy.trunks[0]
    assert bool((floors.encoder.blocks[0].mixer.floors.weight != 0).any())  # they learn
    agent.save(tmp_path / "run")
    again = load(tmp_path / "run")
    for name, weight in agent.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], weight), name


@pytest.mark.parametrize("hard", [False, True])
def test_numpy_acts_the_same_where_there_is_no_output_gate(hard: bool) -> None:
    options = {"forget_floor": "rising", "hard_gate": hard}
    policy = make(layers=3, dtype=torch.float64, encoder_options=options)
    assert largest_difference(policy, NumpyPolicy(pack_numpy(policy)), anything(policy, 3), steps=40).size < 1e-9


@pytest.mark.slow
@pytest.mark.needs("onnx", "onnxruntime", "onnxscript")
def test_onnx_and_torch_act_the_same() -> None:
    from rlmin.export.onnx import OnnxPolicy, pack_onnx
    from rlmin.export.torch_export import TorchExportPolicy, pack_torch

    policy = make(layers=3, encoder_options=HGRN)
    for runner in (OnnxPolicy(pack_onnx(policy)), TorchExportPolicy(pack_torch(policy))):
        assert largest_difference(policy, runner, anything(policy, 3), steps=40).size < 2e-5


def test_a_rising_floor_leaves_no_room_for_signs() -> None:
    with pytest.raises(ValueError, match="forget_floor=rising: expected 0 where signed"):
        GateOptions(signed=True, forget_floor="rising")
    with pytest.raises(ValueError, match="forget_floor: expected a number from 0 to below 1 or one of rising"):
        GateOptions(forget_floor="falling")  # type: ignore[arg-type]
