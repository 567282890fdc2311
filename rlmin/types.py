"""The axes, the index convention, and the few records that cross files.

Axes, time-major, and only these letters anywhere:

    T  time steps             D  input features        A  actions (number of them, or size of one)
    B  environments or rows   H  memory features       K  context length of a decision agent
    N  = T * B, flattened, only inside a loss

Every rollout, batch and sequence is [T, B, ...]; one step is [B, ...]; a recurrent minibatch is x[:, rows].

Index convention: observation[t] is seen, action[t] is taken, then reward[t], terminated[t] and truncated[t]
describe that transition, and next_value[t] is the value of the state it reached, before any auto-reset.
start[t] says that observation[t] opens an episode: memory is wiped before it is read. There is no `done`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from gymnasium.vector import VectorWrapper
from torch import Tensor

if TYPE_CHECKING:
    AnyVectorWrapper: TypeAlias = VectorWrapper[Any, Any, Any, Any, Any]
else:
    AnyVectorWrapper = VectorWrapper  # gymnasium before 1.3 gives it no parameters

Observation: TypeAlias = dict[str, Tensor]
"""An observation is always a dict of its leaves. A Dict or Tuple space is flattened to dotted names ("image",
"sensors.left", "0"); a space that is one leaf has the single name "observation"."""

State: TypeAlias = "Tensor | tuple[State, ...]"
"""The memory of an encoder or policy: a tensor or nested tuples of tensors, each [B, ...]; () remembers nothing."""


def map_state(function: Callable[[Tensor], Tensor], state: State) -> State:
    """Apply `function` to every tensor of `state`, keeping its structure."""
    if isinstance(state, tuple):
        return tuple(map_state(function, part) for part in state)
    return function(state)


def tensors_of(state: State) -> list[Tensor]:
    """The tensors of a state, in the order in which `map_state` meets them."""
    if isinstance(state, tuple):
        return [x for part in state for x in tensors_of(part)]
    return [state]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What B environments answered to one action each, whatever library they come from.

    `reward`, `terminated`, `truncated`, `filler`, `success` and `final_observation` describe the transition just
    made; `observation`, `start` and `action_mask` describe what the agent acts on next.
    """

    observation: Observation  # leaves [B, ...], after any auto-reset
    reward: Tensor  # [B] float32, env units; 0 after reset() and on filler rows
    terminated: Tensor  # [B] bool
    truncated: Tensor  # [B] bool, never together with terminated
    start: Tensor  # [B] bool, `observation` opens an episode
    filler: Tensor  # [B] bool, no transition took place: the env ignored the action and only reset (NEXT_STEP)
    final_observation: Observation | None  # the state reached, valid where an episode ended
    action_mask: Tensor | None  # [B, A] bool, True is legal in `observation`; None: the env declares no mask
    success: Tensor | None  # [B] bool, valid where an episode ended; None: the env does not say


def cat_states(states: list[State]) -> State:
    """Join states of equal structure along their rows: [B, ...] each -> [len(states) * B, ...]."""
    first = states[0]
    if isinstance(first, tuple):
        return tuple(cat_states([state[i] for state in states]) for i in range(len(first)))
    return torch.cat([state for state in states if isinstance(state, Tensor)])
