"""The kernels of norm and convolution compile for a Hopper GPU on a machine without one, and spill no registers.

The interpreter is a setting of the whole process, so this file is also a program: see `test_scan_gpu_compile.py`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from test_scan_gpu_compile import assemble, run_program

pytestmark = pytest.mark.slow  # half a minute of Triton's compiler

CASES = [(kernel, dtype, D) for kernel in ("_forward", "_backward") for dtype, D in (("fp32", 128), ("fp32", 64))]


def report(folder: Path) -> list[int]:
    """Compile every case: bytes of registers spilled."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from rlmin.kernels import norm_conv_gpu

    found = []
    for kernel, dtype, D in CASES:
        function: Any = getattr(norm_conv_gpu, kernel)
        rows, columns = norm_conv_gpu.tile_of(kernel.removeprefix("_"), D)
        known = {"WIDTH": 4, "PADDED": 4, "ROWS": rows, "COLUMNS": columns}
        constants = {name: known[name] for name in function.arg_names if name in known}
        numbers = dict.fromkeys(("T", "B", "D", "tiles"), "i32") | {"eps": "fp32", "start": "*u8"}
        types = {name: numbers.get(name, f"*{dtype}") for name in function.arg_names}
        types |= dict.fromkeys(constants, "constexpr")
        whole = [i for i, name in enumerate(function.arg_names) if types[name].startswith("*") or name == "D"]
        hints = {(i,): [["tt.divisibility", 16]] for i in whole}
        code = ASTSource(function, types, constants, hints)
        ptx = triton.compile(code, target=GPUTarget("cuda", 90, 32), options=norm_conv_gpu.OPTIONS).asm["ptx"]
        log = assemble(ptx, folder)
        found.append(int(log.split(" bytes spill stores")[0].split()[-1]))
    return found


def test_no_kernel_spills(tmp_path: Path) -> None:
    assert dict(zip(CASES, run_program(__file__, tmp_path), strict=True)) == dict.fromkeys(CASES, 0)


if __name__ == "__main__":
    print(json.dumps(report(Path(sys.argv[1]))))
