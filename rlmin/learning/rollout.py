"""Rollout: T steps of B environments under one policy, as one TensorDict [T, B]."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from rlmin.distributed import ALONE, Ranks
from rlmin.distributed.streams import Source, generators_of
from rlmin.learning.opening import Opening
from rlmin.learning.reached import Reached, choose_truncated
from rlmin.learning.rollout_graph import CUDARecorder, RolloutGraph, obstacle
from rlmin.policy import Policy
from rlmin.policy.heads import Distribution
from rlmin.runs.checkpoint import section
from rlmin.types import Observation, State, Step, cat_states, map_state, tensors_of
from rlmin.vector import Vector
from rlmin.vector.episodes import EpisodeStatistics

if TYPE_CHECKING:
    from tensordict import TensorDict


class Rollout(NamedTuple):
    """Recorded steps, and the memory at their start."""

    batch: "TensorDict"
    """[T, B] with observation (leaves), start, action, log_prob, value, next_value, reward, terminated, truncated,
    filler and, where the env has masks, action_mask. Index convention: rlmin.types. The tensors are the collector's
    own and are overwritten by the next rollout."""
    state: State  # [B, ...] memory before step 0


class Collector:
    """Acts in the environments; keeps memory, observation and episode statistics between rollouts.

    Args:
        vector: the environments.
        policy: samples actions; it is not trained here.
        horizon: T, steps a rollout.
        generator: source of the sampled actions, on the policy's device; of several shards, their `Streams`.
        seed: of the first reset.
        cuda_graph: replay rollouts of a native environment on a CUDA device as one graph, see
            `rlmin.learning.rollout_graph`; no effect elsewhere.
        ranks: those that play the environments of one run, B each.
        opening: changes the memory that a rollout begins with; then no graph is used. None: it is carried over.
    """

    def __init__(
        self,
        vector: Vector,
        policy: Policy,
        *,
        horizon: int,
        generator: Source,
        seed: int | None = None,
        cuda_graph: bool = False,
        ranks: Ranks = ALONE,
        opening: Opening | None = None,
    ) -> None:
        self.ranks, self.opening = ranks, opening or Opening("carried")
        self.vector, self.policy, self.horizon, self.generator = vector, policy, horizon, generator
        self.asks = vector.device.type == "cpu"  # reading which rows were truncated would wait for a GPU
        self.statistics = EpisodeStatistics(vector.num_envs)
        self.reached: list[Reached] = []  # where episodes may have been truncated, until their values are asked for
        self.acted: tuple[Distribution, Tensor, Tensor] | None = None  # distribution, action, value; for callbacks
        self.num_steps = 0  # steps taken in each environment, filler included
        self.reset(seed)
        self.observed: Observation = {}  # leaves [T, B, ...]; this and `buffer` are allocated once
        self.buffer: dict[str, Tensor] = {}
        self._allocate()
        self.cuda_graph = cuda_graph
        self.graph = self._graph()

    def _graph(self) -> RolloutGraph | None:
        """The recorder of rollouts, if it is wanted and possible."""
        if not self.cuda_graph or self.opening.changes or obstacle(self.vector, self.policy) is not None:
            return None
        return RolloutGraph(self, CUDARecorder(generators_of(self.generator)), horizon=self.horizon)

    def __getstate__(self) -> dict[str, Any]:
        """State for a copy, without the graph, which belongs to these tensors."""
        return vars(self) | {"graph": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.graph = self._graph()

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes everywhere, with an empty memory."""
        rows = self.vector.num_envs
        self.now = self.vector.reset(seed=seed)
        self.statistics.update(self.now)  # unfinished episodes are dropped
        self.state = self.policy.initial_state(rows)
        self.observation = self.policy.with_previous(
            self.now.observation, self.policy.no_action(rows), torch.zeros_like(self.now.reward)
        )

    @torch.no_grad()
    def collect(self, on_step: Callable[[Step], bool] | None = None) -> Rollout | None:
        """Take `horizon` steps.

        Args:
            on_step: called after every step; False stops at once. No graph is used with it.

        Returns:
            the rollout, or None if `on_step` stopped it.

        Raises:
            FloatingPointError: an observation, reward, value or log-probability is NaN or infinite; the message names
                it, the environment and the step. The policy is unchanged.
        """
        from tensordict import TensorDict  # here, because it takes most of a second to import

        if self.opening.changes:
            empty = self.policy.initial_state(self.vector.num_envs)
            self.state, start = self.opening(self.state, empty, self.now.start, number=self.num_steps)
            self.now = replace(self.now, start=start)
        before = self.state
        if self.graph is not None and on_step is None:
            before = map_state(torch.clone, before)  # its tensors will hold the memory after the rollout
            self.graph.run()
        elif not self.play(on_step):
            return None
        self._next_value()
        self.statistics.settle(self.ranks)
        lead = (self.horizon, self.vector.num_envs)
        batch = TensorDict({**self.buffer, "observation": TensorDict(dict(self.observed), lead)}, lead)
        first_row = self.ranks.rank * self.vector.num_envs
        check_finite(batch, first_step=self.num_steps - self.horizon, first_row=first_row)
        return Rollout(batch, before)

    @torch.no_grad()
    def play(self, on_step: Callable[[Step], bool] | None = None) -> bool:
        """Write T steps into the buffers; returns whether `on_step` let it finish.

        Among the tensors that a rollout changes, the next one reads only those in `collect_carry`.
        """
        # check_finite finds NaN in next_value if a truncated row has no final state
        self.final_value.fill_(torch.nan)
        self.reached = []
        acted: list[tuple[Distribution, Tensor, Tensor]] = []
        for t in range(self.horizon):
            acted.append(self._step(t))
            if on_step is not None:
                self.acted = acted[-1]
                if not on_step(self.now):
                    return False
        self._write(acted)
        return True

    def collect_carry(self) -> dict[str, Tensor]:
        """Every tensor that one rollout passes to the next, by name, for an environment with a state."""
        carried = {f"statistics.{name}": x for name, x in self.statistics.running().items()}
        return carried | self._situation()

    def carry(self, tensors: dict[str, Tensor]) -> None:
        """Go on from these tensors, named as in `collect_carry`; the collector only reads them."""
        self.statistics.run_on(section(tensors, "statistics"))
        self._enter(tensors)

    def _situation(self) -> dict[str, Tensor]:
        """The environment's state, its observation and the memory."""
        found = {f"env.{name}": x for name, x in self.vector.env.get_state().items()}
        found |= {f"observation.{name}": x for name, x in self.observation.items()}
        found |= {f"memory.{i}": x for i, x in enumerate(tensors_of(self.state))}
        mask = {} if self.now.action_mask is None else {"action_mask": self.now.action_mask}
        return found | mask | {"start": self.now.start}

    def _enter(self, found: dict[str, Tensor]) -> None:
        """The inverse of `_situation`."""
        device = self.now.reward.device
        self.vector.env.set_state(section(found, "env"))
        self.observation = {name: x.to(device) for name, x in section(found, "observation").items()}
        self.now = replace(self.now, observation=self.observation, start=found["start"].to(device))
        if "action_mask" in found:
            self.now = replace(self.now, action_mask=found["action_mask"].to(device))
        memory = iter([found[f"memory.{i}"].to(device) for i in range(len(tensors_of(self.state)))])
        self.state = map_state(lambda _: next(memory), self.state)

    def _step(self, t: int) -> tuple[Distribution, Tensor, Tensor]:
        """Step t: act and record the environments' answer; returns the policy's outputs, for `_write`.

        Nothing here waits for a GPU, so the CPU runs ahead of it for the whole rollout.
        """
        policy, now = self.policy, self.now
        for name, leaf in self.observation.items():
            self.observed[name][t] = leaf
        self.buffer["start"][t] = now.start
        if now.action_mask is not None:
            self.buffer["action_mask"][t] = now.action_mask
        out = policy.step(self.observation, self.state, now.start, now.action_mask)
        action = out.distribution.sample(self.generator)
        self.state = out.state
        self.now = step = self.vector.step(policy.action_head.to_env(action))
        self.observation = policy.with_previous(step.observation, action, step.reward)
        for name in ("reward", "terminated", "truncated", "filler"):
            self.buffer[name][t] = getattr(step, name)
        if step.final_observation is not None and self.vector.truncates:
            self._note_final(t, step, action)
        self.num_steps += 1
        self.statistics.add(step)
        return out.distribution, action, out.value

    def _write(self, acted: list[tuple[Distribution, Tensor, Tensor]]) -> None:
        """Record the policy's outputs of all steps at once."""
        distributions, actions, values = zip(*acted, strict=True)
        self.buffer["action"].copy_(torch.stack(actions))
        self.buffer["value"].copy_(torch.stack(values))
        whole = type(distributions[0]).stack(distributions)
        self.buffer["log_prob"].copy_(whole.log_prob(self.buffer["action"]))

    def has_filler(self, rollout: Rollout) -> tuple[bool, bool]:
        """Whether there are filler rows, here and on any rank; it asks only where there may be."""
        if not self.vector.fills:
            return False, False
        here = bool(rollout.batch["filler"].any())
        return here, self.ranks.any(here)

    def state_dict(self) -> dict[str, Tensor]:
        """Statistics and counter and, for an environment with a state, that state, its observation and the memory.

        Rows of all ranks."""
        saved = {f"statistics.{name}": x for name, x in self.statistics.state_dict(self.ranks).items()}
        saved["num_steps"] = torch.tensor(self.num_steps)
        if not hasattr(self.vector.env, "get_state"):
            return saved
        return saved | {name: self.ranks.gather(x).clone() for name, x in self._situation().items()}

    def load_state_dict(self, saved: dict[str, Tensor], *, seed: int | None = None) -> bool:
        """Continue from `state_dict`.

        Args:
            saved: of a collector with the same environments and policy, on any number of ranks.
            seed: of the new episodes, if the environment's state was not saved.

        Returns:
            whether environment and memory were restored exactly.
        """
        self.statistics.load_state_dict(section(saved, "statistics"), self.ranks)
        self.num_steps = int(saved["num_steps"])
        if "start" not in saved:
            self.reset(seed)
            return False
        rows = {name: x for name, x in saved.items() if name != "num_steps" and not name.startswith("statistics.")}
        self._enter({name: self.ranks.part(x) for name, x in rows.items()})
        return True

    def _note_final(self, t: int, step: Step, action: Tensor) -> None:
        """final_value[t] of truncated rows: the value of the state reached, with the agent's memory at that time.

        Where it is not known here which rows these are, everything that the value needs is kept: the memory of every
        step stays alive until the end of the rollout, but is not copied.
        """
        final = step.final_observation or {}
        if not self.asks:
            self.reached.append(Reached(t, self.policy.with_previous(final, action, step.reward), self.state))
            return
        rows = step.truncated.nonzero().squeeze(-1)
        if len(rows) == 0:
            return
        final = {name: leaf[rows] for name, leaf in final.items()}
        final = self.policy.with_previous(final, action[rows], step.reward[rows])
        state = map_state(lambda x: x[rows], self.state)
        value = self.policy.step(final, state, torch.zeros_like(rows, dtype=torch.bool)).value
        self.final_value[t, rows] = value

    def _next_value(self) -> None:
        """next_value[t] = value[t+1] inside an episode, final_value[t] where it was truncated.

        One pass of the policy, over the last observations and all states reached that are still without a value.
        """
        buffer, next_value, rows = self.buffer, self.buffer["next_value"], self.vector.num_envs
        next_value[:-1] = buffer["value"][1:]
        chosen = choose_truncated(self.reached, buffer["truncated"])
        if chosen is None:
            last = self.policy.step(self.observation, self.state, self.now.start, self.now.action_mask).value
        else:
            place, final, state = chosen
            observation = {name: torch.cat([x, final[name]]) for name, x in self.observation.items()}
            start = torch.cat([self.now.start, torch.zeros_like(place, dtype=torch.bool)])
            value = self.policy.step(observation, cat_states([self.state, state]), start).value
            last = value[:rows]
            self.final_value.view(-1)[place] = value[rows:].to(self.final_value.dtype)
        next_value[-1] = last
        self.reached = []
        torch.where(buffer["truncated"], self.final_value, next_value, out=next_value)

    def _allocate(self) -> None:
        """Zeroed [T, B] storage for one rollout, in the shapes of the env's and the policy's outputs."""
        lead = (self.horizon, self.vector.num_envs)
        device = self.now.reward.device

        def zeros(shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros((*lead, *shape), dtype=dtype, device=device)

        head = self.policy.action_head
        self.observed = {name: zeros(x.shape[1:], x.dtype) for name, x in self.observation.items()}
        self.final_value = zeros()
        self.buffer = {"action": zeros(head.event_shape, head.dtype)}
        for name in ("log_prob", "value", "next_value", "reward"):
            self.buffer[name] = zeros()
        for name in ("start", "terminated", "truncated", "filler"):
            self.buffer[name] = zeros(dtype=torch.bool)
        if self.now.action_mask is not None:
            self.buffer["action_mask"] = zeros(self.now.action_mask.shape[1:], torch.bool)


def check_finite(batch: "TensorDict", *, first_step: int, first_row: int = 0) -> None:
    """Raise a FloatingPointError that names the first tensor, step and environment that is NaN or infinite.

    Args:
        batch: [T, B] tensors, nested or not.
        first_step: number of the batch's step 0, counted since training began.
        first_row: number of the batch's first environment.
    """
    floats = {name: x for name, x in batch.flatten_keys(".").items() if x.is_floating_point()}
    fine = torch.stack([torch.isfinite(x).all() for x in floats.values()]).tolist()  # one transfer
    for (name, x), is_fine in zip(floats.items(), fine, strict=True):
        if is_fine:
            continue
        bad = (~torch.isfinite(x)).reshape(*x.shape[:2], -1).any(-1)
        t, row = (int(i) for i in bad.nonzero()[0])
        where = f"at step {first_step + t} of environment {first_row + row}"
        raise FloatingPointError(f"{name}: expected finite numbers, got {x[t, row].tolist()} {where}")
