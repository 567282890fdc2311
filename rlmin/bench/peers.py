"""Other ways to run a memory over a rollout, as encoders, to compare rlmin's own with.

    Plain           torch's nn.GRU or nn.LSTM, which cannot reset: an upper bound for the next two
    SplitAndPad     the same, cut at every reset into sequences that are padded to one length (sb3-contrib, TorchRL)
    Stepped         the same, called once a step with its state masked, during the update too (CleanRL's recurrent PPO)
    OperatorGRU     a GRU of torch operators in a Python loop (the base of the minGRU paper's speed-ups)
    Attention       softmax attention over the episode so far, by torch's fused kernel (a transformer's memory)
    LogSpaceMinGRU  minGRU-pytorch's cell, a scan in log space, which cannot reset
    TorchRLGRU      TorchRL's GRUModule in recurrent mode

They follow rlmin's encoder contract, so each can replace one of its own, also inside PPO. They use as few and as large
operations as their method allows. Packages are imported on demand; a missing one raises `Missing`, which says how to
install it.
"""

import importlib
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rlmin.encoders import Encoder
from rlmin.encoders.base import one, parts, wipe
from rlmin.types import State

INSTALL = {
    "sb3_contrib": "sb3-contrib",
    "minGRU_pytorch": "minGRU-pytorch",
    # pins an older gymnasium than rlmin needs, and works without
    "d3rlpy": "--no-deps d3rlpy gym gym-notices && pip install structlog colorama dataclasses-json scikit-learn h5py",
    "torchrl": "--no-deps torchrl",  # asks for an older tensordict than rlmin is tested with, and works without
}
"""Module -> argument of `pip install`."""


class Missing(Exception):
    """A peer that cannot be imported; the message names the command that installs it."""


