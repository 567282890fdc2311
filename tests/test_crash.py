"""A save that dies at any moment leaves the old state or the new one, bit for bit, to whoever reads the folder."""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dying import Counted, every_death
from torch import Tensor

import rlmin
from rlmin import PPO, DecisionAgent, load
from rlmin.agents.agent import Agent
from rlmin.commands.evaluate import evaluate_run
from rlmin.commands.train import TrainConfig, resume, train
from rlmin.data import Episode
from rlmin.files.atomic import write_atomic, write_in_order
from rlmin.runs.checkpoint import CONFIG, LEARNER, POLICY, newest, read, read_newest

SMALL: dict[str, Any] = {"width": 8, "horizon": 8, "num_envs": 4, "minibatches": 2, "epochs": 1}
STEPS = 32

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a death is that of a forked child")

State = tuple[dict[str, Any], dict[str, Tensor]]


def maze(seed: int = 0) -> PPO:
    return PPO("rlmin/TMaze-v0", env_kwargs={"length": 4}, seed=seed, **SMALL)


def cloner() -> DecisionAgent:
    rng = np.random.default_rng(0)
    episodes = [Episode(rng.normal(size=(9, 3)).astype("f4"), [0, 1] * 4, [1.0] * 8, True) for _ in range(6)]
    return DecisionAgent(episodes, width=8, rows=2, horizon=8)


def state_of(header: dict[str, Any], tensors: dict[str, Tensor]) -> State:
    return {name: x for name, x in header.items() if name != "seconds"}, tensors


def same(a: State, b: State) -> bool:
    return a[0] == b[0] and a[1].keys() == b[1].keys() and all(torch.equal(x, b[1][name]) for name, x in a[1].items())


def held(agent: Agent, folder: Path) -> State:
    """What a whole save of the agent holds."""
    agent.save(folder)
    return state_of(*read(folder, LEARNER))


def resumed(folder: Path, agent: Agent) -> dict[str, Tensor]:
    """What an agent has that goes on from the folder."""
    agent.resume(folder)
    return agent.learner_state() | {f"policy.{name}": x for name, x in agent.policy.state_dict().items()}


def is_one_of(folder: Path, states: list[State], fresh: Callable[[], Agent]) -> int:
    """Which of the states everybody sees there who reads; they have to agree."""
    found = state_of(*read_newest(folder))
    (which,) = [i for i, state in enumerate(states) if same(found, state)]
    loaded = load(folder)
    weights = {f"policy.{name}": x for name, x in loaded.policy.state_dict().items()}
    assert loaded.num_timesteps == states[which][0]["num_timesteps"]
    assert all(torch.equal(x, states[which][1][name]) for name, x in weights.items())
    went_on = resumed(folder, fresh())
    assert went_on.keys() == states[which][1].keys()
    assert all(torch.equal(x, states[which][1][name]) for name, x in went_on.items())
    return which


def other_header(agent: Agent, patch: pytest.MonkeyPatch) -> None:
    """A new version, W&B switched on, and data in another place."""
    patch.setattr(rlmin, "__version__", "9.9.9")
    agent.run |= {"wandb": "project", "wandb_id": "abc"}
    if isinstance(agent, DecisionAgent):
        agent.source = {**agent.source, "name": "moved"}


