"""What the tests of games share: play, compare with the originals row for row, and hold means to what is stated."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlmin.envs.tensor_env import TensorEnv

Policy = Callable[[int, Tensor], Tensor]
"""t and the observations [B] -> actions [B, ...]."""


def returns(env: TensorEnv, policy: Policy, *, seed: int = 0) -> Tensor:
    """[B] float64: of the first episode of every row."""
    seen, _ = env.reset(seed=seed)
    total, alive = torch.zeros(env.num_envs, dtype=torch.float64), torch.ones(env.num_envs, dtype=torch.bool)
    t = 0
    while alive.any():
        seen, reward, terminated, truncated, _ = env.step(policy(t, seen))
        total, alive, t = total + reward * alive, alive & ~terminated & ~truncated, t + 1
    return total


def agrees(found: Tensor, stated: float) -> bool:
    """The mean of `found` is `stated`, rounded to three digits, within four standard errors."""
    return bool(abs(found.mean() - stated) < 4 * found.std() / len(found) ** 0.5 + 0.001)


def disagreements(env: TensorEnv, originals: list[Any], seen: Tensor, policy: Policy) -> int:
    """Rows and steps at which `env` differs from `originals`, which were put into the same states."""
    alive, wrong, t = set(range(env.num_envs)), 0, 0
    while alive:
        action = policy(t, seen)
        seen, reward, terminated, truncated, infos = env.step(action)
        reached, t = infos.get("final_obs", seen).tolist(), t + 1
        ours = list(zip(reached, reward.tolist(), terminated.tolist(), truncated.tolist(), strict=True))
        moves = action.numpy()
        for row in sorted(alive):
            observation, gain, over, cut, _ = originals[row].step(moves[row])
            same = ours[row][0] == observation and abs(ours[row][1] - gain) < 1e-6
            wrong += not (same and ours[row][2:] == (bool(over), bool(cut)))
            if over or cut:
                alive.remove(row)
    return wrong


def halves(one: Policy, other: Policy) -> Policy:
    """The first half of the rows by `one`, the rest by `other`."""

    def both(t: int, seen: Tensor) -> Tensor:
        a, b = one(t, seen), other(t, seen)
        return torch.cat((a[: len(a) // 2], b[len(b) // 2 :]))

    return both
