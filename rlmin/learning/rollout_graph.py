"""A whole rollout as one CUDA graph: policy, environment and records of T steps, launched at once.

A graph replays fixed work on fixed addresses. So a rollout becomes a function of tensors with fixed addresses:

    body      carry(held)                  the collector reads these tensors,
              play()                       takes its T steps, to new tensors,
              held <- collect_carry()      and its carry is copied back into the same ones
    run       held <- collect_carry()      after a reset, a loaded checkpoint or an ordinary rollout
              replay of body
              carry(held)

Every random draw inside comes from a generator that is registered with the graph, so each replay continues the random
numbers, and gives the same result as the ordinary loop.
The first rollout, and the first after weights have moved to other addresses, is an ordinary one and warms up. The next
one is captured, which runs nothing, and replayed.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlmin.envs.tensor_env import TensorEnv
from rlmin.learning.reached import Reached
from rlmin.policy import Policy
from rlmin.types import Step
from rlmin.vector import Vector
from rlmin.vector.episodes import EpisodeStatistics
from rlmin.vector.gym import GymVector
from rlmin.wrappers.host import VectorWrapped

VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])


class Player(Protocol):
    """A player of rollouts: `rlmin.learning.rollout.Collector`."""

    vector: Vector
    policy: Policy
    statistics: EpisodeStatistics
    now: Step
    reached: list[Reached]
    num_steps: int

    def play(self) -> bool: ...
    def collect_carry(self) -> dict[str, Tensor]: ...
    def carry(self, tensors: dict[str, Tensor]) -> None: ...


class Recorder(Protocol):
    """Records a function's device work."""

    def warm_up(self, function: Callable[[], Any]) -> None:
        """Run `function` once in the same way as for the recording."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Call `function` without effect; returns a function that does its work, any number of times.

        Raises:
            RuntimeError: the work cannot be recorded. It had no effect, and random numbers are unchanged.
        """


