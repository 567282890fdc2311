"""Stable-baselines3's names of settings: converted where there is an equivalent, else answered by rlmin's."""

import inspect
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import PPO as Sb3PPO
from stable_baselines3.common.policies import ActorCriticPolicy

from rlmin import PPO, DecisionAgent, PPOConfig
from rlmin.cli import main
from rlmin.commands.parse_agent import parse_agent
from rlmin.commands.presets import read_preset
from rlmin.settings import field_types
from rlmin.settings.sb3_answers import OF_AGENT, OF_POLICY
from rlmin.settings.sb3_convert import ALWAYS, CONVERT, SAME, SCHEDULED, from_sb3, is_linear
from rlmin.settings.sb3_names import SB3_NAMES, answer

KNOWN: set[str] = set(field_types(PPOConfig))
OF_THE_CLASS = {"self", "env", "seed", "device", "_init_setup_model", "observation_space", "action_space"}
ARGUMENTS = {"policy", "policy_kwargs", "verbose", "tensorboard_log"}
"""Arguments of PPO(...) itself."""
BOX = gym.spaces.Box(-2, 2, (3,))


def converted(space: Any = None, **given: Any) -> dict[str, Any]:
    return from_sb3(given, KNOWN, num_envs=4, horizon=64, action_space=space).settings


def test_every_argument_of_theirs_is_known_or_has_the_same_name() -> None:
    theirs = {
        name
        for kind in (Sb3PPO, RecurrentPPO, ActorCriticPolicy, RecurrentActorCriticPolicy)
        for name in inspect.signature(kind).parameters
    }
    assert theirs - OF_THE_CLASS - KNOWN - set(SB3_NAMES) == set()
    assert not set(SB3_NAMES) & KNOWN
    assert {here.setting for here in SB3_NAMES.values()} - {None} <= KNOWN
    handled = {*SAME, *CONVERT, *SCHEDULED, *ALWAYS, *ARGUMENTS, "lr_schedule"}
    assert handled == set(SB3_NAMES), "a name that nothing converts"


@pytest.mark.parametrize(
    ("given", "here"),
    [
        ({"n_steps": 32, "n_epochs": 3, "gae_lambda": 0.9}, {"horizon": 32, "epochs": 3, "lam": 0.9}),
        ({"learning_rate": 3e-4}, {"lr": 3e-4, "lr_final": None}),
        ({"learning_rate": lambda left: 1e-3 * left}, {"lr": 1e-3, "lr_final": 0.0}),
        ({"clip_range": lambda left: 0.1 + 0.1 * left}, {"clip": 0.2, "clip_final": 0.1}),
        ({"clip_range": lambda _: 0.3}, {"clip": 0.3, "clip_final": None}),
        ({"batch_size": 128}, {"minibatches": 2}),
        ({"batch_size": 2}, {"minibatches": 128, "bptt": 2}),
        ({"batch_size": 16}, {"minibatches": 16, "bptt": 16}),
        ({"batch_size": 32, "n_steps": 48}, {"minibatches": 6, "bptt": 16, "horizon": 48}),
        ({"batch_size": 10_000}, {"minibatches": 1}),
        ({"batch_size": 64, "n_envs": 2}, {"minibatches": 2, "num_envs": 2}),
        ({"ent_coef": 0.01, "vf_coef": 0.5}, {"entropy": 0.01, "entropy_final": None, "value_weight": 1.0}),
        ({"clip_range_vf": None}, {"value_clip": None}),
        ({"clip_range_vf": 0.2}, {"value_clip": 0.2, "normalize_value": False}),
        ({"policy_kwargs": {"lstm_hidden_size": 32, "n_lstm_layers": 1}}, {"width": 32, "layers": 1}),
        ({"policy_kwargs": {"shared_lstm": True, "enable_critic_lstm": False}}, {"share_memory": True}),
        ({"policy_kwargs": {"enable_critic_lstm": True}}, {"share_memory": False}),
        ({"policy_kwargs": {"net_arch": {"pi": [], "vf": []}, "ortho_init": True, "width": 8}}, {"width": 8}),
        ({"policy_kwargs": {"optimizer_class": torch.optim.Adam, "optimizer_kwargs": {"eps": 1e-5}}}, {"beta2": 0.999}),
        ({"use_sde": False, "sde_sample_freq": -1, "stats_window_size": 100, "target_kl": None}, {"target_kl": None}),
        ({"n_steps": 64, "horizon": 64}, {"horizon": 64}),
        ({"policy": "CnnLstmPolicy"}, {"encoder": "lstm"}),
    ],
)  # fmt: skip
def test_an_equivalent_is_exact(given: dict[str, Any], here: dict[str, Any]) -> None:
    assert converted(**given) == pytest.approx(here)
    PPOConfig(**{"horizon": 64, **here})


