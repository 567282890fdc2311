"""What a user names as a file may be a pipe, a folder, a device, a dead link, or nothing that can be read.

Every reader answers at once with one error that names it, and no writer replaces one of these by a file.
"""

import io
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rlmin import PPO, load
from rlmin.cli import main
from rlmin.commands.presets import read_preset
from rlmin.data import load_dataset
from rlmin.export.numpy_export import RUNNER, check_beside
from rlmin.export.numpy_policy import NumpyPolicy
from rlmin.export.onnx import OnnxPolicy
from rlmin.export.torch_export import TorchExportPolicy
from rlmin.files.atomic import write_atomic
from rlmin.files.lock import LOCK, lock_folder
from rlmin.files.read_json import read_json
from rlmin.files.read_yaml import read_yaml
from rlmin.runs.checkpoint import LEARNER, POLICY, read
from rlmin.runs.logs import read_rows
from rlmin.runs.own_files import check_not_of_run
from rlmin.suite.cells import read_suite
from rlmin.suite.default_report import read_cells
from rlmin.suite.offline import read_offline_suite

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")

PATIENCE = 10.0
"""Seconds after which a reader that waits for the end of a pipe gets it, and has failed."""
MEMORY = 2 * 2**30
"""Bytes that a reader may ask for."""

KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "dead link": lambda path: path.symlink_to("nowhere"),
    "unreadable": lambda path: path.symlink_to("/proc/self/mem"),  # EIO for everybody, as from a bad disk
}

READERS: dict[str, Callable[[Path], object]] = {
    "x.yaml": read_yaml,
    "x.json": read_json,
    "preset.yaml": lambda path: read_preset(str(path)),
    "suite.yaml": lambda path: read_suite(str(path)),
    "offline.yaml": lambda path: read_offline_suite(str(path)),
    "data.hdf5": load_dataset,
    "data.h5": load_dataset,
    "data.npz": load_dataset,
    "data.csv": load_dataset,
    "data.parquet": load_dataset,
    "metrics.csv": read_rows,
    "x-cells.csv": read_cells,
    "policy.npz": NumpyPolicy,
    "policy.onnx": OnnxPolicy,
    "policy.pt2": TorchExportPolicy,
    "agent.zip": lambda path: pytest.importorskip("rlmin.interop.zoo", exc_type=ImportError)._unpack(
        path, str(path.parent)
    ),
    POLICY: lambda path: read(path.parent, path.name),
    LEARNER: lambda path: read(path.parent, path.name),
}


