"""An update asks the device for values once, at its end: seen on the CPU, on the code path of a GPU."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlmin import PPO
from rlmin.bench.count import take_gpu_path
from rlmin.learning.rollout import Rollout

T, B = 6, 4
WAITING = {
    "_local_scalar_dense": "a value",
    "nonzero": "a number of rows",
    "masked_select": "a number of rows",
    "bincount": "a largest value",
    "is_nonzero": "a value",
    "unique": "a number of values",
}
"""Operations whose result the host has to wait for."""


class Guard(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operations that wait for a device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        masks = name == "index" and any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
        if name in WAITING or masks:
            raise RuntimeError(f"{name} waits for {WAITING.get(name, 'a number of rows')}")
        return function(*args, **(kwargs or {}))


def make(**settings: Any) -> tuple[PPO, Rollout]:
    options: dict[str, Any] = {"width": 8, "horizon": T, "num_envs": B, "epochs": 2, "minibatches": 2}
    agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": 2}, **options | settings)
    take_gpu_path(agent)
    rollout = agent.collector.collect()
    assert rollout is not None
    return agent, rollout


def watch(agent: PPO, rollout: Rollout, monkeypatch: pytest.MonkeyPatch) -> int:
    """Transfers of an update under the guard."""
    transfers = list[int]()
    read = Tensor.tolist

    def note(x: Tensor) -> Any:
        transfers.append(1)
        return read(x)

    guard: Any = Guard()  # type: ignore[no-untyped-call]
    with agent.training(), guard:
        monkeypatch.setattr(Tensor, "tolist", note)
        agent.update(rollout)
    monkeypatch.undo()
    return len(transfers)


@pytest.mark.parametrize("kernel", ["portable", "cpu"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"value_clip": 0.2, "bptt": 3},
        {"normalize_observation": True, "normalize_return": True},
        {"gamma": 1.0, "normalize_value": False, "normalize_advantage": False},
        {"encoder": "min_lstm", "autocast": True, "previous_action": True, "previous_reward": True},
    ],
    ids=str,
)
def test_an_update_waits_once(kernel: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel == "cpu":
        pytest.importorskip("numba")
    monkeypatch.setenv("RLMIN_KERNEL", kernel)
    agent, rollout = make(**settings)
    with monkeypatch.context() as patch:
        assert watch(agent, rollout, patch) == 1


def test_a_divergence_that_is_to_end_an_update_is_read_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, rollout = make(target_kl=1e9)
    with pytest.raises(RuntimeError, match="_local_scalar_dense waits for a value"):
        watch(agent, rollout, monkeypatch)


@pytest.mark.parametrize("broken", [0, 2])
def test_after_a_step_that_is_not_finite_nothing_changes(broken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, rollout = make(epochs=3)
    with agent.training():
        agent.update(rollout)
    after: list[list[Tensor]] = []
    real, take = agent.optimizer.step_within, agent.optimizer.take_gradient

    def note(*given: Any) -> None:
        real(*given)
        entries = agent.optimizer.state[agent.optimizer.flat].values()
        after.append([x.detach().clone() for x in (*agent.policy.parameters(), *entries)])

    def spoil() -> Tensor:
        norm = take()
        return norm * torch.inf if len(after) == broken else norm

    monkeypatch.setattr(agent.optimizer, "step_within", note)
    monkeypatch.setattr(agent.optimizer, "take_gradient", spoil)
    entries = agent.optimizer.state[agent.optimizer.flat].values()
    unit = {name: x.clone() for name, x in agent.policy.value_head.state_dict().items()}
    weights = [x.detach().clone() for x in (*agent.policy.parameters(), *entries)]
    with agent.training(), pytest.raises(FloatingPointError, match=r"grad_norm is inf at step 0 \(update 1\)"):
        agent.update(rollout)
    assert len(after) == 6, "the host does not know, and goes on"
    good = after[broken - 1] if broken else weights
    found = [*agent.policy.parameters(), *agent.optimizer.state[agent.optimizer.flat].values()]
    torch.testing.assert_close(found, good, rtol=0, atol=0)
    assert broken == 0 or any(not torch.equal(x, y) for x, y in zip(good, weights, strict=True))
    same = [torch.equal(x, unit[name]) for name, x in agent.policy.value_head.state_dict().items()]
    assert all(same) == (broken == 0), "the unit belongs to the weights"
