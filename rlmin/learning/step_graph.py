"""All gradient steps of an update as one CUDA graph.

A graph replays fixed work on fixed addresses. So the steps become a function of named tensors: the rollout with its
advantages, the memory at its start, the rows of every minibatch, and the settings that change from update to update.
Before a replay they are copied to where the recorded work reads them; weights and moments stay where they are.

The first update, and the first after weights, moments or shapes have moved or changed, is an ordinary one and warms
up. The next one is recorded, which runs nothing, and replayed.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from rlmin.learning.rollout_graph import Recorder, find_cause

Tensors = dict[str, Tensor]


class StepGraph:
    """Takes the steps of an update, from the second on as replays of a recording.

    Attributes:
        failed: whether recording was tried and is impossible; updates are then ordinary ones.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.failed = recorder, False
        self._held: Tensors = {}
        self._key: tuple[Any, ...] | None = None  # key of a valid recording
        self._replay: Callable[[], None] | None = None
        self._found: Tensor | None = None

    def run(
        self,
        take: Callable[[Tensors], Tensor],
        given: Tensors,
        *,
        fixed: Callable[[], Iterable[Tensor]],
        also: Any = None,
    ) -> Tensor:
        """What `take(given)` returns; overwritten by the next call.

        Args:
            take: all steps, as a function of tensors; it may change none of them. Beside them it reads and writes only
                the tensors `fixed`.
            given: its tensors, by name.
            fixed: gives weights and moments; where one has moved, the recording is no longer valid.
            also: whatever else the recording depends on.
        """
        if self.failed:
            return take(given)
        if _key_of(given, fixed(), also) != self._key:
            self._replay, self._held, self._found, found = None, {}, None, list[Tensor]()
            self.recorder.warm_up(lambda: found.append(take(given)))
            self._key = _key_of(given, fixed(), also)  # the first step makes the moments
            return found[0]
        if self._replay is None:
            self._record(take, given)
        if self._replay is None or self._found is None:
            return take(given)
        for name, x in given.items():
            self._held[name].copy_(x)
        self._replay()
        return self._found

    def _record(self, take: Callable[[Tensors], Tensor], given: Tensors) -> None:
        """Record the steps without taking them. If that is impossible, a warning says why."""
        self._held = {name: x.clone() for name, x in given.items()}

        def body() -> None:
            self._found = take(self._held)

        try:
            self._replay = self.recorder.record(body)
        except RuntimeError as error:
            self.failed = True
            warnings.warn(
                f"gradient steps run one by one, not as one CUDA graph: {find_cause(error)}; cuda_graph=False avoids "
                "this",
                RuntimeWarning,
                stacklevel=4,
            )
        finally:
            torch.clear_autocast_cache()  # casts of weights that were recorded never ran, so they hold anything


def _key_of(given: Tensors, fixed: Iterable[Tensor], also: Any) -> tuple[Any, ...]:
    """What a recording is valid for."""
    shapes = tuple((name, x.shape, x.dtype) for name, x in given.items())
    return shapes, tuple(x.data_ptr() for x in fixed), also
