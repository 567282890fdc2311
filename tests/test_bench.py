"""Benchmarks run wherever rlmin does, say what they ran on, and compare what is alike. What they find is not tested."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlmin.bench import NAMES, module
from rlmin.bench.cell import LONGEST_EPISODE, starts
from rlmin.bench.drift import OBSERVATION, Drift, OneDrift
from rlmin.bench.machine import describe_machine
from rlmin.bench.options import Options
from rlmin.bench.peers import Attention, LogSpaceMinGRU, Missing, OperatorGRU, Plain, SplitAndPad, Stepped, need
from rlmin.bench.products import Products
from rlmin.bench.report import Table, Target, as_csv, header
from rlmin.bench.run import run
from rlmin.bench.timing import Timing, calls_to_fill, time_cases
from rlmin.cli import main
from rlmin.encoders import GRU, LSTM, MinGRU
from rlmin.encoders.base import Encoder

T, B, D, H = 9, 5, 3, 4
MACHINE = {"CPU", "cores", "threads", "RAM", "OS", "GPU", "Python", "rlmin", "torch", "numba", "triton"}


def read(file: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The lines above a CSV, and its rows."""
    lines = file.read_text().splitlines()
    above = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    return above, list(csv.DictReader(line for line in lines if not line.startswith("#")))


# every benchmark


LONG = ("scan", "busy", "ranks", "deploy")
"""Benchmarks that take more than a few seconds, however quick."""
EACH = [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in NAMES]


