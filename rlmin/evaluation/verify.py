"""A check that acting and training agree: the same weights give the same log-probabilities on both paths."""

from typing import Any

import torch

from rlmin.learning.rollout import Collector, Rollout
from rlmin.policy import Policy
from rlmin.policy.fit import check_spaces
from rlmin.policy.precision import consistency_tolerance
from rlmin.settings import NonNegative, Size
from rlmin.settings.boundary import checked
from rlmin.vector import Vector, adapt


@torch.no_grad()
@checked
def verify_consistency(
    agent: Any, env: Any = None, *, tolerance: NonNegative | None = None, steps: Size = 256
) -> float:
    """Act for a while, then run the training pass over these steps and compare.

        found = max over real rows of |log_prob(training pass) - log_prob(acting)|

    Whatever the episodes, time limits and autoreset mode, this is rounding error; anything more means that training
    sees another memory than acting had (a reset one step late, a stale state, a leaking episode). Compared in the
    precision of the weights: under autocast both paths round to bfloat16, and differ by about 1e-3.

    Args:
        agent: has a `policy`, and an environment of its own where `env` is None. Neither is changed, but the agent's
            own environment begins new episodes.
        env: any environment that an agent accepts.
        tolerance: largest difference allowed, in nats; None: 1e-5, or 1e-2 on a GPU that rounds to TF32.
        steps: steps in each environment; two rollouts of half as many, so that the second begins inside episodes.

    Returns:
        the largest absolute log-ratio found.

    Raises:
        AssertionError: it is above `tolerance`; the message names where.
        ValueError: the spaces of `env` are not those of the policy.
    """
    if not isinstance(getattr(agent, "policy", None), Policy):
        raise TypeError(f"agent: expected one with a `policy`, such as PPO, got {type(agent).__name__}")
    if env is None and not hasattr(agent, "vector"):
        raise ValueError("verify_consistency: this agent has no environment of its own; give one, env=...")
    rows = 4 if isinstance(env, str) else None
    vector: Vector = agent.vector if env is None else adapt(env, num_envs=rows, device=agent.device, seed=0)
    check_spaces(agent.policy, vector, value=True)
    tolerance = consistency_tolerance(vector.device) if tolerance is None else tolerance
    generator = torch.Generator(agent.device).manual_seed(0)
    opening = agent.collector.opening if env is None else None  # what training does to the memory, acting has to know
    settings: dict[str, Any] = {"horizon": max(steps // 2, 1), "seed": 0, "opening": opening}
    collector = Collector(vector, agent.policy, generator=generator, **settings)
    worst = 0.0
    try:
        for _ in range(2):
            rollout = collector.collect()
            assert rollout is not None, "no callback was given, so nothing can have stopped the rollout"
            worst = max(worst, _largest_log_ratio(agent, rollout, tolerance))
    finally:
        if env is None:
            agent.collector.reset(agent.seed + agent.num_timesteps)
        elif isinstance(env, str):
            vector.close()
    return worst


def _largest_log_ratio(agent: Any, rollout: Rollout, tolerance: float) -> float:
    batch = rollout.batch
    observation = dict(batch["observation"].items())
    out = agent.policy.unroll(observation, rollout.state, batch["start"], batch.get("action_mask", None))
    ratio = (out.distribution.log_prob(batch["action"]) - batch["log_prob"]).abs()
    ratio = torch.where(batch["filler"], 0, ratio)
    worst = float(ratio.max())
    if not worst <= tolerance:
        t, row = (int(i) for i in (ratio == ratio.max()).nonzero()[0]) if worst == worst else (0, 0)
        opened = batch["start"][: t + 1, row].nonzero()
        ago = f"{t - int(opened[-1])} steps into an episode" if len(opened) else "before any episode began"
        where = f"at step {t} of environment {row}, {ago}"
        raise AssertionError(f"acting and training disagree: log-ratio {worst:.3g} above {tolerance:g} {where}")
    return worst
