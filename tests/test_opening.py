"""The memory that a rollout or batch begins with: what each kind promises, in acting and in training alike."""

import copy
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from rank_runs import alone, run_ranks
from test_ranks import episodes
from torch import Tensor

from rlmin import PPO, DecisionAgent, load, verify_consistency
from rlmin.agents.agent import Agent
from rlmin.distributed import ALONE, Ranks
from rlmin.encoders import CELLS
from rlmin.learning.opening import InitialState, Opening
from rlmin.types import tensors_of

B, LENGTH = 4, 7
KINDS: tuple[InitialState, ...] = get_args(InitialState)
HIDING: tuple[InitialState, ...] = ("noise", "other")
every_kind = pytest.mark.parametrize("kind", KINDS)


def state_of(seed: int, rows: int = B) -> tuple[Tensor, tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, generator=generator), (torch.randn(rows, 2, 5, generator=generator),)


def t_maze(kind: InitialState, **settings: Any) -> PPO:
    """Mazes whose episodes all open with a rollout."""
    sizes: dict[str, Any] = {"num_envs": B, "horizon": LENGTH + 1, "width": 8, "epochs": 2}
    return PPO("rlmin/TMaze-v0", env_kwargs={"length": LENGTH}, initial_state=kind, **(sizes | settings))


# -- what each kind does ----------------------------------------------------------------------------------------------


def test_a_memory_that_is_carried_stays_as_it_is() -> None:
    state, start = state_of(1), torch.tensor([True, False, True, False])
    found, left = Opening("carried")(state, state_of(2), start, number=0)
    assert found is state and left is start


def test_zero_is_empty_also_within_an_episode() -> None:
    empty, start = state_of(2), torch.tensor([True, False, True, False])
    found, left = Opening("zero")(state_of(1), empty, start, number=0)
    assert found is empty and left is start


@pytest.mark.parametrize("kind", HIDING)
def test_what_an_episode_opens_with_is_not_wiped_and_within_an_episode_nothing_changes(kind: InitialState) -> None:
    state, start = state_of(1), torch.tensor([True, False, True, False])
    found, left = Opening(kind)(state, state_of(2), start, number=0)
    assert not left.any()
    for x, y in zip(tensors_of(state), tensors_of(found), strict=True):
        assert torch.equal(x[~start], y[~start])
        assert bool((x[start] != y[start]).any())


def test_other_is_the_memory_of_the_row_before() -> None:
    state = state_of(1)
    found, _ = Opening("other")(state, state_of(2), torch.ones(B, dtype=torch.bool), number=0)
    for x, y in zip(tensors_of(state), tensors_of(found), strict=True):
        assert torch.equal(y, x[[3, 0, 1, 2]])


def test_noise_has_the_moments_and_the_range_of_the_rows_and_depends_on_seed_and_number() -> None:
    rows = 20_000
    state = torch.randn(rows, 2) * torch.tensor([1.0, 10.0]) + torch.tensor([5.0, 0.0])
    start = torch.ones(rows, dtype=torch.bool)
    found, again, later, other = (
        tensors_of(Opening("noise", seed=seed)(state, state, start, number=number)[0])[0]
        for seed, number in ((0, 3), (0, 3), (0, 4), (1, 3))
    )
    torch.testing.assert_close(found.mean(0), state.mean(0), atol=0.3, rtol=0)
    torch.testing.assert_close(found.std(0), state.std(0), atol=0, rtol=0.03)
    assert bool(((found >= state.amin(0)) & (found <= state.amax(0))).all())
    assert torch.equal(found, again)
    assert not torch.equal(found, later) and not torch.equal(found, other) and not torch.equal(found, state)


# -- PPO --------------------------------------------------------------------------------------------------------------


@every_kind
def test_acting_equals_training(kind: InitialState) -> None:
    agent = t_maze(kind, bptt=4)
    agent.learn(6 * B * (LENGTH + 1))
    assert verify_consistency(agent) < 1e-5
    rollout = agent.collector.collect()
    assert rollout is not None
    rollout = agent.collector.collect()
    assert rollout is not None and bool(rollout.batch["start"][0].all()) == (kind not in HIDING)
    begun = torch.cat([x.flatten() for x in tensors_of(rollout.state)])
    assert bool((begun != 0).any()) == (kind != "zero")
    seen, batch = dict(rollout.batch["observation"].items()), rollout.batch
    with torch.no_grad():
        out = agent.policy.unroll(seen, rollout.state, batch["start"])
        wiped = agent.policy.unroll(seen, agent.policy.initial_state(B), batch["start"])
    torch.testing.assert_close(out.distribution.log_prob(batch["action"]), batch["log_prob"], atol=1e-5, rtol=0)
    assert torch.allclose(wiped.value, batch["value"], atol=1e-6) == (kind not in HIDING)


@every_kind
def test_a_rollout_within_an_episode_begins_as_it_says(kind: InitialState) -> None:
    agent = t_maze(kind, horizon=3)
    agent.collector.collect()
    before = tensors_of(agent.collector.state)
    rollout = agent.collector.collect()
    assert rollout is not None and not rollout.batch["start"][0].any()
    for x, y in zip(before, tensors_of(rollout.state), strict=True):
        assert torch.equal(y, torch.zeros_like(x) if kind == "zero" else x)


