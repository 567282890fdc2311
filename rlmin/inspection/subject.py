"""Subject: a trained policy, where it plays, and episodes that it has played."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlmin.evaluation.evaluate import Evaluation, share
from rlmin.evaluation.play import Actor, PolicyActor, play, play_episodes
from rlmin.policy import Policy
from rlmin.policy.fit import check_spaces
from rlmin.types import Observation, Step
from rlmin.vector import Vector, adapt
from rlmin.vector.arena import Arena
from rlmin.vector.make import readable_errors
from rlmin.wrappers.return_to_go import VectorReturnToGo

ROWS = 64
"""Environments played at once."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A policy and its environment.

    Attributes:
        horizon: steps of the window it was trained on.
        target: return that a conditioned policy is asked for; None: it is not conditioned.
        return_scale: env units that such a policy sees as 1.
        trained_in: arguments this environment had in training; None: it was trained in another, or in one unknown.
        seed: of the environments.
    """

    policy: Policy
    arena: Arena
    horizon: int
    trained_in: Mapping[str, Any] | None = None
    target: float | None = None
    return_scale: float = 1.0
    seed: int = 10_000

    def vector(self, rows: int, **changes: Any) -> Vector:
        """Environments with other arguments, and with the return to aim for if the policy reads one.

        Raises:
            ValueError: the arguments do not fit, or give another space than the policy's.
        """
        env = replace(self.arena, kwargs={**self.arena.kwargs, **changes})(rows)
        if self.target is not None:
            env = VectorReturnToGo(env, self.target, scale=self.return_scale)
        vector = adapt(env, device=self.arena.device)
        try:
            check_spaces(self.policy, vector)
        except ValueError:
            vector.close()
            raise
        return vector

    def evaluate(self, episodes: int, *, actor: Callable[[int], Actor] | None = None, **changes: Any) -> Evaluation:
        """Play whole episodes, greedily.

        Args:
            episodes: how many.
            actor: number of rows -> who acts; None: the policy.
            changes: other arguments of the environment.
        """
        rows = min(ROWS, episodes)
        vector = self.vector(rows, **changes)
        try:
            with readable_errors(self.arena.id):
                who = (actor or self.actor)(rows)
                played = play_episodes(vector, who, quota=share(episodes, rows), seed=self.seed)
        finally:
            vector.close()
        return Evaluation.of(list(chain.from_iterable(played)))

    def actor(self, rows: int) -> PolicyActor:
        """The policy, which takes the most likely action."""
        return PolicyActor(self.policy, rows)


@dataclass(frozen=True, kw_only=True)
class Played:
    """T steps of B environments, autoresets included; index t is what was seen, done and earned at t."""

    leaves: Observation  # [T, B, ...], previous action and reward among them where the policy reads them
    start: Tensor  # [T, B] bool
    action: Tensor  # [T, B, ...] in rlmin's form
    reward: Tensor  # [T, B]
    action_mask: Tensor | None  # [T, B, A]
    frames: tuple[bytes, ...] = ()  # T pictures of a single row as PNG, where the environment draws them

    def first(self, row: int) -> "Played":
        """The first episode of one row, as far as it was played: [T', 1, ...]."""
        again = self.start[1:, row].nonzero()
        return self.row(row, int(again[0]) + 1 if len(again) else None)

    def row(self, row: int, end: int | None = None) -> "Played":
        """One row up to a step; None: all of it: [T', 1, ...]."""
        cut = slice(None, end), slice(row, row + 1)
        return Played(
            leaves={name: leaf[cut] for name, leaf in self.leaves.items()},
            start=self.start[cut],
            action=self.action[cut],
            reward=self.reward[cut],
            action_mask=None if self.action_mask is None else self.action_mask[cut],
            frames=self.frames[:end],
        )

    def __len__(self) -> int:
        return len(self.start)


def play_and_keep(vector: Vector, actor: PolicyActor, *, steps: int, seed: int, episodes: bool = False) -> Played:
    """Play and keep everything.

    Args:
        vector: B environments; the pictures of a single one with render_mode="rgb_array" are kept.
        actor: the policy, new.
        steps: T, at most.
        seed: of the environments.
        episodes: stop as soon as the first episode of every row is over.
    """
    seen, done, earned, frames = list[Step](), list[Tensor](), list[Tensor](), list[bytes]()
    leaves, over = list[Observation](), torch.zeros(vector.num_envs, dtype=torch.bool)
    for step in play(vector, actor, seed=seed):
        if seen:
            done.append(actor.action)
            earned.append(step.reward)
            over |= (step.terminated | step.truncated).cpu()
        if len(seen) == steps or (episodes and bool(over.all())):
            break
        before = actor.policy.no_action(vector.num_envs) if not seen else actor.action
        leaves.append(actor.policy.with_previous(step.observation, before, step.reward))
        seen.append(step)
        frames.extend(_frame(vector))
    masks = [step.action_mask for step in seen if step.action_mask is not None]
    return Played(
        leaves={name: torch.stack([leaf[name] for leaf in leaves]) for name in leaves[0]},
        start=torch.stack([step.start for step in seen]),
        action=torch.stack(done),
        reward=torch.stack(earned),
        action_mask=torch.stack(masks) if masks else None,
        frames=tuple(frames),
    )


def _frame(vector: Vector) -> list[bytes]:
    """The picture of the single row, as PNG, since a long episode has thousands; empty if none is drawn."""
    if getattr(vector.env, "render_mode", None) != "rgb_array":
        return []
    drawn = vector.env.render()
    return [png(shrink(drawn[0]))] if drawn and isinstance(drawn[0], np.ndarray) else []


def shrink(frame: np.ndarray[Any, Any], most: int = 320) -> np.ndarray[Any, Any]:
    """[h, w, 3] with sides of at most so many pixels, without white margins."""
    from PIL import Image

    inked = np.any(frame < 250, axis=-1)
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    if len(rows):
        frame = frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = Image.fromarray(np.ascontiguousarray(frame))
    image.thumbnail((most, most))
    return np.asarray(image)


def png(frame: np.ndarray[Any, Any]) -> bytes:
    """[h, w, 3] as a PNG, quickly."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).save(file, format="png", compress_level=1)
    return file.getvalue()
