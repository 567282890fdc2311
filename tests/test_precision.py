"""TF32: the switch, who sets it, and the tolerance that follows from it."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rlmin import PPO, verify_consistency
from rlmin.policy.precision import EXACT, ROUNDED, consistency_tolerance, set_tf32, uses_tf32

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SMALL: dict[str, Any] = {"width": 16, "num_envs": 4, "horizon": 16, "seed": 0}


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    yield
    products.allow_tf32, convolutions.allow_tf32 = before


@pytest.mark.parametrize("wanted", [True, False])
def test_the_switch_is_of_products_and_convolutions(wanted: bool) -> None:
    set_tf32(GPU, wanted)
    assert torch.backends.cuda.matmul.allow_tf32 is wanted and torch.backends.cudnn.allow_tf32 is wanted
    assert uses_tf32(GPU) is wanted and not uses_tf32(CPU)
    set_tf32(GPU, None)
    set_tf32(CPU, not wanted)
    assert uses_tf32(GPU) is wanted, "left as it was"


def test_convolutions_alone_are_enough_for_the_wider_tolerance() -> None:
    set_tf32(GPU, False)
    assert consistency_tolerance(GPU) == EXACT
    torch.backends.cudnn.allow_tf32 = True  # as torch begins
    assert consistency_tolerance(GPU) == ROUNDED and consistency_tolerance(CPU) == EXACT


def test_an_agent_on_the_cpu_leaves_the_switches_alone() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    agent = PPO("rlmin/RepeatFirstEasy-v0", tf32=True, **SMALL)
    assert agent.config.tf32 and not uses_tf32(GPU)
    assert verify_consistency(agent) <= EXACT


def test_factors_of_ten_bits_stay_within_the_wider_tolerance_and_not_within_the_other() -> None:
    """TF32 imitated: every weight rounded to ten bits behind the point."""
    agent = PPO("rlmin/RepeatFirstEasy-v0", **SMALL)
    agent.learn(4 * 16 * 10)
    rounded = copy.deepcopy(agent.policy)
    for x in rounded.parameters():
        x.data = ((x.data.view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)
    batch = agent.collector.collect()
    assert batch is not None
    seen, start = dict(batch.batch["observation"].items()), batch.batch["start"]
    with torch.no_grad():
        outs = [policy.unroll(seen, batch.state, start) for policy in (agent.policy, rounded)]
        one, other = (out.distribution.log_prob(batch.batch["action"]) for out in outs)
    assert EXACT < float((one - other).abs().max()) < ROUNDED
