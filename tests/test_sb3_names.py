"""Stable-baselines3's names are answered by rlmin's own, wherever a setting is given."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO as Sb3PPO
from stable_baselines3.common.policies import ActorCriticPolicy

from rlmin import PPO, DecisionAgent, PPOConfig
from rlmin.cli import main
from rlmin.commands.presets import read_preset
from rlmin.interop.zoo import NAMES
from rlmin.settings import field_types
from rlmin.settings.sb3_names import SB3_NAMES, answer

KNOWN: set[str] = set(field_types(PPOConfig))
OF_THE_CLASS = {"self", "env", "seed", "device", "_init_setup_model", "observation_space", "action_space"}


@pytest.mark.parametrize("name", SB3_NAMES)
def test_a_name_is_answered_in_the_constructor_and_on_the_command_line(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here = SB3_NAMES[name]
    wanted = f"`{name}` is `{here.setting}` here" if here.setting else f"`{name}` has no setting here"
    settings: dict[str, Any] = {name: 1}
    with pytest.raises(ValueError) as caught:
        PPO("rlmin/TMaze-v0", **settings)
    assert wanted in str(caught.value) and here.note in str(caught.value)
    with pytest.raises(SystemExit, match="2"):
        main(["train", "tmaze", "--" + name.replace("_", "-"), "1"])
    said = capsys.readouterr().err
    assert wanted in said and said.count("\n") == 1


def test_what_a_name_is_called_here_is_a_setting() -> None:
    assert {here.setting for here in SB3_NAMES.values()} - {None} <= KNOWN
    assert not set(SB3_NAMES) & KNOWN


def test_every_argument_of_theirs_is_answered_or_has_the_same_name() -> None:
    theirs = set(inspect.signature(Sb3PPO.__init__).parameters)
    theirs |= {"net_arch", "activation_fn", "ortho_init", "log_std_init", "optimizer_class", "features_extractor_class"}
    assert theirs & set(inspect.signature(ActorCriticPolicy.__init__).parameters) > {"net_arch"}
    assert theirs - OF_THE_CLASS - KNOWN <= set(SB3_NAMES)


def test_the_zoo_and_this_table_agree() -> None:
    assert {name: SB3_NAMES[name].setting for name in NAMES} == NAMES


def test_a_preset_and_a_decision_agent_answer_too(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("env: CartPole-v1\nn_steps: 8\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: no setting 'n_steps': `n_steps` is `horizon` here"):
        read_preset(str(tmp_path / "mine.yaml"))
    with pytest.raises(ValueError, match="`learning_rate` is `lr` here"):
        DecisionAgent([], learning_rate=1e-3)
    assert answer("clip_range", ["lr"]) is None, "a decision agent clips nothing"
    with pytest.raises(ValueError, match="no setting 'clip_rang'; did you mean 'clip'"):
        PPO("rlmin/TMaze-v0", clip_rang=0.2)


def test_their_form_of_the_constructor_is_answered() -> None:
    with pytest.raises(TypeError, match=r"write PPO\(env, encoder=\"min_gru\", width=128\)"):
        PPO("MlpLstmPolicy", "rlmin/TMaze-v0")
    with pytest.raises(TypeError, match=r"write PPO\(env, encoder=\"mlp\""):
        PPO("MlpPolicy", "rlmin/TMaze-v0", horizon=8)
    with pytest.raises(TypeError, match=r"expected settings as keywords, .* got 8"):
        PPO("rlmin/TMaze-v0", 8)
