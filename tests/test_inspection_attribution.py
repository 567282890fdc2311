"""Attribution: a step's part of the memory is what is missing once it is deleted, and nothing else."""

from typing import Any, TypeAlias, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from rlmin.encoders import MinGRU, MinLSTM
from rlmin.inspection.attribution import Attribution, attribution, by_lag, evidence, mean_input
from rlmin.inspection.recurrence import contribution, deletion_error, half_life, recurrences, terms
from rlmin.inspection.trace import mixers, record_trace
from rlmin.policy import EncoderName, Policy, PolicyConfig
from rlmin.scan.activation import activate
from rlmin.types import Observation

T, D, H, A = 11, 3, 6, 4
STARTS = (0, 4, 5)  # an episode of one step among them
SEEN = gym.spaces.Box(-np.inf, np.inf, (D,), np.float32)
Recurrence: TypeAlias = MinGRU | MinLSTM
SUMS = ["min_gru", "min_lstm"]


def policy_of(encoder: EncoderName, *, act: gym.Space[Any] | None = None, seed: int = 0, **more: Any) -> Policy:
    """A policy whose heads say something: as made, they are nearly 0."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"width": H, "layers": 2, "mlp": 2, **more}
    if encoder in ("attention", "aaren"):
        settings["heads"] = 2
    policy = Policy(SEEN, act or gym.spaces.Discrete(A), PolicyConfig(encoder=encoder, **settings))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return policy.double().eval()


def sequence(seed: int = 1) -> tuple[Observation, Tensor]:
    """T steps, episodes begin at STARTS."""
    draw = torch.Generator().manual_seed(seed)
    start = torch.zeros(T, dtype=torch.bool)
    start[list(STARTS)] = True
    return {"observation": torch.randn(T, D, generator=draw, dtype=torch.float64)}, start


def layer_inputs(policy: Policy, leaves: Observation, start: Tensor) -> list[tuple[Recurrence, Tensor, Tensor]]:
    """Each layer with what it read and put out, [T, H]."""
    trace = record_trace(policy, {name: leaf[:, None] for name, leaf in leaves.items()}, start[:, None])
    found = zip(recurrences(trace.mixers), trace.read, trace.memory, strict=True)
    return [(cast(Recurrence, mixer), read[:, 0], memory[:, 0]) for mixer, read, memory in found]


def by_hand(mixer: Recurrence, x: Tensor, start: Tensor, *, without: int | None) -> Tensor:
    """The layer's memory from its paper's equations, a step at a time; at `without` its candidate is not written."""
    h, rows = torch.zeros(H, dtype=x.dtype), []
    for t in range(len(x)):
        h = torch.zeros_like(h) if start[t] else h
        if isinstance(mixer, MinGRU):
            gate, candidate = mixer.projection(x[t]).chunk(2)
            keep, write = 1 - torch.sigmoid(gate), torch.sigmoid(gate)
        else:
            forget, input, candidate = mixer.projection(x[t]).chunk(3)
            f, i = torch.sigmoid(forget), torch.sigmoid(input)
            keep, write = f / (f + i), i / (f + i)
        written = write * activate(mixer.candidate, candidate)
        h = keep * h + (torch.zeros_like(written) if t == without else written)
        rows.append(h)
    return torch.stack(rows)


@pytest.mark.parametrize("candidate", ["tanh", "identity", "g"])
@pytest.mark.parametrize("encoder", SUMS)
@torch.no_grad()
def test_a_contribution_is_what_is_missing_without_the_step(encoder: EncoderName, candidate: str) -> None:
    leaves, start = sequence()
    for mixer, read, memory in layer_inputs(policy_of(encoder, candidate=candidate), leaves, start):
        part = contribution(mixer, read, start)
        assert part.shape == (T, T, H)
        torch.testing.assert_close(part.sum(1), memory, rtol=0, atol=1e-12)
        for s in range(T):
            missing = memory - by_hand(mixer, read, start, without=s)
            torch.testing.assert_close(part[:, s], missing, rtol=0, atol=1e-12)
        assert deletion_error(mixer, read, start, steps=torch.arange(T)) < 1e-12


@pytest.mark.parametrize("encoder", SUMS)
@torch.no_grad()
def test_a_broken_contribution_is_found(encoder: EncoderName) -> None:
    """Three ways to be wrong: gates one step off, a start that is overlooked, contributions of another step."""
    leaves, start = sequence()
    mixer, read, memory = layer_inputs(policy_of(encoder), leaves, start)[0]
    never = torch.zeros_like(start)
    s = STARTS[-1] - 2
    missing = memory - by_hand(mixer, read, start, without=s)
    early = contribution(mixer, read.roll(1, 0), start)[:, s]
    unwiped = contribution(mixer, read, never)[:, s]
    other = contribution(mixer, read, start)[:, s + 1]
    for wrong in (early, unwiped, other):
        assert float((wrong - missing).abs().max()) > 1e-3


@pytest.mark.parametrize("encoder", SUMS)
@torch.no_grad()
def test_what_is_deleted_in_float32_is_gone_within_a_millionth(encoder: EncoderName) -> None:
    """As it plays: the layer's own float32 scan against contributions in float64."""
    leaves, start = sequence()
    exact, single = policy_of(encoder), policy_of(encoder).float()
    reads = [read for _, read, _ in layer_inputs(exact, leaves, start)]
    pairs = zip(recurrences(mixers(single)), recurrences(mixers(exact)), reads, strict=True)
    for mixer, whole, read in pairs:
        assert 0 < deletion_error(mixer, read, start, steps=torch.arange(T), exact=whole) < 1e-6


