"""Minari datasets: metadata edited, columns replaced, bytes damaged."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
from hypothesis import strategies as st

from rlmin.cli import main
from rlmin.data import load_dataset

from .d4rl import FILLS, TYPES, check, write_array
from .junk import damage, damage_file, edited, edits

ID = "fuzz/base-v0"
COLUMNS = ["observations", "actions", "rewards", "terminations", "truncations", "episode", "attributes"]

CASES = st.fixed_dictionaries(
    {
        "metadata": edits,
        "column": st.sampled_from([None, *COLUMNS]),
        "becomes": st.fixed_dictionaries(
            {
                "type": st.sampled_from(TYPES),
                "tail": st.sampled_from([[], [4], [1], [2, 3]]),
                "fill": st.sampled_from(FILLS),
                "form": st.sampled_from(["array", "drop", "scalar", "group", "unwritten"]),
                "steps": st.integers(0, 30),
            }
        ),
        "bytes": damage,
        "file": st.sampled_from(["metadata.json", "main_data.hdf5"]),
    }
)

USUAL: dict[str, Any] = {"metadata": [], "column": None, "becomes": {}, "bytes": [], "file": "metadata.json"}


def prepare(base: Path) -> None:
    """A small dataset."""
    os.environ |= {"MINARI_DATASETS_PATH": str(base), "MINARI_REMOTE": "none://nowhere"}
    main(["collect", "--env", "CartPole-v1", "--policy", "random", "--dataset", ID, "--episodes", "3"])


def run(case: dict[str, Any], base: Path, work: Path) -> None:
    """Change the folder, and load it."""
    shutil.copytree(base, work / "minari")
    os.environ |= {"MINARI_DATASETS_PATH": str(work / "minari"), "MINARI_REMOTE": "none://nowhere"}
    data = work / "minari" / ID / "data"
    metadata = data / "metadata.json"
    metadata.write_text(json.dumps(_unpacked(json.loads(metadata.read_text()), case["metadata"])))
    if case["column"] is not None:
        with h5py.File(data / "main_data.hdf5", "r+") as file:
            _replace(file, case["column"], case["becomes"])
    damage_file(data / case["file"], case["bytes"])
    check(load_dataset(ID, cache=False))


def _unpacked(told: dict[str, Any], steps: list[Any]) -> dict[str, Any]:
    """With edits also inside the entries that are JSON as text: spaces and the specification of the environment."""
    packed = [key for key in ("observation_space", "action_space", "env_spec") if isinstance(told.get(key), str)]
    found: dict[str, Any] = edited({**told, **{key: json.loads(told[key]) for key in packed}}, steps)
    return {**found, **{key: json.dumps(found[key]) for key in packed if isinstance(found.get(key), dict)}}


def _replace(file: h5py.File, column: str, told: dict[str, Any]) -> None:
    group = file["episode_1"]
    if column == "attributes":
        for key in list(group.attrs):
            group.attrs[key] = told["fill"] if told["form"] == "drop" else told["steps"]
        return
    if column == "episode":
        del file["episode_1"]
        if told["form"] == "group":
            file.create_group("episode_1")
        return
    del group[column]
    if told["form"] == "group":
        group.create_group(column)
    elif told["form"] == "unwritten":
        group.create_dataset(column, (10**10, *told["tail"]), "f4", chunks=True)
    elif told["form"] != "drop":
        write_array(group, column, told, told["steps"])