@pytest.mark.parametrize(
    ("make", "change"), [(maze, True), (cloner, True), pytest.param(maze, False, marks=pytest.mark.slow)]
)
def test_a_later_save_that_dies_leaves_the_old_state_or_the_new_one(
    make: Callable[[], Agent], change: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    agent = make().learn(STEPS)
    old = held(agent, whole)
    agent.learn(STEPS, reset_num_timesteps=False)
    if change:
        other_header(agent, monkeypatch)
    new = held(agent, tmp_path / "new")
    seen = []
    shutil.copytree(whole, run)
    for at, when in every_death(lambda: agent.save(run)):
        seen.append(is_one_of(run, [old, new], make))
        if at % 8 == 0 and make is maze:
            evaluate_run(run, episodes=2, num_envs=2)
        if when == "half":
            agent.save(run)  # which clears away what the dead one left
            assert {path.name for path in run.iterdir()} == {CONFIG, POLICY, LEARNER}
        shutil.rmtree(run)
        shutil.copytree(whole, run)
    assert len(seen) > 30 and seen == sorted(seen) and set(seen) == {0, 1}, "there is one moment at which it is saved"


def test_a_first_save_that_dies_can_be_gone_on_with_or_trained_anew(tmp_path: Path) -> None:
    agent = maze().learn(STEPS)
    state, run = held(agent, tmp_path / "whole"), tmp_path / "run"
    seen = []
    for at, _ in every_death(lambda: agent.save(run)):
        if run.is_dir() and newest(run)[0] == LEARNER:
            seen.append(1)
            assert is_one_of(run, [state], maze) == 0
        else:
            seen.append(0)
            with pytest.raises(ValueError, match=r"no such run folder|incomplete run, expected"):
                load(run)
        if at % 9 == 0:
            goes_on(run, begun=bool(seen[-1]))
        shutil.rmtree(run, ignore_errors=True)
    assert seen == sorted(seen) and set(seen) == {0, 1}


def goes_on(run: Path, *, begun: bool) -> None:
    """The same command once more, or --resume where there is a run."""
    config = TrainConfig(
        env="rlmin/TMaze-v0", env_kwargs=("length=4",), folder=run, total_timesteps=2 * STEPS, eval_episodes=0, **SMALL
    )
    if begun:
        with pytest.raises(ValueError, match="there is a run already; resume it with --resume"):
            train(config, progress_bar=False)
        resume(run, total_timesteps=2 * STEPS, progress_bar=False)
    else:
        train(config, progress_bar=False)
    assert load(run).num_timesteps == 2 * STEPS
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_going_on_finishes_what_the_last_save_could_not(tmp_path: Path) -> None:
    """A run that was killed in its last save has the policy and the settings of that save in the end."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    settings = {**SMALL, "total_timesteps": 2 * STEPS, "eval_episodes": 0, "evaluations": 0}
    train(TrainConfig(env="rlmin/TMaze-v0", env_kwargs=("length=4",), folder=whole, **settings), progress_bar=False)
    (whole / "curve.png").unlink()
    early = {name: (whole / name).read_bytes() for name in (POLICY, CONFIG)}
    agent = load(whole)
    agent.run["device"] = "cpu "
    agent.save(whole)
    for stale in ((POLICY, CONFIG), (CONFIG,)):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        for name in stale:
            (run / name).write_bytes(early[name])
        with pytest.raises(ValueError, match="device"):  # the run itself is of no account here
            resume(run, progress_bar=False)
        for file in (POLICY, LEARNER):
            assert read(run, file)[0]["run"]["device"] == "cpu "
        assert (run / CONFIG).read_bytes() == (whole / CONFIG).read_bytes() != early[CONFIG]


def test_the_old_way_of_writing_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arm that must fail: files written in their places."""
    agent = maze().learn(STEPS)
    whole, run = tmp_path / "whole", tmp_path / "run"
    states = [held(agent, whole), held(agent.learn(STEPS, reset_num_timesteps=False), tmp_path / "new")]

    def in_place(folder: Path, contents: dict[str, bytes]) -> None:
        for name, content in contents.items():
            handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(handle, content)
            os.close(handle)

    monkeypatch.setattr("rlmin.runs.checkpoint.write_in_order", in_place)
    bad = 0
    shutil.copytree(whole, run)
    for _ in every_death(lambda: agent.save(run)):
        try:
            is_one_of(run, states, maze)
        except (ValueError, UserWarning):
            bad += 1
        shutil.rmtree(run)
        shutil.copytree(whole, run)
    assert bad > 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_at_any_operation_is_an_error_and_leaves_a_whole_run(code: int, tmp_path: Path) -> None:
    agent = maze().learn(STEPS)
    whole, run = tmp_path / "whole", tmp_path / "run"
    states = [held(agent, whole), held(agent.learn(STEPS, reset_num_timesteps=False), tmp_path / "new")]
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    at, committed = 0, False
    while True:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)

        def meet(name: str, count: int, go: Callable[..., Any], _: object, at: int = at) -> Any:
            if count == at and not (name == "fsync" and code == errno.EIO):
                raise OSError(code, os.strerror(code))
            return go()

        counted = Counted(meet)
        with pytest.MonkeyPatch.context() as patch:
            counted.patch(patch)
            try:
                agent.save(run)
                failed = False
            except OSError as error:
                failed = True
                assert error.errno == code
        if counted.count < at:
            break
        committed |= ("replace",) in [(name,) for name, _ in counted.seen[:at]]
        if failed and not committed:
            assert {path.name: path.read_bytes() for path in run.iterdir() if path.name != ".lock"} == before
        is_one_of(run, states, maze)
        at += 1
    assert at > 15 and committed


