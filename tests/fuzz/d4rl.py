"""HDF5 files in D4RL's layout: odd columns, odd structure, damaged bytes."""

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from hypothesis import strategies as st

from rlmin.data import Dataset, load_dataset
from rlmin.data.d4rl import KEYS, NEXT

from .case import DifferenceError
from .junk import damage, damage_file

TYPES = ["f2", "f4", "f8", "i1", "i8", "u1", "u8", "?", "c8", "S3", "text", "record", "reference"]
TAILS = [[], [1], [3], [2, 3], [0], [16, 17, 3], [5000]]
FILLS = ["usual", "usual", "nan", "inf", "huge", "negative", "ones", "zeros", "counting"]
FORMS = ["array", "array", "missing", "group", "scalar", "loop", "external", "lazy", "packed", "empty", "longer"]

column = st.fixed_dictionaries(
    {
        "type": st.sampled_from(TYPES),
        "tail": st.sampled_from(TAILS),
        "fill": st.sampled_from(FILLS),
        "form": st.sampled_from(FORMS),
    }
)
CASES = st.fixed_dictionaries(
    {
        "steps": st.sampled_from([12, 12, 1, 2, 0, 30]),
        "unwritten": st.sampled_from([0, 0, 0, 10**8, 10**11]),
        "columns": st.dictionaries(st.sampled_from([*KEYS, NEXT, "metadata", "more"]), column, max_size=2),
        "bytes": damage,
        "env": st.sampled_from([None, None, "CartPole-v1", "Pendulum-v1"]),
    }
)
USUAL: dict[str, dict[str, Any]] = {
    "observations": {"type": "f4", "tail": [4], "fill": "usual", "form": "array"},
    "actions": {"type": "i8", "tail": [], "fill": "zeros", "form": "array"},
    "rewards": {"type": "f4", "tail": [], "fill": "usual", "form": "array"},
    "terminals": {"type": "?", "tail": [], "fill": "zeros", "form": "array"},
    "timeouts": {"type": "?", "tail": [], "fill": "zeros", "form": "array"},
}

USUAL_CASE = {"steps": 12, "unwritten": 0, "columns": {}, "bytes": [], "env": None}


def run(case: dict[str, Any], base: Path, work: Path) -> None:
    """Write the file, read it in memory and memory-mapped, and look at every number."""
    path = work / "hopper-medium-v2.hdf5"
    with h5py.File(path, "w") as file:
        usual = USUAL
        if case["unwritten"]:
            usual = {name: told | {"form": "lazy"} for name, told in USUAL.items()}
        for name, told in {**usual, **case["columns"]}.items():
            _write(file, name, told, case["unwritten"] if told["form"] == "lazy" else case["steps"])
    damage_file(path, case["bytes"])
    dataset = load_dataset(path, cache=False, env=case["env"])
    check(dataset)
    mapped = load_dataset(path, cache=work / "cache", env=case["env"])
    for name, x in dataset.step.items(True, True):
        if not torch.equal(x, mapped.step[name]):
            raise DifferenceError(f"{name}: another value in the cache")


def check(dataset: Dataset) -> None:
    """Every number of a dataset is finite, and there are as many as it says."""
    for part in (dataset.step, dataset.final):
        for name, x in part.items(True, True):
            if x.is_floating_point() and not bool(torch.isfinite(x).all()):
                raise DifferenceError(f"{name}: NaN or infinity was accepted")
    if int(dataset.lengths.sum()) != dataset.num_steps or bool((dataset.lengths < 1).any()):
        raise DifferenceError(f"lengths {dataset.lengths.tolist()} of {dataset.num_steps} steps")


def _write(file: h5py.File, name: str, told: dict[str, Any], steps: int) -> None:
    form = told["form"]
    if form == "missing":
        return
    if form == "group":
        file.create_group(name)["x"] = 3
    elif form == "loop":
        file[name] = h5py.SoftLink(f"/{name}")
    elif form == "external":
        file[name] = h5py.ExternalLink("/etc/hostname", "/x")
    elif form == "lazy":  # a petabyte that nobody wrote
        kind = told["type"] if told["type"] in TYPES[:8] else "f4"
        file.create_dataset(
            name, (steps or 10**9, *told["tail"]), kind, chunks=(1024, *told["tail"]) if 0 not in told["tail"] else None
        )
    elif form == "empty":
        file[name] = h5py.Empty("f4")
    else:
        write_array(file, name, told, steps + (form == "longer"))


def write_array(file: h5py.File, name: str, told: dict[str, Any], steps: int) -> None:
    """Write a column of so many steps."""
    shape = () if told["form"] == "scalar" else (steps, *told["tail"])
    options = {"compression": "gzip"} if told["form"] == "packed" and all(shape) and shape else {}
    if told["type"] == "reference":
        file.create_dataset(name, shape, h5py.ref_dtype)
    elif told["type"] == "text":
        file.create_dataset(name, shape, h5py.string_dtype())
    elif told["type"] == "record":
        file.create_dataset(name, data=np.zeros(shape, [("a", "f4"), ("b", "i8")]))
    else:
        file.create_dataset(name, data=_values(told["fill"], shape).astype(told["type"]), **options)


@np.errstate(all="ignore")
def _values(fill: str, shape: tuple[int, ...]) -> np.ndarray:
    draw = np.random.default_rng(0)
    size = int(np.prod(shape))
    if fill == "counting":
        return np.fromiter(itertools.count(), float, size).reshape(shape)
    if fill == "usual":
        return draw.normal(size=shape).clip(-1, 1)
    found = np.full(shape, {"negative": -5.0, "ones": 1.0, "huge": 1e30}.get(fill, 0.0))
    if fill in ("nan", "inf") and size:
        found.flat[size // 2] = float(fill)
    return found