@pytest.fixture
def bounded() -> Iterator[None]:
    """A process that is refused more memory, rather than one that fills the machine's."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def answer(act: Callable[[], object], pipe: Path) -> str:
    """The error that `act` raises; a pipe that it waits for is ended again and again after a while."""
    answered, waited = threading.Event(), list[bool]()

    def end() -> None:
        answered.wait(PATIENCE)
        while pipe.is_fifo() and not answered.wait(0.05):
            waited.append(True)
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))

    guard = threading.Thread(target=end)
    guard.start()
    try:
        with pytest.raises((ValueError, OSError)) as caught:
            act()
    finally:
        answered.set()
        guard.join()
    assert not waited, "it waited for the end of a pipe"
    return str(caught.value)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_a_reader_answers_at_once(name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    if name == "data.csv":
        pytest.importorskip("pandas")
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    monkeypatch.setenv("RLMIN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / name
    KINDS[kind](path)
    said = answer(lambda: READERS[name](path), path)
    assert path.stem in said and "\n" not in said and len(said) < 500


@pytest.fixture(scope="module")
def agent() -> PPO:
    return PPO("rlmin/TMaze-v0", env_kwargs={"length": 3}, width=4, layers=1, horizon=4, num_envs=2, minibatches=1)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["metadata.json", "main_data.hdf5"])
def test_a_minari_dataset_answers_at_once(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("MINARI_REMOTE", "none://nowhere")
    main(["collect", "--env", "CartPole-v1", "--policy", "random", "--dataset", "aa/bb-v0", "--episodes", "2"])
    path = tmp_path / "aa/bb-v0/data" / name
    path.unlink()
    KINDS[kind](path)
    said = answer(lambda: load_dataset("aa/bb-v0"), path)
    assert "aa/bb-v0" in said and "\n" not in said
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "aa/bb-v0"])
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_read_and_gone_on_with_beside_one(kind: str, agent: PPO, tmp_path: Path) -> None:
    """What is only for people, or for nobody, is in nobody's way."""
    agent.save(tmp_path / "run")
    for name in ("config.yaml", "metrics.csv", "curve.png"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
        KINDS[kind](tmp_path / "run" / name)
    assert load(tmp_path / "run").num_timesteps == agent.num_timesteps


@pytest.mark.parametrize("kind", ["pipe", "folder", "endless"])
def test_a_lock_is_a_file(kind: str, agent: PPO, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / LOCK)
    said = answer(lambda: agent.save(tmp_path), tmp_path / LOCK)
    assert LOCK in said and sorted(path.name for path in tmp_path.iterdir()) == [LOCK]
    (tmp_path / LOCK).rmdir() if kind == "folder" else (tmp_path / LOCK).unlink()
    with lock_folder(tmp_path):
        pass
    agent.save(tmp_path)


DEVICE = stat.S_IFCHR | 0o600


def device(path: Path) -> None:
    """As /dev/null is: the user root would replace it."""
    try:
        os.mknod(path, DEVICE, os.makedev(1, 3))
    except OSError:
        pytest.skip("only root makes devices, and not everywhere")


@pytest.mark.parametrize("kind", ["pipe", "folder", "endless", "device"])
def test_a_writer_replaces_files_alone(kind: str, agent: PPO, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    (KINDS | {"device": device})[kind](path)
    before, mode = sorted(tmp_path.iterdir()), path.lstat().st_mode
    with pytest.raises(ValueError, match=r"x\.csv: expected the name of a file, found a folder, a pipe or a device"):
        write_atomic(path, b"text")
    assert sorted(tmp_path.iterdir()) == before and path.lstat().st_mode == mode, "nothing is left beside it either"
    run = tmp_path / "run"
    agent.save(run)
    (run / POLICY).unlink()
    (KINDS | {"device": device})[kind](run / POLICY)
    learner = (run / LEARNER).read_bytes()
    with pytest.raises(ValueError, match=f"{POLICY}: expected the name of a file"):
        agent.save(run)
    assert (run / LEARNER).read_bytes() == learner and not list(run.glob(".*"))


@pytest.mark.parametrize("command", ["compare run run", "inspect run", "inspect run run"])
def test_a_report_replaces_no_file_of_a_run(
    command: str, agent: PPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    agent.save("run")
    Path("run/metrics.csv").write_text("a log")
    with pytest.raises(SystemExit):
        main([*command.split(), "--file", "run/metrics.csv"])
    assert "run/metrics.csv: belongs to the run run, which would lose it" in capsys.readouterr().err
    assert Path("run/metrics.csv").read_text() == "a log"
    check_not_of_run(Path("metrics.csv"))  # the arm of any other folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_runner_beside_an_export_is_a_file(kind: str, tmp_path: Path) -> None:
    beside = tmp_path / RUNNER
    KINDS[kind](beside)
    if kind == "dead link":
        return check_beside(tmp_path / "x.npz")
    said = answer(lambda: check_beside(tmp_path / "x.npz"), beside)
    assert RUNNER in said and ("one would overwrite it" in said or kind == "unreadable")
    return None


def test_a_file_that_is_there_is_read_and_replaced(agent: PPO, tmp_path: Path) -> None:
    """The arm of files."""
    ones = np.ones(3)
    np.savez(tmp_path / "x.npz", observations=ones, actions=ones, rewards=ones, terminals=ones)
    assert load_dataset(tmp_path / "x.npz").num_steps == 3
    file = io.BytesIO()
    np.savez(file, x=np.ones(1))
    (tmp_path / "link.npz").symlink_to("x.npz")
    write_atomic(tmp_path / "link.npz", file.getvalue())
    assert (tmp_path / "link.npz").read_bytes() == file.getvalue() and not (tmp_path / "link.npz").is_symlink()
