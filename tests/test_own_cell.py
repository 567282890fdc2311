"""A cell from outside: a matrix memory with options of its own goes through the whole library, and no file of it knows.

Its state is [B, heads, K, V], its output is no memory, and it has no numpy form and no fast step.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from encoder_laws import LAWS, Law
from exporting import anything, make
from torch import Tensor, nn

import rlmin
from rlmin import PPO, PPOConfig, verify_consistency
from rlmin.cli import main
from rlmin.encoders import CELLS, Cell, Encoder, Stack, Terms, register
from rlmin.encoders.base import one, wipe
from rlmin.export.agreement import largest_difference
from rlmin.export.numpy_export import pack_numpy
from rlmin.export.onnx import OnnxPolicy, pack_onnx
from rlmin.export.torch_export import TorchExportPolicy, pack_torch
from rlmin.inspection.attribution import attribution
from rlmin.inspection.recurrence import contribution, deletion_error, memory_of, output_of
from rlmin.inspection.report import report
from rlmin.inspection.study import study
from rlmin.inspection.subject import Subject
from rlmin.runs.checkpoint import read_header
from rlmin.settings import Range, Settings
from rlmin.types import State, tensors_of
from rlmin.vector.arena import Arena

T, B, D, H = 9, 3, 4, 6


class OuterProduct(Encoder):
    """A gated matrix memory: S[t] = a[t] S[t-1] + key[t] value[t]', y[t] = output(query[t] S[t]), per head."""

    def __init__(self, input_size: int, hidden_size: int, *, heads: int = 2, size: int = 3, keep: float = 0.9) -> None:
        super().__init__()
        self.input_size, self.output_size, self.heads, self.size = input_size, hidden_size, heads, size
        self.projection = nn.Linear(input_size, heads * (3 * size + 1))
        self.output = nn.Linear(heads * size, hidden_size)
        self.offset = float(np.log(keep / (1 - keep)))

    def initial_state(self, B: int) -> Tensor:
        return self.zeros(B, self.heads, self.size, self.size)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        self.check_input(x, start)
        ys = []
        for t in range(len(x)):
            y, state = self.step(x[t], state, start[t])
            ys.append(y)
        return torch.stack(ys), state

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        decay, key, value, _ = self.parts(x)
        memory = decay * wipe(one(state), start) + key * value
        return self.read(x, memory), memory

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decay [..., heads, 1, 1], key [..., heads, K, 1], value [..., heads, 1, V] and query [..., heads, 1, K]."""
        p = self.projection(x).unflatten(-1, (self.heads, -1))
        gate, key, value, query = p.split([1, self.size, self.size, self.size], -1)
        return torch.sigmoid(gate + self.offset)[..., None], key[..., None], value[..., None, :], query[..., None, :]

    def read(self, x: Tensor, memory: Tensor) -> Tensor:
        y: Tensor = self.output((self.parts(x)[3] @ memory).flatten(-3))
        return y


@dataclass(frozen=True, kw_only=True)
class OuterOptions(Settings):
    """Options of the matrix memory."""

    heads: Annotated[int, Range(least=1)] = 2  # Number of heads
    size: Annotated[int, Range(least=1)] = 3  # Length of keys and of values
    keep: Annotated[float, Range(above=0, below=1)] = 0.9  # Share that a step keeps at first


def terms(mixer: OuterProduct, x: Tensor) -> Terms:
    decay, key, value, _ = mixer.parts(x)
    return Terms(-decay.log(), key * value)


OUTER = Cell(
    "outer",
    OuterProduct,
    about="A matrix memory with one decay a head.",
    options=OuterOptions,
    terms=terms,
    read=OuterProduct.read,
    output_is_memory=False,
)
ENV = "rlmin/RepeatFirstEasy-v0"
SMALL: dict[str, Any] = {"encoder": "outer", "width": 8, "layers": 1, "num_envs": 2, "horizon": 8, "seed": 0}


@pytest.fixture(autouse=True)
def outer() -> Iterator[Cell]:
    yield register(OUTER)
    CELLS.pop("outer", None)


def agent_of(**settings: Any) -> PPO:
    return PPO(ENV, **{**SMALL, **settings})


def weights(agent: Any) -> list[Tensor]:
    return [x.clone() for x in agent.policy.state_dict().values()]


@pytest.mark.parametrize("whole", [False, True], ids=["alone", "in a stack"])
@pytest.mark.parametrize("law", LAWS)
def test_the_laws_hold(law: Law, whole: bool) -> None:
    torch.manual_seed(0)
    law((Stack(D, H, mixer="outer", size=2) if whole else OuterProduct(D, H)).double())


def test_options_reach_the_module_by_every_way_into_python() -> None:
    config = PPOConfig(encoder="outer", heads=3, encoder_options={"size": 5}, width=8)
    by_keyword = agent_of(heads=3, size=5)
    for agent in (by_keyword, agent_of(config=config), agent_of(heads=3, encoder_options={"size": 5})):
        mixer: Any = next(x for x in agent.policy.modules() if isinstance(x, OuterProduct))
        assert (mixer.heads, mixer.size) == (3, 5)
        assert agent.config.cell_options == {"heads": 3, "size": 5, "keep": 0.9}
    assert agent_of().config.cell_options["heads"] == 2  # the cell's own default, not attention's


@pytest.mark.parametrize(
    ("settings", "message"),
    {
        "no option": ({"fading": 0.5}, "no setting 'fading'"),
        "an option of others": (
            {"context": 4},
            "encoder 'outer' has no option 'context'; its options: heads, size, keep",
        ),
        "by name": ({"encoder_options": {"siez": 4}}, "no option 'siez'; .*did you mean 'size'?"),
        "a wrong type": ({"size": "large"}, "size: expected a whole number of at least 1, got 'large'"),
        "out of range": ({"keep": 1.0}, "keep: expected a number above 0 and below 1, got 1.0"),
        "an option that was dropped once": (
            {"encoder": "gru", "heads": 4},
            "encoder 'gru' has no option 'heads'; .*none",
        ),
        "mine on another": ({"encoder": "min_gru", "keep": 0.5}, "encoder 'min_gru' has no option 'keep'"),
    }.values(),
)
def test_an_option_that_does_not_fit_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agent_of(**settings)


def test_learning_saving_and_resuming_are_exact(tmp_path: Path) -> None:
    straight, stopped = agent_of(size=4), agent_of(size=4)
    before = weights(straight)
    straight.learn(32)
    straight.learn(32, reset_num_timesteps=False)
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(straight), strict=True))
    stopped.learn(32)
    stopped.save(tmp_path / "run")
    again = rlmin.load(tmp_path / "run")
    assert again.config.cell_options == {"heads": 2, "size": 4, "keep": 0.9}
    again.resume(tmp_path / "run")
    again.learn(32, reset_num_timesteps=False)
    for a, b in zip(weights(straight), weights(again), strict=True):
        assert torch.equal(a, b)
    other = agent_of(size=3)
    with pytest.raises(ValueError, match=r"belong to another policy.*size"):
        other.resume(tmp_path / "run")


def test_a_run_keeps_its_options_whatever_the_defaults_become(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(OuterOptions):
        size: Annotated[int, Range(least=1)] = 7

    agent_of().save(tmp_path / "run")
    register(replace(OUTER, options=Later))
    assert agent_of().config.cell_options["size"] == 7
    assert rlmin.load(tmp_path / "run").config.cell_options["size"] == 3


def test_a_run_of_a_cell_that_is_not_registered_says_so(tmp_path: Path) -> None:
    agent_of().save(tmp_path / "run")
    del CELLS["outer"]
    with pytest.raises(ValueError, match="encoder 'outer' is not registered here: import the module"):
        rlmin.load(tmp_path / "run")


def test_acting_and_training_agree() -> None:
    assert verify_consistency(agent_of()) < 1e-5


class Leaking(OuterProduct):
    """Overlooks the starts where it acts, not where it trains."""

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        ys = []
        for t in range(len(x)):
            y, state = super().step(x[t], state, start[t])
            ys.append(y)
        return torch.stack(ys), state

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        return super().step(x, state, torch.zeros_like(start))


def test_a_cell_that_leaks_is_found() -> None:
    register(Cell("outer", Leaking, options=OuterOptions, output_is_memory=False))
    agent = agent_of(num_envs=8, horizon=60)
    for x in agent.policy.parameters():
        x.data *= 2
    with pytest.raises(AssertionError, match="acting and training disagree"):
        verify_consistency(agent)


@pytest.mark.needs("onnx", "onnxruntime", "onnxscript")
def test_exports_carry_the_memory_and_name_what_numpy_lacks() -> None:
    policy = make(encoder="outer", layers=1, encoder_options={"size": 2})
    for runner in (OnnxPolicy(pack_onnx(policy)), TorchExportPolicy(pack_torch(policy))):
        assert largest_difference(policy, runner, anything(policy, 3), steps=100).size < 1e-5
        assert runner.description["inputs"]["state.block0.h"]["shape"] == [2, 2, 2]
    with pytest.raises(ValueError, match="'outer' has no numpy form; min_gru, min_lstm, gru, lstm, mlp have one"):
        pack_numpy(policy)


@torch.no_grad()
def test_inspection_takes_the_matrix_for_the_memory() -> None:
    torch.manual_seed(0)
    mixer = OuterProduct(D, H).double()
    x, start = torch.randn(T, D, dtype=torch.float64), torch.zeros(T, dtype=torch.bool)
    start[[0, 4]] = True
    memory, _ = memory_of(mixer, x[:, None], start[:, None])
    part = contribution(mixer, x, start)
    assert part.shape == (T, T, 2, 3, 3) and memory.shape == (T, 1, 2, 3, 3)
    torch.testing.assert_close(part.sum(1), memory[:, 0])
    torch.testing.assert_close(
        output_of(mixer, x[:, None], memory), mixer(x[:, None], mixer.initial_state(1), start[:, None])[0]
    )
    assert deletion_error(mixer, x, start, steps=torch.arange(T)) < 1e-12
    assert not part[4:, :4].any() and part[3, :4].flatten(1).any(1).all()
    register(replace(OUTER, terms=lambda mixer, x: terms(mixer, x.roll(1, 0))))  # off by a step
    assert deletion_error(mixer, x, start, steps=torch.arange(T)) > 1e-3


def test_attribution_runs_the_cell_without_a_step() -> None:
    policy = agent_of().policy
    for x in policy.parameters():
        x.data += 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    leaves = {"observation": torch.randint(0, 4, (T,))}
    start = torch.arange(T) == 0
    found = attribution(policy, leaves, start)
    (layer,) = found.layers
    assert layer.error < 1e-12 and layer.effect.abs().max() > 1e-3
    torch.testing.assert_close(layer.share.sum(1), torch.ones(T, dtype=torch.float64))


@pytest.mark.slow
def test_the_report_has_every_section() -> None:
    subject = Subject(policy=agent_of().policy, arena=Arena(id=ENV), horizon=8)
    found = study(subject, episodes=4, vary=None, shown=1)
    assert found.scales and found.explained[0].attribution.layers and found.unwiped is not None
    assert max(found.deletion_error) < 1e-4
    page = report(found, title="it", facts={}, command="rlmin inspect")
    assert "of outer" not in page  # a sentence that says what cannot be shown of it


def test_the_state_goes_through_predict() -> None:
    agent = agent_of()
    observation, state = np.array([1, 2, 3]), None
    for t in range(4):
        _, state = agent.predict(observation, state, np.array([t == 0, t == 2, False]), deterministic=True)
    assert state is not None and [list(x.shape) for x in tensors_of(state[0])] == [[3, 3, 8], [3, 2, 3, 3]]


@pytest.mark.needs("torchrl")
def test_torchrl_carries_the_matrix() -> None:
    from tensordict import TensorDict

    from rlmin.interop.torchrl import EncoderModule

    encoder = Stack(D, H, mixer="outer", layers=1, conv=0)
    module = EncoderModule(encoder)
    state: dict[str, Any] = {str(i): torch.randn(x.shape) for i, x in enumerate(tensors_of(encoder.initial_state(B)))}
    columns: dict[str, Any] = {
        "observation": torch.randn(B, D),
        "is_init": torch.zeros(B, 1, dtype=torch.bool),
        "recurrent_state": state,
    }
    found = module(TensorDict(columns, [B]))
    y, _ = encoder.step(columns["observation"], (((), state["0"]),), torch.zeros(B, dtype=torch.bool))
    torch.testing.assert_close(found["embed"], y)
    assert found["next", "recurrent_state", "0"].shape == (B, 2, 3, 3)


def test_the_command_line_knows_its_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refuse: Callable[[list[str], str], None]
) -> None:
    run, more = tmp_path / "run", ["--total-timesteps", "16", "--eval-episodes", "0"]
    sizes = ["--width", "8", "--layers", "1", "--num-envs", "2", "--horizon", "8"]
    main(["train", "--env", ENV, "--encoder", "outer", "--size", "4", "--heads=1", "--folder", str(run), *sizes, *more])
    options = read_header(run)["config"]
    assert (options["encoder"], options["heads"], options["encoder_options"]) == ("outer", 1, {"size": 4, "keep": 0.9})
    refused = {
        "--size 0": "size: expected a whole number of at least 1, got 0",
        "--context 4": "encoder 'outer' has no option 'context'; its options: heads, size, keep",
        "--siez 4": "no option '--siez'; did you mean '--size'?",
    }
    for words, message in refused.items():
        own = [*words.split(), "--folder", str(tmp_path / "none")]
        refuse(["train", "--env", ENV, "--encoder", "outer", *own], message)
    assert not (tmp_path / "none").exists()
    with pytest.raises(SystemExit) as exit:
        main(["train", "--encoder", "outer", "--help"])
    assert exit.value.code == 0 and "Length of keys and of values" in capsys.readouterr().out


def test_a_preset_may_name_its_options(tmp_path: Path) -> None:
    file, run = tmp_path / "mine.yaml", tmp_path / "run"
    file.write_text(
        f"env: {ENV}\nencoder: outer\nsize: 4\nwidth: 8\nlayers: 1\nnum_envs: 2\nhorizon: 8\ntotal_timesteps: 16\n"
        "eval_episodes: 0\n"
    )
    main(["train", str(file), "--keep", "0.5", "--folder", str(run)])
    assert read_header(run)["config"]["encoder_options"] == {"size": 4, "keep": 0.5}


def test_the_module_that_the_user_names_registers_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del CELLS["outer"]
    parts: tuple[Any, ...] = (OuterProduct, OuterOptions, terms)
    head = inspect.getsource(sys.modules[__name__]).partition("T, B, D, H =")[0].partition('"""\n\n')[2]
    lines = [line for line in head.splitlines() if not line.startswith(("from encoder_laws", "from exporting"))]
    source = "\n\n".join(["\n".join(lines), *(inspect.getsource(part) for part in parts)])
    cell = 'register(Cell("mine_outside", OuterProduct, options=OuterOptions, terms=terms, output_is_memory=False))\n'
    (tmp_path / "outer_cell.py").write_text(f"{source}\n\n{cell}")
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    sizes = ["--width", "8", "--layers", "1", "--num-envs", "2", "--horizon", "8"]
    settings = ["--encoder", "mine_outside", "--size", "2", "--total-timesteps", "16", "--eval-episodes", "0"]
    try:
        main(["train", "--env", f"outer_cell:{ENV}", *settings, *sizes, "--folder", str(run)])
        assert read_header(run)["config"]["encoder_options"] == {"size": 2, "keep": 0.9}
    finally:
        sys.modules.pop("outer_cell", None)
        CELLS.pop("mine_outside", None)


def test_a_cell_that_is_always_read_does_not_put_out_its_memory() -> None:
    assert not Cell("mine", OuterProduct, read=OuterProduct.read).output_is_memory
    assert Cell("mine", OuterProduct, read=OuterProduct.read, reads=lambda module: False).output_is_memory
    assert Cell("mine", OuterProduct).output_is_memory


def test_a_registration_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(TypeError, match="a class of Settings"):
        Cell("mine", OuterProduct, options=dict)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'horizon' has the name of a setting"):

        @dataclass(frozen=True, kw_only=True)
        class Taken(Settings):
            horizon: int = 3

        register(Cell("outer", OuterProduct, options=Taken, output_is_memory=False))
        agent_of()
