"""Packing: streams of whole episodes and windows, and that training on them is training on the episodes one by one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from rlmin.data import Dataset
from rlmin.data.packed_rows import PackedRows
from rlmin.data.packing import Packing
from rlmin.data.windows import Windows
from rlmin.encoders import CELLS
from rlmin.policy import EncoderName, Policy, PolicyConfig
from rlmin.types import State, map_state, tensors_of

D, A = 3, 2
LENGTHS = (5, 1, 8, 4, 13, 2)


def dataset(lengths: Sequence[int] = LENGTHS, *, double: bool = False) -> Dataset:
    """Episodes of random numbers, the first feature of each observation being the number of its step."""
    N, E = sum(lengths), len(lengths)
    draw = torch.Generator().manual_seed(0)
    dtype = torch.float64 if double else torch.float32
    observation = torch.randn(N, D, generator=draw, dtype=dtype)
    if not double:
        observation[:, 0] = torch.arange(N)
    columns = {"action": torch.randn(N, A, generator=draw, dtype=dtype), "reward": torch.randn(N, generator=draw)}
    seen = TensorDict({"observation": observation}, [N])
    return Dataset(
        step=TensorDict({"observation": seen, **columns}, [N]),
        final=TensorDict({"observation": TensorDict({"observation": torch.zeros(E, D)}, [E])}, [E]),
        first=torch.tensor([0, *np.cumsum(lengths)]),
        terminated=torch.ones(E, dtype=torch.bool),
        observation_space=gym.spaces.Box(-1, 1, (D,)),
        action_space=gym.spaces.Box(-1, 1, (A,)),
        name="random",
    )


def numbers(batch: TensorDict) -> Tensor:
    """[T, B] the number of each step in the dataset."""
    return torch.as_tensor(batch["observation", "observation"])[..., 0].long()


def same(a: TensorDict, b: TensorDict) -> bool:
    return bool((a == b).all())


# streams


@pytest.mark.parametrize(("rows", "horizon"), [(1, 7), (2, 9), (4, 3), (3, 40)])
def test_an_epoch_uses_every_step_once_and_whole_episodes_follow_each_other(rows: int, horizon: int) -> None:
    data, first = dataset(), dataset().first
    packing = PackedRows(data, rows=rows, horizon=horizon, seed=1)
    batches = [packing.draw() for _ in range(200 // (rows * horizon) + 9)]
    index = torch.cat([numbers(batch) for batch in batches])
    start = torch.cat([torch.as_tensor(batch["start"]) for batch in batches])
    assert torch.equal(start, torch.isin(index, first[:-1])), "an episode opens where its first step is, and only there"
    going_on = ~start[1:]
    assert torch.equal(index[1:][going_on], index[:-1][going_on] + 1)
    assert torch.isin(index[:-1][start[1:]] + 1, first[1:]).all(), "the one before was used to its end"
    opened = start.flatten().nonzero().flatten()  # in the order of time, not quite that in which they were dealt
    played = torch.bincount(torch.searchsorted(first, index.flatten()[opened], right=True) - 1)
    assert int(played.max() - played.min()) <= 2, "and each as often as the others, but for those under way"


def test_the_streams_of_an_epoch_are_a_permutation_of_the_episodes() -> None:
    packing = PackedRows(dataset(), rows=1, horizon=sum(LENGTHS), seed=3)
    orders = [numbers(packing.draw())[:, 0] for _ in range(3)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(sum(LENGTHS)))
    assert not torch.equal(orders[0], orders[1]), "every epoch another order"
    other = PackedRows(dataset(), rows=1, horizon=sum(LENGTHS), seed=4)
    assert not torch.equal(numbers(other.draw())[:, 0], orders[0]), "and every seed"


def test_a_batch_holds_what_was_logged() -> None:
    data = dataset()
    packing = PackedRows(data, rows=2, horizon=6, return_scale=4.0)
    to_go = data.return_to_go()
    for _ in range(9):
        batch = packing.draw()
        index, start = numbers(batch), torch.as_tensor(batch["start"])
        assert batch.shape == (6, 2) and "weight" not in batch.keys()  # noqa: SIM118, of a TensorDict
        assert torch.equal(torch.as_tensor(batch["action"]), data.step["action"][index])
        torch.testing.assert_close(batch["return_to_go"], to_go[index].unsqueeze(-1) / 4)
        for name in ("action", "reward"):
            before = torch.as_tensor(batch[f"previous_{name}"])
            assert torch.equal(before[~start], data.step[name][index - 1][~start])
            assert not torch.equal(before[~start], data.step[name][index][~start]), "a step late: the arm that fails"


def test_only_the_chosen_episodes_are_used() -> None:
    data = dataset()
    packing = PackedRows(data, rows=3, horizon=5, episodes=[4, 1])
    wanted = torch.cat([torch.arange(5, 6), torch.arange(18, 31)])
    used = torch.cat([numbers(packing.draw()).flatten() for _ in range(9)])
    assert sorted(set(used.tolist())) == wanted.tolist()
    assert torch.equal(torch.cat(list(packing.chunks(4))).sort().values, wanted)
    assert max(len(chunk) for chunk in packing.chunks(4)) == 4


def test_staggered_streams_are_at_different_times_of_episodes_of_equal_length() -> None:
    data = dataset([20] * 30)
    spreads = []
    for stagger in (False, True):
        packing = PackedRows(data, rows=7, horizon=5, stagger=stagger)
        batches = [packing.draw() for _ in range(8)]
        assert bool(torch.as_tensor(batches[0]["start"])[0].all()), "all begin with a fresh memory"
        spreads.append([float((numbers(batch)[0] % 20).float().std()) for batch in batches])
        later = batches[1]
        assert torch.equal(torch.as_tensor(later["start"]), numbers(later) % 20 == 0), "and then only where one opens"
    assert max(spreads[0]) == 0 and min(spreads[1]) > 1


# measuring


@pytest.mark.parametrize(("rows", "steps"), [(1, 7), (4, 3), (9, 40)])
@pytest.mark.parametrize("kind", ["rows", "windows"])
def test_a_measurement_takes_every_step_once_whatever_was_drawn_before(kind: str, rows: int, steps: int) -> None:
    data = dataset()
    packing: Packing
    if kind == "rows":
        packing = PackedRows(data, rows=rows, horizon=steps, seed=1, episodes=[5, 0, 2, 3])
    else:
        packing = Windows(data, rows=rows, length=steps, seed=1, episodes=[5, 0, 2, 3])
    batches = list(packing.once())
    assert all(batch.shape == (steps, rows) for batch in batches)
    index, weight, start = (
        torch.cat([x(batch) for batch in batches])
        for x in (numbers, lambda batch: batch["weight"].bool(), lambda batch: batch["start"])
    )
    assert torch.equal(index[weight].sort().values, torch.cat(list(packing.chunks(99))).sort().values)
    first = torch.isin(index, data.first[:-1]) & weight
    assert bool(start[first].all()), "no episode sees another's memory"
    going_on = weight & ~start
    assert torch.equal(index[1:][going_on[1:]], index[:-1][going_on[1:]] + 1), "and none is torn apart"
    if kind == "rows":
        assert int((start & weight).sum()) == 4, "the memory is carried through an episode"
    else:
        assert torch.equal(start[::steps], torch.ones_like(start[::steps])), "every window begins with a fresh memory"
    packing.draw()
    assert all(same(a, b) for a, b in zip(batches, packing.once(), strict=True))


# windows


def test_windows_are_drawn_uniformly_and_padded_at_the_end_with_weight_0() -> None:
    data, K = dataset(), 6
    packing = Windows(data, rows=50, length=K, seed=2)
    ends = data.first[1:]
    drawn = torch.zeros(sum(LENGTHS))
    for _ in range(100):
        batch = packing.draw()
        index, weight = numbers(batch), torch.as_tensor(batch["weight"])
        assert torch.as_tensor(batch["start"])[0].all() and not torch.as_tensor(batch["start"])[1:].any()
        left = ends[torch.searchsorted(ends, index[0], right=True)] - index[0]
        inside = torch.arange(K)[:, None] < left
        assert torch.equal(weight, inside.float())
        assert torch.equal(index, index[0] + torch.minimum(torch.arange(K)[:, None], left - 1))
        drawn += torch.bincount(index[0], minlength=len(drawn))
    share = drawn / drawn.sum() * len(drawn)
    assert float(share.min()) > 0.6 and float(share.max()) < 1.4


# both


MAKERS: list[Any] = [
    lambda data, **other: PackedRows(data, rows=3, horizon=4, stagger=True, **other),
    lambda data, **other: Windows(data, rows=3, length=4, **other),
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_saved_order_goes_on_exactly_and_its_state_is_small(make: Any) -> None:
    data = dataset()
    packing: Packing = make(data, seed=5)
    for _ in range(11):
        packing.draw()
    state = {name: x.clone() for name, x in packing.state_dict().items()}
    assert sum(x.numel() for x in state.values()) <= 7
    wanted = [packing.draw() for _ in range(11)]
    again: Packing = make(data, seed=5)
    fresh = [again.draw() for _ in range(11)]
    again.load_state_dict(state)
    assert all(same(again.draw(), batch) for batch in wanted)
    assert not all(same(a, b) for a, b in zip(fresh, wanted, strict=True)), "not restored: the arm that must fail"


@pytest.mark.parametrize("make", MAKERS)
def test_memory_mapped_data_give_the_same_batches(make: Any, tmp_path: Path) -> None:
    data = dataset()
    mapped = replace(data, step=data.step.clone().memmap(str(tmp_path)))
    one, two = make(data), make(mapped)
    for _ in range(9):
        assert same(one.draw(), two.draw())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PackedRows(dataset(), rows=0, horizon=4), "rows=0: expected at least 1"),
        (lambda: PackedRows(dataset(), rows=1, horizon=0), "horizon=0: expected at least 1"),
        (lambda: Windows(dataset(), rows=1, length=0), "windows=0: expected at least 1 step"),
        (lambda: Windows(dataset(), rows=1, length=2, episodes=[]), "dataset 'random': no episode is selected"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_state_of_other_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="packing: expected 2 rows, got 3"):
        PackedRows(dataset(), rows=2, horizon=4).load_state_dict(PackedRows(dataset(), rows=3, horizon=4).state_dict())


# the law: packed rows are the episodes one by one, values and gradients


def policy_of(encoder: EncoderName, tokens: Any = "fused") -> Policy:
    own = CELLS[encoder].option_names
    options = {name: x for name, x in {"heads": 2, "context": 64}.items() if name in own}
    config = PolicyConfig(encoder=encoder, width=8, previous_action=True, tokens=tokens, encoder_options=options)
    data = dataset()
    policy = Policy(data.observation_space, data.action_space, config).double()
    for i, parameter in enumerate(policy.parameters()):
        draw = torch.Generator().manual_seed(i)
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return policy


def run(policy: Policy, observation: Tensor, action: Tensor, before: Tensor, start: Tensor, state: State) -> Any:
    out = policy.unroll({"observation": observation, "previous_action": before}, state, start)
    return -out.distribution.log_prob(action), out.state


def packed_losses(policy: Policy, packing: Packing, batches: int, *, flags: bool = True) -> dict[int, Tensor]:
    """Loss by the number of the step, memory carried from batch to batch with its gradient."""
    state, losses = policy.initial_state(packing.rows), dict[int, Tensor]()
    for _ in range(batches):
        batch = packing.draw()
        start = torch.as_tensor(batch["start"])
        flags_given = start if flags else torch.zeros_like(start)
        seen, action, before = batch["observation", "observation"], batch["action"], batch["previous_action"]
        found, state = run(policy, seen, action, before, flags_given, state)
        losses |= dict(zip(packing_index(packing, batch).flatten().tolist(), found.flatten(), strict=True))
    return losses


def packing_index(packing: Packing, batch: TensorDict) -> Tensor:
    """[T, B] the number of each step, found by its action."""
    logged = torch.as_tensor(packing.step["action"])
    return (torch.as_tensor(batch["action"])[..., None, :] == logged).all(-1).int().argmax(-1)


def single_losses(policy: Policy, data: Dataset) -> dict[int, Tensor]:
    """Loss by the number of the step, every episode alone."""
    losses = dict[int, Tensor]()
    for first, last in zip(data.first[:-1].tolist(), data.first[1:].tolist(), strict=True):
        step = data.step[first:last].unsqueeze(1)
        action = torch.as_tensor(step["action"])
        before = torch.cat([torch.zeros_like(action[:1]), action[:-1]])
        start = torch.zeros(last - first, 1, dtype=torch.bool)
        start[0] = True
        seen = torch.as_tensor(step["observation", "observation"])
        found, _ = run(policy, seen, action, before, start, policy.initial_state(1))
        losses |= dict(zip(range(first, last), found[:, 0], strict=True))
    return losses


def gradients(policy: Policy, losses: dict[int, Tensor], steps: list[int]) -> list[Tensor]:
    total = torch.stack([losses[step] for step in steps]).sum()
    found = torch.autograd.grad(total, list(policy.parameters()), allow_unused=True, materialize_grads=True)
    return list(found)


@pytest.mark.parametrize(("encoder", "tokens"), [*((name, "fused") for name in CELLS), ("min_gru", "triple")])
def test_training_on_packed_rows_is_training_on_the_episodes_one_by_one(encoder: EncoderName, tokens: str) -> None:
    data, policy = dataset(double=True), policy_of(encoder, tokens)
    packed = packed_losses(policy, PackedRows(data, rows=2, horizon=5, seed=1), 3)
    alone = single_losses(policy, data)
    steps = sorted(packed)
    assert len(steps) > 20
    torch.testing.assert_close(torch.stack([packed[i] for i in steps]), torch.stack([alone[i] for i in steps]))
    torch.testing.assert_close(gradients(policy, packed, steps), gradients(policy, alone, steps))
    if encoder != "mlp":
        leaking = packed_losses(policy, PackedRows(data, rows=2, horizon=5, seed=1), 3, flags=False)
        apart = max(float((leaking[i] - alone[i]).abs().detach()) for i in steps)
        assert apart > 1e-3, "without the flags episodes leak into each other: the arm that must fail"


def test_the_memory_of_a_row_is_that_of_its_episode_so_far() -> None:
    data, policy = dataset(double=True), policy_of("min_lstm")
    packing = PackedRows(data, rows=1, horizon=31, seed=2)
    whole = packing.draw()
    parts = PackedRows(data, rows=1, horizon=4, seed=2)
    state, seen = policy.initial_state(1), []
    with torch.no_grad():
        for _ in range(7):
            batch = parts.draw()
            leaves = {"observation": batch["observation", "observation"], "previous_action": batch["previous_action"]}
            out = policy.unroll(leaves, state, batch["start"])
            state = map_state(Tensor.detach, out.state)
            seen.append(out.value)
        leaves = {"observation": whole["observation", "observation"], "previous_action": whole["previous_action"]}
        wanted = policy.unroll(leaves, policy.initial_state(1), whole["start"]).value
    torch.testing.assert_close(torch.cat(seen), wanted[:28])
    assert all(not x.requires_grad for x in tensors_of(state))
