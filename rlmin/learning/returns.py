"""Returns and advantages: the one linear recurrence, run backwards over [T, B] tensors."""

import torch
from torch import Tensor

from rlmin.checks import check, check_alike, check_flags, check_numbers
from rlmin.scan import linear_scan
from rlmin.settings import Share
from rlmin.settings.boundary import checked


@torch.no_grad()
@checked
def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: Share,
    lam: Share,
) -> Tensor:
    """Generalised advantage estimate.

        d[t] = reward[t] + gamma (1 - terminated[t]) next_value[t] - value[t]
        A[t] = d[t] + gamma lam (1 - terminated[t] - truncated[t]) A[t+1]

    A terminal state is worth nothing; a truncated one is worth `next_value`. Both end the sum.

    Args:
        reward: [T, B] float, reward for action t.
        value: [T, B] float, V(s[t]).
        next_value: [T, B] float, V of the state *reached* by action t, before any auto-reset.
        terminated, truncated: [T, B] bool, how transition t ended; never both.
        gamma, lam: scalars in [0, 1].

    Returns:
        [T, B] float advantages, in the dtype of `reward`. No gradient flows through them.

    Raises:
        ValueError: a shape differs from that of `reward`.

    Source: Schulman et al. 2016, eq. 16 (arXiv:1506.02438).
    """
    size = check("reward", reward, "T B")
    for name, x in [("value", value), ("next_value", next_value), ("terminated", terminated), ("truncated", truncated)]:
        check(name, x, "T B", **size)
    check_alike(reward=reward, value=value, next_value=next_value)
    check_flags("terminated", terminated)
    check_flags("truncated", truncated)
    alive = (~terminated).to(reward.dtype)
    going_on = (~(terminated | truncated)).to(reward.dtype)
    delta = reward + gamma * alive * next_value - value
    advantage, _ = linear_scan(gamma * lam * going_on, delta, torch.zeros_like(delta[0]), reverse=True)
    return advantage


@torch.no_grad()
@checked
def discounted_return(reward: Tensor, start: Tensor, carry: Tensor, *, gamma: Share) -> tuple[Tensor, Tensor]:
    """Discounted sum of the rewards *so far*, whose deviation scales rewards.

        R[t] = gamma (1 - start[t]) R[t-1] + reward[t]

    Args:
        reward: [T, B] float.
        start: [T, B] bool, step t opens an episode and begins a new sum.
        carry: [B] float, R before step 0.
        gamma: scalar in [0, 1].

    Returns:
        [T, B] sums, and the last of them, [B], to carry into the next rollout. No gradient flows.
    """
    check("start", start, "T B", **check("reward", reward, "T B"))
    check_numbers("reward", reward)
    check_flags("start", start)
    return linear_scan(torch.full_like(reward, gamma), reward, carry, start)


@torch.no_grad()
@checked
def return_to_go(reward: Tensor, start: Tensor, *, gamma: Share = 1.0) -> Tensor:
    """Discounted sum of the rewards still to come in the same episode.

        G[t] = reward[t] + gamma (1 - start[t+1]) G[t+1]

    Args:
        reward: [T, B] float.
        start: [T, B] bool, step t opens an episode, so nothing flows back from t to t-1.
        gamma: scalar in [0, 1].

    Returns:
        [T, B] float in the dtype of `reward`. No gradient flows.
    """
    check("start", start, "T B", **check("reward", reward, "T B"))
    check_numbers("reward", reward)
    check_flags("start", start)
    decay = torch.full_like(reward, gamma)
    decay[:-1] *= (~start[1:]).to(reward.dtype)
    total, _ = linear_scan(decay, reward, torch.zeros_like(reward.sum(0)), reverse=True)
    return total
