"""The GPU kernels beyond the laws of `test_scan.py`: blocks of lanes, both variants, and what only a GPU can show."""

import math
from typing import Any

import pytest
import torch
from test_scan import (
    CASES,
    Scan,
    assert_same,
    by_the_equation,
    differ,
    draw,
    every_case,
    everything,
    interpreted,
    linear,
    min_gru,
    min_lstm,
    normal,
    run_unforced,
)
from torch import Tensor

from rlmin.scan import warm_up
from rlmin.scan.dispatch import kernel_for

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
both_variants = pytest.mark.parametrize("kernel", ["gpu sequential", "gpu tile"], indirect=True)
each_scan = pytest.mark.parametrize(("scan", "option"), [CASES[1], CASES[3], CASES[6]])


@both_variants
@each_scan
@pytest.mark.parametrize("shape", [(3, 2, 32), (5, 3, 12), (3, 40, 1)])  # whole blocks in a row, ragged, D of 1
def test_lanes_are_cut_into_blocks_anywhere(
    kernel: str, scan: Scan, option: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    inputs, state, start = draw(scan, shape)
    wanted = everything(lambda x, s: by_the_equation(scan, x, s, start, option), inputs, state)
    wide = [torch.cat(inputs, dim=-1)]

    def columns(x: list[Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
        parts = x[0].chunk(len(inputs), dim=-1)
        assert parts[0].stride(1) == len(inputs) * shape[2]
        return scan(*parts, s, start, **option)

    h, last, grad, grad_state = everything(columns, wide, state)
    assert_same([h, last, *grad.chunk(len(inputs), dim=-1), grad_state], wanted, 1e-12)


@both_variants
@each_scan
def test_results_repeat_bit_for_bit(kernel: str, scan: Scan, option: dict[str, Any]) -> None:
    shape = (5, 1, 20) if interpreted(kernel) else (513, 33, 100)
    inputs, state, start = draw(scan, shape, dtype=torch.float32)
    first, again = (everything(lambda x, s: scan(*x, s, start, **option), inputs, state) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert differ(everything(lambda x, s: scan(*x, s, ~start, **option), inputs, state), first)


@pytest.mark.parametrize("kernel", ["portable", "cpu", "gpu sequential", "gpu tile"], indirect=True)
def test_a_memory_of_a_million_steps_decays_as_it_should(kernel: str) -> None:
    """With one gate and one candidate throughout, h[T] = c + (h[0] - c) * (1 - z)**T, and so are its gradients.

    Rounding is the same in every step here, the worst case; 1 - z rounded to float32 would be off by 3e-3.
    """
    steps = 64 if interpreted(kernel) else 65536  # the interpreter takes milliseconds a step
    gate = torch.full((1, 2, 3), math.log(1e-6 / (1 - 1e-6)))
    z = gate[0].double().sigmoid()
    generator = torch.Generator().manual_seed(0)
    c, state = (normal(generator, (2, 3), torch.float32).requires_grad_() for _ in range(2))
    last = min_gru(gate.expand(steps, 2, 3), c.expand(steps, 2, 3), state)[1]
    kept = (steps * (-z).log1p()).exp()
    assert_same([last], [c + (state - c) * kept], 5e-4)
    grads = torch.autograd.grad(last.sum(), [state, c])
    assert_same(list(grads), [kept, 1 - kept], 5e-3)
    assert differ([last.double()], [state.double()], 1e-2 if steps > 64 else 1e-5)


@both_variants
def test_tanh_keeps_its_relative_precision_near_0(kernel: str) -> None:
    v = torch.logspace(-30, 2, 97)[None, None]
    v = torch.cat([v, -v], dim=1)
    wide_open = torch.full_like(v, float("inf"))
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-15)):  # a GPU divides to 2 units of float32
        h, _ = min_gru(wide_open.to(dtype), v.to(dtype), torch.zeros_like(v[0], dtype=dtype), activation="tanh")
        torch.testing.assert_close(h, v.to(dtype).tanh(), rtol=tolerance, atol=0)


@pytest.mark.parametrize("size", [float("inf"), 1e4])
@both_variants
def test_infinite_candidates_saturate(kernel: str, size: float) -> None:
    v = torch.tensor([size, -size]).view(1, 1, 2)
    opened, state = torch.full_like(v, float("inf")), torch.zeros(1, 2)
    for scan, gates in ((min_gru, [opened]), (min_lstm, [-opened, torch.zeros_like(v)])):
        for activation, wanted in (("tanh", [1.0, -1.0]), ("g", [size + 0.5, 0.0])):
            leaf = v.clone().requires_grad_()
            h, _ = scan(*gates, leaf, state, activation=activation)
            assert h.flatten().tolist() == wanted
            (grad,) = torch.autograd.grad(h[..., int(activation == "g") :].sum(), leaf)
            assert not grad[..., 1].isnan().any()


def test_the_variant_is_chosen_by_shape_alone() -> None:
    gpu = pytest.importorskip("rlmin.scan.gpu", reason="Triton is not installed", exc_type=ImportError)
    few, many = 256, 128 * 256
    assert gpu.plan("forward", 4096, few, 4, True)[0] is gpu.gpu_tile
    assert gpu.plan("forward", 16, few, 4, True)[0] is gpu.plan("forward", 4096, many, 4, True)[0] is gpu.gpu_sequential
    for size in (2, 4):  # no constant of a kernel follows T or B
        plans = [gpu.plan("backward", T, lanes, size, True)[1] for T in (128, 1000) for lanes in (1 << 17, 777 << 17)]
        assert all(plan == plans[0] for plan in plans)


def test_on_the_cpu_the_gpu_kernel_runs_only_when_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = pytest.importorskip("rlmin.scan.gpu", reason="Triton is not installed", exc_type=ImportError)
    monkeypatch.setenv("RLMIN_KERNEL", "gpu")
    monkeypatch.setattr(gpu, "INTERPRETED", True)
    assert kernel_for(torch.device("cpu")) is gpu
    monkeypatch.setattr(gpu, "INTERPRETED", False)
    with pytest.raises(ValueError, match="RLMIN_KERNEL=gpu: expected CUDA tensors, got cpu; unset it, or set TRITON_"):
        kernel_for(torch.device("cpu"))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("sys.modules['triton'] = None", "ModuleNotFoundError"),
        ("import rlmin.scan.gpu as gpu; gpu._launch = fail", "Failed to find C compiler"),
    ],
)
def test_without_a_compiler_the_portable_kernel_runs_and_says_so_once(broken: str, said: str) -> None:
    program = (
        "import sys, warnings, torch\n"
        "def fail(*arguments): raise RuntimeError('Failed to find C compiler. Please specify via CC')\n"
        f"{broken}\n"
        "from rlmin.scan import dispatch\n"
        "empty = torch.zeros; torch.zeros = lambda *shape, device: empty(*shape)  # there need not be a GPU\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    print([dispatch.kernel_for(torch.device('cuda')).__name__ for _ in range(2)], len(caught))\n"
        "    print(caught[0].message)\n"
    )
    done = run_unforced(program)
    assert done.stdout.startswith("['rlmin.scan.portable', 'rlmin.scan.portable'] 1\n"), done.stdout + done.stderr
    assert said in done.stdout and "install gcc (or set the environment variable CC)" in done.stdout


