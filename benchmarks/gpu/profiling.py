"""Stage F: the kernels of one iteration of PPO, launches, and places that wait for the device."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from iteration import iterate, make_maze
from record import DEVICE, OUT, add, set_precision, wait

LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cuLaunchKernelEx", "cudaLaunchKernelExC")


def profile_ppo() -> None:
    set_precision(tf32=True)
    agent = make_maze(4096)
    agent.warm_up()
    iterate(agent, 3)
    rollouts: list[Any] = []

    def collect() -> None:
        rollouts.append(agent.collector.collect())

    def update() -> None:
        with agent.training():
            agent.update(rollouts[-1])

    for name, part in {"rollout": collect, "update": update}.items():
        _profile(name, part)
    if DEVICE == "cuda":
        _count_waits(update)
    set_precision(tf32=False)


def _profile(name: str, part: Any) -> None:
    from torch.profiler import ProfilerActivity, profile

    cuda = DEVICE == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as found:
        part()
        wait()
    events: Any = found.key_averages()
    order = "self_device_time_total" if cuda else "self_cpu_time_total"
    with (OUT / "profile.txt").open("a") as file:
        file.write(f"==== {name}, 4096 envs, T = 128, width 128, TF32\n")
        file.write(events.table(sort_by=order, row_limit=30, max_name_column_width=90) + "\n")
    add(f"{name}: kernels launched by the CPU", sum(event.count for event in events if event.key in LAUNCHES))
    kernels = [event for event in events if "CUDA" in str(event.device_type)]
    add(f"{name}: time of the kernels", sum(event.self_device_time_total for event in kernels) / 1e3, "ms")
    for event in sorted(kernels, key=lambda event: -event.self_device_time_total)[:12]:
        print(f"   {event.self_device_time_total / 1e3:9.3f} ms {event.count:6d} x  {event.key[:100]}")


def _count_waits(part: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        part()
        torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{Path(one.filename).name}:{one.lineno}" for one in caught)
    add("update: waits for the device", places.total(), "", str(dict(places))[:400])
