"""Real-time recurrent learning: the exact gradient of one layer, carried forwards with the memory.

Backpropagation through time keeps T steps and walks back over them. Where a recurrence is elementwise, the derivative
of each unit by its own weights can be carried forwards at the price of one more memory for each weight and row:

    trace[t] = dh[t]/dh[t-1] * trace[t-1] + dh[t]/dp[t] x[t]'          p[t] = projection(x[t]), unit by unit
    gradient = sum over t of dloss[t]/dh[t] * trace[t]

So a gradient may use all of the past of an endless stream, and memory does not grow with T. It is exact for one layer
only: weights below it would need traces of their own for every unit above.

Source: Irie, Gopalakrishnan and Schmidhuber 2023 (arXiv:2305.19044).
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from rlmin.checks import check, check_flags
from rlmin.encoders.base import one, wipe
from rlmin.encoders.gated_average import GatedAverage
from rlmin.types import State


def add_gradient(
    mixer: GatedAverage,
    x: Iterable[Tensor],
    state: State,
    start: Iterable[Tensor],
    loss: Callable[[int, Tensor], Tensor],
) -> tuple[float, Tensor]:
    """Add to `.grad` the gradient of a sum of losses, as `sum(loss(t, y[t])).backward()` would, in one forward pass.

    Args:
        mixer: one layer of minGRU or minLSTM, with any options.
        x: T times [B, D]; read one at a time, no gradient reaches it.
        state: [B, H] memory before x[0]; a constant.
        start: T times [B] bool, see `Encoder.forward`.
        loss: (t, y) -> scalar, where y is the output at step t, [B, H]. It may use modules of its own, whose gradients
            are added too.

    Returns:
        the sum of the losses, and the memory after the last step.

    Raises:
        TypeError: another encoder.
        ValueError: a layer of a stack whose floors rise, as these are weights of other layers too.
    """
    if not isinstance(mixer, GatedAverage):
        raise TypeError(f"mixer: expected MinGRU or MinLSTM, got {type(mixer).__name__}")
    if mixer.follows:
        raise ValueError("mixer: expected a layer with weights of its own, got one whose forget floors rise with depth")
    if not callable(loss):
        raise TypeError(f"loss: expected a function of t and y, got {type(loss).__name__}")
    h, total = one(state).detach(), 0.0
    rows = check("state", h, "B H", H=mixer.output_size)
    if not h.is_floating_point():
        raise ValueError(f"state: expected floating point, got {h.dtype}")
    weight, bias = mixer.projection.weight, mixer.projection.bias
    traces = h.new_zeros(len(h), mixer.parts, mixer.output_size, mixer.input_size + 1)
    gradient = traces.new_zeros(traces.shape[1:])
    for t, (now, begins) in enumerate(_steps(x, start)):
        check(f"x[{t}]", now, "B D", B=rows["B"], D=mixer.input_size)
        check(f"start[{t}]", begins, "B", B=rows["B"])
        check_flags(f"start[{t}]", begins)
        now, h, traces = now.detach(), wipe(h, begins), wipe(traces, begins)
        keep, change, h = _differentiate(mixer, now, h)
        seen = torch.cat([now, torch.ones_like(now[:, :1])], -1).to(traces.dtype)
        written = change.view(len(h), mixer.parts, -1, 1) * seen[:, None, None]
        traces = keep[:, None, :, None] * traces + written
        with torch.enable_grad():
            found = loss(t, mixer.read(now, h.requires_grad_().to(now.dtype)))
        found.backward()  # type: ignore[no-untyped-call]
        total += float(found.detach())
        gradient += torch.einsum("bh,bphd->phd", h.grad, traces) if h.grad is not None else 0
        h = h.detach()
    for weights, part in ((weight, gradient[..., :-1]), (bias, gradient[..., -1])):
        part = part.flatten(0, 1).to(weights.dtype)
        weights.grad = part if weights.grad is None else weights.grad + part
    return total, h


def _steps(x: Iterable[Tensor], start: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of `x` and `start`."""
    for name, given in (("x", x), ("start", start)):
        if not isinstance(given, Iterable):
            raise TypeError(f"{name}: expected tensors, one a step, got {type(given).__name__}")
    try:
        yield from zip(x, start, strict=True)
    except ValueError:
        raise ValueError("start: expected as many steps as x has") from None


def _differentiate(mixer: GatedAverage, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dh[t]/dh[t-1] [B, H], dh[t]/dp[t] [B, parts * H], and h[t]: units and rows do not mix, so sums give them all."""
    with torch.enable_grad():
        before = h.detach().requires_grad_()
        projected = mixer.projection(x).detach().to(h.dtype).requires_grad_()
        w, candidate = mixer.split(projected)
        after = torch.lerp(before, candidate, w)
    keep, change = torch.autograd.grad(after.sum(), (before, projected))
    return keep, change, after.detach()
