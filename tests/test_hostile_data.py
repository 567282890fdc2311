"""Data that a stranger made: one error that names the file, in bounded time and memory, before anything is read."""

import gc
import io
import json
import os
import random
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from unix import LINKS

from rlmin.cli import main
from rlmin.data import load_dataset, written
from rlmin.files.read_json import BYTES, read_json
from rlmin.runs import logs
from rlmin.runs.logs import read_rows
from rlmin.suite.behaviour import Behaviour
from rlmin.suite.cells import Cell
from rlmin.suite.run import SCORE, read_finished
from rlmin.vector.arena import Arena

N = 12
SMALL = 2**16
"""Bytes that a column may claim without having them, here."""
ARROW = pytest.mark.needs("pyarrow", "pandas")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("MINARI_REMOTE", "none://nowhere")
    monkeypatch.setenv("RLMIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(written, "SMALL", SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def columns() -> dict[str, Any]:
    ends = np.arange(N) % 4 == 3
    made = {"observations": np.ones((N, 3), np.float32), "actions": np.ones((N, 2), np.float32)}
    return made | {"rewards": np.ones(N), "terminals": ends, "timeouts": np.zeros(N, bool)}


def grown(act: Callable[[], object]) -> int:
    """MiB by which the largest size of this process grows."""
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    act()
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // (
        1024 if sys.platform == "linux" else 2**20
    )


def refused(source: Any, words: str) -> None:
    """The library and the command line say the same, in one line."""
    with pytest.raises(ValueError, match=words) as caught:
        load_dataset(source)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(source)])
    assert ended.value.code == 2


# HDF5: what is read lies in the file itself


def external(file: Any, secret: Path) -> None:
    del file["rewards"]
    file.create_dataset("rewards", (N,), "f4", external=[(str(secret), 0, 4 * N)])


def endless(file: Any, secret: Path) -> None:
    del file["rewards"]
    file.create_dataset("rewards", (10**11,), "u1", external=[("/dev/zero", 0, 10**11)])


def virtual(file: Any, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["x"] = np.ones(N)
    layout = h5py.VirtualLayout((N,), "f8")
    layout[:] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "x", (N,))
    del file["rewards"]
    file.create_virtual_dataset("rewards", layout)