@pytest.mark.parametrize("name", EACH)
def test_a_benchmark_writes_its_rows_and_their_picture(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for peer in ("torchrl", "d3rlpy"):  # slow to import; and so every run has a peer that is not there
        monkeypatch.setitem(sys.modules, peer, None)
    main(["bench", name, "--quick", "--threads", "1", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out.splitlines()
    above, rows = read(tmp_path / "out" / f"{name}.csv")
    assert {"command", "date"} | MACHINE <= set(above)
    assert above["command"] == f"rlmin bench {name} --threads 1 --quick"
    assert rows and all(set(row) == set(rows[0]) and None not in row.values() for row in rows)
    assert all(column in printed[0] for column in rows[0]), "the table printed has the columns of the file"
    assert sum(line.startswith(rows[0][next(iter(rows[0]))]) for line in printed) >= 1
    assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{name}.csv", f"{name}.png"]
    assert torch.get_num_threads() == 1


def test_the_list_of_benchmarks_has_every_file_that_is_one() -> None:
    folder = Path(module("scan").__file__ or "").parent
    found = {path.stem for path in folder.glob("*.py") if "\ndef run(options: Options) -> Table:" in path.read_text()}
    assert found == set(NAMES)
    assert all((module(name).__doc__ or "").splitlines()[0].endswith(".") for name in NAMES)


def test_all_of_them_run_one_after_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[str] = []
    monkeypatch.setattr("rlmin.bench.run._run", lambda name, options: ran.append(name))
    run("all", Options(out=tmp_path))
    assert ran == list(NAMES)


# the command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bench", "scam"], "no benchmark 'scam'; did you mean 'scan'?"),
        (["bench", "scan", "--device", "warp"], "device: expected a device that is here, got 'warp'"),
        (["bench", "scan", "--out", "file/results"], "file"),
        (["bench", "scan", "--rounds", "0"], "rounds"),
        (["bench", "scan", "--round", "2"], "--rounds"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("file").write_text("")
    monkeypatch.setattr("rlmin.bench.run._run", lambda name, options: pytest.fail("it measures"))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    heard = capsys.readouterr()
    assert ended.value.code == 2 and said in heard.out + heard.err and "Traceback" not in heard.err


def test_without_a_name_every_benchmark_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in ((["bench"], 2), (["bench", "--help"], 0)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == code
        listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]}
        assert listed == {*NAMES, "all", "memory", "offline", "defaults"}


def test_results_of_a_quick_run_do_not_replace_those_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Options().folder == Path("bench-results"), "an installed wheel"
    (tmp_path / "rlmin" / "bench").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("")
    assert Options().folder == Path("benchmarks/results")
    assert Options(quick=True).folder == Path("bench-results")
    assert Options(quick=True, out=Path("here")).folder == Path("here")


def test_the_command_in_a_file_measures_the_same_again() -> None:
    assert Options().command("scan") == "rlmin bench scan --threads 2"
    given = Options(threads=3, rounds=5, device="cuda", out=Path("x"), quick=True)
    assert given.command("act") == "rlmin bench act --threads 3 --rounds 5 --device cuda --quick"


# peers


def test_a_peer_that_is_missing_is_a_skipped_row_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_it = module("act").run(Options(quick=True))
    assert not with_it.skipped
    for name in [name for name in sys.modules if name.partition(".")[0] == "sb3_contrib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(Missing, match="sb3_contrib is not installed; pip install sb3-contrib"):
        need("sb3_contrib.common")
    (table,) = run("act", Options(quick=True, out=tmp_path))
    said = capsys.readouterr().out
    assert [row["policy"] for row in table.skipped] == ["sb3-contrib RecurrentPPO"] * 2
    assert len(table.rows) + len(table.skipped) == len(with_it.rows)
    assert said.count("skipped: sb3_contrib is not installed; pip install sb3-contrib") == 1
    assert "# skipped: sb3_contrib" in (tmp_path / "act.csv").read_text()


def sample() -> tuple[Tensor, Tensor, Tensor]:
    """x, start and a state."""
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(T, B, generator=generator) < 0.3
    start[0, 1], start[0, 2] = True, False
    return torch.randn(T, B, D, generator=generator), start, torch.randn(B, H, generator=generator)


def copied(peer: Encoder, own: Encoder) -> None:
    """Give torch's kernel the weights of rlmin's encoder."""
    named = {"weight_ih_l0": "projection.weight", "weight_hh_l0": "recurrence.weight"}
    named |= {"bias_ih_l0": "projection.bias", "bias_hh_l0": "recurrence.bias"}
    peer.load_state_dict({f"rnn.{theirs}": own.state_dict()[ours] for theirs, ours in named.items()})


@pytest.mark.parametrize("peer", [SplitAndPad, Stepped])
@pytest.mark.parametrize(("kind", "own"), [(nn.GRU, GRU), (nn.LSTM, LSTM)])
def test_peers_with_resets_compute_what_rlmin_computes(
    peer: type[Plain], kind: type[nn.GRU] | type[nn.LSTM], own: type[GRU] | type[LSTM]
) -> None:
    torch.manual_seed(0)
    encoder, theirs = own(D, H), peer(kind, D, H)
    copied(theirs, encoder)
    x, start, h = sample()
    state = (h, h.flip(0))[: theirs.parts]
    wanted = encoder(x, state if kind is nn.LSTM else h, start)[0]
    torch.testing.assert_close(theirs(x, state, start)[0], wanted)
    torch.testing.assert_close(theirs.step(x[0], state, start[0])[0], wanted[0])
    plain = Plain(kind, D, H)
    copied(plain, encoder)
    assert not torch.allclose(plain(x, state, start)[0], wanted), "one that ignores resets is seen"


def test_peers_without_resets_compute_what_rlmin_computes() -> None:
    torch.manual_seed(0)
    x, _, h = sample()
    never = torch.zeros(T, B, dtype=torch.bool)
    own, theirs = GRU(D, H), OperatorGRU(D, H)
    theirs.load_state_dict(own.state_dict())
    torch.testing.assert_close(theirs(x, h, never)[0], own(x, h, never)[0])
    small, log_space = MinGRU(D, H, candidate="g"), LogSpaceMinGRU(D, H)
    with torch.no_grad():
        small.projection.weight.copy_(torch.cat(log_space.cell.to_hidden_and_gate.weight.chunk(2)[::-1]))
        small.projection.bias.zero_()
    torch.testing.assert_close(log_space(x, h.abs(), never)[0], small(x, h.abs(), never)[0])


def test_attention_sees_its_episode_alone() -> None:
    attention, start = Attention(8, 8).double(), torch.zeros(7, 3, dtype=torch.bool)
    x = torch.randn(7, 3, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    start[4, 1] = True
    whole, _ = attention(x, (), start)
    alone, _ = attention(x[4:, 1:2], (), start[4:, :1])
    assert torch.allclose(whole[4:, 1], alone[:, 0], atol=1e-12)
    assert not torch.allclose(whole[4:, 0], attention(x[4:, :1], (), start[4:, :1])[0][:, 0])
    later = x.clone()
    later[5:] += 1
    assert torch.equal(attention(later, (), start)[0][:5], whole[:5]), "the past never sees the future"


def test_episodes_of_the_cell_benchmark_are_as_long_as_stated() -> None:
    start = starts(5000, 3, torch.Generator().manual_seed(0))
    lengths = torch.cat([row.nonzero().squeeze(-1).diff() for row in start.t()])
    assert int(lengths.min()) == 1 and int(lengths.max()) == LONGEST_EPISODE
    assert abs(float(lengths.float().mean()) - (1 + LONGEST_EPISODE) / 2) < 6


def test_both_forms_of_the_cheap_environment_play_the_same_episode() -> None:
    many, one, draw = Drift(3, 4), OneDrift(4), np.random.default_rng(0)
    rows, row = many.reset()[0], one.reset()[0]
    for t in range(4):
        assert np.allclose(rows[1], row, atol=1e-5) and row.shape == OBSERVATION.shape and row.dtype == np.float32
        actions = draw.uniform(-1, 1, (3, 3)).astype(np.float32)
        rows, reward, terminated, truncated, infos = many.step(actions)
        row, own, *ended, _ = one.step(actions[1])
        assert abs(float(reward[1]) - own) < 1e-5 and ended == [False, t == 3] and not terminated.any()
        assert truncated.all() == (t == 3) and ("final_obs" in infos) == (t == 3)
    assert np.array_equal(rows, np.ones((3, 11))), "reset at once"
    assert not np.array_equal(infos["final_obs"][0], infos["final_obs"][1]), "rows see their own actions"


def test_decision_agents_are_measured_without_d3rlpy_and_the_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "d3rlpy", None)
    table = module("decision").run(Options(quick=True))
    assert [row["what"] for row in table.skipped] == ["evaluation", "training"]
    (note,) = table.notes
    assert note.startswith("d3rlpy is not installed; pip install --no-deps d3rlpy gym ")
    assert {row["x d3rlpy"] for row in table.rows if "x d3rlpy" in row} == {None}
    judged = [target.what for target in table.targets]
    assert [what for what in judged if "attention" in what] and not [what for what in judged if "d3rlpy" in what]


def test_a_peer_is_registered_only_while_it_is_to_be() -> None:
    from rlmin.bench.train import register_for_a_while
    from rlmin.encoders import CELLS, Cell, Stack

    before = list(CELLS)
    with register_for_a_while(Cell("peer", lambda D, H: Stepped(nn.LSTM, D, H), output_is_memory=False)) as name:
        assert any(isinstance(x, Stepped) for x in Stack(D, D, mixer=name).modules())
    assert list(CELLS) == before


# timing


def test_cases_take_turns_and_every_second_round_runs_backwards() -> None:
    called: list[str] = []
    cases = {name: (lambda name=name: called.append(name)) for name in "abc"}
    timing = time_cases(cases, rounds=3, block=0)
    assert "".join(called) == "abc" + "abc" + "cba" + "abc", "an uncounted call of each, then the rounds"
    assert timing.rounds == 3 and set(timing.seconds) == set("abc")


def test_the_time_limit_ends_rounds_but_never_before_the_third() -> None:
    assert time_cases({"a": lambda: None}, rounds=9, seconds=0, block=0).rounds == 3
    assert time_cases({"a": lambda: None}, rounds=2, seconds=0, block=0).rounds == 2
    assert time_cases({"a": lambda: None}, rounds=9, block=0).rounds == 9


def test_a_short_call_is_repeated_until_it_fills_a_block() -> None:
    assert [calls_to_fill(0.01, once) for once in (0.004, 0.01, 1.0, 1e-9)] == [3, 1, 1, 1000]
    called: list[None] = []
    time_cases({"a": lambda: called.append(None)}, rounds=2, block=10.0)
    assert len(called) == 2 + 2 * 1000


def test_ratios_are_taken_inside_rounds_before_their_median() -> None:
    timing = Timing({"a": [1.0, 20.0, 3.0], "b": [2.0, 10.0, 3.0]})
    assert (timing.ratio("a", "b"), timing.difference("a", "b"), timing.median("a")) == (1.0, 0.0, 3.0)
    flipped = Timing({"a": [1.0, 2.0, 30.0], "b": [10.0, 1.0, 20.0]})
    assert flipped.ratio("a", "b") == 1.5 != flipped.median("a") / flipped.median("b"), "not a ratio of medians"


# products


def test_the_products_of_a_function_are_those_it_makes_forward_and_backward() -> None:
    linear, x = nn.Linear(D, H), torch.randn(T, D, requires_grad=True)

    def both() -> None:
        torch.autograd.grad(linear(x).tanh().sum(), [x, *linear.parameters()])

    products = Products(both)
    assert products.count == 3 and products.flops == 3 * 2 * T * D * H
    assert Products(lambda: torch.tanh(x) * x).count == 0
    assert Products(lambda: torch.mv(x, torch.ones(D))).flops == 2 * T * D
    again = Products(products)
    assert (again.count, again.flops) == (products.count, products.flops), "what is called again is the same"


# the report


def test_a_table_is_aligned_and_its_file_says_what_was_missed_and_left_out() -> None:
    table = Table()
    table.add({"what": "long name", "ms": 0.123456789, "count": 12345})
    table.add({"what": "b", "ms": 1234.5, "count": 6})
    table.skip("no  such\npackage", {"what": "peer"})
    table.skip("no such package", {"what": "peer 2"})
    table.targets += [Target("slow", 2.0, 1.5), Target("fast", 2.0, 1.5, at_most=False)]
    printed = str(table).splitlines()
    assert printed == [
        "what          ms   count",
        "---------  -----  ------",
        "long name  0.123  12,345",
        "b          1,234       6",
        "peer           -       -",
        "peer 2         -       -",
        "target: slow: 2.00, target at most 1.5, missed",
        "target: fast: 2.00, target at least 1.5, met",
        "skipped: no such package",
    ]
    text = as_csv(table, header("scan", Options(), describe_machine()))
    assert "# command: rlmin bench scan --threads 2\n# date: 20" in text
    assert text.endswith("what,ms,count\nlong name,0.123457,12345\nb,1234.5,6\npeer,,\npeer 2,,\n")
    assert table.where(what="peer") == [] and table.numbers("ms", what="b") == [1234.5]


def test_the_machine_is_described_in_full() -> None:
    machine = describe_machine()
    assert set(machine) == MACHINE and all(machine.values())
    assert machine["threads"] == str(torch.get_num_threads()) and machine["torch"] == torch.__version__
