"""`outer_scan` is its equation, applied once per step with the transition written out as a matrix.

S[t] = A[t] S[t-1] + b[t] value[t]',   A = diag(decay),  (I - write key key') diag(decay),  diag(decay) + add probe'
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import pytest
import torch
from test_scan import assert_same, differ, everything, normal
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from rlmin.scan import outer_scan
from rlmin.scan.outer import LEAST_OF_HEAD, LEAST_OF_KEY, outer_step

Scan: TypeAlias = Callable[[list[Tensor], Tensor], tuple[Tensor, Tensor]]
T, B, H, K, V = 37, 3, 2, 5, 4  # three chunks of 16, or two of 32, the last of them ragged
KINDS = ("sum", "write", "remove")
DECAYS = ("none", "head", "key")
every_kind = pytest.mark.parametrize("kind", KINDS)
every_decay = pytest.mark.parametrize("decay", DECAYS)


@pytest.fixture(params=["reference", "portable", "cpu"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RLMIN_KERNEL", request.param)
    return str(request.param)


def draw(
    kind: str, decay: str, shape: tuple[int, ...] = (T, B, H, K, V), *, seed: int = 0
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Float64 inputs [query, key, value, decay?, write?, probe?, add?], state, and starts at a rate of 0.1."""
    generator, (steps, rows, heads, k, v) = torch.Generator().manual_seed(seed), shape
    of_key = (steps, rows, heads, k)
    inputs = [normal(generator, of_key), normalize(normal(generator, of_key), dim=-1)]
    inputs.append(normal(generator, (*of_key[:3], v)))
    if decay != "none":
        inputs.append(logsigmoid(2 + 2 * normal(generator, of_key[:3] if decay == "head" else of_key)))
    if kind == "write":
        inputs.append(2 * normal(generator, of_key[:3]).sigmoid())
    if kind == "remove":
        inputs += [normalize(normal(generator, of_key), dim=-1) for _ in range(2)]
    start = torch.rand(shape[:2], generator=generator) < 0.1
    return inputs, normal(generator, (rows, heads, k, v)), start


def call(kind: str, decay: str, inputs: list[Tensor]) -> tuple[list[Tensor | None], dict[str, Any]]:
    """The positional arguments before the state, and the options."""
    q, k, v, *rest = inputs
    g = None if decay == "none" else rest.pop(0)
    return [q, k, v, g], {"write": rest[0]} if kind == "write" else {"remove": tuple(rest)} if kind == "remove" else {}


