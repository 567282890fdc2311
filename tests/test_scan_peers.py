"""The scans agree with what others published: the minGRU-pytorch package, and the log-space form of the paper."""

import torch
import torch.nn.functional as F
from minGRU_pytorch.minGRU import minGRU
from minGRU_pytorch.minLSTM import minLSTM
from test_scan import B, D, T, assert_same, differ, draw, everything, min_gru, min_lstm
from torch import Tensor


def peer(module: torch.nn.Module, rows: int) -> tuple[torch.nn.Module, list[Tensor], Tensor]:
    """`module` in float64, the logits it computes in its own order of rows, and its input, batch first."""
    module = module.double()
    x = torch.randn(B, 128, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (weight,) = module.parameters()
    return module, list((x @ weight.detach().t()).transpose(0, 1).chunk(rows, dim=-1)), x


def test_min_gru_agrees_with_the_minGRU_pytorch_package(kernel: str) -> None:
    torch.manual_seed(0)
    module, (hidden, gate), x = peer(minGRU(D), 2)
    state = torch.rand(B, D, dtype=torch.float64) + 0.1
    for before, carried in ((torch.zeros_like(state), None), (state, state[:, None])):
        wanted, last = module(x, carried, return_next_prev_hidden=True)
        found = min_gru(gate, hidden, before, activation="g")
        assert_same(list(found), [wanted.transpose(0, 1).detach(), last[:, 0].detach()], 1e-10)
        assert differ(list(min_gru(gate, hidden, before, activation="tanh")), list(found))
    step = module(x[:, :1], state[:, None])[:, 0].detach()
    assert_same([min_gru(gate[:1], hidden[:1], state, activation="g")[1]], [step], 1e-12)


def test_min_lstm_agrees_with_the_minGRU_pytorch_package_from_an_empty_memory(kernel: str) -> None:
    torch.manual_seed(0)
    module, (hidden, forget, input), x = peer(minLSTM(D), 3)
    empty = torch.zeros(B, D, dtype=torch.float64)
    wanted = module(x).transpose(0, 1).detach()
    assert_same([min_lstm(forget, input, hidden, empty, activation="g")[0]], [wanted], 1e-10)
    # From a memory it does not: version 0.2.1 applies log g to a state that is past g already, and so is not the
    # continuation of itself.
    state = torch.rand(B, D, dtype=torch.float64) + 0.1
    found = min_lstm(forget, input, hidden, state, activation="g")[0]
    assert differ([module(x, state[:, None]).transpose(0, 1).detach()], [found])


def log_space(inputs: list[Tensor], state: Tensor, keep: Tensor) -> Tensor:
    """The form the paper trains with, for positive states: exp(a* + logcumsumexp(log b - a*)), a* = cumsum(log a)."""
    gate, candidate = inputs
    log_keep = F.pad((keep * gate.neg().sigmoid()).log(), (0, 0, 0, 0, 1, 0)).cumsum(0)
    written = F.logsigmoid(gate) + torch.where(candidate >= 0, candidate.relu() + 0.5, candidate.sigmoid()).log()
    values = torch.cat([state.log()[None], written])
    return (log_keep + (values - log_keep).logcumsumexp(0))[1:].exp()


def test_the_log_space_form_agrees_and_cannot_reset(kernel: str) -> None:
    (gate, candidate), state, _ = draw(min_gru)
    state, keep = state.abs() + 0.1, torch.ones(T, B, 1, dtype=torch.float64)
    wanted = everything(lambda x, s: (y := log_space(x, s, keep), y[-1]), [gate, candidate], state)
    found = everything(lambda x, s: min_gru(*x, s, activation="g"), [gate, candidate], state)
    assert_same(found, wanted, 1e-11)
    keep[3, 1] = 0
    assert log_space([gate, candidate], state, keep)[3:, 1].isnan().all()
