"""The fused kernels beside the scans compile for a Hopper GPU on a machine without one, and spill no registers.

The interpreter is a setting of the whole process, so this file is also a program: see `test_scan_gpu_compile.py`.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from test_scan_gpu_compile import assemble, run_program

pytestmark = pytest.mark.slow  # a minute of Triton's compiler

NUMBERS = ("T", "B", "D", "H", "N", "K", "n", "tiles", "blocks", "programs")
TYPES = dict.fromkeys(NUMBERS, "i32") | {"eps": "fp32", "start": "*u8", "restart": "*u8", "action": "*i64"}
CASES: list[tuple[str, str, str, int, tuple[str, ...]]] = [  # module, kernel, dtype, D, arguments that are None
    ("norm_conv_gpu", "_forward", "fp32", 128, ()),
    ("norm_conv_gpu", "_forward", "fp32", 64, ()),
    ("norm_conv_gpu", "_backward", "fp32", 128, ()),
    ("norm_conv_gpu", "_backward", "fp32", 128, ("dlast",)),
    ("norm_conv_gpu", "_backward", "fp32", 64, ("dlast", "straight")),
    ("feed_forward_gpu", "_add_norm_forward", "fp32", 128, ()),
    ("feed_forward_gpu", "_add_norm_forward", "fp32", 512, ()),
    ("feed_forward_gpu", "_add_norm_backward", "fp32", 128, ()),
    ("feed_forward_gpu", "_add_norm_backward", "fp32", 512, ()),
    ("feed_forward_gpu", "_silu_backward", "fp32", 256, ()),
    ("choices_gpu", "_forward", "fp32", 4, ()),
    ("choices_gpu", "_backward", "fp32", 4, ()),
    ("choices_gpu", "_backward", "fp32", 100, ()),
    ("ppo_loss_gpu", "_ppo_loss", "fp32", 0, ("weight", "old_value", "count")),
    ("ppo_loss_gpu", "_ppo_loss", "fp32", 0, ()),
    ("rnn_gpu", "_gru_forward", "fp32", 128, ()),
    ("rnn_gpu", "_gru_backward", "fp32", 128, ()),
    ("rnn_gpu", "_lstm_forward", "fp32", 128, ()),
    ("rnn_gpu", "_lstm_backward", "fp32", 128, ()),
    ("ppo_loss_gpu", "_join", "fp32", 0, ("count",)),
]


def constants_of(module: Any, kernel: str, D: int) -> dict[str, Any]:
    """The sizes that a kernel is compiled for."""
    if module.__name__.endswith("rnn_gpu"):
        return {"BLOCK": module.BLOCK}
    if kernel in ("_ppo_loss", "_join"):
        return {"BLOCK": module._BLOCK, "PROGRAMS": module._PROGRAMS}
    size = (D,) if module.__name__.endswith("choices_gpu") else (kernel.removeprefix("_"), D)
    rows, columns = module.tile_of(*size)
    return {"WIDTH": 4, "PADDED": 4, "ROWS": rows, "COLUMNS": columns}


def report(folder: Path) -> list[int]:
    """Compile every case: bytes of registers spilled."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    found = []
    for name, kernel, dtype, D, absent in CASES:
        module = importlib.import_module(f"rlmin.kernels.{name}")
        function: Any = getattr(module, kernel)
        known = constants_of(module, kernel, D) | dict.fromkeys(absent)
        constants = {name: known[name] for name in function.arg_names if name in known}
        types = {name: TYPES.get(name, f"*{dtype}") for name in function.arg_names} | dict.fromkeys(
            constants, "constexpr"
        )
        whole = [i for i, name in enumerate(function.arg_names) if types[name].startswith("*") or name in ("D", "H")]
        hints = {(i,): [["tt.divisibility", 16]] for i in whole}
        code = ASTSource(function, types, constants, hints)
        ptx = triton.compile(code, target=GPUTarget("cuda", 90, 32), options=module.OPTIONS).asm["ptx"]
        found.append(int(assemble(ptx, folder).split(" bytes spill stores")[0].split()[-1]))
    return found


def test_no_kernel_spills(tmp_path: Path) -> None:
    assert dict(zip(CASES, run_program(__file__, tmp_path), strict=True)) == dict.fromkeys(CASES, 0)


if __name__ == "__main__":
    print(json.dumps(report(Path(sys.argv[1]))))
