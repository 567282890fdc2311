"""Several processes train one agent: what they exchange, and that their number changes nothing but time."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from rank_runs import alone, run_ranks
from torch import Tensor, nn

from rlmin import PPO, DecisionAgent
from rlmin.agents.agent import Agent
from rlmin.data import Episode
from rlmin.distributed import ALONE, Ranks
from rlmin.distributed.ranks import LARGEST_IN_PAIRS
from rlmin.distributed.streams import Streams, fill_exponential, fill_normal, make_streams
from rlmin.learning.flat_adam import FlatAdam
from rlmin.types import map_state

SMALL: dict[str, Any] = {"width": 16, "num_envs": 8, "shards": 4, "minibatches": 2, "epochs": 3, "seed": 0}
NORMS: dict[str, Any] = {"normalize_observation": True, "normalize_return": True}


def streams(ranks: Ranks, shards: int = 4) -> Streams:
    return make_streams(5, shards, ranks, torch.Generator().manual_seed(5))


def test_one_rank_is_the_identity() -> None:
    x = torch.randn(5, 2)
    assert all(found is x for found in (ALONE.sum(x), ALONE.max(x), ALONE.gather(x), ALONE.broadcast(x)))
    assert torch.equal(ALONE.part(x), x) and ALONE.share(7, "rows") == 7 and ALONE.any(True) and not ALONE.any(False)
    rows, mean, var = ALONE.moments(x)
    assert rows == 5 and torch.equal(mean, x.double().mean(0)) and torch.equal(var, x.double().var(0, correction=0))
    assert ALONE.moments(x[:0]).rows == 0
    with pytest.raises(ValueError, match="num_envs=64: 3 processes need a multiple of 3, for example num_envs=66"):
        Ranks(1, 3).share(64, "num_envs")


def exchange(ranks: Ranks, x: Tensor) -> dict[str, Any]:
    """All kinds of exchange, of the rows that are this rank's: one row for rank 0, the others for rank 1."""
    own = x[:1] if ranks.is_main else x[1:]
    net = nn.Linear(2, 1, bias=False)
    nn.init.ones_(net.weight)
    adam = FlatAdam(net.parameters(), lr=0.1, betas=(0.9, 0.99), eps=1e-5)
    loss = net(own).square().mean()
    loss.backward()
    norm, means, rows = adam.average_gradient(ranks, {"loss": loss.detach()}, len(own))
    return {
        "gather": ranks.gather(own),
        "flags": ranks.gather(own > 0),
        "sum": ranks.sum(own.sum(0)),
        "max": ranks.max(own.amax(0)),
        "any": (ranks.any(ranks.rank == 1), ranks.any(False)),
        "moments": tuple(ranks.moments(own)),
        "of one": tuple(ranks.moments(own if ranks.is_main else own[:0])),
        "std": ranks.mean_and_std(own[:, 0]),
        "text": ranks.broadcast_text("runs/é" if ranks.is_main else "another"),
        "gradient": (adam.flat.grad, norm, means["loss"], int(rows)),
    }


def differ(ranks: Ranks) -> str:
    """The error of weights that differ on one rank by the last bit."""
    weights = {"w": torch.ones(3)}
    ranks.check_same(weights, when="step 3")
    if ranks.rank == 1:
        weights["w"][2] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    with pytest.raises(FloatingPointError) as error:
        ranks.check_same(weights, when="step 3")
    return str(error.value)


def test_what_ranks_exchange_is_what_one_process_computes() -> None:
    x = torch.randn(5, 2)
    first, second = run_ranks(2, exchange, x)
    net = nn.Linear(2, 1, bias=False)
    nn.init.ones_(net.weight)
    loss = net(x).square().mean()
    loss.backward()
    unweighted = torch.stack([net(part).square().mean() for part in (x[:1], x[1:])]).mean()
    assert not torch.isclose(unweighted, loss, rtol=1e-3), "the mean over ranks is another: the arm that must fail"
    for found in (first, second):
        assert torch.equal(found["gather"], x) and torch.equal(found["flags"], x > 0)
        assert found["any"] == (True, False) and found["text"] == "runs/é"
        torch.testing.assert_close(found["sum"], x.sum(0))
        assert torch.equal(found["max"], x.amax(0))
        torch.testing.assert_close(found["moments"], (5, x.double().mean(0), x.double().var(0, correction=0)))
        torch.testing.assert_close(found["of one"], (1, x[0].double(), torch.zeros(2).double()))
        torch.testing.assert_close(found["std"], (x[:, 0].mean(), x[:, 0].std()))
        gradient, norm, mean, rows = found["gradient"]
        assert net.weight.grad is not None and rows == 5
        torch.testing.assert_close(gradient, net.weight.grad.flatten())
        torch.testing.assert_close((norm, mean), (gradient.norm(), loss.detach()))
    for text in run_ranks(2, differ):
        assert text.startswith(
            "weights: those of process 1 differ from those of process 0 at step 3; nothing was saved"
        )


