"""Policy: inputs -> encoder -> heads. One set of weights, two ways to run it with the same numbers.

    unroll   [T, B, ...]  a whole rollout or batch of sequences at once: training
    step     [B, ...]     one step: acting

Previous action and previous reward, where switched on, are ordinary leaves of the observation (see
rlmin.policy.inputs); whoever runs the policy puts them there with `with_previous`.
"""

import math
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rlmin.checks import check, check_flags
from rlmin.distributed import ALONE, Ranks
from rlmin.encoders import Stack
from rlmin.encoders.base import parts
from rlmin.policy.config import EncoderName as EncoderName
from rlmin.policy.config import PolicyConfig as PolicyConfig
from rlmin.policy.heads import Distribution, ValueHead, action_head
from rlmin.policy.inputs import PREVIOUS_ACTION, PREVIOUS_REWARD, Inputs
from rlmin.policy.privileged import make_acting_space
from rlmin.policy.readings import read_as
from rlmin.policy.step import PolicyStep
from rlmin.policy.tokens import TokenInputs, TokenTrunk
from rlmin.policy.trunk import Trunk as Trunk
from rlmin.settings import CountOrZero
from rlmin.settings.boundary import checked
from rlmin.settings.sb3_answers import OF_POLICY, missing
from rlmin.spaces import leaf_spaces
from rlmin.types import Observation, State

if TYPE_CHECKING:
    from rlmin.policy.actor import Actor, EnvActor


class PolicyOutput(NamedTuple):
    """What the policy says about each step."""

    distribution: Distribution  # of the action
    value: Tensor  # [B] or [T, B] float32; NaN where a privileged leaf that it reads was not given
    state: State  # memory after the (last) step


