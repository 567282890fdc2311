"""Returns and advantages: one linear recurrence run backwards, cut at episode ends, alive through time limits.

Everything here is float64, so that agreement is agreement and not rounding.
"""

import pytest
import torch
from torch import Tensor

from rlmin.learning.returns import discounted_return, gae, return_to_go

T, B = 9, 4
GAMMA, LAM = 0.9, 0.8


def random(*size: int, seed: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flags(*where: tuple[int, int]) -> Tensor:
    """[T, B] bool, True at the given (t, row)."""
    x = torch.zeros(T, B, dtype=torch.bool)
    for t, row in where:
        x[t, row] = True
    return x


reward, value, next_value = random(T, B, seed=1), random(T, B, seed=2), random(T, B, seed=3)
NEVER = flags()
DIED, CUT_OFF = flags((3, 0), (8, 0), (0, 2), (4, 1)), flags((5, 0), (6, 2), (7, 1))
FIRST = flags((0, 0), (4, 0), (6, 0), (5, 1), (8, 1), (1, 2), (7, 2))


def by_hand(lam: float, died: Tensor, cut_off: Tensor) -> Tensor:
    """The definition, entry by entry."""
    advantage = torch.zeros(T, B, dtype=torch.float64)
    for row in range(B):
        ahead = 0.0
        for t in reversed(range(T)):
            worth = 0.0 if died[t, row] else float(next_value[t, row])
            delta = float(reward[t, row]) + GAMMA * worth - float(value[t, row])
            ahead = delta + (0.0 if died[t, row] or cut_off[t, row] else GAMMA * lam * ahead)
            advantage[t, row] = ahead
    return advantage


def test_the_advantage_is_that_of_a_loop_over_its_definition() -> None:
    for lam in (0.0, LAM, 1.0):
        got = gae(reward, value, next_value, DIED, CUT_OFF, gamma=GAMMA, lam=lam)
        torch.testing.assert_close(got, by_hand(lam, DIED, CUT_OFF), rtol=0, atol=1e-14)
    wrong = gae(reward, value, next_value, CUT_OFF, DIED, gamma=GAMMA, lam=LAM)
    assert not torch.allclose(wrong, by_hand(LAM, DIED, CUT_OFF))


def test_with_lam_zero_the_advantage_is_the_td_error() -> None:
    error = reward + GAMMA * (~DIED).double() * next_value - value
    got = gae(reward, value, next_value, DIED, CUT_OFF, gamma=GAMMA, lam=0.0)
    torch.testing.assert_close(got, error, rtol=0, atol=1e-14)
    assert not torch.allclose(gae(reward, value, next_value, DIED, CUT_OFF, gamma=GAMMA, lam=0.1), error)


def test_with_lam_one_the_advantage_is_the_discounted_return_minus_the_value() -> None:
    inside = torch.cat([value[1:], next_value[-1:]])  # next_value[t] = value[t + 1] inside an episode
    weight = GAMMA ** torch.arange(T, dtype=torch.float64)
    returns = torch.stack([(weight[: T - t, None] * reward[t:]).sum(0) for t in range(T)])
    returns += torch.outer(GAMMA ** torch.arange(T, 0, -1, dtype=torch.float64), next_value[-1])
    got = gae(reward, value, inside, NEVER, NEVER, gamma=GAMMA, lam=1.0)
    torch.testing.assert_close(got, returns - value, rtol=0, atol=1e-13)
    assert not torch.allclose(gae(reward, value, inside, NEVER, NEVER, gamma=GAMMA, lam=0.9), returns - value)


@pytest.mark.parametrize("how", ["terminated", "truncated"])
def test_nothing_crosses_the_end_of_an_episode(how: str) -> None:
    end, row = 4, 2
    ends = flags((end, row))
    died, cut_off = (ends, NEVER) if how == "terminated" else (NEVER, ends)
    later = torch.zeros(T, B, dtype=torch.float64)
    later[end + 1 :, row] = 100.0
    other = (reward + later, value - later, next_value + later)
    want = gae(reward, value, next_value, died, cut_off, gamma=GAMMA, lam=LAM)
    got = gae(other[0], other[1], other[2], died, cut_off, gamma=GAMMA, lam=LAM)
    assert torch.equal(got[: end + 1], want[: end + 1])
    flowed = gae(other[0], other[1], other[2], NEVER, NEVER, gamma=GAMMA, lam=LAM)
    assert (flowed[: end + 1, row] - want[: end + 1, row]).abs().min() > 1


def test_a_terminal_state_is_worth_nothing_and_a_truncated_one_its_value() -> None:
    richer = next_value + 100
    ends = flags((4, 2))
    died = [gae(reward, value, x, ends, NEVER, gamma=GAMMA, lam=0.0) for x in (next_value, richer)]
    cut_off = [gae(reward, value, x, NEVER, ends, gamma=GAMMA, lam=0.0) for x in (next_value, richer)]
    assert died[0][4, 2] == died[1][4, 2]
    torch.testing.assert_close(cut_off[1][4, 2] - cut_off[0][4, 2], torch.tensor(GAMMA * 100, dtype=torch.float64))


def test_a_reward_of_1_forever_is_worth_1_over_1_minus_gamma_through_time_limits() -> None:
    gamma, limit = 0.9, flags(*((t, row) for t in (2, 5, 8) for row in range(B)))
    one = torch.ones(T, B, dtype=torch.float64)
    truth = one / (1 - gamma)
    fixed_point = gae(one, truth, truth, NEVER, limit, gamma=gamma, lam=0.95)
    torch.testing.assert_close(fixed_point, torch.zeros_like(one), rtol=0, atol=1e-14)
    mistaken = gae(one, truth, truth, limit, NEVER, gamma=gamma, lam=0.95)  # the time limit taken for death
    assert mistaken.abs().max() > 8


def test_no_gradient_flows_through_an_advantage() -> None:
    wanted = value.clone().requires_grad_()
    assert not gae(reward, wanted, next_value, NEVER, NEVER, gamma=GAMMA, lam=LAM).requires_grad


def test_the_discounted_return_so_far_is_that_of_a_loop_and_continues_in_the_next_rollout() -> None:
    carry = random(B, seed=4)
    want, now = torch.zeros(T, B, dtype=torch.float64), carry.clone()
    for t in range(T):
        for row in range(B):
            now[row] = (0.0 if FIRST[t, row] else GAMMA * float(now[row])) + float(reward[t, row])
        want[t] = now
    got, last = discounted_return(reward, FIRST, carry, gamma=GAMMA)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-14)
    first, between = discounted_return(reward[:5], FIRST[:5], carry, gamma=GAMMA)
    second, end = discounted_return(reward[5:], FIRST[5:], between, gamma=GAMMA)
    torch.testing.assert_close(torch.cat([first, second]), got, rtol=0, atol=1e-14)
    assert torch.equal(last, got[-1]) and torch.equal(end, last)
    forgetful, _ = discounted_return(reward[5:], FIRST[5:], torch.zeros_like(between), gamma=GAMMA)
    assert not torch.allclose(forgetful, got[5:])


