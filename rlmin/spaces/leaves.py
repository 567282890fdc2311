"""Observation spaces as a flat dict of leaves, and raw batched observations as the tensors of those leaves.

A Dict or Tuple space is flattened to dotted names ("image", "sensors.left", "0"); a space that is one leaf is called
"observation". A leaf becomes a tensor [B, *shape] of the smallest type its reader needs:

    Box float      float32                      Discrete, MultiDiscrete   int64 in 0..n-1 (the space's start removed)
    Box uint8      uint8 (images stay small)    MultiBinary               int8
    Box other int  int64                        Box bool                  uint8

A value outside its Discrete, MultiDiscrete or MultiBinary space is an error (not checked for tensors on a GPU); the
bounds of a Box are not checked, since many environments overstep them.

Text, and MiniGrid's MissionSpace, give no leaf: the instruction is a constant in the memory levels, and language is
not an input of these policies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.types import Observation

SINGLE = "observation"
"""Name of the leaf of a space with a single leaf."""

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these (Text is left out)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One leaf of an observation space: its place and its tensor."""

    name: str
    path: tuple[str | int, ...]  # keys from the root of a raw observation
    space: gym.Space[Any]
    shape: tuple[int, ...]  # of one environment
    declared: np.dtype[Any]  # as declared by the env
    dtype: torch.dtype  # of the tensor
    start: Tensor | None  # int64, subtracted; None if it is zero everywhere
    bounds: tuple[Any, Any] | None  # arrays or numbers: smallest and largest value of a choice; None for a Box


def leaf_spaces(space: gym.Space[Any]) -> dict[str, gym.Space[Any]]:
    """The leaves of `space` by dotted name, in the order of their tensors.

    Args:
        space: the observation space of a single environment.

    Returns:
        name -> leaf space, without text.

    Raises:
        ValueError: a part is not supported, nothing is left, or two leaves have the same dotted name.
    """
    return {leaf.name: leaf.space for leaf in leaves_of(space)}


def leaves_of(space: gym.Space[Any]) -> tuple[Leaf, ...]:
    """The `Leaf` records of `space`, see `leaf_spaces`; an adapter computes them once."""
    leaves = tuple(_walk(space, ()))
    names = [leaf.name for leaf in leaves]
    if not leaves:
        raise ValueError(f"observation space {space} has no leaf a policy can read; supported: {SUPPORTED}")
    if all(0 in (leaf.space.shape or ()) for leaf in leaves):
        raise ValueError(f"observation space {space} holds no number; an agent that sees nothing needs a constant one")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"observation space has two leaves called {sorted(twice)}: rename a key that contains a dot")
    return leaves


def without(space: gym.Space[Any], key: str) -> gym.Space[Any]:
    """`space` without the entry `key` of a Dict; any other space unchanged."""
    if not isinstance(space, spaces.Dict) or key not in space.spaces:
        return space
    return spaces.Dict({name: part for name, part in space.spaces.items() if name != key})


def pick(raw: Any, path: tuple[str | int, ...]) -> Any:
    """The part of a raw observation that `path` leads to."""
    for key in path:
        raw = raw[key]
    return raw


def require_leaf(raw: Any, leaf: Leaf, where: str) -> Any:
    """The part of a raw observation for `leaf`; `where` ends the message of the ValueError if it is missing."""
    try:
        return pick(raw, leaf.path)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"observation {leaf.name!r} is declared by the space but missing{where}") from error


def to_observation(raw: Any, space: gym.Space[Any], device: torch.device | str = "cpu") -> Observation:
    """Tensors of a batched observation from an env or from a caller of `predict`.

    Args:
        raw: dict, tuple, array, tensor or nested lists that follow `space`, every leaf [B, *shape].
        space: the space of a single environment.
        device: of the tensors.

    Returns:
        leaf name -> tensor [B, *shape]; arrays are copied, tensors only if they change.

    Raises:
        ValueError: a leaf is missing, has another shape or type than declared or lies outside its space, or the leaves
            differ in B.
    """
    observation = {}
    batch: int | None = None
    for leaf in leaves_of(space):
        try:
            value = pick(raw, leaf.path)
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"observation {leaf.name!r} is missing: {type(raw).__name__} given for {space}") from error
        value = value if isinstance(value, Tensor | np.ndarray) else _array(value, leaf)
        batch = int(value.shape[0]) if batch is None and value.ndim else batch
        observation[leaf.name] = leaf_tensor(value, leaf, -1 if batch is None else batch, copy=True).to(device)
    return observation


def _array(value: Any, leaf: Leaf) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(value, dtype=leaf.declared)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"observation {leaf.name!r}: expected numbers, got {value!r:.60}") from error