def linked(file: Any, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["x"] = np.ones(N)
    del file["rewards"]
    file["rewards"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "x")


ELSEWHERE = {"external": external, "endless": endless, "virtual": virtual, "linked": linked}


@pytest.mark.parametrize("layout", ["d4rl", "without timeouts", "robomimic"])
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_column_that_lies_in_another_file_is_not_read(kind: str, layout: str, here: Path) -> None:
    secret, path = here / "secret", here / "hopper-data-v0.hdf5"
    secret.write_bytes(bytes(4 * N))
    with h5py.File(path, "w") as file:
        group = file.create_group("data/demo_0") if layout == "robomimic" else file
        for name, x in columns().items():
            group[name] = x
        if layout == "robomimic":
            group["obs/x"] = group["observations"][()]
        if layout != "d4rl":
            del group["timeouts"]
    assert load_dataset(path).num_steps == N, "the arm that is read"
    with h5py.File(path, "r+") as file:
        ELSEWHERE[kind](file["data/demo_0"] if layout == "robomimic" else file, secret)
    assert grown(lambda: refused(path, "another file|bytes, of which")) < 100


@pytest.mark.parametrize("kind", ["external", "linked"])
def test_a_minari_dataset_reads_no_other_file(kind: str, here: Path) -> None:
    main(["collect", "--env", "CartPole-v1", "--policy", "random", "--dataset", "aa/bb-v0", "--episodes", "2"])
    (here / "secret").write_bytes(bytes(4 * N))
    with h5py.File(here / "minari/aa/bb-v0/data/main_data.hdf5", "r+") as file:
        ELSEWHERE[kind](file["episode_1"], here / "secret")
    refused("aa/bb-v0", "episode_1/rewards: expected numbers.*another file")


@pytest.mark.parametrize("wrong", ["group", "text", "many", "none"])
def test_a_dump_that_is_none_of_d3rlpys_is_one_error(wrong: str, here: Path) -> None:
    with h5py.File(here / "dump.h5", "w") as file:
        for name, x in columns().items():
            file[f"{name}_0"] = x
        file["terminated_0"] = True
        file["num_episodes"] = {"text": b"three", "many": 10**9}.get(wrong, 1)
        if wrong == "group":
            del file["actions_0"]
            file.create_group("actions_0")
        if wrong == "none":
            del file["num_episodes"]
            file["num_episodes"] = [1, 2]
    refused(here / "dump.h5", "^dataset 'dump'")


# .npz


def packed(arrays: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def array(x: Any, **claims: Any) -> bytes:
    """An array as numpy writes it, with other words in its header."""
    file = io.BytesIO()
    np.save(file, np.asarray(x))
    content = file.getvalue()
    if not claims:
        return content
    (length,) = struct.unpack_from("<H", content, 8)
    told = eval(content[10 : 10 + length]) | claims
    header = f"{told!r}".encode().ljust(117) + b"\n"
    return content[:8] + struct.pack("<H", len(header)) + header + content[10 + length :]


NPZ: dict[str, Callable[[], bytes]] = {
    "a bomb": lambda: packed({"rewards": array(np.zeros(2 * 10**6, "u1"))}, zipfile.ZIP_LZMA),
    "more rows than there are": lambda: packed({"rewards": array(np.zeros(3), shape=(10**4,))}),
    "rows that are not there": lambda: packed({"rewards": array(np.zeros(3), shape=(10**12,))}),
    "a shape without end": lambda: packed({"rewards": array(np.zeros(3), shape=(2**40, 2**40))}),
    "objects": lambda: packed({"rewards": array(np.zeros(3), descr="|O")}),
    "another format": lambda: packed({"rewards": b"\x93NUMPY\x09\x00" + array(np.zeros(3))[8:]}),
    "no array": lambda: packed({"rewards": b"hello"}),
    "no zip": lambda: b"PK hello",
    "half of it": lambda: packed({"rewards": array(np.arange(9e3))})[:3000],
    "an empty file": lambda: b"",
}
CLAIMS = ("a bomb", "more rows than there are", "rows that are not there", "a shape without end")


@pytest.mark.parametrize("kind", NPZ)
def test_an_npz_that_lies_is_one_error(kind: str, here: Path) -> None:
    np.savez_compressed(here / "good.npz", **columns())
    assert load_dataset(here / "good.npz").num_steps == N
    (here / "bad.npz").write_bytes(NPZ[kind]())
    refused(here / "bad.npz", r"^dataset 'bad': .*bad\.npz cannot be read as \.npz")
    if kind in CLAIMS:  # seen before numpy allocates what it says
        refused(here / "bad.npz", r"rewards\.npy: expected [\d,]+ bytes, of which [\d,]+ are in the file")


# tables


def frame() -> Any:
    pd = pytest.importorskip("pandas")
    table = {"obs": np.ones(N), "act": np.ones(N), "reward": np.ones(N), "episode": np.repeat([0, 1, 2], 4)}
    return pd.DataFrame(table)


@ARROW
def test_a_table_that_lies_is_one_error(here: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    frame().to_parquet(here / "good.parquet")
    assert load_dataset(here / "good.parquet").num_steps == N
    good = (here / "good.parquet").read_bytes()
    for content in (b"", b"PAR1", good[: len(good) // 2], good[:4] + bytes(len(good) - 8) + good[-4:]):
        (here / "bad.parquet").write_bytes(content)
        refused(here / "bad.parquet", r"^dataset 'bad': .*bad\.parquet cannot be read as a table")
    many = pa.table({name: np.zeros(2 * 10**6, "i1") for name in ("obs", "act")})
    parquet.write_table(many, here / "bomb.parquet")
    del many
    assert (here / "bomb.parquet").stat().st_size < 10**6
    refused(here / "bomb.parquet", r"bytes, of which .* are in the file")
    text = pa.table({"obs": pa.array(["x" * 10**4]).take(pa.array(np.zeros(3000, "i4")))})
    parquet.write_table(text, here / "text.parquet")
    refused(here / "text.parquet", r"obs: expected 30,000,000 bytes, of which")
    for content in (b"", b'a,b\n"1,2\n', b"a,b\n1,2,3,4\n1\n", b"\xff\xfe\x00", b"obs,act\nx,y\n"):
        (here / "bad.csv").write_bytes(content)
        refused(here / "bad.csv", r"^dataset 'bad': ")


# Minari's folders of Arrow and Parquet files


def record(kind: str) -> Path:
    """A small dataset; the folder of its data."""
    from minari import DataCollector

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collector = DataCollector(gym.make("CartPole-v1"), data_format=kind, record_infos=True)
        for seed in range(2):
            collector.reset(seed=seed)
            while not any(collector.step(collector.action_space.sample())[2:4]):
                pass
        collector.create_dataset(dataset_id=f"{kind}/x-v0")
        collector.close()
        del collector
        gc.collect()  # else its folder is missed later
    return Path("minari") / kind / "x-v0" / "data"


def table_of(path: Path) -> Any:
    pa = pytest.importorskip("pyarrow")
    if path.suffix == ".parquet":
        return pytest.importorskip("pyarrow.parquet").read_table(path, partitioning=None)
    with pa.ipc.open_file(path) as file:
        return file.read_all()


def save(table: Any, path: Path, **options: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
        return
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema, **options) as writer:
        writer.write_table(table)


def changed(table: Any, name: str, column: Any) -> Any:
    return table.set_column(table.column_names.index(name), name, column)


def many_nulls(table: Any) -> Any:
    pa = pytest.importorskip("pyarrow")
    return pa.table({name: pa.nulls(10**6) for name in table.column_names})


def words(table: Any) -> Any:
    pa = pytest.importorskip("pyarrow")
    return changed(table, "rewards", pa.array(["a"] * len(table)).dictionary_encode())


def of_another_kind(table: Any) -> Any:
    pa = pytest.importorskip("pyarrow")
    return changed(table, "rewards", pa.array([{"a": 1}] * len(table), pa.map_(pa.string(), pa.int64())))


@ARROW
@pytest.mark.parametrize("kind", ["arrow", "parquet"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (many_nulls, "bytes, of which"),
        (words, "found a dictionary|found dictionary|expected numbers, text or lists"),
        (of_another_kind, "rewards: expected numbers, text or lists of numbers, found map"),
    ],
)
def test_a_file_of_arrows_that_lies_is_one_error(
    change: Callable[[Any], Any], said: str, kind: str, here: Path
) -> None:
    (path,) = (record(kind) / "1").glob(f"*.{kind}")
    assert load_dataset(f"{kind}/x-v0").num_episodes == 2, "the arm that is read"
    save(change(table_of(path)), path)
    if change is words and kind == "parquet":
        return  # there, dictionaries are how columns are packed
    refused(f"{kind}/x-v0", said)


@ARROW
@LINKS
def test_an_arrow_file_may_not_be_packed_and_its_offsets_lead_to_its_own_bytes(here: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    (path,) = (record("arrow") / "1").glob("*.arrow")
    table, good = table_of(path), path.read_bytes()
    zeros = changed(table, "rewards", pa.array(np.zeros(len(table))))
    save(zeros, path, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    refused("arrow/x-v0", "part-0.arrow: its parts are packed")
    save(pa.table({"observations": ["a" * 1000, "b" * 2000]}), path)
    offsets, wrong = struct.pack("<3i", 0, 1000, 3000), struct.pack("<3i", 0, 10**8, 2 * 10**8)
    assert path.read_bytes().count(offsets) == 1
    path.write_bytes(path.read_bytes().replace(offsets, wrong))
    refused("arrow/x-v0", "part-0.arrow: damaged")
    path.write_bytes(good)
    load_dataset("arrow/x-v0")
    path.unlink()
    path.symlink_to("/etc/passwd")
    refused("arrow/x-v0", "expected a file, found a link")


@ARROW
@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_damaged_files_of_arrows_are_refused_or_read_and_nothing_else(kind: str, here: Path) -> None:
    (path,) = (record(kind) / "1").glob(f"*.{kind}")
    good, draw, ended = path.read_bytes(), random.Random(0), {"read": 0, "refused": 0}
    for _ in range(60):
        content = bytearray(good)
        for _ in range(draw.randint(1, 2)):
            content[draw.randrange(len(content)) if draw.random() < 0.5 else -draw.randint(1, 400)] = draw.randrange(
                256
            )
        path.write_bytes(content[: draw.randrange(len(content))] if draw.random() < 0.2 else content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load_dataset(f"{kind}/x-v0")
            ended["read"] += 1
        except ValueError:
            ended["refused"] += 1
    assert min(ended.values()) > 1


# metadata, and what suites leave


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1]", "expected JSON of a dict, found a list"),
        (b"[" * 100_000, "not readable as JSON"),
        (b'{"a": ', "not readable as JSON"),
        (b"\xff", "not readable as JSON"),
        (b" " * (BYTES + 1), "expected at most 16 MiB of JSON"),
    ],
    ids=["list", "deep", "cut", "no text", "large"],
)
def test_json_that_is_none_is_one_error_wherever_it_is_read(content: bytes, said: str, here: Path) -> None:
    file = here / "x.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.json: {said}"):
        read_json(file)
    main(["collect", "--env", "CartPole-v1", "--policy", "random", "--dataset", "aa/bb-v0", "--episodes", "2"])
    (here / "minari/aa/bb-v0/data/metadata.json").write_bytes(content)
    refused("aa/bb-v0", rf"^dataset 'aa/bb-v0': .*metadata\.json: {said}")
    cell = Cell("a", "min_gru", 0, {})
    (here / "a/min_gru-0").mkdir(parents=True)
    (here / "a/min_gru-0" / SCORE).write_bytes(content)
    with pytest.raises(ValueError, match=rf"score\.json: {said}"):
        read_finished(cell, here)


def test_a_score_or_a_measurement_of_another_form_is_one_error(here: Path) -> None:
    cell, folder = Cell("a", "min_gru", 0, {}), here / "a/min_gru-0"
    folder.mkdir(parents=True)
    good = {"task": "a", "encoder": "min_gru", "seed": 0, "settings": {}, "final": 1.0, "seconds": 2}
    (folder / SCORE).write_text(json.dumps(good))
    assert read_finished(cell, here) == good
    for change in ({"seed": 1}, {"settings": 3}, {"final": "1"}, {"seconds": [1]}, {"task": None}):
        (folder / SCORE).write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=r"score\.json: expected the row of a finished cell"):
            read_finished(cell, here)
    behaviour = Behaviour(folder=here / "b", arena=Arena(id="CartPole-v1"), steps=0, checkpoints=1)
    (here / "b").mkdir()
    (here / "b/settings.json").write_text("{}")
    with pytest.raises(ValueError, match=r"settings\.json: expected the settings of a training"):
        behaviour.measure()
    (here / "b/settings.json").unlink()
    behaviour.train()
    for wrong in ({}, {"random": 1}, {"random": 1, "returns": [1]}, {"random": "a", "returns": [1, 2]}):
        (here / "b/measured.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=r"measured\.json: expected a return of each of 2 checkpoints"):
            behaviour.measure()


def test_a_dataset_beside_others_does_not_hide_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("aa/good-v0", "aa/bad-v0"):
        main(["collect", "--env", "CartPole-v1", "--policy", "random", "--dataset", name, "--episodes", "2"])
    file = here / "minari/aa/bad-v0/data/metadata.json"
    told = json.loads(file.read_text())
    for change in ({"env_spec": "{"}, {"env_spec": 3}, {"total_steps": None}, {"total_episodes": "many"}):
        file.write_text(json.dumps(told | change))
        capsys.readouterr()
        main(["list", "datasets"])
        said = capsys.readouterr().out.splitlines()
        assert said[0].startswith("aa/bad-v0: damaged") and said[1].startswith("aa/good-v0: 2 episodes")
    file.unlink()
    (here / "minari/x/odd/data").mkdir(parents=True)  # no name of Minari's
    main(["list", "datasets"])
    names = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["aa/bad-v0", "aa/good-v0", "x/odd"]
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--dataset", "aa/goof-v0"])
    assert "did you mean 'aa/good-v0'" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_in_the_place_of_a_description_is_not_waited_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("aa/good-v0", "aa/bad-v0"):
        main(["collect", "--env", "CartPole-v1", "--policy", "random", "--dataset", name, "--episodes", "2"])
    file = here / "minari/aa/bad-v0/data/metadata.json"
    file.unlink()
    os.mkfifo(file)  # whoever opens it waits for ever
    capsys.readouterr()
    main(["list", "datasets"])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("aa/bad-v0: damaged") and said[1].startswith("aa/good-v0: 2 episodes")


def test_a_log_has_a_largest_size(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = here / "metrics.csv"
    file.write_text("a,b\n1,2\n")
    assert read_rows(file)[1] == [{"a": "1", "b": "2"}]
    monkeypatch.setattr(logs, "MOST_VALUES", 1000)
    file.write_text("," * 300 + "\n" + ("," * 300 + "\n") * 5)
    with pytest.raises(ValueError, match=r"metrics\.csv: expected a log of at most 1,000 values"):
        read_rows(file)
    monkeypatch.setattr(logs, "LARGEST", 2**20)
    file.write_text("a" * 2**20 + "\n")
    with pytest.raises(ValueError, match=r"metrics\.csv: expected at most 1 MiB of CSV"):
        read_rows(file)
