"""The GPU kernels compile for a Hopper GPU on a machine without one: no register spills, loads that run ahead.

The interpreter, which the other tests may run the kernels in, is a setting of the whole process. So this file is also
a program: the test starts it once, without that setting, and it prints what the compiler and the assembler said.
"""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # half a minute of Triton's compiler

WIDE, NARROW, FEW = 1 << 18, 1 << 14, 1 << 11  # lanes: 16 bytes a thread; 4 bytes a thread; the parallel scan
CASES: list[tuple[str, str, str, str, int, bool]] = [  # kernel, scan, dtype, activation, lanes, aligned
    ("forward", "linear", "fp32", "identity", WIDE, True),
    ("forward", "gru", "fp32", "tanh", WIDE, True),
    ("forward", "gru", "bf16", "tanh", NARROW, True),
    ("forward", "lstm", "bf16", "g", WIDE, True),
    ("forward", "lstm", "bf16", "g", WIDE, False),
    ("forward", "lstm", "fp32", "tanh", FEW, True),
    ("backward", "linear", "fp16", "identity", WIDE, True),
    ("backward", "lstm", "bf16", "tanh", WIDE, True),
    ("backward", "lstm", "bf16", "g", WIDE, False),
    ("backward", "lstm", "fp32", "tanh", WIDE, True),
    ("backward", "lstm", "fp32", "tanh", FEW, True),
    ("backward", "lstm", "fp64", "g", FEW, True),
]
SIZES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}


def source(kernel: str, scan: str, dtype: str, activation: str, lanes: int, aligned: bool) -> tuple[Any, Any]:
    """What Triton compiles for such a call on T = 128 steps, with starts, and the options of the launch."""
    from triton.compiler import ASTSource

    from rlmin.scan import ACTIVATIONS, gpu

    module, options = gpu.plan(kernel, 128, lanes, SIZES[dtype], aligned)
    function: Any = getattr(module, kernel)
    chosen = {**options, "KIND": gpu.SCANS[scan], "ACTIVATION": ACTIVATIONS.index(activation)}
    chosen |= {"REVERSE": kernel == "backward", "ONE_ROW": aligned}
    constants = {name: chosen.pop(name) for name in function.arg_names if name in chosen}
    if scan != "lstm":
        constants |= dict.fromkeys({"x1", "grad_x1"} & set(function.arg_names))
    types: dict[str, str] = {}
    for name in function.arg_names:
        carried = name in ("state", "last", "grad_last", "grad_state")
        number = name in ("T", "N", "D") or name.endswith(("_t", "_b"))
        pointer = "*u8" if name == "start" else "*fp32" if carried and dtype != "fp64" else f"*{dtype}"
        types[name] = "constexpr" if name in constants else "i32" if number else pointer
    arguments = list(enumerate(function.arg_names))
    hints = {(i,): [["tt.divisibility", 16]] for i, name in arguments if name not in constants}
    if not aligned:
        hints = {(i,): hint for (i,), hint in hints.items() if types[function.arg_names[i]] != "i32"}
    hints.pop((function.arg_names.index("T"),), None)
    return ASTSource(function, types, constants, hints), chosen


def report(folder: Path) -> list[dict[str, Any]]:
    """Compile every case: registers spilled, and the bytes that each kind of asynchronous load moves."""
    import triton
    from triton.backends.compiler import GPUTarget

    found = []
    for case in CASES:
        code, options = source(*case)
        ptx = triton.compile(code, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
        log = assemble(ptx, folder)
        widths = re.findall(r"cp\.async\.c[ag]\.shared\.global \[[^]]*\], \[[^]]*\], (0x\w+|\d+)", ptx)
        found.append({"spilled": int(re.findall(r"(\d+) bytes spill stores", log)[0]), "registers": log})
        found[-1]["loads"] = sorted({int(width, 0) for width in widths})
    return found


def assemble(ptx: str, folder: Path) -> str:
    """What the assembler says of a kernel: registers, and bytes of them spilled."""
    path = folder / "kernel.ptx"
    path.write_text(ptx)
    command = [assembler(), "-v", "--gpu-name=sm_90a", str(path), "-o", str(folder / "kernel.cubin")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def assembler() -> str:
    """The path of ptxas, which Triton brings; it began to ask for the architecture between 3.4 and 3.6."""
    from triton.backends.nvidia.compiler import get_ptxas

    found: Any = get_ptxas(90) if inspect.signature(get_ptxas).parameters else get_ptxas()
    return str((found[0] if isinstance(found, tuple) else found).path)


def run_program(file: str, folder: Path) -> Any:
    """What a file of tests prints as a program without the interpreter; skips where nothing can be compiled."""
    pytest.importorskip("triton", exc_type=ImportError)
    pytest.importorskip("triton.backends.nvidia.compiler", exc_type=ImportError)
    try:
        assembler()
    except RuntimeError as error:
        pytest.skip(f"no assembler for NVIDIA GPUs: {error}")
    environment = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "RLMIN_KERNEL")}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run([sys.executable, file, str(folder)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run_program(__file__, tmp_path_factory.mktemp("ptx"))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case)))
def test_a_kernel_compiles_without_spills(
    compiled: list[dict[str, Any]], case: tuple[str, str, str, str, int, bool]
) -> None:
    found = compiled[CASES.index(case)]
    assert found["spilled"] == 0, found["registers"]


def test_loads_run_ahead_several_elements_at_a_time_where_the_layout_allows(compiled: list[dict[str, Any]]) -> None:
    for case, found in zip(CASES, compiled, strict=True):
        kernel, _, dtype, _, lanes, aligned = case
        if lanes != NARROW and aligned:
            half = lanes == WIDE and kernel == "backward" and SIZES[dtype] == 2
            assert found["loads"] == [8 if half else 16], f"{case}: {found['loads']}"
        elif aligned or dtype == "fp32":
            assert found["loads"] == [4], f"{case}: {found['loads']}"
    assert any(kernel == "forward" and lanes == WIDE and aligned for kernel, *_, lanes, aligned in CASES)


if __name__ == "__main__":
    print(json.dumps(report(Path(sys.argv[1]))))
