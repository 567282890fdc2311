"""A residual block around any mixer."""

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import dropout as drop

from rlmin.encoders.base import Encoder, one, parts
from rlmin.encoders.conv import CausalConv
from rlmin.kernels import block, feed_forward, norm_conv
from rlmin.types import State


class Block(Encoder):
    """x + mixer(conv(norm(x))), then x + mlp(norm(x)); `conv` and `mlp` may be None. State: (conv's, mixer's)."""

    def __init__(
        self,
        mixer: Encoder,
        *,
        conv: CausalConv | None,
        mlp: nn.Sequential | None,
        norm: Callable[[int], nn.Module],
        dropout: float,
    ) -> None:
        super().__init__()
        self.input_size = self.output_size = mixer.output_size
        self.norm = norm(self.input_size)
        self.conv = conv
        self.mixer = mixer
        self.mlp_norm = None if mlp is None else norm(self.input_size)
        self.mlp = mlp
        self.dropout = dropout

    def initial_state(self, B: int) -> State:
        """(conv state, mixer state)."""
        return () if self.conv is None else self.conv.initial_state(B), self.mixer.initial_state(B)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` (conv state, mixer state)."""
        seen, memory = parts(state, 2)
        y, seen, x = self._read(x, seen, start, step=False)
        y, memory = self.mixer(y, memory, start)
        return self._feed(x, y), (seen, memory)

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` (conv state, mixer state)."""
        seen, memory = parts(state, 2)
        y, seen, x = self._read(x, seen, start, step=True)
        y, memory = self.mixer.step(y, memory, start)
        return self._feed(x, y), (seen, memory)

    def _read(self, x: Tensor, seen: State, start: Tensor, *, step: bool) -> tuple[Tensor, State, Tensor]:
        """The input of the mixer, conv(norm(x)), the convolution's state, and x."""
        norm, conv = self.norm, self.conv
        if isinstance(conv, CausalConv) and isinstance(norm, nn.LayerNorm):
            inputs = (x, norm, one(seen), start, conv.weight, conv.bias)
            if block.usable(x, norm.weight):
                return *block.norm_conv(*inputs), x
            if norm_conv.usable(x, norm.weight, autocast=True):
                return norm_conv.norm_conv(*inputs)
        y = norm(x)
        if conv is None:
            return y, seen, x
        return *(conv.step if step else conv)(y, seen, start), x

    def _feed(self, x: Tensor, update: Tensor) -> Tensor:
        """The residual sum, and the feed-forward half; the same for one step and for many."""
        norm, mlp, drops = self.mlp_norm, self.mlp, self.dropout > 0 and self.training
        if drops:
            update = drop(update, self.dropout)
        if norm is None or mlp is None:
            return x + update
        first, activation, second = cast(tuple[nn.Linear, nn.Module, nn.Linear], tuple(mlp))
        is_known = type(activation) is nn.SiLU and not drops and update.dtype is x.dtype
        if isinstance(norm, nn.LayerNorm) and is_known:
            if block.usable(x, norm.weight):
                return block.feed_forward(x, update, norm, first, second)
            if feed_forward.usable(x, norm.weight):
                return feed_forward.feed_forward(x, update, norm, first, second)
        x = x + update
        update = mlp(norm(x))
        return x + (drop(update, self.dropout) if drops else update)


def make_mlp(size: int, hidden: int, *, scale: float) -> nn.Sequential:
    """Two layers; the second is scaled so that the residual stream does not grow with depth."""
    last = nn.Linear(hidden, size)
    nn.init.orthogonal_(last.weight, gain=scale)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(size, hidden), nn.SiLU(), last)
