"""Stacks of different memories: names joined by "+" are a cell like any other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import anything, make
from gymnasium import spaces

from rlmin import PPO, PPOConfig, load, verify_consistency
from rlmin.cli import main
from rlmin.encoders import CELLS, GRU, MLP, RGLRU, Attention, MinGRU, Stack
from rlmin.encoders.capabilities import lacking
from rlmin.export.agreement import largest_difference
from rlmin.export.torch_export import TorchExportPolicy, pack_torch
from rlmin.settings import describe_settings

D, H = 3, 8
HYBRID = "min_gru+attention"
SIZES: dict[str, Any] = {"width": 8, "num_envs": 4, "horizon": 8, "seed": 0}


def mixers(stack: Stack) -> list[Any]:
    return [block.mixer for block in stack.blocks]


def test_the_pattern_is_repeated_over_the_layers() -> None:
    found = mixers(Stack(D, H, mixer="rg_lru+rg_lru+attention", layers=5))
    assert [type(mixer) for mixer in found] == [RGLRU, RGLRU, Attention, RGLRU, RGLRU]
    assert [type(mixer) for mixer in mixers(Stack(D, H, mixer="gru+mlp", layers=3))] == [GRU, MLP, GRU]


def test_options_reach_every_member_that_has_them() -> None:
    options: dict[str, Any] = {"heads": 2, "context": 5, "slow_units": 0.5}
    hawk, attention = mixers(Stack(D, H, mixer="rg_lru+attention", **options))
    assert hawk.heads == attention.heads == 2 and attention.context == 5
    both = CELLS["attention"].options_of({}) | CELLS["rg_lru"].options_of({})
    assert CELLS["rg_lru+attention"].options_of({}) == both
    with pytest.raises(ValueError, match=r"'rg_lru\+attention' has no option 'contxt'.*did you mean 'context'"):
        Stack(D, H, mixer="rg_lru+attention", contxt=5)
    with pytest.raises(ValueError, match="context: expected a whole number"):
        Stack(D, H, mixer="rg_lru+attention", context=0)


def test_every_option_keeps_its_help() -> None:
    options: Any = CELLS["rg_lru+attention"].options
    assert options is not None and all(about.help for about in describe_settings(options).values())


def test_layers_are_coupled_among_their_own_kind() -> None:
    first, attention, second = mixers(Stack(D, H, mixer=HYBRID, layers=3, forget_floor="rising"))
    alone, above = mixers(Stack(D, H, mixer="min_gru", layers=2, forget_floor="rising"))
    assert type(first) is MinGRU and type(attention) is Attention
    for mixed, own in ((first, alone), (second, above)):
        assert {name: x.shape for name, x in mixed.named_parameters()} == {
            name: x.shape for name, x in own.named_parameters()
        }


def test_what_a_mixture_lacks_follows_from_its_members() -> None:
    assert set(lacking(CELLS["min_gru+gru"])) == {"terms", "numpy", "fast_step"}
    assert set(lacking(CELLS["min_gru+rg_lru"])) == {"terms", "numpy", "fast_step"}
    assert set(lacking(CELLS[HYBRID])) == {"terms", "size", "numpy", "fast_step"}
    assert set(lacking(CELLS["attention+mlp"])) == {"terms", "size", "numpy", "fast_step"}
    assert "memory" in lacking(CELLS["mlp+mlp"])


@pytest.mark.parametrize("name", ["min_gru+", "+min_gru", "min_gru+atention", "+", "min_gru + gru"])
def test_a_name_with_an_unknown_member_is_refused(name: str) -> None:
    assert name not in CELLS
    with pytest.raises(KeyError):
        CELLS[name]
    with pytest.raises(ValueError, match="encoder"):
        PPOConfig(encoder=name)
    with pytest.raises(ValueError, match="mixer: expected one of"):
        Stack(D, H, mixer=name)


def test_members_that_mean_different_things_by_an_option_are_refused() -> None:
    with pytest.raises(ValueError, match="rg_lru and delta_net mean different things by 'decay'"):
        PPOConfig(encoder="rg_lru+delta_net")


def test_a_mixture_is_no_entry_of_the_lists() -> None:
    assert CELLS[HYBRID].name == HYBRID and CELLS[HYBRID] is CELLS[HYBRID]
    assert HYBRID in CELLS and HYBRID not in list(CELLS)


def test_an_agent_acts_as_it_trains_and_is_the_same_when_loaded(tmp_path: Path) -> None:
    agent = PPO("rlmin/RepeatFirstEasy-v0", encoder=HYBRID, context=3, heads=2, candidate="identity", **SIZES)
    agent.learn(64)
    assert verify_consistency(agent) < 1e-5
    agent.save(tmp_path / "agent")
    again = load(tmp_path / "agent")
    assert again.config.encoder == HYBRID and again.config.cell_options["context"] == 3
    for mine, other in zip(agent.policy.parameters(), again.policy.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_the_command_line_takes_options_of_every_member(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "--env", "rlmin/RepeatFirstEasy-v0", "--encoder", HYBRID]
    few = ["--width", "8", "--num-envs", "2", "--horizon", "8", "--total-timesteps", "32", "--eval-episodes", "2"]
    main([*train, "--context", "3", "--slow-units", "0.5", *few, "--folder", str(tmp_path / "run")])
    options = load(tmp_path / "run").config.cell_options
    assert options["context"] == 3 and options["slow_units"] == 0.5
    with pytest.raises(SystemExit):
        main([*train, "--help"])
    help_ = capsys.readouterr().out
    assert "--slow-units" in help_ and "--rotary" in help_ and "--products" not in help_


@pytest.mark.slow
def test_a_program_of_another_kind_acts_the_same() -> None:
    policy = make(action=spaces.Discrete(4), encoder=HYBRID, layers=3, context=4, heads=2)
    runner = TorchExportPolicy(pack_torch(policy))
    assert largest_difference(policy, runner, anything(policy, 2), steps=60).size < 1e-4
