"""Every registered cell with terms is explained exactly, and every one is exported as it acts."""

from typing import Any

import pytest
import torch
from exporting import anything, make
from gymnasium import spaces

from rlmin.encoders import CELLS
from rlmin.export.agreement import largest_difference
from rlmin.export.onnx import OnnxPolicy, pack_onnx
from rlmin.export.torch_export import TorchExportPolicy, pack_torch
from rlmin.inspection.attribution import attribution
from rlmin.inspection.recurrence import deletion_error, recurrences
from rlmin.inspection.trace import mixers, record_trace

T = 9
CHOICE = spaces.Discrete(4)
SUMS = [name for name, cell in CELLS.items() if cell.has_terms]


def policy_of(name: str, dtype: torch.dtype) -> Any:
    return make(action=CHOICE, dtype=dtype, encoder=name, layers=1)


@pytest.mark.parametrize("name", SUMS)
@torch.no_grad()
def test_the_memory_of_a_policy_is_split_over_steps_exactly(name: str) -> None:
    policy = policy_of(name, torch.float64)
    start = torch.arange(T) % 5 == 0
    leaves = {"observation": torch.randn(T, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)}
    (layer,) = attribution(policy, leaves, start).layers
    assert layer.error < 1e-10 and layer.effect.abs().max() > 1e-4
    torch.testing.assert_close(layer.share.sum(1), torch.ones(T, dtype=torch.float64))
    trace = record_trace(policy, {key: leaf[:, None] for key, leaf in leaves.items()}, start[:, None])
    (mixer,) = recurrences(mixers(policy))
    read = trace.read[0][:, 0]
    assert deletion_error(mixer, read, start, steps=torch.arange(T)) < 1e-10
    assert deletion_error(mixer, read, start.roll(1), steps=torch.arange(T), exact=mixer) < 1e-10
    wrong = attribution(policy, leaves, start.roll(1)).layers[0]
    assert not torch.allclose(wrong.share, layer.share), "resets elsewhere are another memory"


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_a_program_of_another_kind_acts_the_same(name: str) -> None:
    policy = policy_of(name, torch.float32)
    for runner in (OnnxPolicy(pack_onnx(policy)), TorchExportPolicy(pack_torch(policy))):
        assert (
            largest_difference(policy, runner, anything(policy, 2), steps=60).size < 1e-4
        )  # rounding in float32; logits are of order 1 to 10
