"""Agreement of an exported policy with the original: both follow the same episodes, each with its own memory."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlmin.export.numpy_policy import ExportedPolicy, input_name
from rlmin.policy import Policy, PolicyOutput
from rlmin.policy.heads import Categorical, ChoiceHead, Gaussian
from rlmin.policy.inputs import PREVIOUS_ACTION, PREVIOUS_REWARD
from rlmin.spaces import leaves_of
from rlmin.types import Observation, Step
from rlmin.vector import Vector
from rlmin.vector.make import readable_errors

FORGOTTEN = 0.02  # share of steps at which a memory is wiped in the middle of an episode, as episodes may be long


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The largest difference found, |found - expected| / max(1, |expected|)."""

    size: float
    output: str  # name of the output
    step: int  # number of the step


@torch.no_grad()
def largest_difference(
    policy: Policy,
    exported: ExportedPolicy,
    vector: Vector,
    *,
    steps: int,
    seed: int = 0,
    where: str = "the environment",
) -> Difference:
    """Play, and compare all outputs of the exported policy with those of the policy.

    Actions are samples of the policy. Memories are wiped where an episode starts and at a few more steps, drawn at
    random. For an exported choice, the difference is how far its logit is below the largest: a tie may go either way.

    Args:
        policy: in torch, on the CPU.
        exported: of it.
        vector: environments with its spaces.
        steps: steps of every environment.
        seed: of environments, actions and wipes.
        where: name of the environments in errors.

    Raises:
        ValueError: an environment failed.
    """
    leaves, head = leaves_of(policy.observation_space), policy.action_head
    generator = torch.Generator().manual_seed(seed)
    rows = vector.num_envs
    state, action = policy.initial_state(rows), policy.no_action(rows)
    memory, _ = exported.initial_state(rows)
    with readable_errors(where):
        step = vector.reset(seed=seed)
    worst = Difference(size=0.0, output="", step=0)
    for t in range(steps):
        start = step.start | (torch.rand(rows, generator=generator) < FORGOTTEN)
        raw = {
            input_name(leaf.name, leaf.path): step.observation[leaf.name] + (0 if leaf.start is None else leaf.start)
            for leaf in leaves
            if leaf.name in step.observation
        }
        seen = policy.with_previous(step.observation, action, step.reward)
        out = policy.step(seen, state, start, step.action_mask)
        inputs = _inputs(exported, raw, seen, start, step)
        outputs = exported.run(inputs | memory)
        for name, size in _differences(policy, out, outputs, step.action_mask).items():
            if not size <= worst.size:
                worst = Difference(size=size, output=name, step=t)
            if not np.isfinite(size):
                return worst
        memory = {name: outputs[f"next_{name}"] for name in memory}
        state, action = out.state, out.distribution.sample(generator)
        with readable_errors(where):
            step = vector.step(head.to_env(action))
    return worst


def _inputs(
    exported: ExportedPolicy, raw: Observation, seen: Observation, start: Tensor, step: Step
) -> dict[str, np.ndarray]:
    """Inputs of the exported policy without its memory."""
    given = raw | {"start": start}
    given |= {name: seen[name] for name in (PREVIOUS_ACTION, PREVIOUS_REWARD) if name in seen}
    if step.action_mask is not None:
        given["action_mask"] = step.action_mask
    return {name: x.numpy() for name, x in given.items() if name in exported.description["inputs"]}


def _differences(
    policy: Policy, out: PolicyOutput, outputs: dict[str, np.ndarray], mask: Tensor | None
) -> dict[str, float]:
    """Name of an output -> its largest difference in this step."""
    found = {name: torch.from_numpy(x) for name, x in outputs.items() if not name.startswith("next_")}
    head, distribution = policy.action_head, out.distribution
    sizes = {}
    if isinstance(distribution, Categorical) and isinstance(head, ChoiceHead):
        sizes["logits"] = _size(distribution.logits, head.distribution(found["logits"], mask).logits)
        if "action" in found:
            chosen = distribution.logits.gather(-1, head.from_env(found["action"]).unsqueeze(-1)).squeeze(-1)
            sizes["action"] = _size(distribution.logits.amax(-1), chosen)
    elif isinstance(distribution, Gaussian):
        sizes["mean"] = _size(distribution.mean, found["mean"])
        sizes["std"] = _size(distribution.log_std.exp().expand_as(distribution.mean), found["std"])
        if "action" in found:
            sizes["action"] = _size(head.to_env(distribution.mode()), found["action"])
    if "value" in found:
        sizes["value"] = _size(out.value, found["value"])
    return sizes


def _size(expected: Tensor, found: Tensor) -> float:
    difference: Tensor = (found.double() - expected.double()).abs() / expected.double().abs().clamp(min=1)
    return float(difference.max())