def test_the_deviation_is_that_of_the_environments_unit() -> None:
    assert converted(BOX, log_std_init=0.5) == {"log_std": pytest.approx(0.5 - math.log(2))}
    assert converted(gym.spaces.Discrete(2), log_std_init=0.5) == {"log_std": 0.5}
    agent = PPO("MlpPolicy", "Pendulum-v1", log_std_init=-1.0, n_steps=8, width=8)
    distribution: Any = agent.policy.step(agent.collector.observation, agent.collector.state, agent.collector.now.start)
    unit = (BOX.high[0] - BOX.low[0]) / 2
    assert distribution.distribution.log_std.exp().item() * unit == pytest.approx(math.exp(-1.0))


def test_a_schedule_that_is_no_line_stays_a_function(tmp_path: Path) -> None:
    def cosine(left: float) -> float:
        return 5e-4 * (1 + math.cos(math.pi * (1 - left)))

    assert not is_linear(cosine) and is_linear(lambda left: 3 - left)
    agent = PPO("MinGruPolicy", "CartPole-v1", learning_rate=cosine, n_steps=16, n_epochs=1, width=8)
    rates = list[float]()

    def look(own: Any, _: Any) -> bool:
        rates.append(own["self"].optimizer.param_groups[0]["lr"])
        return True

    agent.learn(64, look)
    assert rates[16::16] == pytest.approx([cosine(1.0), cosine(0.75), cosine(0.5)])
    with pytest.warns(UserWarning, match="the schedule of lr is a function, which is not saved: loaded, lr goes lin"):
        agent.save(tmp_path / "a")
    assert PPO.load(tmp_path / "a").schedules == {}
    assert PPO.load(tmp_path / "a", learning_rate=cosine).schedules == {"lr": cosine}
    agent.learning_rate = 1e-5
    assert agent.schedules == {} and agent.config.lr_final is None and agent.lr_schedule(0.3) == 1e-5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"policy_kwargs": {"net_arch": [64, 64]}}, "`net_arch` is `width` here"),
        ({"policy_kwargs": {"activation_fn": torch.nn.Tanh}}, "the MLP's activation is SiLU"),
        ({"policy_kwargs": {"optimizer_class": torch.optim.SGD}}, "the optimizer is Adam"),
        ({"policy_kwargs": {"optimizer_kwargs": {"weight_decay": 0.1}}}, "`optimizer_kwargs` is `beta2` here"),
        ({"policy_kwargs": {"enable_critic_lstm": False}}, "`enable_critic_lstm` is `share_memory` here"),
        ({"use_sde": True}, "noise is drawn anew at every step"),
        ({"batch_size": 100}, "batch_size=100: expected a divisor of n_steps . n_envs = 256"),
        ({"n_steps": 32, "horizon": 64}, "n_steps=32 is horizon=32, but 64 is given too"),
        ({"clip_range_vf": lambda left: left}, "`value_clip` has no schedule here"),
        ({"learning_rate": lambda left: left - 0.5}, "learning_rate: expected a number of at least 0, got -"),
        ({"learning_rate": lambda: 1e-3}, "learning_rate: expected a function of the share that remains"),
        ({"clip_range": lambda _: "x"}, "clip_range: expected a number of at least 0, got 'x'"),
        ({"policy_kwargs": [1]}, "policy_kwargs: expected a mapping"),
        ({"n_steps": None}, "n_steps: expected a whole number of at least 1, got None"),
        ({"batch_size": math.nan}, "batch_size: expected a whole number"),
        ({"vf_coef": True}, "vf_coef: expected a number"),
        ({"policy_kwargs": {"optimizer_kwargs": {"betas": 3}}}, "betas: expected a list of 2"),
        ({"log_std_init": 1.0}, "`log_std_init` is `log_std` here"),
        ({"policy": "MyPolicy"}, "policy 'MyPolicy': expected one of MlpLstmPolicy"),
    ],
)
def test_what_has_no_equivalent_is_answered(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        converted(**given)


def test_other_agents_and_files_answer(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("env: CartPole-v1\nn_steps: 8\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: no setting 'n_steps': `n_steps` is `horizon` here"):
        read_preset(str(tmp_path / "mine.yaml"))
    with pytest.raises(ValueError, match="`learning_rate` is `lr` here"):
        DecisionAgent([], learning_rate=1e-3)
    assert answer("clip_range", ["lr"]) is None, "a decision agent clips nothing"
    with pytest.raises(ValueError, match="no setting 'clip_rang'; did you mean 'clip_final'"):
        PPO("rlmin/TMaze-v0", clip_rang=0.2)


def test_the_command_line_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--num-envs 4 --n-steps 32 --batch-size=64 --policy MlpLstmPolicy --learning-rate 3e-4 --ent-coef 0"
    found = parse_agent(PPOConfig, [*words.split(), "--use-sde", "False", "--gamma", "0.9"], prog="x")
    assert (found.horizon, found.minibatches, found.encoder, found.lr, found.lr_final) == (32, 2, "lstm", 3e-4, None)
    assert (found.entropy, found.gamma, found.num_envs) == (0.0, 0.9, 4)
    for option, text in (("--use-sde", "True"), ("--policy-kwargs", "x"), ("--verbose", "1"), ("--log-std-init", "0")):
        with pytest.raises(SystemExit, match="2"):
            main(["train", "tmaze", option, text])
        said = capsys.readouterr().err
        assert f"`{option[2:].replace('-', '_')}` " in said and said.count("\n") == 1


def test_an_environment_and_a_policy_are_told_apart() -> None:
    for args, named in ((("MlpPolicy",), {"env": "CartPole-v1"}), ((), {"policy": "MlpPolicy", "env": "CartPole-v1"})):
        agent = PPO(*args, **named, n_steps=8, width=8, seed=None, device="auto")  # type: ignore[arg-type]
        assert agent.config.encoder == "mlp" and agent.n_envs == 1
    assert PPO(ActorCriticPolicy, "CartPole-v1", n_steps=8, width=8).config.encoder == "mlp"
    assert PPO("min_gru", "CartPole-v1", n_steps=8, width=8, num_envs=2).get_env().num_envs == 2
    with pytest.raises(TypeError, match=r"PPO: expected settings as keywords, .* got 0.001"):
        PPO("MlpPolicy", "CartPole-v1", 1e-3)
    with pytest.raises(TypeError, match=r"PPO: expected settings as keywords, .* got 8"):
        PPO("rlmin/TMaze-v0", 8)
    with pytest.raises(TypeError, match="PPO: env is missing"):
        PPO("MlpPolicy")
    with pytest.raises(ValueError, match="give a SubprocVecEnv"):
        PPO("MlpPolicy", "CartPole-v1", workers=2)
    with pytest.raises(ValueError, match="num_envs=3: this environment is made already"):
        PPO("MlpPolicy", gym.make("CartPole-v1"), num_envs=3)


def test_everything_public_of_their_agent_and_policy_is_here_or_answered() -> None:
    theirs = RecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_steps=8, policy_kwargs={"lstm_hidden_size": 8})
    ours = PPO("MlpLstmPolicy", "CartPole-v1", n_steps=8, width=8)
    pairs: list[tuple[Any, Any, Any]] = [(theirs, ours, object), (theirs.policy, ours.policy, torch.nn.Module)]
    for there, here, known in pairs:
        for name in sorted(set(dir(there)) - set(dir(known()))):
            if name.startswith("_") or hasattr(here, name):
                continue
            with pytest.raises(AttributeError, match=rf"has no attribute '{name}': "):
                getattr(here, name)
    for here, answers in ((ours, OF_AGENT), (ours.policy, OF_POLICY)):
        for name in answers:
            assert not hasattr(here, name), f"{name} is here, and needs no answer"
    with pytest.raises(AttributeError, match=r"has no attribute 'lr': it is `agent\.config\.lr`"):
        _ = ours.lr
    with pytest.raises(AttributeError, match="no attribute 'num_timestep'; did you mean 'num_timesteps'"):
        _ = ours.num_timestep


def test_a_setting_is_not_set_where_it_would_have_no_effect() -> None:
    agent = PPO("CartPole-v1", width=8, num_envs=2)
    for name, value in (("lr", 3e-4), ("entropy", 0.1), ("lstm_hidden_size", 4)):
        with pytest.raises(AttributeError, match=rf"{name}: an agent's settings are in `agent.config`; .*change_sett"):
            setattr(agent, name, value)
    agent.change_settings({"lr": 3e-4})
    assert agent.learning_rate == 3e-4
    agent.lr_schedule = lambda left: 1e-4 * left
    assert (agent.config.lr, agent.config.lr_final) == (1e-4, 0.0)


def test_saving_and_loading_take_their_arguments(tmp_path: Path) -> None:
    """The zoo loads with custom objects of 0, in place of what Python cannot unpickle."""
    agent = PPO("CartPole-v1", width=8, num_envs=2, lr=2e-4)
    agent.save(path=tmp_path / "one", exclude=["env"])  # type: ignore[call-arg]
    stand_ins: dict[str, Any] = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
    found = PPO.load(path=tmp_path / "one", device="cpu", custom_objects=stand_ins)  # type: ignore[call-arg]
    assert found.config.lr == 2e-4 and found.config.clip == agent.config.clip
    assert PPO.load(tmp_path / "one", custom_objects={"lr_schedule": lambda _: 1e-5}).config.lr == 1e-5
    with pytest.raises(TypeError, match="learn: no argument 'eval_env'; `callback=EvalCallback"):
        agent.learn(8, eval_env=None)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="learn: no argument 'progres_bar'; did you mean 'progress_bar'"):
        agent.learn(8, progres_bar=True)  # type: ignore[call-arg]
