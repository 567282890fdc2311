"""Softmax attention over the last steps of an episode: the decision transformer's mixer."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from rlmin.encoders.base import Encoder, check_counts, one, parts, wipe
from rlmin.encoders.cell import Cell, register
from rlmin.encoders.heads import Heads
from rlmin.settings import Count, Settings, Size
from rlmin.settings.boundary import checked
from rlmin.types import State

Context: TypeAlias = Size

_MOST_ROWS = 65_535  # of a grid's third axis, on which attention's kernels lay the batch
_SHORTEST_BLOCK = 32  # queries answered together if the context is shorter
_SLOWEST = 1e4  # base of the frequencies: steps in which one more pair of features would turn by one radian


class Attention(Encoder):
    """One layer of causal multi-head attention, inside the episode only, over the last `context` steps.

        query[t], key[t], value[t] = projection(x[t]);  query and key are turned by the age of t, steps since the start
        weight[t, s] = softmax over s of query[t] . key[s] / sqrt(size),    0 <= t - s < context, s in t's episode
        y[t] = output(sum over s of weight[t, s] * value[s])               per head, heads side by side

    The state holds what the next step can see, so it does not grow with the episode. A pass over T steps takes blocks
    of about `context` queries against twice as many keys; time and memory are O(T * context).

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        heads: number of heads; each has hidden_size / heads features, rounded up to an even number.
        context: number of steps seen, the present one included; at least one.
        rotary: whether queries and keys are turned (rotary positions); False leaves a set without order.

    Attributes:
        projection: nn.Linear(D, 3 * heads * size), rows [query; key; value].
        output: nn.Linear(heads * size, H).

    Raises:
        ValueError: fewer than one head or step of context.

    Source: Vaswani et al. 2017 (arXiv:1706.03762); Su et al. 2021 (arXiv:2104.09864) for the rotation.
    """

    frequency: Tensor  # [size / 2] radians a step, of each pair of features

    @checked
    def __init__(
        self, input_size: Size, hidden_size: Size, *, heads: Count = 4, context: Size = 64, rotary: bool = True
    ) -> None:
        super().__init__()
        check_counts(heads=heads, context=context)
        self.input_size, self.output_size = input_size, hidden_size
        self.heads, self.context, self.rotary = heads, context, rotary
        self.size = 2 * -(-hidden_size // (2 * heads))
        self.projection = nn.Linear(input_size, 3 * heads * self.size)
        self.output = nn.Linear(heads * self.size, hidden_size)
        frequency = _SLOWEST ** -torch.linspace(0, 1, self.size // 2 + 1, dtype=torch.float64)[:-1]
        self.register_buffer("frequency", frequency.float(), persistent=False)

    def initial_state(self, B: int) -> State:
        """(keys, values, age): twice [B, context - 1, heads, size] zeros, oldest first, and [B] zeros."""
        room = B, self.context - 1, self.heads, self.size
        return self.zeros(*room), self.zeros(*room), self.zeros(B)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` (keys, values, age); no gradient reaches the age."""
        self.check_input(x, start, state)
        keys, values, age = (wipe(one(part), start[0]) for part in parts(state, 3))
        T, B, _ = x.shape
        blocks = max(1, T // max(self.context - 1, _SHORTEST_BLOCK))
        filler = -T % blocks
        opened, age = _episodes(start, age.detach(), before=-self.context)
        whole = pad(age, (0, 0, 0, filler))  # a filler sees itself, and nothing sees it
        query, key, value = self._project(pad(x, (0, 0, 0, 0, 0, filler)), whole, keys.dtype)
        seen_key, seen_value = self._in_view(key, keys, blocks), self._in_view(value, values, blocks)
        visible = self._visible(whole.view(blocks, -1, B))
        query = query.view(blocks, -1, *query.shape[1:]).permute(0, 2, 3, 1, 4).flatten(0, 1)  # [n B, heads, Q, size]
        y = _attend(query, seen_key, seen_value, visible)
        y = y.view(blocks, B, *y.shape[1:]).permute(0, 3, 1, 2, 4).reshape(T + filler, B, -1)[:T]
        after = tuple(self._leave(new[:T], old, opened[-1]) for new, old in ((key, keys), (value, values)))
        return self.output(y.to(x.dtype)), (*after, age[-1] + 1)

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` (keys, values, age)."""
        keys, values, age = (one(part) for part in parts(state, 3))
        age = wipe(age.detach(), start)
        query, key, value = self._project(x, age, keys.dtype)
        keys, values = (_append(old, new, start) for old, new in ((keys, key), (values, value)))
        visible = torch.arange(self.context - 1, -1, -1, device=x.device) <= age.unsqueeze(1)  # [B, context]
        y = _attend(query.unsqueeze(2), keys.transpose(1, 2), values.transpose(1, 2), visible[:, None, None])
        return self.output(y.flatten(1).to(x.dtype)), (keys[:, 1:], values[:, 1:], age + 1)

    def _project(self, x: Tensor, age: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value [..., heads, size] of x [..., D] at age [...], in the precision of the state."""
        projected = self.projection(x).to(dtype).unflatten(-1, (3, self.heads, self.size))
        query, key, value = projected.unbind(-3)
        if not self.rotary:
            return query, key, value
        angle = age[..., None, None].double() * self.frequency  # float32 would lose precision as the age grows
        cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
        return _turn(query, cos, sin), _turn(key, cos, sin), value

    def _in_view(self, new: Tensor, old: Tensor, blocks: int) -> Tensor:
        """[blocks * Q, B, heads, size] -> what each block sees, [blocks * B, heads, context - 1 + Q, size]."""
        own = new.view(blocks, -1, *new.shape[1:])
        before = old.transpose(0, 1).unsqueeze(0)
        if blocks > 1:
            before = torch.cat([before, own[:-1, own.shape[1] - self.context + 1 :]])
        return torch.cat([part.permute(0, 2, 3, 1, 4) for part in (before, own)], 3).flatten(0, 1)

    def _visible(self, age: Tensor) -> Tensor:
        """[blocks * B, 1, Q, context - 1 + Q] bool: the last `context` steps that are no older than the query's age."""
        Q, device = age.shape[1], age.device
        at = torch.arange(self.context - 1 + Q, device=device)
        distance = at[self.context - 1 :, None] - at
        near = (distance >= 0) & (distance < self.context)
        return (near & (distance <= age.transpose(1, 2).unsqueeze(3))).flatten(0, 1).unsqueeze(1)

    def _leave(self, new: Tensor, old: Tensor, opened: Tensor) -> Tensor:
        """The last context - 1 of old [B, context - 1, ...] followed by new [T, B, ...]; zeros before `opened` [B]."""
        T, keep = len(new), self.context - 1
        last = torch.cat([old, new[max(0, T - keep) :].transpose(0, 1)], 1)[:, -keep:] if keep else old
        at = torch.arange(T - keep, T, device=new.device)
        return last.masked_fill((at < opened.unsqueeze(1))[..., None, None], 0)


def _attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
    """Softmax attention of [N, heads, Q, size], in parts that the grid of a GPU has room for."""
    if torch.compiler.is_compiling() or len(query) <= _MOST_ROWS:
        return scaled_dot_product_attention(query, key, value, attn_mask=visible)
    parts = zip(*(torch.split(x, _MOST_ROWS) for x in (query, key, value, visible)), strict=True)
    return torch.cat([scaled_dot_product_attention(q, k, v, attn_mask=seen) for q, k, v, seen in parts])


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (x[i], x[i + size / 2]) turned by its angle."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)
    return torch.cat(turned, dim=-1)


def _append(old: Tensor, new: Tensor, start: Tensor) -> Tensor:
    """old [B, S, ...] followed by new [B, ...]; the old part is zero in the rows that start."""
    both = torch.cat([old, new.unsqueeze(1)], 1)
    if both.is_cpu and not torch.compiler.is_compiling():  # a tenth of the time of a mask, but a GPU would have to wait
        both[:, :-1].index_fill_(0, start.nonzero().squeeze(1), 0)
    else:
        both[:, :-1].masked_fill_(start[:, None, None, None], 0)
    return both


def _episodes(start: Tensor, age: Tensor, *, before: int) -> tuple[Tensor, Tensor]:
    """The first step of each step's episode (`before` if it lies before this pass), and the age [T, B]."""
    t = torch.arange(len(start), device=start.device).unsqueeze(1)
    opened = torch.where(start, t, before).cummax(0).values
    return opened, torch.where(opened < 0, age + t, (t - opened).to(age.dtype))


@dataclass(frozen=True, kw_only=True)
class AttentionOptions(Settings):
    """Options of attention."""

    heads: Heads = 4  # Number of heads
    context: Context = 64  # Number of inputs in view, the present one included: one a step, or up to three
    rotary: bool = True  # Whether positions turn queries and keys; False leaves a set without order


CELL = register(
    Cell(
        "attention",
        Attention,
        about="Softmax attention over the last inputs of the episode, as in the decision transformer.",
        options=AttentionOptions,
        output_is_memory=False,
        state_names=("keys", "values", "age"),
        is_bounded=False,
        window="context",
    )
)