@torch.no_grad()
def test_groups_of_steps_are_the_sums_of_their_steps() -> None:
    leaves, start = sequence()
    mixer, read, _ = layer_inputs(policy_of("min_lstm"), leaves, start)[1]
    single, groups = contribution(mixer, read, start), contribution(mixer, read, start, group=4)
    want = torch.stack([single[:, i : i + 4].sum(1) for i in range(0, T, 4)], 1)
    torch.testing.assert_close(groups, want, rtol=0, atol=1e-12)
    torch.testing.assert_close(contribution(mixer, read, start, group=4, of=range(1, 3)), want[:, 1:3])


@pytest.mark.parametrize("encoder", SUMS)
@torch.no_grad()
def test_the_effect_on_the_action_is_that_of_running_the_rest_by_hand(encoder: EncoderName) -> None:
    """Every layer, every step: the mixer is made to forget the step, and the whole policy unrolled again."""
    policy = policy_of(encoder)
    leaves, start = sequence()
    found = attribution(policy, leaves, start)
    rows = {name: leaf[:, None] for name, leaf in leaves.items()}
    plain = policy.unroll(rows, policy.initial_state(1), start[:, None]).distribution
    torch.testing.assert_close(plain.log_prob(plain.mode())[:, 0], found.log_prob)
    assert torch.equal(plain.mode()[:, 0], found.action) and len(found.layers) == 2
    for layer, (mixer, read, _) in enumerate(layer_inputs(policy, leaves, start)):
        for s in (0, 3, 7):
            changed = by_hand(mixer, read, start, without=s)
            hook = mixer.register_forward_hook(lambda *_, changed=changed: (changed[:, None], changed[-1:]))
            without = policy.unroll(rows, policy.initial_state(1), start[:, None]).distribution
            hook.remove()
            want = without.log_prob(found.action[:, None])[:, 0]
            torch.testing.assert_close(found.layers[layer].log_prob[:, s], want, rtol=0, atol=1e-9)
            lost = torch.logit(found.log_prob.exp()) - torch.logit(want.exp())
            torch.testing.assert_close(found.layers[layer].effect[:, s], lost, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("encoder", [*SUMS, "gru", "attention", "aaren"])
@torch.no_grad()
def test_the_effect_of_what_was_seen_is_that_of_another_embedding(encoder: EncoderName) -> None:
    policy = policy_of(encoder)
    leaves, start = sequence()
    mean = mean_input(policy, {name: leaf[:, None] for name, leaf in leaves.items()}, start[:, None])
    found = attribution(policy, leaves, start, mean_input=mean)
    inputs: Any = policy.get_submodule("trunks.0.inputs")
    embedded = inputs(leaves, start)
    torch.testing.assert_close(mean[0], embedded.mean(0))
    for s in (1, 6):
        changed = embedded.clone()
        changed[s] = mean[0]
        hook = inputs.register_forward_hook(lambda *_, changed=changed: changed[:, None])
        rows = {name: leaf[:, None] for name, leaf in leaves.items()}
        want = policy.unroll(rows, policy.initial_state(1), start[:, None]).distribution
        hook.remove()
        got = found.input_log_prob[:, s]
        torch.testing.assert_close(got, want.log_prob(found.action[:, None])[:, 0], rtol=0, atol=1e-9)
    assert bool(found.layers) == (encoder in SUMS)


def tables(found: Attribution) -> list[Tensor]:
    """Every [T, T] table."""
    return [found.input_effect, *(x for layer in found.layers for x in (layer.share, layer.effect))]


@pytest.mark.parametrize("encoder", [*SUMS, "lstm"])
def test_nothing_is_laid_to_the_future_or_to_another_episode(encoder: EncoderName) -> None:
    leaves, start = sequence()
    time = torch.arange(T)
    opened = torch.where(start, time, 0).cummax(0).values
    apart = (time > time[:, None]) | (time < opened[:, None])
    for table in tables(attribution(policy_of(encoder), leaves, start)):
        assert float(table[apart].abs().max()) < 1e-9
        assert float(table[~apart].abs().min(0).values) > 1e-9
    for table in tables(attribution(policy_of(encoder), leaves, start.new_tensor([True] + [False] * (T - 1)))):
        assert float(table[apart & (time <= time[:, None])].abs().max()) > 1e-6  # the arm that must fail: one episode


@pytest.mark.parametrize("encoder", SUMS)
def test_shares_add_up_to_one_and_sums_to_the_memory(encoder: EncoderName) -> None:
    leaves, start = sequence()
    found = attribution(policy_of(encoder), leaves, start, group=3)
    for layer in found.layers:
        torch.testing.assert_close(layer.share.sum(1), torch.ones(T, dtype=torch.float64))
        assert layer.share.shape == layer.effect.shape == (T, 4) and layer.error < 1e-12
    assert found.input_effect.shape == (T, 4) and found.group == 3


def test_many_steps_run_in_parts_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    leaves, start = sequence()
    policy = policy_of("min_gru")
    whole = tables(attribution(policy, leaves, start))
    monkeypatch.setattr("rlmin.inspection.attribution.CELLS", 3 * T * H)  # three variants at once
    torch.testing.assert_close(tables(attribution(policy, leaves, start)), whole)


def test_masks_points_and_a_critic_with_its_own_memory() -> None:
    leaves, start = sequence()
    mask = torch.ones(T, A, dtype=torch.bool)
    mask[:, 0] = False
    masked = attribution(policy_of("min_gru", share_memory=False), leaves, start, action_mask=mask)
    assert 0 not in masked.action and all(bool(table.isfinite().all()) for table in tables(masked))
    only = torch.zeros(T, A, dtype=torch.bool)
    only[:, 2] = True
    for table in tables(attribution(policy_of("min_gru"), leaves, start, action_mask=only))[2::2]:
        assert float(table.abs().max()) == 0  # there was nothing to choose
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    point = attribution(policy_of("min_lstm", act=box), leaves, start)
    assert point.action.shape == (T, 2)
    torch.testing.assert_close(point.input_effect, point.log_prob[:, None] - point.input_log_prob)


def test_a_step_of_three_tokens_is_one_column() -> None:
    """Previous action, return-to-go, observation: taken together, and the episode's start wipes before all three."""
    space = gym.spaces.Dict({"observation": SEEN, "return_to_go": gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)})
    torch.manual_seed(0)
    config = PolicyConfig(encoder="min_gru", width=H, previous_action=True, tokens="triple")
    policy = Policy(space, gym.spaces.Discrete(A), config).eval()
    leaves, start = sequence()
    leaves = {"observation": leaves["observation"].float(), "return_to_go": torch.linspace(1, 0, T)[:, None]}
    leaves["previous_action"] = torch.arange(T)[:, None] % A
    found = attribution(policy, leaves, start)
    for layer in found.layers:
        torch.testing.assert_close(layer.share.sum(1), torch.ones(T, dtype=torch.float64))
        assert layer.share.shape == (T, T) and float(layer.share[STARTS[1], : STARTS[1]].abs().max()) == 0


