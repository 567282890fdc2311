"""The scans are torch operators: they compile, survive autocast and threads, pick a kernel, name what does not fit."""

from functools import partial
from typing import Any

import pytest
import torch
from test_scan import (
    CASES,
    B,
    D,
    Scan,
    T,
    assert_same,
    differ,
    draw,
    every_case,
    everything,
    interpreted,
    linear,
    min_gru,
    min_lstm,
    one_activation_will_do,
    run_unforced,
)
from torch import Tensor

from rlmin.scan import warm_up


@every_case
def test_the_operators_keep_their_contract_with_torch(kernel: str, scan: Scan, option: dict[str, Any]) -> None:
    one_activation_will_do(kernel, option)
    if interpreted(kernel) and kernel != "gpu sequential":
        pytest.skip("the interpreter is slow, and the operators are the same")
    name = {linear: "linear", min_gru: "gru", min_lstm: "lstm"}[scan]
    forward, backward = (getattr(torch.ops.rlmin, f"{name}_{way}").default for way in ("forward", "backward"))
    inputs, state, start = draw(scan, dtype=torch.float32)
    inputs[0] = inputs[0].permute(2, 0, 1).contiguous().permute(1, 2, 0)
    value = next(iter(option.values()))
    h, last = forward(*inputs, state, start, value)
    kept = inputs[:1] if scan is linear else inputs
    for flags in (start, None):
        torch.library.opcheck(forward, (*inputs, state, flags, value))
        for grads in ((h, last), (h, None), (None, last)):
            torch.library.opcheck(backward, (*grads, *kept, state, flags, h, value))


@every_case
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile does it itself
def test_torch_compile_sees_one_graph(scan: Scan, option: dict[str, Any]) -> None:
    def run(x: list[Tensor], s: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        return scan(*x, s, start, **option)

    torch.compiler.reset()
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True, dynamic=True)
    for shape in ((T, B, D), (4, 6, 8)):
        inputs, state, start = draw(scan, shape, dtype=torch.float32)
        wanted = everything(partial(run, start=start), inputs, state)
        assert_same(everything(partial(compiled, start=start), inputs, state), wanted, 1e-6)
        with torch.no_grad():
            assert_same(list(compiled(inputs, state, start)), wanted[:2], 1e-6)


def test_autocast_leaves_the_state_in_float32(kernel: str) -> None:
    torch.manual_seed(0)
    projection, x = torch.nn.Linear(4, 2 * D), torch.randn(T, B, 4)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        gate, candidate = projection(x).chunk(2, dim=-1)
        h, last = min_gru(gate, candidate, torch.zeros(B, D))
    assert (h.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    (grad,) = torch.autograd.grad(last.sum(), [projection.weight])
    assert grad.dtype is torch.float32
    exact = min_gru(*projection(x).chunk(2, dim=-1), torch.zeros(B, D))[1]
    assert_same([last], [exact], 2e-2)
    assert differ([last], [exact], 1e-6)


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlmin.scan import cpu
    from rlmin.scan.cpu_threads import forget_threads

    inputs, state, start = draw(min_gru, (9, 11, 5), dtype=torch.float32)
    alone = everything(lambda x, s: min_gru(*x, s, start), inputs, state)
    monkeypatch.setattr(cpu, "_PARALLEL_SIZE", 1)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for _ in range(2):
            together = everything(lambda x, s: min_gru(*x, s, start), inputs, state)
            assert all(torch.equal(x, y) for x, y in zip(alone, together, strict=True))
            forget_threads()  # what a forked child does
    finally:
        torch.set_num_threads(threads)


def test_without_numba_the_portable_kernel_runs_and_says_so_once() -> None:
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "import warnings, torch; from rlmin.scan import linear_scan\n"
        "x = torch.ones(3, 1)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    print([linear_scan(x, x, x[0])[1].item() for _ in range(2)], len(caught), caught[0].message)\n"
    )
    done = run_unforced(program)
    assert done.stdout.startswith("[4.0, 4.0] 1 rlmin.scan: numba is not usable"), done.stdout + done.stderr


def test_an_unknown_kernel_is_an_error_that_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLMIN_KERNEL", "cuda")
    x = torch.zeros(T, B, D)
    with pytest.raises(ValueError, match="RLMIN_KERNEL: expected one of reference, portable, cpu, gpu, got 'cuda'"):
        linear(x, x, x[0])


def test_a_forced_kernel_refuses_tensors_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLMIN_KERNEL", "cpu")
    with pytest.raises(ValueError, match="RLMIN_KERNEL=cpu: expected CPU tensors, got meta"):
        from rlmin.scan.dispatch import kernel_for

        kernel_for(torch.device("meta"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate": torch.zeros(T, B, 4)}, r"gate: expected the shape of candidate, \[7, 3, 5\], got \[7, 3, 4\]"),
        ({"candidate": torch.zeros(B, D), "gate": torch.zeros(B, D)}, r"candidate: expected \[T, B, D\], got \[3, 5\]"),
        ({"state": torch.zeros(T, D)}, r"state: expected \[3, 5\] as candidate is \[7, 3, 5\], got \[7, 5\]"),
        ({"start": torch.zeros(B, T, dtype=torch.bool)}, r"start: expected \[T=7, B=3\] .* this looks like \[B, T\]"),
        ({"start": torch.zeros(T, B)}, r"start: expected bool, got torch.float32"),
        ({"gate": torch.zeros(T, B, D, dtype=torch.int64)}, "gate: expected a float dtype, got torch.int64"),
        ({"state": torch.zeros(B, D, dtype=torch.float64)}, "state: expected float64 for all or for none"),
        ({"activation": "relu"}, "activation: expected one of identity, tanh, g, got 'relu'"),
        ({"state": torch.zeros(B, D, device="meta")}, "state: expected device cpu, got meta"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    fitting: dict[str, Any] = {
        "gate": torch.zeros(T, B, D),
        "candidate": torch.zeros(T, B, D),
        "state": torch.zeros(B, D),
    }
    min_gru(**fitting)
    with pytest.raises(ValueError, match=message):
        min_gru(**(fitting | change))


def test_warming_up_leaves_nothing_to_compile_for_float32() -> None:
    from rlmin.scan import cpu_loops

    warm_up()
    before = cpu_loops.loop.cache_info().misses
    assert before
    for scan, option in CASES:
        inputs, state, start = draw(scan, dtype=torch.float32)
        for flags in (start, None):
            h, _ = scan(*[x.requires_grad_() for x in inputs], state, flags, **option)
            torch.autograd.grad(h.sum(), inputs)
    assert cpu_loops.loop.cache_info().misses == before
    assert before > 0