def need(name: str) -> ModuleType:
    """Import a peer's module, "package.module".

    Raises:
        Missing: it is not installed, or does not load beside this version of torch.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        why = "not installed" if isinstance(error, ModuleNotFoundError) else f"does not load ({error})"
        raise Missing(f"{package} is {why}; pip install {INSTALL[package]}") from error


class Plain(Encoder):
    """nn.GRU or nn.LSTM over whole rollouts. Resets are ignored. State: one [B, H] a part, h or (h, c)."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM], input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.rnn = kind(input_size, hidden_size)
        self.parts = 2 if kind is nn.LSTM else 1

    def initial_state(self, B: int) -> State:
        return tuple(self.zeros(B, self.output_size) for _ in range(self.parts))

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        return self._call(x, state)

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        wiped = tuple(wipe(one(part), start) for part in parts(state, self.parts))
        y, after = self._call(x[None], wiped)
        return y[0], after

    def _call(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        before = tuple(one(part)[None].contiguous() for part in parts(state, self.parts))
        y, after = self.rnn(x, before if self.parts == 2 else before[0])
        return y, tuple(part[0] for part in (after if self.parts == 2 else (after,)))


class SplitAndPad(Plain):
    """One call of torch's kernel on all pieces between resets, padded to the longest. The final state is not computed.

    The pieces are cut and joined by one indexed copy each, where sb3-contrib pads every sequence in a Python loop.
    """

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        T, B = start.shape
        opens = start.t().clone()  # [B, T]: pieces are counted row by row; for one row `contiguous` would be a view
        opens[:, 0] = True
        first = opens.flatten().nonzero().squeeze(-1)  # [pieces], where each begins
        piece = opens.flatten().cumsum(0) - 1  # [B T], the piece each step lies in
        place = torch.arange(B * T, device=x.device) - first[piece]
        longest, pieces = int(place.max()) + 1, len(first)
        at = place * pieces + piece  # [B T], where each step lies among [longest, pieces]
        padded = x.new_zeros(longest * pieces, x.shape[-1]).index_copy(0, at, x.transpose(0, 1).flatten(0, 1))
        goes_on = (first % T == 0) & ~start.t().flatten()[first]
        entering = tuple(one(part)[first // T] * goes_on.unsqueeze(-1) for part in parts(state, self.parts))
        y, _ = self._call(padded.view(longest, pieces, -1), entering)
        return y.flatten(0, 1).index_select(0, at).view(B, T, -1).transpose(0, 1), state


class Stepped(Plain):
    """Torch's kernel a step at a time, its state masked where an episode starts."""

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        keep, y = (~start).to(x.dtype).unsqueeze(-1), []
        for t in range(len(x)):
            masked = tuple(one(part) * keep[t] for part in parts(state, self.parts))
            now, state = self._call(x[t : t + 1], masked)
            y.append(now)
        return torch.cat(y), state


class Attention(Encoder):
    """Four heads of causal attention over the rollout; with resets, over the episode. It cannot act step by step."""

    HEADS = 4

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.projection, self.join = nn.Linear(input_size, 3 * hidden_size), nn.Linear(hidden_size, hidden_size)

    def initial_state(self, B: int) -> State:
        return ()

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        T, B, _ = x.shape
        q, k, v = self.projection(x).view(T, B, 3, self.HEADS, -1).permute(2, 1, 3, 0, 4)  # each B, heads, T, size
        if not bool(start.any()):
            y = scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            episode = start.cumsum(0).t()  # [B, T]
            same = episode.unsqueeze(2) == episode.unsqueeze(1)
            y = scaled_dot_product_attention(q, k, v, attn_mask=same.tril().unsqueeze(1))
        return self.join(y.permute(2, 0, 1, 3).reshape(T, B, -1)), state

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        raise NotImplementedError("this peer measures training only: acting would need a cache of keys and values")


class OneState(Encoder):
    """A peer whose state is one [B, H]."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size

    def initial_state(self, B: int) -> State:
        return self.zeros(B, self.output_size)


class OperatorGRU(OneState):
    """A GRU written as its equations, one operator at a time. Resets are ignored."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.projection = nn.Linear(input_size, 3 * hidden_size)
        self.recurrence = nn.Linear(hidden_size, 3 * hidden_size)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        y = []
        for now in x.unbind(0):
            state = self._next(now, one(state))
            y.append(state)
        return torch.stack(y), state

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        after = self._next(x, wipe(one(state), start))
        return after, after

    def _next(self, x: Tensor, h: Tensor) -> Tensor:
        (xr, xz, xn), (hr, hz, hn) = self.projection(x).chunk(3, -1), self.recurrence(h).chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        return (1 - z) * torch.tanh(xn + r * hn) + z * h


class LogSpaceMinGRU(OneState):
    """minGRU-pytorch's cell, batch first, positive states only. Resets are ignored: log space has none.

    Raises:
        Missing: see `need`.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.cell = need("minGRU_pytorch.minGRU").minGRU(input_size, hidden_size / input_size, proj_out=False)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        before = one(state).unsqueeze(1).clamp(min=1e-6)  # for the logarithm
        y, after = self.cell(x.transpose(0, 1), before, return_next_prev_hidden=True)
        return y.transpose(0, 1), after.squeeze(1)

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        y, after = self.forward(x[None], state, start[None])
        return y[0], after


class TorchRLGRU(OneState):
    """TorchRL's GRUModule: split and pad on the CPU, its Triton kernels on a GPU.

    Raises:
        Missing: see `need`.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.modules_of = need("torchrl.modules")
        self.backend = "triton" if torch.cuda.is_available() else "pad"
        keys = {"in_keys": ["x", "h"], "out_keys": ["y", ("next", "h")]}
        self.gru = self.modules_of.GRUModule(input_size, hidden_size, recurrent_backend=self.backend, **keys)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        T, B = start.shape
        before = x.new_zeros(B, T, 1, self.output_size)  # read at step 0 and, all zeros, where an episode starts
        before[:, 0, 0] = wipe(one(state), start[0])
        with self.modules_of.set_recurrent_mode(True):
            out = self._call(x.transpose(0, 1), before, start.t().unsqueeze(-1), (B, T))
        return out["y"].transpose(0, 1), out["next", "h"][:, -1, 0]

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        before = wipe(one(state), start).unsqueeze(1)
        with self.modules_of.set_recurrent_mode(False):
            out = self._call(x, before, start.unsqueeze(-1), (len(x),))
        return out["y"], out["next", "h"][:, 0]

    def _call(
        self, x: Tensor, h: Tensor, start: Tensor, lead: tuple[int, ...]
    ) -> "dict[str | tuple[str, str], Tensor]":
        from tensordict import TensorDict

        found: dict[str | tuple[str, str], Tensor] = self.gru(TensorDict({"x": x, "h": h, "is_init": start}, lead))
        return found