@torch.no_grad()
def test_rates_keep_what_gates_round_away() -> None:
    torch.manual_seed(0)
    for mixer in (MinGRU(D, H), MinLSTM(D, H)):
        with torch.no_grad():
            mixer.projection.weight.zero_()
            mixer.projection.bias[:H] = -40.0 if isinstance(mixer, MinGRU) else 0.0
            if isinstance(mixer, MinLSTM):
                mixer.projection.bias[H : 2 * H] = -40.0
        rate = terms(mixer, torch.zeros(2, D)).rate
        assert bool((rate > 0).all()) and bool((torch.exp(-rate) == 1).all())
        scale = half_life(rate.double())
        assert float(scale.min()) > 1e16 and bool(scale.isfinite().all())


def test_other_memories_are_no_sums() -> None:
    mixer = mixers(policy_of("gru"))[0]
    with pytest.raises(ValueError, match="GRU: its memory is not a sum over past steps; expected one of min_gru"):
        terms(mixer, torch.zeros(T, H))
    with pytest.raises(ValueError, match="at least one step"):
        attribution(policy_of("min_gru"), {"observation": torch.zeros(0, D)}, torch.zeros(0, dtype=torch.bool))
    leaves, start = sequence()
    with pytest.raises(ValueError, match="group=0"):
        attribution(policy_of("min_gru"), leaves, start, group=0)


def test_lags_are_counted_within_episodes() -> None:
    start = torch.tensor([True, False, True, False, False])
    effect = torch.arange(25, dtype=torch.float64).view(5, 5)
    total, count = by_lag(effect, start)
    assert count.tolist() == [5, 3, 1, 0, 0]
    assert total.tolist() == [0 + 6 + 12 + 18 + 24, 5 + 17 + 23, 22, 0, 0]


def test_evidence_is_log_odds_of_choices_and_log_density_of_points() -> None:
    p = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(evidence(p.log(), choices=True), torch.logit(p))
    torch.testing.assert_close(evidence(p.log(), choices=False), p.log())
    assert 34 < float(evidence(torch.zeros(1, dtype=torch.float64), choices=True)) < 35  # surely: not infinite