def reduce(ranks: Ranks, number: int) -> dict[str, Tensor]:
    """Sum, largest and moments of tensors of `number` entries that differ from rank to rank."""
    own = torch.randn(number, generator=torch.Generator().manual_seed(ranks.rank), dtype=torch.float64)
    kept = own.clone()
    found = {"sum": ranks.sum(own), "max": ranks.max(own), "mean": ranks.moments(own.unsqueeze(1)).mean}
    assert torch.equal(own, kept), "an exchange leaves its argument as it was"
    return found | {"own": own}


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("number", [7, LARGEST_IN_PAIRS // 8 + 1])
def test_all_ranks_get_the_same_bits_of_the_whole_sum(size: int, number: int) -> None:
    """3 ranks, and large tensors of 4, go around a ring; the others exchange in pairs."""
    found = run_ranks(size, reduce, number)
    rows = torch.stack([each["own"] for each in found])
    torch.testing.assert_close(found[0]["sum"], rows.sum(0), rtol=1e-13, atol=1e-13)
    assert not torch.allclose(found[0]["sum"], rows[:-1].sum(0)), "a rank left out: the arm that must fail"
    torch.testing.assert_close(found[0]["mean"], rows.mean().reshape(1), rtol=1e-12, atol=1e-13)
    assert torch.equal(found[0]["max"], rows.amax(0))
    for other in found[1:]:
        assert all(torch.equal(other[name], found[0][name]) for name in ("sum", "max", "mean"))


def test_random_numbers_are_those_of_the_shard_on_any_number_of_ranks() -> None:
    whole = streams(ALONE)
    noise, normal = fill_exponential(torch.empty(8, 3), whole), fill_normal(torch.empty(8, 3), whole)
    rows = whole.deal(3, 8, 2)
    for size in (2, 4):
        own = [streams(Ranks(rank, size)) for rank in range(size)]
        envs = 8 // size
        assert torch.equal(torch.cat([fill_exponential(torch.empty(envs, 3), part) for part in own]), noise)
        assert torch.equal(torch.cat([fill_normal(torch.empty(envs, 3), part) for part in own]), normal)
        for number, chosen in enumerate(rows):
            there = [part.deal(3, envs, 2)[number] for part in map(streams_after, range(size), [size] * size)]
            placed = torch.cat([x // envs * 8 + rank * envs + x % envs for rank, x in enumerate(there)])
            assert torch.equal(placed.sort().values, chosen.sort().values)
    assert sorted(torch.cat(rows).tolist()) == list(range(24)), "every window once"
    assert not torch.equal(fill_exponential(torch.empty(8, 3), streams(ALONE, 2)), noise), "shards decide"
    with pytest.raises(ValueError, match="shards=4: 3 processes need a multiple of 3"):
        streams(Ranks(0, 3))


def streams_after(rank: int, size: int) -> Streams:
    """The streams of a rank after the noise of the test above."""
    own = streams(Ranks(rank, size))
    fill_exponential(torch.empty(8 // size, 3), own)
    fill_normal(torch.empty(8 // size, 3), own)
    return own


class Before(PPO):
    """PPO as it was before there were shards: every random number from the agent's one generator."""

    def _minibatches(self, batch: Any, state: Any, deals: Any = None) -> Iterator[Any]:
        self.collector.generator = self.generator
        rollout, first = batch, state
        if self.config.window < self.config.horizon:
            batch = torch.cat(rollout.split(self.config.window), dim=1)
        for _ in range(self.config.epochs):
            state = self._window_states(rollout, first)
            rows = torch.randperm(batch.shape[1], generator=self.generator, device=self.device)
            for chosen in rows.chunk(self.config.minibatches_of(self.config.num_envs)):
                yield batch[:, chosen], map_state(lambda x, chosen=chosen: x[chosen], state)  # type: ignore[misc]


def test_one_shard_is_bit_identical_to_one_generator() -> None:
    settings = {**SMALL, **NORMS, "horizon": 16, "bptt": 8, "shards": 1}
    found = []
    for kind, shards in ((Before, 1), (PPO, 1), (PPO, 2)):
        agent = kind("rlmin/TMaze-v0", env_kwargs={"length": 5}, **(settings | {"shards": shards}))
        agent.collector.generator = agent.generator if kind is Before else agent.streams
        agent.learn(8 * 16 * 2)
        found.append({**agent.policy.state_dict(), **agent.learner_state()})
    before, now, other = found
    assert before.keys() == now.keys() and all(torch.equal(x, now[name]) for name, x in before.items())
    assert not torch.equal(now["optimizer.0.exp_avg"], other["optimizer.0.exp_avg"]), "shards decide"


def tmaze(ranks: Ranks) -> Agent:
    """Uneven episodes, both normalisers, windows, and a divergence that ends updates."""
    settings = {**SMALL, **NORMS, "horizon": 16, "bptt": 8, "target_kl": 0.05, "entropy": 0.1}
    return PPO("rlmin/TMaze-v0", env_kwargs={"length": 7}, ranks=ranks, **settings)


def filler(ranks: Ranks) -> Agent:
    """Rows that do not count, so that ranks have uneven weights, and a point as action."""
    options = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    make: Any = {"num_envs": 8 // ranks.size, "vectorization_mode": "sync", "vector_kwargs": options}
    env = gym.make_vec("MountainCarContinuous-v0", max_episode_steps=7, **make)
    return PPO(env, horizon=16, ranks=ranks, **SMALL, **NORMS)


def episodes(*, longest: int = 29, number: int = 40) -> list[Episode]:
    random, found = np.random.default_rng(0), []
    for length in random.integers(5, longest + 1, size=number):
        action = random.uniform(-1, 1, size=(length, 2)).astype(np.float32)
        seen = random.normal(size=(length + 1, 4))
        found.append(Episode(observations=seen, actions=action, rewards=np.ones(length), terminated=True))
    return found


def logged(ranks: Ranks, **settings: Any) -> Agent:
    """Streams of logged episodes; with windows, which are padded, weights are uneven."""
    return DecisionAgent(episodes(), rows=8, width=16, horizon=16, encoder="min_lstm", ranks=ranks, **settings)


def windows(ranks: Ranks) -> Agent:
    return logged(ranks, windows=10)


def learn(ranks: Ranks, make: Any, steps: int) -> dict[str, Any]:
    """The first gradient and, after `steps`, everything that training depends on."""
    agent, gradients = make(ranks), list[Tensor]()
    real = agent.optimizer.step_within

    def watched(norm: Tensor, largest: float, skip: Tensor | None = None) -> None:
        gradients.append(agent.optimizer.flat.grad.clone())
        real(norm, largest, skip)

    agent.optimizer.step_within = watched
    agent.learn(steps)
    found = {**agent.policy.state_dict(), **agent.learner_state()}
    episodes = agent.collector.statistics.episodes if isinstance(agent, PPO) else 0
    return {"gradients": gradients, "state": found, "counts": (agent.num_timesteps, episodes)}


CASES = {
    "tmaze": (tmaze, 8 * 16 * 5),
    "filler": (filler, 8 * 16 * 5),
    "logged": (logged, 3840),
    "windows": (windows, 2400),
}


def compare(one: dict[str, Any], several: dict[str, Any]) -> None:
    """Raise if a run of several ranks is not that of one, up to rounding."""
    assert len(one["gradients"]) == len(several["gradients"]) >= 12
    first, other = one["gradients"][0], several["gradients"][0]
    assert float((first - other).norm() / first.norm()) < 4e-6  # float32 itself is 1.5e-6 from float64 here
    assert one["counts"] == several["counts"]
    assert one["state"].keys() == several["state"].keys()
    for name, x in one["state"].items():
        assert torch.allclose(several["state"][name].double(), x.double(), rtol=1e-5, atol=1e-5), name


QUICK = [("filler", 2), ("windows", 2)]
SLOW = [(case, size) for case in CASES for size in (2, 4) if (case, size) not in QUICK]


@pytest.mark.parametrize(("case", "size"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_several_ranks_learn_what_one_learns(case: str, size: int) -> None:
    make, steps = CASES[case]
    one, several = alone(learn, make, steps), run_ranks(size, learn, make, steps)
    compare(one, several[0])
    for name, x in several[0]["state"].items():
        assert all(torch.equal(x, other["state"][name]) for other in several[1:]), f"{name} differs between ranks"
    other = alone(learn, lambda ranks: make(Ranks()), steps // 2)
    with pytest.raises(AssertionError):
        compare(one, other)


def refused(ranks: Ranks) -> list[str]:
    found = list[str]()
    acts: list[Callable[[], object]] = [
        lambda: tmaze(ranks).learn(8, lambda *_: True),
        lambda: logged(ranks, dropout=0.1),
        lambda: PPO("rlmin/TMaze-v0", ranks=ranks, **{**SMALL, "shards": 1}),
        lambda: PPO("rlmin/TMaze-v0", ranks=ranks, **{**SMALL, "num_envs": 9}),
    ]
    for act in acts:
        with pytest.raises(ValueError) as error:
            act()
        found.append(str(error.value))
    return found


def test_what_several_ranks_cannot_do_is_refused() -> None:
    for errors in run_ranks(2, refused):
        callback, dropout, shards, rows = errors
        assert callback.startswith("callback: 2 processes train this agent, and take none")
        assert dropout.startswith("dropout=0.1: several processes would drop other numbers than one")
        assert shards == "shards=1: 2 processes need a multiple of 2, for example shards=2"
        assert rows == "num_envs=9: 2 processes need a multiple of 2, for example num_envs=10"
    with pytest.raises(ValueError, match="shards=3 must divide num_envs=8"):
        PPO("rlmin/TMaze-v0", **{**SMALL, "shards": 3})
    with pytest.raises(ValueError, match="must divide the 2 environments of each of the 4 shards"):
        PPO("rlmin/TMaze-v0", **{**SMALL, "minibatches": 4})
