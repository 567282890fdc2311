"""Vector environments that keep processes their own way: a call that hangs ends with one line, and nobody is left."""

import multiprocessing
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from rlmin import PPO, load
from rlmin.vector import adapt
from rlmin.vector.deadline import end_processes, limit_time
from rlmin.vector.faults import EnvError

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers here")
SMALL: dict[str, Any] = {"width": 8, "layers": 1, "horizon": 8, "minibatches": 1, "epochs": 1}
LIMIT = 1.0

CODE = '''
import multiprocessing, time
import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

def serve(tasks, results):
    for task in iter(tasks.get, None):
        time.sleep(10**4 if task == "hang" else 0)
        results.put(task)

class Own(VecEnv):
    """A process that is spoken to by queues, as in bindings of simulators; `at` is the step at which it hangs."""
    render_mode = None
    def __init__(self, at=3, swallow=False):
        super().__init__(2, gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(2))
        fork = multiprocessing.get_context("fork")
        self.tasks, self.results, self.at, self.swallow, self.steps = fork.Queue(), fork.Queue(), at, swallow, 0
        self.helpers = {"simulator": fork.Process(target=serve, args=(self.tasks, self.results))}
        self.helpers["simulator"].start()
    def ask(self, task):
        self.tasks.put(task)
        while True:
            try:
                return self.results.get()
            except Exception:
                if not self.swallow:
                    raise
    def reset(self):
        self.ask("reset" if self.at else "hang")
        return np.zeros((2, 2), np.float32)
    def step_async(self, actions):
        self.steps += 1
    def step_wait(self):
        self.ask("hang" if self.steps == self.at else "step")
        return np.zeros((2, 2), np.float32), np.ones(2, np.float32), np.zeros(2, bool), [{}, {}]
    def close(self):
        self.ask("close")
        self.tasks.put(None)
        self.helpers["simulator"].join()
    def get_attr(self, name, indices=None): return [getattr(self, name)] * 2
    def set_attr(self, *_, **__): pass
    def env_method(self, *_, **__): return [None, None]
    def env_is_wrapped(self, *_, **__): return [False, False]
'''


@pytest.fixture(autouse=True)
def nobody_is_left() -> Any:
    yield
    assert not multiprocessing.active_children()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "simulator.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rlmin.vector.base.GRACE", 0.5)
    import simulator  # type: ignore[import-not-found]

    yield simulator.Own
    sys.modules.pop("simulator")


def step(vector: Any, times: int) -> None:
    vector.reset()
    for _ in range(times):
        vector.step(torch.zeros(2, dtype=torch.int64))


FORK = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@FORK
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("at", "call"), [(3, "step"), (0, "reset")])
@pytest.mark.parametrize("swallow", [False, True])
def test_a_call_that_hangs_ends_and_its_process_with_it(
    at: int, call: str, swallow: bool, wrapped: bool, own: Any
) -> None:
    env: Any = own(at, swallow)
    vector, began = adapt(VecMonitor(env) if wrapped else env, step_timeout=LIMIT), time.monotonic()
    with pytest.raises(EnvError, match=rf"^Own: {call} failed|^Own: {call}: no answer within 1 s; step_timeout sets"):
        step(vector, 5)
    vector.close()
    assert time.monotonic() - began < 60 and not env.helpers["simulator"].is_alive()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0 and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


@FORK
def test_one_that_answers_is_as_before(own: Any) -> None:
    env = own(at=99)
    vector = adapt(env, step_timeout=60.0)
    step(vector, 5)
    vector.close()
    assert not env.helpers["simulator"].is_alive()


def test_what_runs_in_this_process_or_is_watched_has_no_limit(own: Any) -> None:
    made: dict[Any, bool] = {
        "CartPole-v1": False,
        "rlmin/TMaze-v0": False,
        DummyVecEnv([lambda: gym.make("CartPole-v1")]): False,
        gym.make_vec("CartPole-v1", 2, vectorization_mode="sync"): False,
        gym.make_vec("CartPole-v1", 2, vector_kwargs={}, vectorization_mode="vector_entry_point"): True,
    }
    for env, limited in made.items():
        vector = adapt(env, step_timeout=5.0)
        assert (vector.limit == 5.0) is limited
        vector.close()


@FORK
@pytest.mark.filterwarnings("ignore:this VecEnv takes no seed")
def test_training_ends_saved(own: Any) -> None:
    agent = PPO(own(at=20), step_timeout=LIMIT, **SMALL)
    with pytest.raises(EnvError, match=r"no answer within 1 s.* at step 20 since reset"):
        agent.learn(96)
    assert agent.num_updates == 2
    agent.save("run")
    assert load("run").num_timesteps == 32
    agent.close()


def test_a_timer_of_the_users_own_stays_and_another_thread_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with limit_time(0.1, "Own: step"):
            time.sleep(0.6)
        assert rung == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)

    def other() -> None:
        with limit_time(0.1, "Own: reset"):
            time.sleep(0.3)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    said = capsys.readouterr().err.splitlines()
    assert [re.findall(r"Own: (\w+): no answer within 0.1 s, and nothing here can end", line) for line in said] == [
        ["step"],
        ["reset"],
    ]


def test_processes_are_found_wherever_they_are_kept() -> None:
    class Kept:
        pass

    context = multiprocessing.get_context("fork")
    outer, inner = Kept(), Kept()
    outer.venv = inner  # type: ignore[attr-defined]
    made = [context.Process(target=time.sleep, args=(10**4,)) for _ in range(3)]
    inner.one, inner.many, inner.named = made[0], [made[1]], {"a": made[2]}  # type: ignore[attr-defined]
    for process in made:
        process.start()
    end_processes(outer)
    for process in made:
        process.join(60)
    assert [process.exitcode for process in made] == [-signal.SIGKILL] * 3
