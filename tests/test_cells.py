"""Registrations: what each cell lacks is written down here, and what each claims is true."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pytest
import torch
from exporting import anything, make
from torch import Tensor

from rlmin.agents.decision_config import DecisionConfig
from rlmin.agents.ppo_config import PPOConfig
from rlmin.cli import main
from rlmin.commands.parse_agent import parse_agent
from rlmin.encoders import CELLS, LSTM, MIXERS, Cell, MinGRU, Terms, register
from rlmin.encoders.capabilities import CAPABILITIES, lacking, table
from rlmin.encoders.cell import cell_of
from rlmin.export.agreement import largest_difference
from rlmin.export.onnx import OnnxPolicy, pack_onnx
from rlmin.export.torch_export import TorchExportPolicy, pack_torch
from rlmin.inspection.recurrence import contribution, memory_of
from rlmin.policy import PolicyConfig
from rlmin.settings import Settings
from rlmin.types import tensors_of

T, B, D, H = 7, 3, 4, 5
Claim: TypeAlias = Callable[[Cell], None]

LACKS: dict[str, set[str]] = {
    "min_gru": set(),
    "min_lstm": set(),
    "gru": {"terms", "fast_step"},
    "lstm": {"terms", "fast_step"},
    "attention": {"episode", "terms", "size", "numpy", "fast_step"},
    "aaren": {"terms", "size", "numpy", "fast_step"},
    "rg_lru": {"numpy", "fast_step"},
    "griffin": {"terms", "size", "numpy", "fast_step"},
    "mamba": {"size", "numpy", "fast_step"},
    "shm": {"size", "numpy", "fast_step"},
    "lmu": {"terms", "size", "numpy", "fast_step"},
    "coupled_lmu": {"terms", "numpy", "fast_step"},
    "slstm": {"terms", "numpy", "fast_step"},
    "srwm": {"terms", "size", "numpy", "fast_step"},
    "regular_lrnn": {"terms", "numpy", "fast_step"},
    "lru": {"size", "numpy", "fast_step"},
    "gate_loop": {"size", "numpy", "fast_step"},
    "ffm": {"size", "numpy", "fast_step"},
    "gated_linear": {"size", "numpy", "fast_step"},
    "delta_net": {"terms", "size", "numpy", "fast_step"},
    "rwkv6": {"terms", "size", "numpy", "fast_step"},
    "rwkv7": {"terms", "size", "numpy", "fast_step"},
    "mlp": {"memory", "episode", "terms", "size", "fast_step"},
}
"""Every capability that a cell lacks: a new cell has a line here, and a lost capability is seen."""


@dataclass(frozen=True, kw_only=True)
class Conv(Settings):
    """An option that no cell may have."""

    conv: int = 4  # Width


every_cell = pytest.mark.parametrize("name", CELLS)


def test_the_table_names_every_cell() -> None:
    assert list(LACKS) == list(CELLS)


@every_cell
def test_what_a_cell_lacks_is_written_down(name: str) -> None:
    assert set(lacking(CELLS[name])) == LACKS[name]


def test_a_lost_capability_is_seen() -> None:
    lost = replace(CELLS["min_gru"], to_numpy=None, fast_step=None)
    assert lacking(lost) == ("numpy", "fast_step")


# -- claims -----------------------------------------------------------------------------------------------------------


def ran(cell: Cell) -> tuple[Any, Tensor, Tensor, list[Tensor]]:
    """A module, what it read and put out, [T, B, ...], and the tensors of its last state."""
    torch.manual_seed(0)
    module = cell.make(D, H).double()
    x, start = torch.randn(T, B, D, dtype=torch.float64), torch.zeros(T, B, dtype=torch.bool)
    with torch.no_grad():
        y, state = module(x, module.initial_state(B), start)
    return module, x, y, tensors_of(state)


def the_output_is_the_memory(cell: Cell) -> None:
    _, _, y, state = ran(cell)
    same = len(state) == 1 and state[0].shape == y[-1].shape and torch.equal(state[0], y[-1])
    assert same == cell.output_is_memory


def every_tensor_of_the_state_has_a_name(cell: Cell) -> None:
    _, _, _, state = ran(cell)
    assert len(state) == len(cell.state_names) == len(set(cell.state_names))
    assert bool(state) == cell.remembers


def the_options_are_those_of_the_class(cell: Cell) -> None:
    parameters = inspect.signature(cell.cls).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in ("layers", "layer")}
    assert own == cell.options_of({})


@torch.no_grad()
def the_terms_sum_up_to_the_memory(cell: Cell) -> None:
    if not cell.has_terms:
        return
    module, x, _, _ = ran(cell)
    start = torch.zeros(T, dtype=torch.bool)
    start[[0, 3]] = True
    memory, _ = memory_of(module, x[:, :1], start[:, None])
    torch.testing.assert_close(contribution(module, x[:, 0], start).sum(1), memory[:, 0])


def wrong_terms(mixer: MinGRU, x: Tensor) -> Terms:
    gate, candidate = mixer.projection(x).chunk(2, -1)
    return Terms(gate.exp(), candidate)


CLAIMS: list[tuple[Claim, Cell]] = [  # and a registration that is wrong about it
    (the_output_is_the_memory, replace(CELLS["lstm"], output_is_memory=True)),
    (the_output_is_the_memory, replace(CELLS["gru"], output_is_memory=False)),
    (every_tensor_of_the_state_has_a_name, replace(CELLS["lstm"], state_names=("h",))),
    (every_tensor_of_the_state_has_a_name, replace(CELLS["gru"], remembers=False)),
    (the_options_are_those_of_the_class, replace(CELLS["min_gru"], options=CELLS["aaren"].options)),
    (the_options_are_those_of_the_class, replace(CELLS["attention"], options=None, window=None)),
    (the_terms_sum_up_to_the_memory, replace(CELLS["min_gru"], terms=wrong_terms)),
]


@every_cell
@pytest.mark.parametrize("claim", dict.fromkeys(claim for claim, _ in CLAIMS), ids=lambda claim: claim.__name__)
def test_what_a_cell_claims_is_true(name: str, claim: Claim) -> None:
    claim(CELLS[name])


@pytest.mark.parametrize(("claim", "wrong"), CLAIMS)
def test_a_wrong_claim_is_noticed(monkeypatch: pytest.MonkeyPatch, claim: Claim, wrong: Cell) -> None:
    monkeypatch.setitem(CELLS, wrong.name, wrong)
    with pytest.raises((AssertionError, TypeError)):
        claim(wrong)


@every_cell
def test_files_of_before_options_were_the_cells_own_are_read(name: str) -> None:
    """They name four options whatever the encoder; those that are not its own say nothing."""
    four: dict[str, Any] = {"candidate": "g", "time_scales": None, "heads": 3, "context": 9}
    cell = CELLS[name]
    config = PolicyConfig.from_saved({"encoder": name, "width": 8, **four})
    own = {key: value for key, value in four.items() if key in cell.option_names}
    assert config.cell_options == cell.options_of({}) | own
    assert PolicyConfig.from_saved(config.to_saved()).cell_options == config.cell_options
    with pytest.raises(ValueError, match=f"encoder '{name}' has no option '(heads|candidate)'"):
        PolicyConfig(encoder=name, **four)  # what a user gives is not dropped


@every_cell
@pytest.mark.parametrize("kind", [PPOConfig, DecisionConfig])
def test_a_command_takes_every_option(kind: type[PolicyConfig], name: str) -> None:
    """Also one that is called as a property of the agent's settings is, such as the window of an LMU."""
    wanted = CELLS[name].options_of({})
    given = {option: value for option, value in wanted.items() if not isinstance(value, tuple)}
    words = [word for option, value in given.items() for word in (f"--{option.replace('_', '-')}", str(value))]
    config = parse_agent(kind, ["--encoder", name, *words], prog="rlmin train")
    assert config.cell_options == wanted
    with pytest.raises(ValueError, match="no_such_option"):
        config.with_settings({"no_such_option": 1})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in CELLS), ("min_gru", {"output_gate": True})])