class Policy(nn.Module):
    """A policy that remembers.

    Args:
        observation_space: Box (flat, picture), Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these.
        action_space: Discrete, MultiDiscrete, MultiBinary or Box.
        config: sizes and switches.

    Attributes:
        acting_space: the observation space without its privileged entries, which only the value reads.

    Raises:
        ValueError: a space is not supported, or lacks a privileged entry.
    """

    @checked
    def __init__(
        self, observation_space: gym.Space[object], action_space: gym.Space[object], config: PolicyConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or PolicyConfig()
        self.observation_space, self.action_space = observation_space, action_space
        named = {name: getattr(config, name) for name in ("pictures", "symbols", "numbers")}
        self.readings = read_as(leaf_spaces(observation_space), **named)
        self.acting_space = make_acting_space(observation_space, config.privileged)
        self._privileged = set(leaf_spaces(observation_space)) - set(leaf_spaces(self.acting_space))
        self.action_head = action_head(action_space, config.width, log_std=config.log_std, squash=config.squash)
        self.value_head = ValueHead(config.width)
        shared = config.share_memory and not config.privileged
        self.trunks = nn.ModuleList(map(self._trunk, [self.acting_space, *([] if shared else [observation_space])]))
        self._in_one_call = PolicyStep()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise AttributeError(missing("Policy", name, OF_POLICY, ())) from None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @checked
    def initial_state(self, rows: CountOrZero) -> State:
        """Memory of `rows` agents that have seen nothing: a tuple, one part a trunk, of tensors [rows, ...]."""
        return tuple(trunk.encoder.initial_state(rows) for trunk in self._each_trunk())

    @checked
    def unroll(
        self, observation: Observation, state: State, start: Tensor, action_mask: Tensor | None = None
    ) -> PolicyOutput:
        """Run over whole sequences.

        Args:
            observation: leaves [T, B, ...].
            state: [B, ...] memory before step 0.
            start: [T, B] bool, observation[t] opens an episode: memory is wiped before it is read.
            action_mask: [T, B, A] bool, True is legal; None: everything is.

        Returns:
            distribution and value of every step, and the memory after the last. Gradients flow through time, within
            episodes, and into `state`.
        """
        size = check("start", start, "T B")
        check_flags("start", start)
        if not observation:
            raise ValueError("observation: expected a dict of leaves, got an empty one")
        for name, leaf in observation.items():
            check(f"observation {name!r}", leaf, "T B ...", **size)
        return self._run(observation, parts(state, len(self.trunks)), start, action_mask, step=False)

    def step(
        self, observation: Observation, state: State, start: Tensor, action_mask: Tensor | None = None
    ) -> PolicyOutput:
        """Run one step: as `unroll`, without the axis T."""
        done = self._in_one_call(self, observation, state, start, action_mask)
        return self._run(observation, state, start, action_mask, step=True) if done is None else PolicyOutput(*done)

    def with_previous(self, observation: Observation, action: Tensor, reward: Tensor) -> Observation:
        """`observation` with the switched leaves added.

        Args:
            observation: leaves [B, ...] from the environment.
            action: [B, ...] the action just taken, in rlmin's form (see rlmin.policy.heads).
            reward: [B] float, the reward just received, env units.

        Returns:
            a new dict, or `observation` itself where no switch is on.
        """
        extra: Observation = {}
        if self.config.previous_action:
            extra[PREVIOUS_ACTION] = action
        if self.config.previous_reward:
            extra[PREVIOUS_REWARD] = reward
        return {**observation, **extra} if extra else observation

    def actor(self, env: Any = None, **options: Any) -> "Actor | EnvActor":
        """The old name of `rlmin.policy.actor.make_actor(policy, env)`; it goes with the next release."""
        from rlmin.policy.actor import make_actor

        message = "Policy.actor(...) is now rlmin.policy.actor.make_actor(policy, ...)"
        warnings.warn(f"{message}; the old name goes with the next release", DeprecationWarning, stacklevel=2)
        act: Actor | EnvActor = make_actor(self, env, **options)
        return act

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        **more: Any,
    ) -> tuple[np.ndarray, Any]:
        """Choose actions: see `rlmin.policy.predict.predict`; the signature is that of stable-baselines3."""
        from rlmin.policy.predict import predict

        return predict(self, observation, state, episode_start, deterministic, **more)

    def set_training_mode(self, mode: bool) -> None:
        """As `train(mode)`; the name is stable-baselines3's."""
        self.train(mode)

    def input_lines(self) -> list[str]:
        """A line for each leaf: its name and shape, how it is read, and with how many weights."""
        mark = dict.fromkeys(self._privileged, ", by the value alone")
        lines = self.readings.items()
        return [f"{reading}{mark.get(name, '')}, {self._weights(name):,} weights" for name, reading in lines]

    def _weights(self, leaf: str) -> int:
        """How many weights embed a leaf, in all trunks."""
        every = [inputs for trunk in self.trunks for inputs in trunk.modules() if isinstance(inputs, Inputs)]
        found = [inputs.embed[inputs.names.index(leaf)] for inputs in every if leaf in inputs.names]
        return sum(x.numel() for module in found for x in module.parameters())

    @checked
    def no_action(self, rows: CountOrZero) -> Tensor:
        """[rows, ...] zeros in the form of an action: what stands for "none" before the first step."""
        device = self.device
        return torch.zeros((rows, *self.action_head.event_shape), dtype=self.action_head.dtype, device=device)

    def update_normalizer(self, observation: Observation, keep: Tensor | None, ranks: Ranks = ALONE) -> None:
        """Merge all ranks' rollouts ([T, B, ...] leaves; where `keep`, or all) into the observation statistics."""
        for trunk in self._each_trunk():
            trunk.inputs.update_normalizer(observation, keep, ranks)

    def _run(
        self, observation: Observation, state: State, start: Tensor, action_mask: Tensor | None, *, step: bool
    ) -> PolicyOutput:
        parts, trunks = cast(tuple[State, ...], state), self._each_trunk()
        blind = not self._privileged <= observation.keys()  # acting without what only the critic reads
        ran = [
            (trunk.step if step else trunk)(observation, part, start)
            for trunk, part in zip(trunks[:1] if blind else trunks, parts, strict=not blind)
        ]
        actor, critic = ran[0][0], ran[-1][0]  # one and the same where the memory is shared
        value = torch.full(start.shape, math.nan, device=start.device) if blind else self.value_head(critic)
        after = (*(after for _, after in ran), *parts[len(ran) :])
        return PolicyOutput(self.action_head(actor, action_mask), value, after)

    def _trunk(self, observation_space: gym.Space[object]) -> Trunk | TokenTrunk:
        c = self.config
        inputs = (Inputs if c.tokens == "fused" else TokenInputs)(
            observation_space,
            c.width,
            action_space=self.action_space,
            previous_action=c.previous_action,
            previous_reward=c.previous_reward,
            normalize=c.normalize_observation,
            readings=self.readings,
        )
        sizes = {name: getattr(c, name) for name in ("layers", "conv", "mlp", "dropout")}
        stack = Stack(c.width, c.width, mixer=c.encoder, **sizes, **c.cell_options)
        return Trunk(inputs, stack) if isinstance(inputs, Inputs) else TokenTrunk(inputs, stack)

    def _each_trunk(self) -> list[Trunk | TokenTrunk]:
        return [cast(Trunk | TokenTrunk, trunk) for trunk in self.trunks]
