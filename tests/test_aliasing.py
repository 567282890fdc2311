"""The caller's memory: nothing that is handed in is written to, also where a copy would be a view (one row, one step).

`start.t().contiguous()` copies [T, B] flags, except where B is 1: then it is `start` itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlmin import Policy, PolicyConfig
from rlmin.bench import peers
from rlmin.data import Episode, load_dataset
from rlmin.encoders import MIXERS, CausalConv, Encoder, Stack
from rlmin.learning.returns import discounted_return, gae, return_to_go
from rlmin.policy.predict import predict
from rlmin.scan import linear_scan, min_gru_scan, min_lstm_scan
from rlmin.types import State, tensors_of

SIZES = [(1, 1), (1, 3), (4, 1), (4, 3)]
D = 8


@contextmanager
def untouched(*given: Any) -> Iterator[None]:
    """What is inside leaves tensors and arrays as they were."""
    before = [x.detach().clone() if isinstance(x, Tensor) else x.copy() for x in given]
    yield
    for i, (x, was) in enumerate(zip(given, before, strict=True)):
        equal = torch.equal(x, was) if isinstance(x, Tensor) else np.array_equal(x, was)
        assert equal, f"argument {i} {list(x.shape)} was written to"


def flags(T: int, B: int) -> Tensor:
    return torch.zeros(T, B, dtype=torch.bool)


ENCODERS: dict[str, Callable[[], Encoder]] = {
    **{name: (lambda cell=cell: cell(D, D)) for name, cell in MIXERS.items()},  # type: ignore[misc]
    **{f"stack of {name}": (lambda name=name: Stack(D, D, mixer=name)) for name in MIXERS},  # type: ignore[misc]
    "conv": lambda: CausalConv(D),
    "peer plain": lambda: peers.Plain(nn.GRU, D, D),
    "peer split and pad": lambda: peers.SplitAndPad(nn.LSTM, D, D),
    "peer stepped": lambda: peers.Stepped(nn.GRU, D, D),
    "peer attention": lambda: peers.Attention(D, D),
    "peer operators": lambda: peers.OperatorGRU(D, D),
}


def random_state(state: State) -> State:
    if isinstance(state, Tensor):
        return torch.rand_like(state) if state.is_floating_point() else state
    return tuple(map(random_state, state))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_writes_into_nothing_it_is_given(name: str, size: tuple[int, int]) -> None:
    T, B = size
    torch.manual_seed(0)
    encoder = ENCODERS[name]()
    x, start, state = torch.randn(T, B, D, requires_grad=True), flags(T, B), random_state(encoder.initial_state(B))
    with untouched(x, start, *tensors_of(state)):
        y, after = encoder(x, state, start)
        y.sum().backward()  # type: ignore[no-untyped-call]
        if name != "peer attention":  # which cannot act
            for t in range(T):
                encoder.step(x.detach()[t], state, start[t])
        seen = [y.detach().clone(), *(part.detach().clone() for part in tensors_of(after))]
        encoder(x.detach() + 1, random_state(encoder.initial_state(B)), ~start)  # another call
    assert all(map(torch.equal, [y, *tensors_of(after)], seen)), "and not into what it returned"


def test_a_view_taken_for_a_copy_is_found() -> None:
    start = flags(4, 1)
    with pytest.raises(AssertionError, match="argument 0"), untouched(start):
        start.t().contiguous()[:, 0] = True


@pytest.mark.parametrize("size", [(0, 2), *SIZES], ids=str)
def test_a_scan_writes_into_nothing_it_is_given_and_returns_memory_of_its_own(
    kernel: str, size: tuple[int, int]
) -> None:
    T, B = size
    for scan, many in ((linear_scan, 2), (min_gru_scan, 2), (min_lstm_scan, 3)):
        inputs = [torch.rand(T, B, D).requires_grad_() for _ in range(many)]
        state, start = torch.rand(B, D), flags(T, B)
        run: Callable[..., tuple[Tensor, Tensor]] = scan
        with untouched(*inputs, state, start):
            h, last = run(*inputs, state, start)
            if T:
                torch.autograd.grad(h.sum(), inputs)
            h.detach().fill_(7)
            last.detach().fill_(7)


def test_returns_write_into_nothing_they_are_given() -> None:
    for T, B in SIZES:
        rows = [torch.rand(T, B) for _ in range(3)]
        ended, carry = flags(T, B), torch.rand(B)
        with untouched(*rows, ended, carry):
            gae(rows[0], rows[1], rows[2], ended, ended, gamma=0.9, lam=0.9).fill_(7)
            for x in (*discounted_return(rows[0], ended, carry, gamma=0.9), return_to_go(rows[0], ended)):
                x.fill_(7)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_policy_writes_into_nothing_it_is_given(rows: int) -> None:
    space = gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (3,)), "b": gym.spaces.Discrete(3)})
    config = PolicyConfig(width=D, previous_action=True, previous_reward=True, normalize_observation=True)
    policy = Policy(space, gym.spaces.Box(-1, 1, (2,)), config)
    seen = {"a": np.ones((rows, 3), np.float32), "b": np.ones(rows, np.int64)}
    opens, reward = np.zeros(rows, bool), np.ones(rows, np.float32)
    action, state = predict(policy, seen, None, None)
    kept = list(tensors_of(state[0]))
    with untouched(*seen.values(), opens, reward, action, state[1], *kept):
        for _ in range(2):
            predict(policy, seen, state, opens, reward=reward)
            predict(policy, seen, state, ~opens, reward=reward)


def test_logged_data_are_not_written_to_and_do_not_follow_the_callers_arrays() -> None:
    observation, action, reward = np.ones((5, 3), np.float32), np.ones((4, 2), np.float32), np.ones(4, np.float32)
    with untouched(observation, action, reward):
        data = load_dataset([Episode(observation, action, reward, terminated=True)])
        was = {name: torch.as_tensor(data.step[name]).clone() for name in ("reward", "action")}
    reward[:], action[:] = 9, 0
    assert all(torch.equal(torch.as_tensor(data.step[name]), x) for name, x in was.items())