@on_a_gpu
@both_variants
@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cuda_graph_replays_what_it_captured(
    kernel: str, scan: Scan, option: dict[str, Any], dtype: torch.dtype
) -> None:
    inputs, state, start = draw(scan, (70, 5, 48), dtype=torch.float32)
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    memory = state.requires_grad_()

    def run() -> list[Tensor]:
        h, last = scan(*leaves, memory, start, **option)
        grads = torch.autograd.grad([h, last], [*leaves, memory], [torch.ones_like(h), torch.ones_like(last)])
        return [h, last, *grads]

    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    with torch.no_grad():
        for x in leaves:
            x.copy_(x.flip(0) if scan is not linear else x.roll(1, 0))
    graph.replay()
    assert all(torch.equal(x, y) for x, y in zip(captured, run(), strict=True))


@on_a_gpu
@each_scan
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_inductor_compiles_a_scan_with_what_surrounds_it(scan: Scan, option: dict[str, Any]) -> None:
    with torch.device("cuda"):
        inputs, state, start = draw(scan, (33, 4, 32), dtype=torch.float32)

    def run(x: list[Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
        h, last = scan(*[y * 0.5 for y in x], s, start, **option)
        return h.sin(), last

    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, dynamic=True)
    with torch.device("cuda"):
        assert_same(everything(compiled, inputs, state), everything(run, inputs, state), 1e-5)


@on_a_gpu
@both_variants
def test_offsets_do_not_wrap_at_2_to_the_31(kernel: str) -> None:
    step, T = 1 << 29, 6  # elements; 6 GiB of bfloat16
    if torch.cuda.mem_get_info()[0] < 3 * 2 * step * T:
        pytest.skip("too little memory on the GPU")
    gate = torch.zeros(step * T, dtype=torch.bfloat16).as_strided((T, 1, 64), (step, step, 1))
    generator = torch.Generator().manual_seed(0)
    gate.copy_(normal(generator, (T, 1, 64)))
    state = normal(generator, (1, 64), torch.float32)
    found = min_gru(gate, gate, state)
    assert_same(list(found), list(min_gru(gate.contiguous(), gate.contiguous(), state)), 0.0)


@on_a_gpu
def test_warming_up_compiles_for_the_shape() -> None:
    warm_up("cuda", shape=(16, 4, 64))
