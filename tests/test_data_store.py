"""Memory-mapped datasets: the same rows, written once, whole or not at all; and what a summary says."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import MemoryMappedTensor
from test_data_episodes import LENGTHS, episodes

from rlmin.data import Dataset, Episode, Reference, load_dataset
from rlmin.data.reference import reference_of
from rlmin.data.source import Block
from rlmin.data.subset import rows_of
from rlmin.data.summary import plot_returns, summary
from rlmin.data.tables import cache_folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLMIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def many() -> list[Episode]:
    """Nested, with images and names that no file could have."""
    draw = np.random.default_rng(0)
    return [
        Episode(
            {
                "image": draw.integers(0, 256, (L + 1, 5, 6, 3), dtype=np.uint8),
                "robot/joint": draw.normal(size=(L + 1, 4)),
                "..": (draw.normal(size=(L + 1,)), draw.integers(0, 3, L + 1)),
            },
            draw.uniform(-1, 1, (L, 2)),
            draw.normal(size=L),
            bool(L % 2),
        )
        for L in LENGTHS * 3
    ]


def assert_same(a: Dataset, b: Dataset) -> None:
    assert set(a.step.keys(True, True)) == set(b.step.keys(True, True))
    for key in a.step.keys(True, True):
        assert torch.equal(a.step[key], torch.as_tensor(b.step[key])), key
    for name in a.final["observation"].keys(True, True):
        assert torch.equal(a.final["observation", name], torch.as_tensor(b.final["observation", name])), name
    assert torch.equal(a.first, b.first) and torch.equal(a.terminated, b.terminated)
    assert torch.equal(a.returns, b.returns) and torch.equal(a.return_to_go(), b.return_to_go())
    assert a.observation_space == b.observation_space and a.action_space == b.action_space


def test_a_mapped_dataset_has_the_rows_of_the_one_in_memory(folder: Path) -> None:
    inside, mapped = load_dataset(many(), cache=False), load_dataset(many(), cache=True)
    assert not folder.exists() or isinstance(mapped.step["observation", "image"], MemoryMappedTensor)
    assert not isinstance(inside.step["observation", "image"], MemoryMappedTensor)
    assert set(mapped.step["observation"].keys()) == {"image", "robot/joint", "...0", "...1"}
    assert_same(inside, mapped)
    some = torch.tensor([9, 2, 2, 30])
    assert torch.equal(inside.step[some]["observation", "robot/joint"], mapped.step[some]["observation", "robot/joint"])
    other = load_dataset(many()[::-1], cache=True)
    with pytest.raises(AssertionError):
        assert_same(inside, other)


def test_blocks_of_one_episode_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_dataset(many())
    monkeypatch.setattr("rlmin.data.episodes.BLOCK_BYTES", 1)
    assert_same(whole, load_dataset(many(), cache=True))


def test_a_large_dataset_goes_to_the_cache_by_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_dataset(many())
    assert not folder.exists()
    monkeypatch.setattr("rlmin.data.store.IN_MEMORY", 100)
    assert isinstance(load_dataset(many()).step["reward"], MemoryMappedTensor)
    assert len(list(folder.iterdir())) == 1
    assert not isinstance(load_dataset(many(), cache=False).step["reward"], MemoryMappedTensor)


def test_the_cache_is_where_it_is_told_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_dataset(many(), cache=tmp_path / "here")
    assert len(list((tmp_path / "here").glob("episodes-*"))) == 1
    monkeypatch.delenv("RLMIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "rlmin"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "rlmin"


def test_a_conversion_is_done_once_and_again_for_other_content(folder: Path) -> None:
    load_dataset(many(), cache=True)
    (found,) = folder.iterdir()
    written = {path: path.stat().st_mtime_ns for path in found.rglob("*")}
    load_dataset(many(), cache=True)
    assert {path: path.stat().st_mtime_ns for path in found.rglob("*")} == written
    other = many()
    other[3] = replace(other[3], rewards=other[3].rewards + 1)
    assert load_dataset(other, cache=True).returns[3] != load_dataset(many(), cache=True).returns[3]
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("damage", ["short", "gone", "unfinished", "edited"])
def test_a_damaged_folder_is_written_again(folder: Path, damage: str) -> None:
    good = load_dataset(many(), cache=True)
    (found,) = folder.iterdir()
    reward = found / "step" / "reward.memmap"
    if damage == "short":
        reward.write_bytes(reward.read_bytes()[:-4])
    elif damage == "gone":
        reward.unlink()
    elif damage == "unfinished":
        (found / "dataset.json").unlink()
    else:
        told = json.loads((found / "dataset.json").read_text())
        (found / "dataset.json").write_text(json.dumps(told | {"digest": "another"}))
    assert_same(load_dataset(many()), load_dataset(many(), cache=True))
    assert [path.name for path in folder.iterdir()] == [found.name] and good.num_steps == 42


def test_what_is_interrupted_or_wrong_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = many()
    bad[-1].rewards[-1] = np.nan
    with pytest.raises(ValueError, match="episode 11, step 1: reward"):
        load_dataset(bad, cache=True)
    assert list(folder.iterdir()) == []

    def interrupted(*args: Any, **kwargs: Any) -> Iterator[Block]:
        raise KeyboardInterrupt

    monkeypatch.setattr("rlmin.data.store._fill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_dataset(many(), cache=True)
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_when_it_is_old(folder: Path) -> None:
    for name, age in ((".rlmin-old", 8), (".rlmin-young", 1)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age * 24 * 3600,) * 2)
    load_dataset(many(), cache=True)
    assert {path.name.partition("-")[2] for path in folder.iterdir() if path.name.startswith(".")} == {"young"}


def test_a_full_disk_is_said_before_anything_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=50)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"GiB of room for a memory-mapped dataset, found 0\.00; name another folder"):
        load_dataset(many(), cache=True)
    assert list(folder.iterdir()) == []


def test_a_large_subset_is_mapped_and_its_files_go_with_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset(many())
    monkeypatch.setattr("rlmin.data.subset.IN_MEMORY", 100)
    monkeypatch.setattr("rlmin.data.subset.COPIED", 300)
    some = [7, 0, 2]
    subset = dataset.episodes(some)
    assert isinstance(subset.step["observation", "image"], MemoryMappedTensor)
    assert len(list(folder.iterdir())) >= 1
    monkeypatch.undo()
    assert_same(load_dataset(many()).episodes(some), subset)
    del subset
    assert list(folder.iterdir()) == []


def test_a_view_of_mapped_rows_stays_mapped() -> None:
    dataset = load_dataset(many(), cache=True)
    view = rows_of(dataset.step, dataset.first[2:4], dataset.first[3:5])
    assert view["reward"].data_ptr() == dataset.step["reward"][int(dataset.first[2]) :].data_ptr()


def test_reference_scores_belong_to_a_task() -> None:
    for name in ("hopper-medium-v2", "D4RL/hopper/medium-v0", "mujoco/hopper/expert-v0", "Hopper-v5", "hopper"):
        assert reference_of(name) == Reference(random=-20.272305, expert=3234.3, source="D4RL, hopper"), name
    for name, task in (
        ("maze2d-large-v1", "maze2d-large"),
        ("antmaze-umaze-diverse-v2", "antmaze"),
        ("AntMaze_UMaze-v4", "antmaze"),
        ("ant-medium-replay-v2", "ant"),
        ("D4RL/pen/human-v2", "pen"),
        ("AdroitHandDoor-v1", "door"),
        ("HalfCheetah-v4", "halfcheetah"),
    ):
        found = reference_of(name)
        assert found is not None and found.source == f"D4RL, {task}", name
    for name in (
        "bullet-hopper-medium-v0",
        "my-hopper",
        "AdroitHandDoorSparse-v1",
        "door-key-v0",
        "CartPole-v1",
        "maze2d-umaze-dense-v1",
        "",
        "-/",
    ):
        assert reference_of(name) is None, name


def test_a_summary_tells_what_is_there(tmp_path: Path) -> None:
    dataset = replace(load_dataset(episodes()), env={"id": "Task-v0", "kwargs": {"size": 3}, "workers": 0})
    text = summary(replace(dataset, recipe={"algorithm_name": "a rule\nof thumb"}))
    for part in ("4, of which 2 terminated and 2 were truncated", "14", "max 7", "Discrete(5)", "Task-v0 size=3"):
        assert part in text, part
    assert "reference" in text and "unknown: no normalised score" in text and "a rule of thumb" in text
    assert dataset.summary() == summary(dataset)
    scored = replace(dataset, reference=Reference(random=1, expert=30, source="nowhere"))
    assert "1 counts as 0, 30 as 100 (nowhere)" in summary(scored)
    plot_returns(scored, tmp_path / "returns.png")
    assert (tmp_path / "returns.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("package", ["minari", "h5py"])
def test_a_missing_package_names_the_extra(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "a.hdf5").write_bytes(b"")
    source = "any/dataset-v0" if package == "minari" else tmp_path / "a.hdf5"
    with pytest.raises(ImportError, match=rf"{package} is not installed; .*rlmin\[offline\]"):
        load_dataset(source)