def test_a_folder_that_cannot_be_written_to_can_still_be_read(tmp_path: Path) -> None:
    agent = maze().learn(STEPS)
    states = [held(agent, tmp_path)]
    agent.learn(STEPS, reset_num_timesteps=False)

    def refuse(name: str, *_: object) -> Any:
        raise PermissionError(errno.EACCES, "permission denied")

    with pytest.MonkeyPatch.context() as patch:
        Counted(refuse).patch(patch)
        assert is_one_of(tmp_path, states, maze) == 0
        assert len(evaluate_run(tmp_path, episodes=2, num_envs=2).returns) == 2
        with pytest.raises(PermissionError):
            agent.save(tmp_path)
    assert is_one_of(tmp_path, states, maze) == 0


def test_content_is_on_the_disk_before_its_name_and_the_first_name_before_the_second(tmp_path: Path) -> None:
    """A power cut keeps what was synced and, of the rest, anything."""
    agent = maze()
    agent.save(tmp_path)
    counted = Counted(lambda name, count, run, arguments: run())
    with pytest.MonkeyPatch.context() as patch:
        counted.patch(patch)
        agent.save(tmp_path)
    first = next(i for i, (name, place) in enumerate(counted.seen) if name == "open" and str(place).endswith(".rlmin"))
    order = [name for name, _ in counted.seen[first:] if name in ("write", "fsync", "replace")]  # the lock is held
    assert order == ["write", "fsync"] * 3 + ["replace", "fsync"] * 3
    assert [str(place).split(".")[1] for name, place in counted.seen if name == "replace"] == [
        "learner",
        "policy",
        "config",
    ]


def test_a_copied_policy_is_the_newer_one_and_a_count_begun_anew_is_not_older(
    tmp_path: Path,
) -> None:
    agent = maze().learn(2 * STEPS)
    agent.save(tmp_path)
    early = (tmp_path / LEARNER).read_bytes()
    agent.learn(STEPS)  # counts from zero: fewer steps, and yet the newer state
    agent.save(tmp_path)
    assert newest(tmp_path) == (LEARNER, POLICY) and load(tmp_path).num_timesteps == STEPS
    (tmp_path / LEARNER).write_bytes(early)
    assert newest(tmp_path) == (POLICY, LEARNER) and load(tmp_path).num_timesteps == STEPS


def test_a_clock_that_goes_back_makes_no_save_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = maze()
    agent.save(tmp_path)
    monkeypatch.setattr("time.time_ns", lambda: 1)
    early = (tmp_path / POLICY).read_bytes()
    agent.learn(STEPS).save(tmp_path)
    (tmp_path / POLICY).write_bytes(early)  # as a kill after the first of the files leaves it
    assert newest(tmp_path) == (LEARNER, POLICY) and load(tmp_path).num_timesteps == STEPS


# what a writer of plain files does


def test_a_link_at_a_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, run = tmp_path / "victim", tmp_path / "run"
    victim.write_text("precious")
    run.mkdir()
    monkeypatch.setattr("secrets.token_hex", lambda size: "foreseen")
    os.symlink(victim, run / ".a.foreseen.rlmin")
    with pytest.raises(FileExistsError):
        write_atomic(run / "a", b"content")
    assert victim.read_text() == "precious"
    monkeypatch.undo()
    os.symlink(victim, run / "a")
    os.symlink(victim, run / f".a.{os.getpid()}")  # as it could be foreseen once
    write_atomic(run / "a", b"content")
    assert victim.read_text() == "precious" and (run / "a").read_bytes() == b"content" and not (run / "a").is_symlink()


def test_where_one_file_cannot_be_written_none_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    real, written = os.write, list[int]()

    def full(handle: int, content: bytes) -> int:
        written.append(len(content))
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(handle, content)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="no space"):
        write_in_order(tmp_path, {"a": b"new", "b": b"too much"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_a_write_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system does on a network disk, and with more than 2 GiB at once."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: real(handle, content[:1000]))
    agent = maze()
    agent.save(tmp_path)
    monkeypatch.undo()
    assert (tmp_path / LEARNER).stat().st_size > 2000 and same(
        state_of(*read(tmp_path, LEARNER)), held(agent, tmp_path)
    )


def test_names_cannot_be_foreseen_and_rights_are_those_of_other_files(tmp_path: Path) -> None:
    opened: list[tuple[str, int]] = []

    def meet(name: str, count: int, run: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if name == "open" and not arguments[1] & os.O_DIRECTORY:
            opened.append((str(arguments[0]), arguments[1]))
        return run()

    with pytest.MonkeyPatch.context() as patch:
        Counted(meet).patch(patch)
        for _ in range(3):
            write_atomic(tmp_path / "a", b"")
    assert len({name for name, _ in opened}) == 3
    assert all(flags & os.O_EXCL and flags & os.O_NOFOLLOW for _, flags in opened)
    (tmp_path / "plain").write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
