"""The gradient steps of a PPO update as a function of named tensors, which a CUDA graph can hold."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rlmin.agents.measured import MEASURED
from rlmin.agents.ppo_loss import Weights
from rlmin.distributed.streams import generators_of
from rlmin.kernels.ppo_loss import usable
from rlmin.learning.rollout_graph import CUDARecorder
from rlmin.learning.step_graph import StepGraph, Tensors
from rlmin.types import State, map_state, tensors_of

if TYPE_CHECKING:
    from tensordict import TensorDict

    from rlmin.agents.ppo import PPO


class Inputs(NamedTuple):
    """What the steps of an update read, beside weights and moments."""

    batch: "TensorDict"  # [T, B] with advantages
    state: State  # [B, ...] memory before step 0
    deals: list[list[Tensor]]  # for each epoch the rows of its minibatches
    weights: Weights

    @property
    def named(self) -> Tensors:
        """All tensors, by name."""
        found = {f"batch.{name}": x for name, x in self.batch.flatten_keys(".").items()}
        found |= {f"state.{i}": x for i, x in enumerate(tensors_of(self.state))}
        found |= {f"rows.{e}.{i}": rows for e, deal in enumerate(self.deals) for i, rows in enumerate(deal)}
        return found | {"settings": self.weights.fused}

    def of(self, held: Tensors) -> "Inputs":
        """Inputs of this form, with the tensors `held`."""
        from tensordict import TensorDict  # here, because it takes most of a second to import

        columns = {name.removeprefix("batch."): x for name, x in held.items() if name.startswith("batch.")}
        parts = iter([x for name, x in held.items() if name.startswith("state.")])
        return Inputs(
            TensorDict(columns, self.batch.batch_size).unflatten_keys("."),
            map_state(lambda _: next(parts), self.state),
            [[held[f"rows.{e}.{i}"] for i in range(len(deal))] for e, deal in enumerate(self.deals)],
            self.weights._replace(fused=held["settings"]),
        )


def obstacle(agent: "PPO") -> str | None:
    """The reason why updates of `agent` cannot be a CUDA graph; None if none is known."""
    config = agent.config
    if agent.device.type != "cuda":
        return f"a CUDA graph needs a CUDA device, not {agent.device.type}"
    reasons = {
        "cuda_graph is off": not config.cuda_graph,
        "several processes exchange gradients": not agent.ranks.is_alone,
        "target_kl asks after every step": config.target_kl is not None,
        "dropout draws random numbers": config.dropout > 0,
        "torch.compile has graphs of its own": config.compile,
        "the loss is not fused": not usable(agent.policy.value_head.scale, agent.policy.value_head.scale),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def make_graph(agent: "PPO") -> StepGraph | None:
    """The recorder of updates, where there is no obstacle."""
    return None if obstacle(agent) else StepGraph(CUDARecorder(generators_of(agent.streams)))


def run_as_graph(agent: "PPO", graph: StepGraph, inputs: Inputs) -> list[Tensor]:
    """Take all steps; what each of them measures, see `measured.join`."""

    def take(held: Tensors) -> Tensor:
        given = inputs.of(held)
        return torch.cat([*agent.each_step(given.batch, given.state, given.deals, given.weights)])

    policy, optimizer = agent.policy, agent.optimizer

    def list_fixed() -> list[Tensor]:
        moments = optimizer.state.get(optimizer.flat, {}).values()
        return [*policy.parameters(), *policy.buffers(), optimizer.flat, *moments]

    found = graph.run(take, inputs.named, fixed=list_fixed, also=agent.config)
    for x in policy.parameters():
        x.grad = None  # of a recording that failed
    return [*torch.split(found, len(MEASURED))]
