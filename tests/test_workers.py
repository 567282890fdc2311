"""Environments that fail, in this process and in others: one error that says which, when and how, and nobody left."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from rlmin import PPO, load, make_vec
from rlmin.agents.advantages import blame
from rlmin.cli import main
from rlmin.vector import adapt
from rlmin.vector.faults import EnvError
from rlmin.vector.workers import WatchedPipe

PATIENCE = 120.0
"""Seconds after which a test that hangs has failed."""

CODE = '''
import multiprocessing, os, signal, threading, time
import gymnasium as gym
import numpy as np

class Unsendable(Exception):
    """Cannot be pickled."""
    def __init__(self, a, b):
        super().__init__("a lock")
        self.lock = threading.Lock()

class Wordless(Exception):
    def __str__(self):
        raise ValueError("no words")

class Trouble(gym.Env):
    """Five steps an episode; at the third step of an episode, in the second environment, `what` happens."""
    made = 0
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, what="nothing", at=3):
        self.what, self.at = what, at
        Trouble.made += 1
        name = multiprocessing.current_process().name
        self.second = name.endswith("-1") if name.startswith("Worker<") else Trouble.made % 2 == 0
        if at == -1:
            getattr(self, what)()
        if what == "make":
            raise KeyError("no file")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        if self.second and self.at == 0:
            getattr(self, self.what)()
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        found = None
        if self.second and self.steps == self.at:
            found = getattr(self, self.what)()
        info = {"thing": found} if found is not None and self.what == "unsendable_info" else {}
        reward = found if self.what == "huge" and found else 1.0
        return np.zeros(2, np.float32), reward, self.steps >= 5, False, info

    def nothing(self): pass
    def huge(self): return 1e38
    def raises(self): raise RuntimeError("the pole is gone")
    def divides(self): return 1 / 0
    def unsendable(self): raise Unsendable(1, 2)
    def wordless(self): raise Wordless
    def unsendable_info(self): return threading.Lock()
    def hangs(self):
        open("hanging", "w").close()
        time.sleep(1000)
    def stubborn(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
    def killed(self): os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    def terminated(self): os.kill(os.getpid(), signal.SIGTERM)
    def exits(self): os._exit(3)
    def quits(self): raise SystemExit(4)
    def leaves(self): raise SystemExit(0)
    def moves(self): os.chdir(os.environ["ELSEWHERE"])
    def paints(self): raise RuntimeError("\\x1b[2J" + "red" * 10**6)

gym.register("Trouble-v0", "trouble:Trouble")
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module `trouble`, in the working folder and on the path."""
    (tmp_path / "trouble.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("trouble", None)
    gym.registry.pop("Trouble-v0", None)
    assert not multiprocessing.active_children(), "whatever failed, no worker is left"


ID = "trouble:Trouble-v0"
SMALL: dict[str, Any] = {"width": 8, "layers": 1, "horizon": 8, "num_envs": 2, "minibatches": 1, "epochs": 1}
OPTIONS = [word for key, x in SMALL.items() for word in ("--" + key.replace("_", "-"), str(x))]

POSIX = os.name == "posix"
WINDOWS = f"ended with exit code {signal.SIGTERM:d} during step"
"""There a signal is an exit code."""
IN_WORKERS = {
    "raises": r"step failed \(RuntimeError: the pole is gone\)",
    "divides": r"step failed \(ZeroDivisionError: division by zero\)",
    "unsendable": r"step failed \(Unsendable: a lock\)",
    "wordless": r"step failed \(Wordless\)",
    "unsendable_info": r"step failed \(TypeError: cannot pickle",
    "hangs": r"no answer to step within 2 s; step_timeout sets how long to wait",
    "stubborn": r"no answer to step within 2 s",
    "killed": r"killed by SIGKILL during step, as where memory runs out" if POSIX else WINDOWS,
    "terminated": r"killed by SIGTERM during step" if POSIX else WINDOWS,
    "exits": r"ended with exit code 3 during step",
    "quits": r"ended with exit code 4 during step",
    "leaves": r"ended with exit code 0 during step",
}


def step(vector: Any, times: int) -> None:
    vector.reset(seed=0)
    for _ in range(times):
        vector.step(torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("what", IN_WORKERS)
def test_a_worker_that_fails_is_named(what: str) -> None:
    vector = adapt(ID, num_envs=2, workers=2, step_timeout=2.0, env_kwargs={"what": what})
    number = vector.env.processes[1].pid
    where = rf"^worker 1 of Trouble-v0 \(process {number}\): {IN_WORKERS[what]}.* at step 3 since reset$"
    with pytest.raises(EnvError, match=where) as found:
        step(vector, 5)
    if what in ("raises", "divides", "unsendable"):
        assert f"in {what}" in str(found.value.__cause__), "where it happened in the worker"
    vector.close()


@pytest.mark.parametrize("what", ["killed", "hangs", "raises"])
def test_a_worker_may_fail_in_a_reset(what: str) -> None:
    vector = adapt(ID, num_envs=2, workers=2, step_timeout=2.0, env_kwargs={"what": what, "at": 0})
    with pytest.raises(EnvError, match=IN_WORKERS[what].partition(" ")[0].replace("step", "reset")):
        vector.reset(seed=0)
    vector.close()


@pytest.mark.parametrize("what", ["raises", "unsendable_info", "killed", "hangs"])
def test_workers_that_the_user_made_are_watched_too(what: str) -> None:
    make = [lambda: gym.make(ID, what=what)] * 2  # with its module, as importing torchrl makes workers start afresh
    env = AsyncVectorEnv(make, autoreset_mode=AutoresetMode.SAME_STEP)
    vector = adapt(gym.wrappers.vector.RecordEpisodeStatistics(env), step_timeout=2.0)
    with pytest.raises(EnvError, match=f"worker 1 .*{IN_WORKERS[what]}"):
        step(vector, 5)
    vector.close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers here")
def test_an_interrupted_wait_leaves_nobody_to_wait_for() -> None:
    vector = adapt(ID, num_envs=2, workers=2, step_timeout=None, env_kwargs={"what": "hangs"})

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        vector.reset(seed=0)
        signal.setitimer(signal.ITIMER_REAL, 3.0)
        with pytest.raises(KeyboardInterrupt):
            step(vector, 5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    vector.close()


def test_workers_of_make_vec_are_watched_without_an_agent() -> None:
    env = make_vec(ID, 2, workers=2, step_timeout=2.0, what="killed")
    env.reset(seed=0)
    with pytest.raises(EnvError, match=f"worker 1 .*{IN_WORKERS['killed']}"):
        for _ in range(3):
            env.step(np.zeros(2, np.int64))
    env.close()


def test_workers_that_do_not_fail_are_as_before() -> None:
    vector = adapt(ID, num_envs=2, workers=2)
    step(vector, 12)
    assert vector.env.call("get_wrapper_attr", "what") == ("nothing", "nothing")
    vector.env.set_attr("what", "else")
    assert vector.env.get_attr("what") == ("else", "else")
    assert all(isinstance(pipe, WatchedPipe) and pipe.timeout == 600 for pipe in vector.env.parent_pipes)
    vector.close()


def test_a_worker_that_is_gone_does_not_keep_its_environment_from_being_closed() -> None:
    vector = adapt(ID, num_envs=2, workers=2)
    vector.reset(seed=0)
    vector.env.processes[1].kill()
    vector.env.processes[1].join(PATIENCE)
    vector.close()


def test_without_a_timeout_an_answer_is_waited_for() -> None:
    vector = adapt(ID, num_envs=2, workers=2, step_timeout=None, env_kwargs={"what": "hangs"})
    raised = []

    def wait() -> None:
        try:
            step(vector, 5)
        except EnvError as error:
            raised.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(4.0)
    assert thread.is_alive(), "the arm that waits"
    vector.env.processes[1].kill()
    thread.join(PATIENCE)
    assert not thread.is_alive() and re.search(IN_WORKERS["killed"], raised[0])


def test_the_timeout_is_a_setting_of_ppo_and_kept(tmp_path: Path) -> None:
    agent = PPO(ID, workers=2, step_timeout=2.5, env_kwargs={"what": "hangs"}, **SMALL)
    with pytest.raises(EnvError, match=r"no answer to step within 2.5 s"):
        agent.learn(16)
    agent.save("run")
    again = load("run", trust=True)
    assert again.config.step_timeout == 2.5  # type: ignore[attr-defined]
    assert [pipe.timeout for pipe in again.get_env().parent_pipes] == [2.5, 2.5]
    again.close()


# in this process


@pytest.mark.parametrize("what", ["raises", "divides", "wordless", "quits", "leaves"])
def test_what_an_environment_raises_names_it(what: str) -> None:
    vector = adapt(ID, num_envs=2, env_kwargs={"what": what})
    with pytest.raises(EnvError, match=r"^environment 1 of Trouble-v0: step failed at step 3") as found:
        step(vector, 5)
    assert type(found.value.__cause__).__name__ in ("RuntimeError", "ZeroDivisionError", "Wordless", "SystemExit")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_environment_that_cannot_be_made_is_one_line(workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--env", ID, "--env-kwargs", "what=make", "--workers", str(workers), *OPTIONS])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "making it failed (KeyError: 'no file')" in said and ID in said


def test_a_reward_too_large_is_named_as_what_it_is() -> None:
    for normalized in (False, True):
        agent = PPO(ID, env_kwargs={"what": "huge"}, normalize_return=normalized, **SMALL)
        before = {name: x.clone() for name, x in agent.policy.state_dict().items()}
        with pytest.raises(FloatingPointError, match=r"^reward 1e\+38 from environment 1 at step 3 since reset: "):
            agent.learn(64)
        assert all(torch.equal(x, before[name]) for name, x in agent.policy.state_dict().items())
        agent.close()


def test_a_reward_whose_sum_is_too_large_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlmin.vector.base.LARGEST_REWARD", np.inf)  # as on a GPU, where no reward is looked at
    agent = PPO(ID, env_kwargs={"what": "huge"}, **SMALL)
    with pytest.raises(FloatingPointError, match=r"a reward of 1e\+38, from environment 1 at step 2 of") as found:
        agent.learn(64)
    assert "smaller lr" not in str(found.value)
    agent = PPO("CartPole-v1", **SMALL)
    with pytest.raises(FloatingPointError, match="Try a smaller lr"):  # the arm with rewards of 1
        agent.check_finite({"value_loss": np.inf})
    assert blame("x. Try this", torch.ones(3, 2)) == "x. Try this"


# at the command line


def test_training_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--env", ID, *OPTIONS, "--total-timesteps", "64", "--folder", "run"]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--env-kwargs", "what=raises"])
    said = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert "environment 1 of Trouble-v0: step failed at step 3 since reset (RuntimeError: the pole is gone)" in said
    assert "the last checkpoint, of step 0, is whole; resume with: rlmin train --resume run" in said
    assert load("run").num_timesteps == 0


@pytest.mark.parametrize("at", [-1, 0, 3])  # as it is made, in a reset, in a step
def test_an_environment_may_change_the_working_folder(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("ELSEWHERE", str(elsewhere))
    command = ["train", "--env", ID, *OPTIONS, "--total-timesteps", "64", "--folder", "run", "--eval-episodes", "2"]
    main([*command, "--env-kwargs", "what=moves", f"at={at}"])
    assert Path.cwd() == elsewhere and not list(elsewhere.iterdir())
    os.chdir(tmp_path)
    main(["train", "--resume", "run", "--env", ID, "--total-timesteps", "96"])
    os.chdir(tmp_path)
    assert load("run").num_timesteps == 96 and not list(elsewhere.iterdir()) and not Path("run/.lock").exists()
    assert "run: run\n" in capsys.readouterr().out


def test_an_error_is_short_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--env", ID, *OPTIONS, "--folder", "run", "--env-kwargs", "what=paints"])
    said = capsys.readouterr().err.splitlines()[-1]
    assert r"RuntimeError: \x1b[2Jredred" in said and said.isprintable() and len(said) < 1500


@pytest.mark.parametrize("name", ["evaluate", "collect", "export", "inspect"])
def test_every_command_answers_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    agent = PPO(ID, **SMALL)
    agent.env_spec["kwargs"] = {"what": "divides"}
    agent.save("run")
    commands = {
        "evaluate": ["evaluate", "run", "--episodes", "4"],
        "collect": ["collect", "run", "--dataset", "some/play-v0", "--episodes", "4"],
        "export": ["export", "run", "--numpy", "x.npz", "--check", "9"],
        "inspect": ["inspect", "run", "--episodes", "4"],
    }
    with pytest.raises(SystemExit) as stop:
        main(commands[name])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and "ZeroDivisionError: division by zero" in said


def start(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "rlmin", "train", "--env", ID, *OPTIONS, "--folder", "run", *arguments]
    env = {**os.environ, "RLMIN_KERNEL": "portable"}  # nothing to compile
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def children(number: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(number)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "rlmin" in line]


def begun(process: "subprocess.Popen[str]") -> list[int]:
    """The workers of a training that has said that it began."""
    assert process.stdout is not None
    assert process.stdout.readline().startswith("run:")
    return children(process.pid)


def alive(number: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def gone(numbers: list[int]) -> bool:
    end = time.monotonic() + PATIENCE
    while any(map(alive, numbers)) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(map(alive, numbers))


linux = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")


@linux
@pytest.mark.parametrize("what", [pytest.param("nothing", marks=pytest.mark.slow), "hangs"])
def test_workers_end_with_a_trainer_that_is_killed(what: str) -> None:
    process = start("--workers", "2", "--total-timesteps", "100_000_000", "--env-kwargs", f"what={what}")
    workers = begun(process)
    assert len(workers) == 2
    end = time.monotonic() + PATIENCE
    while what == "hangs" and not Path("hanging").exists() and time.monotonic() < end:
        time.sleep(0.1)  # one that waits for its parent would end with it in any case
    process.kill()
    process.communicate()
    assert gone(workers)


@linux
def test_a_second_sigterm_ends_a_run_that_hangs() -> None:
    process = start("--workers", "2", "--total-timesteps", "100_000_000", "--env-kwargs", "what=hangs")
    workers = begun(process)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.0)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and said.splitlines()[-1] == "rlmin: interrupted" and gone(workers)
    assert load("run").num_timesteps == 0


@linux
@pytest.mark.slow
def test_a_worker_killed_from_outside_is_one_line() -> None:
    process = start("--workers", "2", "--total-timesteps", "100_000_000")
    workers = begun(process)
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and gone(workers)
    line = said.splitlines()[-1]
    assert re.search(rf"worker 0 of Trouble-v0 \(process {workers[0]}\): killed by SIGKILL", line)
    assert "rlmin train --resume run" in line and "Traceback" not in said


def test_numbers_stay_as_they_are_beside_gymnasiums_own_workers() -> None:
    found = []
    for own in (True, False):
        env: Any = make_vec("CartPole-v1", 2, workers=2 if own else 0)
        observation, _ = env.reset(seed=3)
        for _ in range(30):
            observation, *_ = env.step(np.array([1, 0]))
        found.append(observation.copy())
        env.close()
    assert np.array_equal(*found)


# stable-baselines3's processes

IN_SUBPROCESSES = {
    "hangs": IN_WORKERS["hangs"],
    "stubborn": IN_WORKERS["stubborn"],
    "killed": IN_WORKERS["killed"],
    "exits": IN_WORKERS["exits"],
    "raises": "ended with exit code 1 during step",
}


def subprocesses(what: str, **options: Any) -> Any:
    """Two environments in processes of stable-baselines3, the second of which fails, under a wrapper of its own."""
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")

    def make(what: str) -> Any:
        import trouble  # type: ignore[import-not-found]

        env = trouble.Trouble(what, **options)
        env.second = True
        return env

    made = vec_env.SubprocVecEnv([partial(make, "nothing"), partial(make, what)], start_method="fork")
    return vec_env.VecMonitor(made)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("what", IN_SUBPROCESSES)
def test_a_process_of_stable_baselines3_that_fails_is_named(what: str) -> None:
    vector = adapt(subprocesses(what), step_timeout=2.0)
    begin = time.monotonic()
    with pytest.raises(EnvError, match=rf"^worker 1 \(process \d+\): {IN_SUBPROCESSES[what]}"):
        step(vector, 5)
    assert time.monotonic() - begin < PATIENCE / 2
    vector.close()  # and the test's fixture finds no process left


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_timeout_of_ppo_holds_in_processes_of_stable_baselines3_in_a_reset_too() -> None:
    env, few = subprocesses("hangs", at=0), {k: x for k, x in SMALL.items() if k != "num_envs"}
    with pytest.raises(EnvError, match=r"worker 1 \(process \d+\): no answer to reset within 3 s; step_timeout sets"):
        PPO(env, step_timeout=3.0, **few).learn(64)
    env.close()  # which its process would not answer


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_processes_of_stable_baselines3_that_do_not_fail_are_as_before() -> None:
    env = subprocesses("nothing")
    vector = adapt(env, step_timeout=60.0)
    step(vector, 7)
    assert env.get_attr("steps") == [2, 2] and env.env_method("nothing") == [None, None]
    env.set_attr("answer", (1, False))
    assert env.get_attr("answer") == [(1, False)] * 2  # no worker of gymnasium's that says that it failed
    vector.close()
