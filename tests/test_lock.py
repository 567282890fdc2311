"""One process trains in a run folder at a time; the lock ends with its holder, however that ends."""

import contextlib
import errno
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from forking import fork

from rlmin import PPO, load
from rlmin.cli import main
from rlmin.commands.train import TrainConfig, resume, train
from rlmin.files import lock
from rlmin.files.lock import LOCK, check_free, lock_folder, lock_or_own

fcntl = pytest.importorskip("fcntl")

RUN = "tmaze --env-kwargs length=4 --width 8 --encoder gru --conv 0 --num-envs 4 --horizon 8 --minibatches 1 --epochs 1"
RUN += " --threads 1 --eval-episodes 0 --total-timesteps 32 --folder run"


@contextmanager
def child(act: Callable[[], Any]) -> Iterator[int]:
    """A process that has done `act` and then waits; killed at the end."""

    def act_and_wait(written: int) -> None:
        kept = act()  # noqa: F841  (a context that must not be collected)
        os.write(written, b"1")
        signal.pause()

    pid, output = fork(act_and_wait)
    assert os.read(output, 1) == b"1", "the child failed"
    os.close(output)
    try:
        yield pid
    finally:
        kill(pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def hold(folder: Path) -> Any:
    held = lock_folder(folder)
    held.__enter__()
    return held


def test_a_second_process_is_refused_by_the_name_of_the_first(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with child(lambda: hold(run)) as pid:
        for act in (lambda: hold(run), lambda: check_free(run), lambda: lock_or_own(run).__enter__()):
            with pytest.raises(ValueError, match=rf"run: process {pid} on .* is training or saving there; wait for it"):
                act()
    with lock_folder(run):
        assert (run / LOCK).exists()
    assert list(run.iterdir()) == [], "nothing is left of it"


def test_a_lock_ends_with_its_holder_though_a_worker_of_it_lives_on(tmp_path: Path) -> None:
    ready, told = os.pipe()

    def with_worker() -> Any:
        held = hold(tmp_path)
        worker = os.fork()
        if worker == 0:
            os.setpgid(0, 0)
            signal.pause()
        os.write(told, worker.to_bytes(8, "big"))
        return held

    with child(with_worker) as pid:
        worker = int.from_bytes(os.read(ready, 8), "big")
        kill(pid)
        os.kill(worker, 0)  # it is alive
        try:
            with lock_folder(tmp_path):
                pass
        finally:
            os.kill(worker, signal.SIGKILL)
    os.close(ready)
    os.close(told)


def test_two_runs_of_one_process_are_refused_and_a_save_inside_of_one_is_not(tmp_path: Path) -> None:
    agent = PPO("rlmin/TMaze-v0", num_envs=4, horizon=8, width=8)
    with lock_folder(tmp_path):
        with (
            pytest.raises(ValueError, match="this process is training or saving there already"),
            lock_folder(tmp_path / "."),
        ):
            pass
        agent.save(tmp_path)
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()


def test_threads_that_save_in_one_folder_are_refused_or_save_whole(tmp_path: Path) -> None:
    agent = PPO("rlmin/TMaze-v0", num_envs=4, horizon=8, width=8)
    said, saved = list[str](), list[int]()

    def save() -> None:
        for _ in range(10):
            try:
                agent.save(tmp_path)
                saved.append(1)
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert saved and all("this process is training or saving there already" in words for words in said)
    assert load(tmp_path).num_timesteps == 0 and not list(tmp_path.glob(".*"))
    with lock_folder(tmp_path):
        threads = [threading.Thread(target=save)]
        threads[0].start()
        threads[0].join()
    assert len(said) >= 10, "while another thread trains there"


def test_a_training_holds_its_folder_from_its_first_to_its_last_step(tmp_path: Path) -> None:
    run, taken, settings = tmp_path / "run", list[str](), {"width": 8, "horizon": 8, "num_envs": 4, "minibatches": 1}
    config = TrainConfig(env="rlmin/TMaze-v0", folder=run, total_timesteps=64, eval_episodes=0, **settings)  # type: ignore[arg-type]
    real = PPO.update

    def look(agent: PPO, *given: Any, **named: Any) -> dict[str, float]:
        taken.append("taken" if locked_out(run) else "free")
        return real(agent, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PPO, "update", look)
        train(config, progress_bar=False)
        resume(run, total_timesteps=96, progress_bar=False)
    assert taken == ["taken"] * 3 and not locked_out(run)


def test_a_save_into_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    agent = PPO("rlmin/TMaze-v0", num_envs=4, horizon=8, width=8)
    with child(lambda: hold(tmp_path)):
        with pytest.raises(ValueError, match="is training or saving there"):
            agent.save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    agent.save(tmp_path)


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    victim, run = tmp_path / "victim", tmp_path / "run"
    victim.write_text("precious")
    run.mkdir()
    (run / LOCK).symlink_to(victim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(OSError, ValueError):
            PPO("rlmin/TMaze-v0", num_envs=4, horizon=8, width=8).save(run)
    assert victim.read_text() == "precious"


def test_where_there_are_no_locks_that_is_said_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(UserWarning, match="no lock to be had there .No locks available.; nothing keeps a second"):
        PPO("rlmin/TMaze-v0", num_envs=4, horizon=8, width=8).save(tmp_path)
    assert not (tmp_path / LOCK).exists() and load(tmp_path).num_timesteps == 0
    monkeypatch.setattr(lock, "fcntl", None)
    with pytest.warns(UserWarning, match="no lock to be had there .this system has none that rlmin knows"):
        load(tmp_path).save(tmp_path)


class Msvcrt:
    """`msvcrt.locking` by its documentation: one byte from the position of the file on, refused with EACCES."""

    LK_NBLCK = 2

    def locking(self, handle: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1) and os.lseek(handle, 0, os.SEEK_CUR) == lock.FAR
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None


def test_the_lock_of_windows_keeps_a_second_process_out_and_names_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "msvcrt", Msvcrt())
    with child(lambda: hold(tmp_path)) as pid:
        with pytest.raises(ValueError, match=f"process {pid} on .* is training or saving there"):
            check_free(tmp_path)
        kill(pid)
        check_free(tmp_path)
    with lock_folder(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / LOCK).exists()


def test_a_lock_removed_while_it_is_waited_for_is_not_mistaken_for_one_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = fcntl.flock, list[int]()

    def removed_first(handle: int, how: int) -> None:
        if not taken:  # its holder ended between our open and our lock
            (tmp_path / LOCK).unlink()
        taken.append(handle)
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with lock_folder(tmp_path):
        assert len(taken) == 2
        assert locked_out(tmp_path)


def test_the_command_line_refuses_a_folder_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with child(lambda: hold(Path("run"))):
        assert refused("train", *RUN.split()) == 2
        assert "is training or saving there" in capsys.readouterr().err
    main(["train", *RUN.split()])
    before = {path.name: path.read_bytes() for path in Path("run").iterdir() if path.is_file()}
    with child(lambda: hold(Path("run"))) as pid:
        assert refused("train", "--resume", "run", "--total-timesteps", "64") == 2
        assert capsys.readouterr().err.startswith(f"rlmin: run: process {pid} on ")
        main(["evaluate", "run", "--episodes", "2"])  # reading needs no lock
    assert {path.name: path.read_bytes() for path in Path("run").iterdir() if path.name in before} == before
    main(["train", "--resume", "run", "--total-timesteps", "64"])
    assert load("run").num_timesteps == 64 and not (Path("run") / LOCK).exists()


def locked_out(folder: Path) -> bool:
    """Whether another process is refused."""
    pid = os.fork()
    if pid == 0:
        try:
            hold(folder)
        except ValueError:
            os._exit(3)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def refused(*arguments: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code
