"""Copies of agents by deepcopy, pickle, cloudpickle or a queue between processes: they continue like the original.

A copy has weights, optimizer, random numbers, memory and statistics of its own, and an environment of its own where
that can be copied as it is. Else it makes its environment anew from the id, with new episodes, or asks for one by
`set_env`. A deep copy shares the data of an offline agent; a pickle contains them only if they have no name or place.
The logger stays with the original.
"""

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import cloudpickle

if TYPE_CHECKING:
    from rlmin.agents.agent import Agent

T = TypeVar("T")

OWN = ("__getstate__", "__reduce__", "__reduce_ex__", "__deepcopy__")
"""Methods by which a class defines its own copies. A gymnasium EzPickle makes a new game, for instance."""


def deep_copy(agent: "Agent", memo: dict[int, Any]) -> "Agent":
    """For `copy.deepcopy`."""

    def copy_parts(environment: bool) -> "Agent":
        state, kept = agent.parts(environment=environment), dict(memo)
        if state.get("given") is not None:  # data are only read
            kept[id(state["given"])] = state["given"]
        return build_agent(type(agent), copy.deepcopy(state, kept))

    return try_with_environment(agent, copy_parts)


def reduce_agent(agent: "Agent") -> tuple[Any, ...]:
    """For pickle: bytes, so that a queue between processes cannot share the weights instead of copying them."""

    def pack_parts(environment: bool) -> bytes:
        state = agent.parts(environment=environment) | ({"given": None} if agent.finds_data else {})
        content: bytes = cloudpickle.dumps(state)
        if environment:
            pickle.loads(content)  # some environments fail only here
        return content

    return unpickle, (type(agent), try_with_environment(agent, pack_parts))


def try_with_environment(agent: "Agent", make: Callable[[bool], T]) -> T:
    """The result of `make` with the environment if that can be copied, else without."""
    if can_be_copied(agent):
        with suppress(Exception):  # environments raise errors of any class
            return make(True)
    return make(False)


def unpickle(kind: type["Agent"], content: bytes) -> "Agent":
    """The inverse of `reduce_agent`."""
    return build_agent(kind, pickle.loads(content))


def build_agent(kind: type["Agent"], state: dict[str, Any]) -> "Agent":
    """The agent of these parts."""
    agent = kind.__new__(kind)
    given = state.pop("given", None)
    vars(agent).update(state)
    agent.regain(given)
    return agent


def can_be_copied(agent: "Agent") -> bool:
    """Whether a copy of its environment would continue its episodes, as far as is known."""
    return all(
        not hasattr(env, "processes") and not any(_decides(type(env), name) for name in OWN)
        for env in _layers(getattr(agent, "_vector", None))
    )


def _decides(kind: type, name: str) -> bool:
    return getattr(kind, name, None) is not getattr(object, name, None)


def _layers(env: Any) -> Iterator[Any]:
    """An environment, and those inside it."""
    if env is None:
        return
    yield env
    inside = vars(env) if hasattr(env, "__dict__") else {}
    for name in ("env", "venv"):
        yield from _layers(inside.get(name))
    for one in inside.get("envs", ()):
        yield from _layers(one)
