"""Stage A: device, versions, speed of a copy and of a product, and one update."""

import sys
import time
import warnings

import torch
from iteration import is_graph, make_maze
from record import DEVICE, DRY, add, fail, measure, set_precision, wait

import rlmin
from rlmin.scan.dispatch import kernel_for


def check_smoke() -> None:
    import numpy

    words = [f"python {sys.version.split()[0]}", f"torch {torch.__version__}", f"numpy {numpy.__version__}"]
    add("versions", " ".join(words))
    add("rlmin from", str(rlmin.__file__))
    if not DRY:
        _measure_device()
    began = time.perf_counter()
    kernel = kernel_for(torch.device(DEVICE))
    name = getattr(kernel, "__name__", type(kernel).__name__)
    add("kernel for the device", name, "", f"first call {time.perf_counter() - began:.1f} s")
    if not DRY and name != "rlmin.scan.gpu":
        fail("kernel", f"expected Triton's, got {name}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        began = wait()
        agent = make_maze(256)
        agent.learn(3 * agent.config.num_envs * agent.config.horizon)
        add("three updates of 256 envs, cold", wait() - began, "s")
    for one in caught:
        print("   warned:", one.category.__name__, str(one.message)[:300], f"{one.filename}:{one.lineno}")
    if not DRY:
        add("rollout is a CUDA graph", str(is_graph(agent)))
        add("memory reserved", torch.cuda.max_memory_reserved() / 2**30, "GiB")


def _measure_device() -> None:
    """Name, memory, bytes a second of a copy, products a second in three precisions."""
    total, units = torch.cuda.mem_get_info()[1], torch.cuda.get_device_properties(0).multi_processor_count
    add("device", torch.cuda.get_device_name(), "", f"{units} SMs, {total / 2**30:.0f} GiB")
    x, y = torch.randn(1 << 29, device="cuda"), torch.empty(1 << 29, device="cuda")
    y.copy_(x)
    took = min(measure(y.copy_, x)[0] for _ in range(5))
    add("copy", 2 * x.nbytes / took / 1e12, "TB/s")
    del x, y
    kinds = (("fp32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False))
    for name, dtype, tf32 in kinds:
        set_precision(tf32=tf32)
        a, w = (torch.randn(rows, 128, device="cuda", dtype=dtype) for rows in (1 << 19, 256))
        took = min(measure(torch.mm, a, w.t())[0] for _ in range(6))
        add(f"product [2^19, 128] x [128, 256], {name}", 2 * a.numel() * 256 / took / 1e12, "TFLOP/s")
    set_precision(tf32=False)
