"""Cells with a matrix per head, each against the recurrence of its paper: one row, one head, one step at a time."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, get_args

import pytest
import torch
from torch import Tensor

from rlmin.encoders import RWKV6, RWKV7, DeltaNet, Encoder, GatedLinear
from rlmin.encoders.gated_linear import Form
from rlmin.encoders.matrix_memory import GatedOutput
from rlmin.scan import outer_scan

T, B, D, H, HEADS, SIZE = 6, 2, 4, 5, 2, 3  # 5 features in two heads of 3: heads need not divide the width
Paper: TypeAlias = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


def disturbed(encoder: Encoder) -> Any:
    """`encoder` in float64, no weight where it began: some begin at 0."""
    generator = torch.Generator().manual_seed(1)
    for weight in encoder.double().parameters():
        weight.data += 0.4 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return encoder


def steps(x: Tensor, state: Tensor, start: Tensor) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """(t, b, x[t, b], S [heads, K, V]), S to be changed in place; it is zeros where an episode starts."""
    memory = state.clone()
    for t in range(len(x)):
        for b in range(x.shape[1]):
            if start[t, b]:
                memory[b] = 0
            yield t, b, x[t, b], memory[b]


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def silu(x: Tensor) -> Tensor:
    return x * sigmoid(x)


def softplus(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(x))


def of_heads(weight: Tensor, x: Tensor, *sizes: int) -> list[Tensor]:
    """weight @ x as parts [heads, size]."""
    rows, found, at = (weight @ x).view(HEADS, -1), [], 0
    for size in sizes:
        found.append(rows[:, at : at + size])
        at += size
    return found


def gated_output(out: GatedOutput, x: Tensor, y: Tensor) -> Tensor:
    """y [heads, V]."""
    normed = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * out.norm.weight
    return out.output.weight @ (normed.flatten() * silu(out.gate.weight @ x)) + out.output.bias


def gated_linear(cell: GatedLinear, x: Tensor, state: Tensor, start: Tensor) -> Tensor:
    ys = torch.zeros(T, B, H, dtype=x.dtype)
    for t, b, now, S in steps(x, state, start):
        weight = cell.projection.weight
        gate = cell.gates.weight @ now + cell.gates.bias if cell.gates is not None else torch.zeros(0)
        skipped: Tensor | float = 0
        if cell.form == "mamba2":
            everything = silu(weight @ now)
            v, (k, q) = everything[: HEADS * SIZE].view(HEADS, SIZE), everything[HEADS * SIZE :].view(2, SIZE)
            dt = softplus(gate)
            decay, k = torch.exp(-dt * cell.log_rate.exp())[:, None], dt[:, None] * k
            q, skipped = q.expand(HEADS, SIZE), cell.skip[:, None] * v
        elif cell.form == "hgrn2":
            q, v = of_heads(weight, now, SIZE, SIZE)
            decay = sigmoid(gate).view(HEADS, SIZE)
            q, k = silu(q), 1 - decay
        else:
            q, k, v = of_heads(weight, now, SIZE, SIZE, SIZE)
            if cell.form == "gla":
                q, decay = q / SIZE**0.5, sigmoid(gate).view(HEADS, SIZE) ** (1 / 16)
            elif cell.form == "retnet":
                q, decay = q / SIZE**0.5, torch.tensor([[1 - 2.0**-5], [1 - 2.0**-6]], dtype=x.dtype)
            else:
                decay, k = sigmoid(gate[:HEADS])[:, None], sigmoid(gate[HEADS:])[:, None] * k / SIZE**0.5
        for h in range(HEADS):
            S[h] = decay[h][:, None] * S[h] + torch.outer(k[h], v[h])
        y = torch.stack([S[h].T @ q[h] for h in range(HEADS)]) + skipped
        ys[t, b] = gated_output(cell.head_output, now, y)
    return ys


def delta_net(cell: DeltaNet, x: Tensor, state: Tensor, start: Tensor) -> Tensor:
    ys = torch.zeros(T, B, H, dtype=x.dtype)
    for t, b, now, S in steps(x, state, start):
        (q,) = of_heads(cell.query.weight, now, SIZE)
        written = silu(cell.written.weight @ now).view(cell.products, HEADS, 2, SIZE)
        share = cell.most * sigmoid(cell.share.weight @ now + cell.share.bias).view(cell.products, HEADS)
        for h in range(HEADS):
            if cell.decays is not None:
                rate = softplus(cell.decays.weight @ now + cell.decays.bias).view(HEADS, -1)[h] * cell.log_rate[h].exp()
                S[h] = torch.exp(-rate)[:, None] * S[h]
            for i in range(cell.products):
                k, v = written[i, h]
                k = k / k.norm()
                S[h] = S[h] - share[i, h] * torch.outer(k, k) @ S[h] + share[i, h] * torch.outer(k, v)
        q = silu(q)
        y = torch.stack([S[h].T @ q[h] / q[h].norm() for h in range(HEADS)])
        ys[t, b] = gated_output(cell.head_output, now, y)
    return ys


def group_norm(norm: torch.nn.GroupNorm, y: Tensor) -> Tensor:
    """y [heads, V] with mean 0 and variance 1 in each head, flat."""
    centred = y - y.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return normed.flatten() * norm.weight + norm.bias


def low_rank(pair: Any, x: Tensor) -> Tensor:
    inner: Tensor = pair.activation(pair.first.weight @ x)
    found: Tensor = pair.last.weight @ inner + pair.last.bias
    return found


def rwkv6(cell: RWKV6, x: Tensor, state: Tensor, start: Tensor) -> Tensor:
    ys = torch.zeros(T, B, H, dtype=x.dtype)
    for t, b, now, S in steps(x, state, start):
        r, k, v = of_heads(cell.projection.weight, now, SIZE, SIZE, SIZE)
        w = torch.exp(-torch.exp(low_rank(cell.decay, now))).view(HEADS, SIZE)
        y = torch.zeros(HEADS, SIZE, dtype=x.dtype)
        for h in range(HEADS):
            y[h] = r[h] @ (S[h] + torch.diag(cell.bonus[h]) @ torch.outer(k[h], v[h]))
            S[h] = torch.diag(w[h]) @ S[h] + torch.outer(k[h], v[h])
        gate = silu(cell.gate.weight @ now)
        ys[t, b] = cell.output.weight @ (group_norm(cell.norm, y) * gate) + cell.output.bias
    return ys


def rwkv7(cell: RWKV7, x: Tensor, state: Tensor, start: Tensor) -> Tensor:
    ys = torch.zeros(T, B, H, dtype=x.dtype)
    for t, b, now, S in steps(x, state, start):
        r, k, v = of_heads(cell.projection.weight, now, SIZE, SIZE, SIZE)
        w = torch.exp(-0.6065 * sigmoid(low_rank(cell.decay, now))).view(HEADS, SIZE)
        a = sigmoid(low_rank(cell.rate, now)).view(HEADS, SIZE)
        y, added = torch.zeros(HEADS, SIZE, dtype=x.dtype), torch.zeros(HEADS, SIZE, dtype=x.dtype)
        for h in range(HEADS):
            kappa = k[h] * cell.scale[h]
            kappa = kappa / kappa.norm()
            replaced = k[h] * (1 + (a[h] - 1) * cell.share[h])
            W = S[h].T  # the paper has values in rows
            W = W @ (torch.diag(w[h]) - torch.outer(kappa, a[h] * kappa)) + torch.outer(v[h], replaced)
            S[h] = W.T
            y[h], added[h] = W @ r[h], (r[h] * cell.bonus[h] * replaced).sum() * v[h]
        normed = group_norm(cell.norm, y) + added.flatten()
        ys[t, b] = cell.output.weight @ (normed * low_rank(cell.gate, now)) + cell.output.bias
    return ys


CASES: list[tuple[Callable[[], Encoder], Paper]] = [
    *((lambda form=form: GatedLinear(D, H, form=form, heads=HEADS), gated_linear) for form in get_args(Form)),
    (lambda: DeltaNet(D, H, heads=HEADS, decay="none"), delta_net),
    (lambda: DeltaNet(D, H, heads=HEADS, decay="head", negative=True), delta_net),
    (lambda: DeltaNet(D, H, heads=HEADS, decay="key", products=3), delta_net),
    (lambda: RWKV6(D, H, heads=HEADS), rwkv6),
    (lambda: RWKV7(D, H, heads=HEADS), rwkv7),
]
IDS = [*get_args(Form), "delta", "delta gated negative", "delta product", "rwkv6", "rwkv7"]


@pytest.mark.parametrize(("make", "paper"), CASES, ids=IDS)
@torch.no_grad()
def test_it_is_the_recurrence_of_the_paper(make: Callable[[], Encoder], paper: Paper) -> None:
    torch.manual_seed(0)
    cell, generator = disturbed(make()), torch.Generator().manual_seed(2)
    x = torch.randn(T, B, D, dtype=torch.float64, generator=generator)
    state = torch.randn(B, HEADS, SIZE, SIZE, dtype=torch.float64, generator=generator)
    start = torch.zeros(T, B, dtype=torch.bool)
    start[3, 1] = True
    y, _ = cell(x, state, start)
    torch.testing.assert_close(y, paper(cell, x, state, start), rtol=1e-9, atol=1e-11)
    assert not torch.allclose(y, paper(cell, x, state, torch.zeros_like(start)))
    for weight in cell.parameters():
        weight *= 1.1
    assert not torch.allclose(y, cell(x, state, start)[0])


def test_a_delta_cell_holds_a_pair_exactly_and_replaces_it() -> None:
    """With a share of 1 and no decay: what was written last under a key is what the key reads."""
    torch.manual_seed(0)
    cell = DeltaNet(D, SIZE, heads=1, decay="none")
    with torch.no_grad():
        cell.share.bias.fill_(50)
        cell.query.weight.copy_(cell.written.weight[:SIZE])  # queries are keys
    x = torch.randn(2, 1, D)
    x[1] = -x[0]  # another key
    _, state = cell(x, cell.initial_state(1), torch.zeros(2, 1, dtype=torch.bool))
    query, _, value, _, _ = cell.parts(x)
    read = torch.einsum("thk,bhkv->thv", query[:, 0], state)
    torch.testing.assert_close(read[1], value[1, 0, 0])
    assert not torch.allclose(read[0], value[0, 0, 0], atol=1e-3)  # the keys are not orthogonal


def test_a_product_of_two_reflections_counts_modulo_three_and_one_does_not() -> None:
    """In float32 over 2000 digits: a 1 turns the memory by 120 degrees, by two writes of 2; a 2 turns it back."""
    steps, generator = 2000, torch.Generator().manual_seed(0)
    digits = torch.randint(3, (steps,), generator=generator)
    k = torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5]])
    key = torch.where((digits == 2)[:, None, None], k.flip(0), k).view(2 * steps, 1, 1, 2)
    write = (2.0 * (digits > 0)).repeat_interleave(2).view(-1, 1, 1)
    state, nothing = torch.tensor([[1.0], [0.0]]).view(1, 1, 2, 1), torch.zeros(2 * steps, 1, 1, 1)
    angles = torch.arange(3) * 2 * torch.pi / 3
    faces = torch.stack([angles.cos(), angles.sin()], -1)

    def right(write: Tensor) -> float:
        read = [outer_scan(one.expand_as(key), key, nothing, None, state, write=write)[0] for one in faces]
        found = torch.cat(read, -1)[1::2, 0, 0].argmax(-1)
        return float((found == digits.cumsum(0) % 3).double().mean())

    assert right(write) == 1
    assert right(write * torch.tensor([1.0, 0.0]).repeat(steps).view(-1, 1, 1)) < 0.5  # one reflection a step


@pytest.mark.parametrize("make", [make for make, _ in CASES], ids=IDS)
def test_extreme_inputs_leave_it_finite(make: Callable[[], Encoder]) -> None:
    torch.manual_seed(0)
    cell = make()
    x = (1e3 * torch.randn(40, B, D)).requires_grad_()
    y, last = cell(x, cell.initial_state(B), torch.rand(40, B) < 0.1)
    assert isinstance(last, Tensor)
    grads = torch.autograd.grad(y.sum(), [x, *cell.parameters()], allow_unused=True)
    assert y.isfinite().all() and last.isfinite().all() and all(g is None or g.isfinite().all() for g in grads)
