"""rl_zoo3's own train and enjoy scripts run with rlmin's agents."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from large import need
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule
from torch import nn

from rlmin.agents.ppo_config import PPOConfig
from rlmin.interop.sb3_recurrent import MinGruPolicy
from rlmin.runs.checkpoint import LEARNER, read
from rlmin.settings import field_types
from rlmin.settings.sb3_convert import from_sb3

ALGOS = need("rl_zoo3.utils").ALGOS
from rlmin.interop.zoo import CONFIGS, ZooPPO, command, main  # noqa: E402  # it registers itself with rl_zoo3

pytestmark = pytest.mark.needs("rl_zoo3")

B, T = 2, 16
ZOO = {"n_envs", "n_timesteps", "env_wrapper", "frame_stack", "normalize"}  # what the zoo keeps to itself


def entries(algorithm: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((CONFIGS / f"{algorithm}.yml").read_text())
    return found


def make(**settings: Any) -> ZooPPO:
    given = {"n_steps": T, "n_epochs": 1, "lstm_hidden_size": 8, "seed": 0, **settings}
    return ZooPPO("MinGruPolicy", make_vec_env("rlmin/CartPoleNoVel-v1", B), **given)


def run(script: str, algorithm: str, *words: str) -> None:
    env = ["--algo", algorithm, "--env", "CartPoleNoVel-v1", "-f", "logs", "--device", "cpu"]
    main([script, *env, *words])


@pytest.mark.parametrize("algorithm", ["rlmin_ppo", "ppo_min_gru"])
def test_the_zoo_trains_evaluates_goes_on_and_enjoys(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["n_envs:2", f"n_steps:{T}", "batch_size:16", "n_epochs:1", "normalize:True"]
    settings = ["--seed", "1", "-n", "64", "--verbose", "1", "--eval-episodes", "1", "-params", *few]
    run("train", algorithm, *settings, "--eval-freq", "32", "--save-freq", "32", "-tb", "board")
    folder = tmp_path / "logs" / algorithm / "CartPoleNoVel-v1_1"
    names = {"CartPoleNoVel-v1.zip", "best_model.zip", "rl_model_64_steps.zip", "evaluations.npz", "0.monitor.csv"}
    assert names <= {path.name for path in folder.iterdir()}
    assert (folder / "CartPoleNoVel-v1" / "vecnormalize.pkl").exists() and list(tmp_path.glob("board/*/*/events*"))
    run("train", algorithm, *settings, "--eval-freq", "-1", "-i", str(folder / "CartPoleNoVel-v1.zip"))
    capsys.readouterr()
    for choice in (["--load-best"], ["--load-last-checkpoint"], []):
        run("enjoy", algorithm, "-n", "120", "--no-render", "--exp-id", "1", *choice)
        assert "Mean reward: " in capsys.readouterr().out


def test_the_names_are_those_of_the_files() -> None:
    found: dict[str, type] = dict(ALGOS)
    assert found["rlmin_ppo"] is ZooPPO and found["ppo_min_gru"] is RecurrentPPO
    assert {path.stem for path in CONFIGS.glob("*.yml")} == {"rlmin_ppo", "ppo_min_gru"}
    assert (
        set(entries("rlmin_ppo")) == set(entries("ppo_min_gru")) > {"CartPoleNoVel-v1", "PendulumNoVel-v1", "default"}
    )


def schedule(value: Any) -> Any:
    """What the zoo makes of a number or "lin_NUMBER"."""
    first = float(value.removeprefix("lin_")) if isinstance(value, str) else float(value)
    return LinearSchedule(first, 0.0, 1.0) if isinstance(value, str) else ConstantSchedule(first)


@pytest.mark.parametrize("env", entries("rlmin_ppo"))
def test_every_entry_for_rlmins_ppo_makes_one(env: str) -> None:
    entry = entries("rlmin_ppo")[env]
    given = {name: value for name, value in entry.items() if name not in {"policy", *ZOO}}
    given |= {name: schedule(given[name]) for name in ("learning_rate", "clip_range") if name in given}
    config = PPOConfig(**as_settings(given, num_envs=entry["n_envs"]))
    batch = config.horizon * entry["n_envs"] // config.minibatches_of(entry["n_envs"])
    assert batch == entry.get("batch_size", batch) and entry["policy"] == "MinGruPolicy"


@pytest.mark.parametrize("env", entries("ppo_min_gru"))
def test_every_entry_for_recurrent_ppo_makes_a_policy(env: str) -> None:
    entry = entries("ppo_min_gru")[env]
    unknown = set(entry) - ZOO - set(inspect.signature(RecurrentPPO).parameters)
    assert not unknown and entry["policy"] == f"{MinGruPolicy.__module__}.{MinGruPolicy.__name__}"
    sizes = eval(entry.get("policy_kwargs", "{}"), {"nn": nn})  # as the zoo does it
    MinGruPolicy(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32), lambda _: 1e-3, **sizes)


def as_settings(given: dict[str, Any], *, num_envs: int) -> dict[str, Any]:
    kind: Any = PPOConfig
    return from_sb3(given, field_types(kind), num_envs=num_envs, horizon=128).settings


def test_what_the_zoo_makes_of_its_files_is_taken(tmp_path: Path) -> None:
    make(learning_rate=LinearSchedule(1e-3, 0.0, 1.0), clip_range_vf=ConstantSchedule(0.2)).learn(T * B)
    assert as_settings({"clip_range_vf": -1}, num_envs=1) == {"value_clip": None}
    with pytest.raises(ValueError, match="no setting 'use_sde' for True: "):
        make(use_sde=True)
    with pytest.raises(ValueError, match="no encoder 'min_grn'; did you mean 'min_gru'"):
        ZooPPO("min_grn", make_vec_env("rlmin/CartPoleNoVel-v1", B))


def test_an_agent_comes_back_from_its_zip(tmp_path: Path) -> None:
    agent = make().learn(2 * T * B, log_interval=None)
    agent.save(tmp_path / "agent")
    again = ZooPPO.load(tmp_path / "agent.zip", custom_objects={"learning_rate": 0.0}, seed=3)
    assert again.num_timesteps == 2 * T * B and again.seed == 3 and again.env is None
    pairs = zip(agent.policy.parameters(), again.policy.parameters(), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)
    env = make_vec_env("rlmin/CartPoleNoVel-v1", B)
    more = ZooPPO.load(tmp_path / "agent", env=env, learning_rate=1e-5)
    assert more.learn(T * B, reset_num_timesteps=False).num_timesteps == 3 * T * B and more.config.lr == 1e-5
    mean, _ = evaluate_policy(again, env, n_eval_episodes=2)  # type: ignore[arg-type]
    assert float(np.mean(mean)) >= 8


def test_the_network_of_a_file_stays_whatever_the_hyperparameters_say(tmp_path: Path) -> None:
    network: dict[str, Any] = {
        "lstm_hidden_size": 6,
        "n_lstm_layers": 1,
        "shared_lstm": False,
        "time_scales": (2.0, 9.0),
    }
    make(policy_kwargs=network).save(tmp_path / "agent")
    env = make_vec_env("rlmin/CartPoleNoVel-v1", B)
    more = ZooPPO.load(tmp_path / "agent", env=env, lstm_hidden_size=8, encoder="mlp", n_epochs=3, dropout=0.1)
    found = more.config
    assert (found.width, found.layers, found.share_memory, found.encoder) == (6, 1, False, "min_gru")
    assert (found.epochs, found.dropout, found.time_scales) == (3, 0.1, (2.0, 9.0))
    with pytest.raises(ValueError, match="no setting 'use_sde' for True"):
        ZooPPO.load(tmp_path / "agent", use_sde=True)
    make(lstm_hidden_size=5).save(tmp_path / "other")
    header, tensors = read(unpacked(tmp_path / "other.zip"), LEARNER)
    with pytest.raises(ValueError, match=r"another policy: width=5 there, 8 here$"):
        make().restore(header, tensors)


def unpacked(file: Path) -> Path:
    with ZipFile(file) as archive:
        archive.extractall(folder := file.with_suffix(""))
    return folder


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing\.zip: no such file"):
        ZooPPO.load(tmp_path / "missing")
    env = make_vec_env("rlmin/CartPoleNoVel-v1", B)
    RecurrentPPO("MlpLstmPolicy", env, n_steps=8, policy_kwargs={"lstm_hidden_size": 4}).save(tmp_path / "other")
    with pytest.raises(ValueError, match=r"other\.zip: expected a zip that rlmin_ppo saved"):
        ZooPPO.load(tmp_path / "other")
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"broken\.zip: expected a zip that rlmin_ppo saved"):
        ZooPPO.load(tmp_path / "broken")
    make().save(tmp_path / "agent")
    with pytest.raises(ValueError, match="observation space: the policy expects"):
        ZooPPO.load(tmp_path / "agent", env=make_vec_env("Acrobot-v1", B))


def test_other_scripts_of_the_zoo_are_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no script of rl_zoo3 'trian'; did you mean 'train'"):
        main(["trian"])
    main([])
    assert "--algo rlmin_ppo" in capsys.readouterr().out


def test_what_rlmin_refuses_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "--algo", "rlmin_ppo", "--env", "CartPoleNoVel-v1", "-f", "logs", "--device", "cpu", "-params"]
    with pytest.raises(SystemExit, match="2"):
        command(["bogus"])
    assert capsys.readouterr().err.startswith("rlmin.interop.zoo: no script of rl_zoo3 'bogus'; ")
    script = [sys.executable, "-m", "rlmin.interop.zoo", *words, "n_envs:1", "clip_range_vf:'lin_0.2'"]
    done = subprocess.run(script, capture_output=True, text=True)
    said = "rlmin.interop.zoo: clip_range_vf: `value_clip` has no schedule here, expected a number\n"
    assert done.returncode == 2 and done.stderr.endswith(said) and "Traceback" not in done.stderr
    with pytest.raises(ValueError, match="Invalid value for clip_range_vf"):  # the zoo's own
        command([*words, "clip_range_vf:[1]"])
