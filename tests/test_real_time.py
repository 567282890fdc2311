"""Real-time recurrent learning against backpropagation through all of time, in float64, and what it keeps."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from rlmin.encoders import GRU, MinGRU, MinLSTM, Stack
from rlmin.encoders.gated_average import GatedAverage
from rlmin.learning.real_time import add_gradient

T, B, D, H = 40, 3, 4, 5
OPTIONS: list[dict[str, Any]] = [
    {},
    {"candidate": "identity", "signed": True},
    {"forget_floor": 0.5, "candidate": "silu", "output_gate": True},
    {"hard_gate": True, "candidate": "g", "time_scales": None},
]


class Case:
    """A layer with a head that learns too, inputs, episodes and targets."""

    def __init__(self, cls: type[GatedAverage], options: dict[str, Any], *, steps: int = T) -> None:
        torch.manual_seed(0)
        self.layer: Any = cls(D, H, **options).double()
        self.head = nn.Linear(H, 2).double()
        self.x, self.target = torch.randn(steps, B, D).double(), torch.randn(steps, B, 2).double()
        self.state, self.start = torch.randn(B, H).double(), torch.rand(steps, B) < 0.1

    @property
    def weights(self) -> list[nn.Parameter]:
        return [*self.layer.parameters(), *self.head.parameters()]

    def loss(self, t: int, y: Tensor) -> Any:
        return (self.head(y).tanh() - self.target[t]).square().sum()

    def through_time(self, detach_every: int = T) -> list[Tensor]:
        """Gradients by backpropagation, through at most so many steps."""
        state, total = self.state, torch.zeros(()).double()
        for t in range(T):
            if t % detach_every == 0:
                state = state.detach()
            y, state = self.layer.step(self.x[t], state, self.start[t])
            total = total + self.loss(t, y)
        return list(torch.autograd.grad(total, self.weights))

    def in_real_time(self) -> list[Tensor]:
        for weight in self.weights:
            weight.grad = None
        self.found = add_gradient(self.layer, self.x, self.state, self.start, self.loss)
        return [weight.grad for weight in self.weights if weight.grad is not None]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options) or "plain")
@pytest.mark.parametrize("cls", [MinGRU, MinLSTM])
def test_the_gradient_is_that_of_backpropagation_through_all_of_time(cls: Any, options: dict[str, Any]) -> None:
    case = Case(cls, options)
    want, found = case.through_time(), case.in_real_time()
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-10)
    y, last = case.layer(case.x, case.state, case.start)
    torch.testing.assert_close(case.found[1], last)
    assert case.found[0] == pytest.approx(float(sum(case.loss(t, y[t]).detach() for t in range(T))))
    truncated = case.through_time(detach_every=5)
    assert float((truncated[0] - want[0]).norm() / want[0].norm()) > 1e-3


def test_gradients_are_added() -> None:
    case = Case(MinGRU, {})
    once = [x.clone() for x in case.in_real_time()]
    add_gradient(case.layer, case.x, case.state, case.start, case.loss)
    torch.testing.assert_close([weight.grad for weight in case.weights], [2 * x for x in once])


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows how many numbers the results of operations hold that are still alive, the graph's own among them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        self.made += [weakref.ref(x) for x in pytree.tree_leaves(found) if type(x) is Tensor]
        return found

    def count(self) -> int:
        alive = {id(x): x.numel() for ref in self.made if (x := ref()) is not None}  # what works in place names x again
        return sum(alive.values())


def most_alive(steps: int, *, in_real_time: bool) -> int:
    """The most numbers alive at a step, over a stream that nothing else keeps."""
    case, most = Case(MinGRU, {}, steps=1), 0

    def loss(t: int, y: Tensor) -> Any:
        nonlocal most
        most = max(most, watch.count())
        return case.loss(0, y)

    with Watch() as watch:
        x = (torch.randn(B, D).double() for _ in range(steps))
        start = (torch.zeros(B, dtype=torch.bool) for _ in range(steps))
        if in_real_time:
            add_gradient(case.layer, x, case.state, start, loss)
        else:
            state, total = case.state, torch.zeros(()).double()
            for t, (now, begins) in enumerate(zip(x, start, strict=True)):
                y, state = case.layer.step(now, state, begins)
                total = total + loss(t, y)
    return most


def test_memory_does_not_grow_with_time() -> None:
    short, long = (most_alive(steps, in_real_time=True) for steps in (5, 50))
    assert 0 < long == short
    assert most_alive(50, in_real_time=False) > 3 * most_alive(5, in_real_time=False)


def test_what_it_is_not_exact_for_is_refused() -> None:
    case = Case(MinGRU, {})
    gru: Any = GRU(D, H)
    with pytest.raises(TypeError, match="mixer: expected MinGRU or MinLSTM, got GRU"):
        add_gradient(gru, case.x, case.state, case.start, case.loss)
    stack: Any = Stack(H, H, forget_floor="rising")
    with pytest.raises(ValueError, match="one whose forget floors rise with depth"):
        add_gradient(stack.blocks[1].mixer, case.x, case.state, case.start, case.loss)