def test_every_cell_is_exported(name: str, options: dict[str, Any]) -> None:
    """A cell says nothing about it: whatever its step is made of, the two exporters of torch can write it."""
    policy = make(encoder=name, layers=1, encoder_options=options)
    for runner in (OnnxPolicy(pack_onnx(policy)), TorchExportPolicy(pack_torch(policy))):
        assert largest_difference(policy, runner, anything(policy, 3), steps=40).size < 2e-5
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(1.1)
    assert largest_difference(policy, runner, anything(policy, 3), steps=40).size > 1e-3


# -- lists and names --------------------------------------------------------------------------------------------------


def test_the_list_says_what_each_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "encoders"])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == list(CELLS)
    assert lines["attention"].count("heads=4") and "numpy export" in lines["attention"].partition("Without")[2]
    assert "Without" not in lines["min_gru"]
    assert all(cell.about and cell.about.endswith(".") for cell in CELLS.values())


def test_the_table_of_the_documentation_is_that_of_the_registrations() -> None:
    head, _, *rows = [line.strip("| ").split(" | ") for line in table().splitlines()]
    assert [row[0].strip("`") for row in rows] == list(CELLS) and len(head) == 3 + len(CAPABILITIES)


def test_a_class_is_known_by_itself_and_not_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(LSTM):
        pass

    Other.__name__ = "MinGRU"
    assert cell_of(Other(D, H)) is None and cell_of(LSTM(D, H)) is CELLS["lstm"]
    monkeypatch.setitem(MIXERS, "other", Other)
    assert cell_of(Other(D, H)) is CELLS["other"] and not CELLS["other"].has_terms


def test_what_is_no_cell_is_not_registered() -> None:
    with pytest.raises(TypeError, match="register: expected a Cell, got"):
        register(MinGRU)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="option 'conv' is an argument of every Stack"):
        Cell("mine", MinGRU, options=Conv)
    with pytest.raises(ValueError, match="window='context' is none of its options: candidate, time_scales"):
        replace(CELLS["min_gru"], window="context")