@every_kind
def test_a_resumed_run_goes_on_bit_for_bit(kind: InitialState, tmp_path: Path) -> None:
    steps = 3 * B * 5
    agent = t_maze(kind, horizon=5, lr_final=None)
    agent.learn(steps)
    agent.save(tmp_path / "run")
    again, twin = load(tmp_path / "run"), copy.deepcopy(agent)
    again.resume(tmp_path / "run")
    assert again.config.to_saved()["initial_state"] == kind
    for one in (agent, again, twin):
        one.learn(steps, reset_num_timesteps=False)
    for name, x in agent.policy.state_dict().items():
        assert torch.equal(x, again.policy.state_dict()[name]), name
        assert torch.equal(x, twin.policy.state_dict()[name]), name


def test_kinds_train_other_weights() -> None:
    found = []
    for kind in KINDS:
        agent = t_maze(kind)
        agent.learn(4 * B * (LENGTH + 1))
        found.append(torch.cat([x.flatten() for x in agent.policy.parameters()]).detach())
    same = [[torch.equal(x, y) for x in found] for y in found]
    assert same == [[row == column or {row, column} == {0, 1} for column in range(4)] for row in range(4)]


@pytest.mark.parametrize("encoder", [name for name, cell in CELLS.items() if cell.remembers])
def test_every_memory_can_begin_with_noise(encoder: str) -> None:
    agent = t_maze("noise", encoder=encoder, layers=1)
    agent.learn(3 * B * (LENGTH + 1))
    assert verify_consistency(agent, steps=2 * (LENGTH + 1)) < 1e-5


# -- decision agents --------------------------------------------------------------------------------------------------


def logged(kind: InitialState, ranks: Ranks = ALONE, **settings: Any) -> DecisionAgent:
    sizes: dict[str, Any] = {"rows": B, "width": 8, "horizon": 6, "previous_action": False}
    return DecisionAgent(episodes(longest=11, number=20), initial_state=kind, ranks=ranks, **(sizes | settings))


@every_kind
@pytest.mark.parametrize("windows", [None, 5])
def test_batches_of_logged_data_begin_so_and_go_on_bit_for_bit(
    kind: InitialState, windows: int | None, tmp_path: Path
) -> None:
    agent = logged(kind, windows=windows)
    agent.learn(5 * B * agent.config.steps)
    kept = agent.memory
    assert (kept is not None) == (windows is None or kind in HIDING)
    agent.save(tmp_path / "run")
    again = load(tmp_path / "run")
    again.set_dataset(episodes(longest=11, number=20))
    again.resume(tmp_path / "run")
    for one in (agent, again):
        one.learn(3 * B * agent.config.steps, reset_num_timesteps=False)
    for name, x in agent.policy.state_dict().items():
        assert torch.equal(x, again.policy.state_dict()[name]), name


def test_kinds_learn_other_weights_from_windows() -> None:
    found = {}
    for kind in KINDS:
        agent = logged(kind, windows=5)
        agent.learn(4 * B * 5)
        found[kind] = torch.cat([x.flatten() for x in agent.policy.parameters()]).detach()
    assert torch.equal(found["carried"], found["zero"])  # a window has no sequence before it
    assert not torch.equal(found["zero"], found["noise"]) and not torch.equal(found["zero"], found["other"])


# -- ranks ------------------------------------------------------------------------------------------------------------


def memory_at_the_start(ranks: Ranks, kind: InitialState, seed: int) -> list[Tensor]:
    state, start = state_of(1), torch.tensor([True, False, True, True])
    own = tuple(ranks.part(x) for x in tensors_of(state))
    found, _ = Opening(kind, seed=seed, ranks=ranks)(own, own, ranks.part(start), number=5)
    return [ranks.gather(x) for x in tensors_of(found)]


def learned(ranks: Ranks, make: Any) -> Tensor:
    agent: Agent = make(ranks)
    agent.learn(5 * B * 8)
    return torch.cat([x.flatten() for x in agent.policy.parameters()]).detach()


def online(ranks: Ranks, seed: int = 0) -> PPO:
    return t_maze("noise", ranks=ranks, shards=2, minibatches=1, seed=seed)


def offline(ranks: Ranks, seed: int = 0) -> DecisionAgent:
    return logged("other", ranks, windows=8, seed=seed)


@pytest.mark.parametrize("kind", HIDING)
def test_two_ranks_begin_as_one_does(kind: InitialState) -> None:
    one, several = alone(memory_at_the_start, kind, 0), run_ranks(2, memory_at_the_start, kind, 0)
    assert all(torch.equal(x, y) for found in several for x, y in zip(one, found, strict=True))
    if kind == "noise":
        assert not torch.equal(one[0], alone(memory_at_the_start, kind, 1)[0])


@pytest.mark.parametrize("make", [online, offline])
def test_two_ranks_learn_what_one_learns(make: Any) -> None:
    one, several = alone(learned, make), run_ranks(2, learned, make)
    for found in several:
        torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone(learned, partial(make, seed=1)), one, atol=1e-3)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HIDING)
@pytest.mark.parametrize("name", ["previous_action", "previous_reward", "normalize_return"])
def test_what_needs_to_know_where_an_episode_opens_is_refused(kind: InitialState, name: str) -> None:
    message = f"initial_state='{kind}' hides where an episode opens, which {name} needs: set {name}=False"
    with pytest.raises(ValueError, match=message):
        t_maze(kind, **{name: True})
    with pytest.raises(ValueError, match="which previous_action needs"):
        logged(kind, previous_action=True)
    assert t_maze("zero", **{name: True}).config.initial_state == "zero"


def test_no_graph_is_recorded_where_memories_change() -> None:
    agent = t_maze("other")
    assert agent.config.cuda_graph and agent.collector.graph is None
    with pytest.raises(ValueError, match="no initial_state 'fresh'; known: carried, noise, other, zero"):
        t_maze("fresh")  # type: ignore[arg-type]