def leaf_tensor(
    value: Any, leaf: Leaf, batch: int, *, copy: bool, where: str = "", rows: Sequence[int] | None = None
) -> Tensor:
    """The tensor of one leaf, checked against its declaration.

    Args:
        value: array or tensor [B, *shape].
        batch: B, as expected.
        copy: whether the array may be overwritten later, so that its memory must not be shared.
        where: end of the error message, for instance " at step 3".
        rows: [B] numbers of the environments; None: the first B.

    Raises:
        ValueError: another shape, a type that does not convert without losing its kind (float64 to float32 does), or a
            choice that does not exist.
    """
    native = isinstance(value, Tensor)
    if not native and not isinstance(value, np.ndarray):
        value = np.asarray(value)
    wanted = (batch, *leaf.shape)
    if tuple(value.shape) != wanted or not (_fits(value, leaf) if native else _casts(value.dtype, leaf.declared)):
        shape = ", ".join([f"B={batch}" if batch >= 0 else "B", *map(str, leaf.shape)])
        source = f" from environment {rows[0]}" if rows is not None and len(rows) == 1 else ""
        raise ValueError(
            f"observation {leaf.name!r}: the space declares [{shape}] {leaf.declared}, "
            f"got {list(value.shape)} {value.dtype}{source}{where}"
        )
    if leaf.bounds is not None and not (native and value.device.type != "cpu"):
        _check_range(value.numpy() if native else value, leaf, leaf.bounds, where, rows)
    tensor = value if native else _from_numpy(value, leaf, copy=copy)
    tensor = tensor if tensor.dtype == leaf.dtype else tensor.to(leaf.dtype)
    return tensor if leaf.start is None else tensor - leaf.start.to(tensor.device)


def _check_range(
    value: np.ndarray[Any, Any], leaf: Leaf, bounds: tuple[Any, Any], where: str, rows: Sequence[int] | None
) -> None:
    low, high = bounds
    inside = (value >= low) & (value <= high)
    if inside.all():
        return
    row, *entry = (int(i) for i in np.argwhere(~inside)[0])
    least, largest = (np.broadcast_to(bound, leaf.shape)[tuple(entry)] for bound in bounds)
    name = f"observation {leaf.name!r}" + (f", entry {entry[0] if len(entry) == 1 else entry}" if entry else "")
    found, source = value[(row, *entry)], row if rows is None else rows[row]
    raise ValueError(f"{name}: expected {least}..{largest}, got {found} from environment {source}{where}")


def _from_numpy(value: np.ndarray[Any, Any], leaf: Leaf, *, copy: bool) -> Tensor:
    numpy_type = NUMPY_TYPE[leaf.dtype]
    if copy or value.dtype != numpy_type or not value.flags.c_contiguous or not value.flags.writeable:
        value = np.array(value, dtype=numpy_type, order="C")
    return torch.from_numpy(value)


NUMPY_TYPE = {torch.float32: np.float32, torch.int64: np.int64, torch.uint8: np.uint8, torch.int8: np.int8}


def _casts(found: np.dtype[Any], declared: np.dtype[Any]) -> bool:
    if found == declared or found.kind == "b":
        return True
    if declared == np.uint8:  # other integers may lie outside 0..255 and would wrap
        return False
    whole = found.kind in "iu" and declared.kind in "iu"
    return whole or bool(np.can_cast(found, declared, "same_kind"))


def _fits(value: Tensor, leaf: Leaf) -> bool:
    if value.dtype == leaf.dtype:
        return True
    if value.is_complex():
        return False
    return leaf.dtype == torch.float32 or (not value.is_floating_point() and leaf.dtype != torch.uint8)


def _walk(space: gym.Space[Any], path: tuple[str | int, ...]) -> Iterator[Leaf]:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _walk(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _walk(part, (*path, index))
    elif not _is_text(space):
        yield _leaf(space, path)


def _is_text(space: gym.Space[Any]) -> bool:
    # by type of value, not by class: MiniGrid's MissionSpace is not a gymnasium.spaces.Text
    return isinstance(space, spaces.Text) or (space.dtype is not None and space.dtype.kind == "U")


def _leaf(space: gym.Space[Any], path: tuple[str | int, ...]) -> Leaf:
    name = ".".join(map(str, path)) or SINGLE
    dtype = _tensor_type(space)
    if dtype is None or space.shape is None or space.dtype is None:
        kind = f"{type(space).__name__}" + (f" of {space.dtype}" if isinstance(space, spaces.Box) else "")
        raise ValueError(f"observation {name!r} is a {kind} space ({space}), which is not supported; use {SUPPORTED}")
    start = None
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start):
        start = torch.as_tensor(np.asarray(space.start, dtype=np.int64))
    return Leaf(
        name=name,
        path=path,
        space=space,
        shape=tuple(space.shape),
        declared=space.dtype,
        dtype=dtype,
        start=start,
        bounds=_bounds(space),
    )


def as_read(space: gym.Space[Any]) -> gym.Space[Any]:
    """`space` without the parts that no policy reads: bounds and precision of a Box of floats."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(name, as_read(part)) for name, part in space.spaces.items()])
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([as_read(part) for part in space.spaces])
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return spaces.Box(-np.inf, np.inf, space.shape, np.float32)
    return space


def _bounds(space: gym.Space[Any]) -> tuple[Any, Any] | None:
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start + space.n - 1)
    if isinstance(space, spaces.MultiDiscrete):
        start = np.asarray(space.start, dtype=np.int64)
        return start, start + np.asarray(space.nvec, dtype=np.int64) - 1
    return None


def _tensor_type(space: gym.Space[Any]) -> torch.dtype | None:
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return torch.int64
    if isinstance(space, spaces.MultiBinary):
        return torch.int8
    if not isinstance(space, spaces.Box) or space.dtype is None:
        return None
    if space.dtype == np.uint8 or space.dtype.kind == "b":
        return torch.uint8
    return {"f": torch.float32, "i": torch.int64, "u": torch.int64}.get(space.dtype.kind)