def run(kind: str, decay: str, start: Tensor | None, *, exclusive: bool = False) -> Scan:
    def scan(inputs: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        arguments, options = call(kind, decay, inputs)
        found: Any = outer_scan
        y, last = found(*arguments, state, start, exclusive=exclusive, **options)
        return y, last

    return scan


def by_the_equation(kind: str, decay: str, start: Tensor | None, *, exclusive: bool = False) -> Scan:
    def scan(inputs: list[Tensor], S: Tensor) -> tuple[Tensor, Tensor]:
        (q, k, v, g), options = call(kind, decay, inputs)
        assert q is not None and k is not None and v is not None
        eye, ys = torch.eye(k.shape[-1], dtype=k.dtype), []
        for t in range(len(q)):
            if start is not None:
                S = torch.where(start[t, :, None, None, None], torch.zeros_like(S), S)
            kept = torch.ones_like(k[t]) if g is None else g[t].exp().unsqueeze(-1) if decay == "head" else g[t].exp()
            A, b = torch.diag_embed(kept.expand_as(k[t])), k[t]
            if kind == "write":
                b = options["write"][t].unsqueeze(-1) * k[t]
                A = (eye - torch.einsum("bhk,bhl->bhkl", b, k[t])) @ A
            if kind == "remove":
                A = A + torch.einsum("bhk,bhl->bhkl", options["remove"][1][t], options["remove"][0][t])
            before, S = S, A @ S + torch.einsum("bhk,bhv->bhkv", b, v[t])
            ys.append(torch.einsum("bhk,bhkv->bhv", q[t], before if exclusive else S))
        return (torch.stack(ys) if ys else v.clone()), S

    return scan


@every_kind
@every_decay
def test_every_form_follows_the_equation(form: str, kind: str, decay: str) -> None:
    inputs, state, sometimes = draw(kind, decay)
    exclusive = False
    for start in (sometimes, torch.ones_like(sometimes), None)[: 1 if form == "reference" else 3]:
        wanted = everything(by_the_equation(kind, decay, start, exclusive=exclusive), inputs, state)
        scan = run(kind, decay, start, exclusive=exclusive)
        assert_same(everything(scan, inputs, state), wanted, 1e-12)
        if start is sometimes:
            narrow = everything(scan, [x.float() for x in inputs], state.float())
            assert {x.dtype for x in narrow} == {torch.float32}
            assert_same(narrow, wanted, 1e-5)
            assert differ(list(run(kind, decay, start, exclusive=True)(inputs, state)), wanted[:2])
            assert differ(list(run(kind, decay, None)(inputs, state)), wanted[:2])
        exclusive = not exclusive  # all three kinds of starts with either reading would only take longer
    wanted = everything(by_the_equation(kind, decay, sometimes, exclusive=True), inputs, state)
    assert_same(everything(run(kind, decay, sometimes, exclusive=True), inputs, state), wanted, 1e-12)


@every_kind
@pytest.mark.parametrize(
    "shape", [(0, 3, 2, 5, 4), (1, 3, 2, 5, 4), (33, 1, 1, 1, 3), (16, 2, 3, 16, 1), (3, 0, 2, 5, 4), (2, 2, 0, 3, 4)]
)
def test_axes_of_size_zero_and_one_are_ordinary(form: str, kind: str, shape: tuple[int, ...]) -> None:
    for decay in ("head", "key"):
        inputs, state, start = draw(kind, decay, shape)
        wanted = everything(by_the_equation(kind, decay, start), inputs, state)
        assert_same(everything(run(kind, decay, start), inputs, state), wanted, 1e-12)
        assert shape[0] or torch.equal(run(kind, decay, start)(inputs, state)[1], state)


@every_kind
def test_layouts_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Columns of one projection, heads that share a key, one decay for every step: no copy is needed."""
    monkeypatch.setenv("RLMIN_KERNEL", "cpu")
    inputs, state, start = draw(kind, "key", (T, B, H, 16, V))
    joined = torch.cat([x for x in inputs if x.shape[-1] == 16], -1).permute(2, 1, 0, 3).contiguous()
    wide = [x.permute(2, 1, 0, 3) for x in torch.split(joined, 16, -1)]
    inputs = [*wide[:2], inputs[2].permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0), *wide[2:3], *inputs[4:]]
    inputs[1], inputs[3] = inputs[1][:, :, :1].expand(-1, -1, H, -1), inputs[3][:1, :1].expand(T, B, H, -1)
    state, start = state.transpose(2, 3).contiguous().transpose(2, 3), start.t().contiguous().t()
    wanted = everything(by_the_equation(kind, "key", start), inputs, state)
    assert_same(everything(run(kind, "key", start), inputs, state), wanted, 1e-12)
    monkeypatch.setattr("rlmin.scan.outer_cpu._PARALLEL_SIZE", 1)
    torch.set_num_threads(3)
    assert_same(everything(run(kind, "key", start), inputs, state), wanted, 1e-12)
    assert differ(everything(run(kind, "key", start.roll(1, dims=1)), inputs, state), wanted)


@every_kind
@pytest.mark.parametrize("times", [[0], [5], [16], [T - 1], [15, 16, 17]])
def test_a_reset_is_the_same_as_being_born_there(kind: str, times: list[int]) -> None:
    inputs, state, _ = draw(kind, "key")
    start = torch.zeros(T, B, dtype=torch.bool)
    start[times, 1] = True
    first = times[-1]

    def tail(x: list[Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
        y, last = run(kind, "key", start)(x, s)
        return y[first:, 1], last[1]

    def born(x: list[Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
        y, last = run(kind, "key", None)([part[first:, 1:2] for part in x], 0 * s[1:2])
        return y[:, 0], last[0]

    found = everything(tail, inputs, state)
    assert_same(found, everything(born, inputs, state), 1e-12)
    assert not any(g[:first].any() for g in found[2:-1]) and not found[-1].any(), "gradient crosses the start"
    reset, plain = (run(kind, "key", s)(inputs, state)[0][:, [0, 2]] for s in (start, None))
    assert torch.equal(reset, plain)
    start = start.roll(1, dims=1)  # the reset of another row
    assert differ(everything(tail, inputs, state), found)


@every_kind
@pytest.mark.parametrize("cut", [0, 1, 16, 20, T])
def test_a_sequence_is_the_sum_of_its_parts(kind: str, cut: int) -> None:
    inputs, state, start = draw(kind, "head")

    def two(x: list[Tensor], s: Tensor, *, carried: bool = True) -> tuple[Tensor, Tensor]:
        early, middle = run(kind, "head", start[:cut])([part[:cut] for part in x], s)
        late, last = run(kind, "head", start[cut:])([part[cut:] for part in x], middle if carried else s)
        return torch.cat([early, late]), last

    whole = everything(run(kind, "head", start), inputs, state)
    assert_same(everything(two, inputs, state), whole, 1e-12)
    assert cut != 1 or differ(list(two(inputs, state, carried=False)), whole[:2])


@every_kind
def test_a_reset_recovers_from_a_memory_that_is_not_finite(form: str, kind: str) -> None:
    inputs, state, _ = draw(kind, "key")
    start = torch.zeros(T, B, dtype=torch.bool)
    start[0], start[5, 1] = torch.tensor([True, False, True]), True
    poison = torch.full_like(state, torch.nan)
    y, last = run(kind, "key", start)(inputs, poison)
    want, want_last = run(kind, "key", start)(inputs, torch.zeros_like(state))
    assert y[:5, 1].isnan().all()
    torch.testing.assert_close(y[5:], want[5:])
    torch.testing.assert_close(last, want_last)


@every_kind
def test_gradients_are_the_derivative(kind: str) -> None:
    inputs, state, start = draw(kind, "key", (4, 2, 1, 2, 3))
    start[2, 0] = True
    leaves = [x.requires_grad_() for x in (*inputs, state)]

    def scan(*x: Tensor) -> tuple[Tensor, Tensor]:
        return run(kind, "key", start)(list(x[:-1]), x[-1])

    assert torch.autograd.gradcheck(scan, leaves)
    assert torch.autograd.gradgradcheck(scan, leaves, fast_mode=True)

    def mismatched(*x: Tensor) -> Tensor:  # values of one scan with gradients of another
        value, slope = scan(*x)[0], run(kind, "key", ~start)(list(x[:-1]), x[-1])[0]
        return value.detach() + slope - slope.detach()

    assert not torch.autograd.gradcheck(mismatched, leaves, raise_exception=False)


@every_decay
def test_narrow_inputs_are_computed_in_float32(decay: str) -> None:
    inputs, state, start = draw("write", decay)
    inputs, state = [x.bfloat16() for x in inputs], state.float()
    found = everything(run("write", decay, start), inputs, state)
    wide = everything(run("write", decay, start), [x.float() for x in inputs], state)
    assert [x.dtype for x in found] == [torch.bfloat16, torch.float32, *[torch.bfloat16] * len(inputs), torch.float32]
    assert torch.equal(found[0], wide[0].bfloat16()) and torch.equal(found[1], wide[1])
    assert_same(found, wide, 1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = run("write", decay, start)([x.float() for x in inputs], state)
    assert all(torch.equal(x, y) for x, y in zip(again, wide, strict=False))


@pytest.mark.parametrize("decay", ["head", "key"])
@pytest.mark.parametrize("size", [5.0, 8.0, 20.0, 1e4, float("inf")])
def test_strong_decays_are_finite_and_exact_in_float32(decay: str, size: float) -> None:
    """The log decay of every other step; what is beyond the least one is that one, here and in a step."""
    for kind in KINDS:
        inputs, state, start = draw(kind, decay)
        inputs[3] = inputs[3].clone()
        inputs[3][::2] = -size
        wanted = everything(by_the_equation(kind, decay, start), inputs, state)
        found = everything(run(kind, decay, start), [x.float() for x in inputs], state.float())
        assert all(x.isfinite().all() for x in found)
        least = LEAST_OF_HEAD if decay == "head" else LEAST_OF_KEY
        if -size >= least:
            assert_same(found, wanted, 2e-5)
        clamped = [*inputs[:3], inputs[3].clamp(min=least), *inputs[4:]]
        assert_same(found[:2], list(by_the_equation(kind, decay, start)(clamped, state)), 2e-5)
        arguments, options = call(kind, decay, [x[0] for x in inputs])
        step: Any = outer_step
        y, S = step(*arguments, state, **options)
        bare = by_the_equation(kind, decay, None)([x[:1] for x in clamped], state)
        torch.testing.assert_close((y, S), (bare[0][0], bare[1]))


def test_a_long_memory_is_exact() -> None:
    inputs, state, _ = draw("write", "key", (400, 1, 1, 4, 3))
    inputs[3] = inputs[3] * 1e-3
    wanted = everything(by_the_equation("write", "key", None), inputs, state)
    assert_same(everything(run("write", "key", None), [x.float() for x in inputs], state.float()), wanted, 3e-5)


def test_the_same_key_over_and_over_does_not_explode_unless_it_is_too_long() -> None:
    inputs, state, _ = draw("write", "none")
    inputs[1] = inputs[1][:1, :1, :1].expand_as(inputs[1])
    inputs[3] = torch.full_like(inputs[3], 2.0)
    assert run("write", "none", None)(inputs, state)[0].abs().max() < 1e3
    inputs[1] = 1.5 * inputs[1]
    assert run("write", "none", None)(inputs, state)[0].abs().max() > 1e6


@pytest.mark.parametrize("kind", ["write", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("sum", "remove"))])
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile does it itself
def test_torch_compile_sees_one_graph(kind: str) -> None:
    inputs, state, start = draw(kind, "key", (5, 2, 1, 3, 2))
    torch.compiler.reset()
    compiled: Any = torch.compile(run(kind, "key", start), backend="aot_eager", fullgraph=True)
    wanted = everything(run(kind, "key", start), inputs, state)
    assert_same(everything(compiled, inputs, state), wanted, 1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(B, H, K)}, r"query: expected \[T, B, heads, K\], got \[3, 2, 5\]"),
        ({"key": torch.zeros(T, B, H, 4)}, r"key: expected \[37, 3, 2, 5\] as query is .*, got \[37, 3, 2, 4\]"),
        ({"value": torch.zeros(T, B, V)}, r"value: expected \[37, 3, 2, 0\]|value: expected"),
        ({"state": torch.zeros(B, H, V, K)}, r"state: expected \[3, 2, 5, 4\]"),
        ({"log_decay": torch.zeros(B, H)}, r"log_decay: expected \[37, 3, 2\] or \[37, 3, 2, 5\], each 1 where"),
        ({"log_decay": torch.full((T, B, H), 0.9)}, r"log_decay: expected at most 0, a decay of 1, got 0.9; is it a"),
        ({"write": torch.zeros(T, B, H, 1)}, r"write: expected \[37, 3, 2\]"),
        ({"remove": torch.zeros(T, B, H, K)}, r"remove: expected two tensors \(probe, add\), got Tensor"),
        ({"remove": (torch.zeros(T, B, H, K),) * 2, "write": torch.zeros(T, B, H)}, "write: expected None beside"),
        ({"start": torch.zeros(B, T, dtype=torch.bool)}, r"start: expected \[T=37, B=3\] .* this looks like \[B, T\]"),
        ({"state": torch.zeros(B, H, K, V, dtype=torch.float64)}, "state: expected float64 for all or for none"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    fitting: dict[str, Any] = {
        "query": torch.zeros(T, B, H, K),
        "key": torch.zeros(T, B, H, K),
        "value": torch.zeros(T, B, H, V),
        "log_decay": torch.zeros(1, 1, H),
        "state": torch.zeros(B, H, K, V),
    }
    outer_scan(**fitting)
    with pytest.raises(ValueError, match=message):
        outer_scan(**(fitting | change))


# -- second opinions: the recurrences as flash-linear-attention writes them, loaded without the rest of it ------------


def peer(rule: str) -> ModuleType:
    found = importlib.util.find_spec("fla")
    if found is None or not found.submodule_search_locations:
        pytest.skip("fla-core is not installed")
    path = Path(found.submodule_search_locations[0]) / "ops" / f"{rule}.py"
    spec = importlib.util.spec_from_file_location("fla_" + rule.replace("/", "_"), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PEERS: list[tuple[str, str, str, str, str, str]] = [
    # kind, decay, rule, function, its axes, and its arguments: query, key, value, g decay, w write, a probe, b add
    ("sum", "key", "gla/naive", "naive_recurrent_gla", "BTH", "qkvg"),
    ("write", "none", "delta_rule/naive", "delta_rule_recurrence", "BHT", "qkvw"),
    ("write", "head", "gated_delta_rule/naive", "naive_recurrent_gated_delta_rule", "BTH", "qkvwg"),
    ("write", "key", "kda/naive", "naive_recurrent_kda", "BTH", "qkvgw"),
    ("remove", "key", "generalized_delta_rule/dplr/naive", "dplr_recurrence", "BHT", "qkvabg"),
    ("sum", "key", "rwkv6/recurrent_naive", "naive_recurrent_rwkv6", "BHT", "qkvg0"),  # 0: no bonus
]


@pytest.mark.parametrize(("kind", "decay", "rule", "function", "axes", "order"), PEERS)
def test_it_agrees_with_flash_linear_attention(
    kind: str, decay: str, rule: str, function: str, axes: str, order: str
) -> None:
    inputs, state, _ = draw(kind, decay)
    letters = "qkv" + ("" if decay == "none" else "g") + {"sum": "", "write": "w", "remove": "ab"}[kind]
    axis = {"BTH": 1, "BHT": 2}[axes]
    named = {letter: x.float().movedim(0, axis) for letter, x in zip(letters, inputs, strict=True)}
    named["0"] = torch.zeros(H, K)
    recurrence = getattr(peer(rule), function)
    wanted, last = recurrence(*(named[c] for c in order), initial_state=state.float(), output_final_state=True)
    wanted, scaled = wanted.movedim(axis, 0), [inputs[0] * K**-0.5, *inputs[1:]]
    exclusive = "0" in order
    assert_same(list(run(kind, decay, None, exclusive=exclusive)(scaled, state)), [wanted, last], 2e-6)
    assert differ(list(run(kind, decay, None, exclusive=not exclusive)(scaled, state)), [wanted, last])
