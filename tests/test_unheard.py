"""What is asked for and would change nothing is an error: no argument is dropped in silence."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from rlmin import PPO, DecisionAgent, make_vec, verify_consistency
from rlmin.cli import main
from rlmin.vector import adapt

SMALL: dict[str, Any] = {"width": 8, "layers": 1, "horizon": 8, "minibatches": 1, "epochs": 1}
MADE: dict[str, Any] = {
    "one": lambda: gym.make("CartPole-v1"),
    "vector": lambda: gym.make_vec("CartPole-v1", 2, vectorization_mode="sync"),
    "sb3": lambda: DummyVecEnv([lambda: gym.make("CartPole-v1")] * 2),
    "adapted": lambda: adapt("CartPole-v1", num_envs=2),
    "native": lambda: make_vec("rlmin/TMaze-v0", 2, length=3),
}
ROWS = {"one": 1}
GIVEN: dict[str, dict[str, Any]] = {
    "num_envs": {"num_envs": 8},
    "env_kwargs": {"env_kwargs": {"max_episode_steps": 5}},
    "workers": {"workers": 2},
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("name", MADE)
def test_an_environment_takes_no_arguments_of_an_id(name: str, given: str) -> None:
    for take in (PPO, adapt):
        settings = SMALL if take is PPO else {}
        with pytest.raises(ValueError, match=rf"^{given}=.*: this environment is made already.*give its id"):
            take(MADE[name](), **GIVEN[given], **settings)


@pytest.mark.parametrize("name", MADE)
def test_what_is_true_of_it_may_be_said(name: str) -> None:
    rows = ROWS.get(name, 2)
    agent = PPO(MADE[name](), num_envs=rows, env_kwargs={}, workers=0, **SMALL)
    assert agent.config.num_envs == agent.vector.num_envs == rows
    agent.set_env(MADE[name]())
    assert verify_consistency(agent, MADE[name]()) < 1e-5
    assert PPO(MADE[name](), **SMALL).config.num_envs == rows, "the default of an id is no argument"


def test_a_native_environment_has_no_workers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"^workers=2: rlmin/TMaze-v0 has none"):
        make_vec("rlmin/TMaze-v0", 2, workers=2)
    with pytest.raises(SystemExit):
        main(["train", "tmaze", "--workers", "2"])
    assert "workers=2: rlmin/TMaze-v0 has none" in capsys.readouterr().err
    make_vec("rlmin/TMaze-v0", 2, workers=0).close()


def test_a_decision_agent_takes_an_environment_that_knows_its_id_or_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="differs from its id"):
        DecisionAgent([], env=gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda r: r))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    PPO("CartPole-v1", num_envs=2, **SMALL).save(folder)
    return folder


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["evaluate", "RUN", "--episodes", "2", "--file", "x.png"], "leave --file out"),
        (["evaluate", "RUN", "--episodes", "2", "--video-episodes", "3"], "no film without --video FILE"),
        (["evaluate", "RUN", "--target-return", "3"], "takes no target"),
        (["collect", "--policy", "random", "--env", "CartPole-v1", "--episodes", "2", "--dataset", "a/b-v0",
          "--stochastic", "True"], "leave --stochastic out"),
        (["export", "RUN", "--numpy", "x.npz", "--value", "True"], "a .npz file has no value"),
        (["export", "RUN", "--numpy", "x.npz", "--check", "0", "--env", "CartPole-v1"], "which --check 0 skips"),
        (["export", "RUN", "--numpy", "x.npz", "--check", "0", "--env-kwargs", "a=1"], "which --check 0 skips"),
        (["inspect", "nothing-v0", "--episodes", "3"], "is for runs"),
    ],
)  # fmt: skip
def test_an_option_that_changes_nothing_is_refused(
    command: list[str],
    said: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([str(run) if word == "RUN" else word for word in command])
    found = capsys.readouterr()
    assert stop.value.code == 2 and said in found.err and not list(tmp_path.iterdir())