class CUDARecorder:
    """Records device work as a `torch.cuda.CUDAGraph`."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        """`generators`: the only sources of random numbers in the recorded work, on one GPU."""
        self.generators, self.device = generators, generators[0].device
        self.stream: torch.cuda.Stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def warm_up(self, function: Callable[[], Any]) -> None:
        """On a side stream, since libraries set up resources for each stream, which a capture forbids."""
        present = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(present)
        with torch.cuda.stream(self.stream):
            function()
        present.wait_stream(self.stream)

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """See `Recorder.record`."""
        device = self.device
        present = torch.cuda.current_stream(device)
        default = torch.cuda.default_generators[present.device_index]  # every capture includes it
        spares = [(source, source.clone_state()) for source in (*self.generators, default)]
        graph = torch.cuda.CUDAGraph()
        if VERSION < (2, 14):  # later versions register a generator on use, and warn of this call
            for generator in self.generators:
                graph.register_generator_state(generator)
        try:
            # after a failed capture, torch.cuda.graph leaves its stream current: the outer `stream` undoes that
            with torch.cuda.device(device), torch.cuda.stream(present), torch.cuda.graph(graph, stream=self.stream):
                function()
        except BaseException:
            for source, spare in spares:  # a failed capture can leave its generators unusable
                source.graphsafe_set_state(spare)
            raise
        replay: Callable[[], None] = graph.replay
        return replay


class RolloutGraph:
    """Plays the rollouts of a collector, from the second on as replays of a recording.

    Attributes:
        held: the tensors passed from one rollout to the next, by name; empty before the recording.
        failed: whether recording was tried and is impossible; rollouts are then ordinary ones.
    """

    def __init__(self, player: Player, recorder: Recorder, *, horizon: int) -> None:
        """`player`: the collector; `horizon`: T, steps that its `play` takes."""
        self.player, self.recorder, self.horizon = player, recorder, horizon
        self.held: dict[str, Tensor] = {}
        self.failed = False
        self._replay: Callable[[], None] | None = None
        self._key: tuple[Any, ...] | None = None  # key of a valid recording

    def run(self) -> None:
        """Play one rollout into the collector's buffers."""
        self.player.statistics.settle()  # leftovers of a stopped rollout
        if not self.failed and not self._ready():
            self.recorder.warm_up(self.player.play)
            return
        if not self.failed and self._replay is None:
            self._record()
        if self._replay is None:
            self.player.play()
            return
        self._hold()
        self._replay()
        self.player.vector._steps += self.horizon
        self.player.num_steps += self.horizon
        self.player.now, self.player.statistics.pending = self._last, list(self._pending)
        self.player.reached = self._reached
        self.player.carry(self.held)

    def _ready(self) -> bool:
        """Whether an earlier rollout used weights at these addresses, at this precision."""
        policy = self.player.policy
        device = self.player.now.reward.device.type
        weights = tuple(x.data_ptr() for part in (policy.parameters(), policy.buffers()) for x in part)
        key = (weights, torch.is_autocast_enabled(device))
        if key == self._key:
            return True
        self._key, self._replay, self.held = key, None, {}
        return False

    def _record(self) -> None:
        """Record one rollout without changing the collector. If that is impossible, a warning says why."""
        player = self.player
        now, steps, vector_steps = player.now, player.num_steps, player.vector._steps
        self.held = {name: x.clone() for name, x in player.collect_carry().items()}
        try:
            self._replay = self.recorder.record(self._body)
            self._last, self._pending, self._reached = player.now, player.statistics.pending, player.reached
        except RuntimeError as error:
            self.failed = True
            warnings.warn(
                f"rollouts run step by step, not as one CUDA graph: {find_cause(error)}; cuda_graph=False avoids this",
                RuntimeWarning,
                stacklevel=4,
            )
        finally:
            player.num_steps, player.vector._steps = steps, vector_steps  # these steps were recorded, not taken
            player.now, player.statistics.pending, player.reached = now, [], []
            player.carry(self.held)
            torch.clear_autocast_cache()  # casts of weights that were recorded never ran, so they hold anything

    def _body(self) -> None:
        self.player.carry(self.held)
        self.player.play()
        self._hold()

    def _hold(self) -> None:
        """Copy the carry into the fixed tensors."""
        carried = {name: x.clone() for name, x in self.player.collect_carry().items()}  # they may share memory
        for name, x in carried.items():
            kept = self.held.get(name)
            if kept is None or kept.shape != x.shape or kept.dtype != x.dtype:
                was = "nothing" if kept is None else f"{list(kept.shape)} {kept.dtype}"
                raise RuntimeError(f"{name!r} was {was} before and is {list(x.shape)} {x.dtype} after a rollout")
            kept.copy_(x)


def obstacle(vector: Vector, policy: Policy) -> str | None:
    """The reason why rollouts of `policy` in `vector` cannot be a CUDA graph; None if none is known."""
    if vector.device.type != "cuda":
        return f"a CUDA graph needs a CUDA device, not {vector.device.type}"
    env = vector.env
    while isinstance(env, VectorWrapped):  # they compute on the environment's device, without waiting
        env = env.env
    if not isinstance(vector, GymVector) or not isinstance(env, TensorEnv):
        return f"{vector.env} is not a native environment"
    if env.device.type != "cuda":
        return f"the environment is on {env.device}"
    if _is_compiled(policy):
        return "the policy goes through torch.compile, which has graphs of its own"
    return None


def _is_compiled(policy: nn.Module) -> bool:
    """Whether acting uses torch.compile, in whole or in part."""
    if hasattr(getattr(policy, "step", None), "_torchdynamo_orig_callable"):
        return True
    return any(hasattr(part, "_orig_mod") or part._compiled_call_impl is not None for part in policy.modules())


def find_cause(error: BaseException) -> str:
    """The first error: the end of a failed capture raises another one."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