def test_the_return_to_go_is_that_of_a_loop() -> None:
    want = torch.zeros(T, B, dtype=torch.float64)
    for row in range(B):
        ahead = 0.0
        for t in reversed(range(T)):
            ends_here = t + 1 < T and bool(FIRST[t + 1, row])
            ahead = float(reward[t, row]) + (0.0 if ends_here else GAMMA * ahead)
            want[t, row] = ahead
    torch.testing.assert_close(return_to_go(reward, FIRST, gamma=GAMMA), want, rtol=0, atol=1e-14)
    one_late = torch.cat([FIRST[:1], FIRST[:-1]])
    assert not torch.allclose(return_to_go(reward, one_late, gamma=GAMMA), want)


def test_the_return_to_go_of_whole_episodes_without_discount_starts_at_their_sums() -> None:
    start = flags((0, 0), (4, 0))
    got = return_to_go(reward, start)
    torch.testing.assert_close(got[0, 0], reward[:4, 0].sum())
    torch.testing.assert_close(got[4, 0], reward[4:, 0].sum())
    torch.testing.assert_close(got[-1], reward[-1])


def test_float32_in_is_float32_out() -> None:
    single = reward.float()
    assert gae(single, single, single, NEVER, NEVER, gamma=GAMMA, lam=LAM).dtype == torch.float32
    assert return_to_go(single, NEVER).dtype == torch.float32


def test_batch_first_input_is_named_as_such() -> None:
    with pytest.raises(ValueError, match=r"value: expected \[T=9, B=4\], got \[4, 9\]; .* looks like \[B, T\]"):
        gae(reward, value.T, next_value, NEVER, NEVER, gamma=GAMMA, lam=LAM)
    with pytest.raises(ValueError, match=r"start: .* looks like \[B, T\]"):
        return_to_go(reward, NEVER.T)
    with pytest.raises(ValueError, match=r"reward: expected \[T, B\], got \[9\]"):
        gae(reward[:, 0], value, next_value, NEVER, NEVER, gamma=GAMMA, lam=LAM)
