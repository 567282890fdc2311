"""The machine of a measurement in words: without it a benchmark says nothing."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from rlmin import __version__


def describe_machine() -> dict[str, str]:
    """Name -> value of everything that speed depends on: processor, memory, threads, system, versions, GPU."""
    return {
        "CPU": cpu_model(),
        "cores": str(available_cores()),
        "threads": str(torch.get_num_threads()),
        "RAM": f"{memory_gib():.0f} GiB",
        "OS": platform.platform(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "Python": platform.python_version(),
        "rlmin": __version__,
        **{name: find_version(name) for name in ("torch", "numba", "triton")},
    }


def cpu_model() -> str:
    """The processor's name, if the system has one, with the vector units that torch uses."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """Physical memory in GiB; NaN if the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return float("nan")


def find_version(package: str) -> str:
    """The version of a package, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
