"""CopyDelay: keep a row of symbols over a delay, then repeat it in order.

Rules. `length` symbols are shown, one a step, then `delay` blanks; then the agent names them in order, one a step, with
the query marker set and nothing else to see, `repeats` times in a row.
Observation: (token, query), MultiDiscrete([symbols + 1, 2]): token 0 is a blank, token i + 1 is symbol i.
Action: a symbol, Discrete(symbols). Symbols are drawn with equal chance, independently.

    selective=True    the blanks stand between and around the symbols: which of the length + delay first steps show a
                      symbol is drawn, every choice with equal chance

`length` and `delay` are numbers or spans (least, most), drawn for each episode, which then has
length + delay + repeats * length steps. Reward: see quiz.py. A wrong answer does not shift the row.

Returns: perfect 1; random, and without memory, 2/symbols - 1, as all symbols are equally likely.

Source. Copying memory: Hochreiter and Schmidhuber 1997; as Arjovsky et al. 2016, arXiv:1511.06464 (10 symbols of 8
kinds), whose single delimiter is here a marker on every question. Repeat copy: Graves et al. 2014, arXiv:1410.5401.
Selective copying: Gu and Dao 2023, arXiv:2312.00752 (16 symbols of 16 kinds in 4096 steps). Rewards and spans are ours.
"""

from typing import Any, Unpack

import torch
from torch import Tensor

from rlmin.envs.quiz import NOTHING, Quiz, Sheet, Span, describe_variant, draw_span, longest, span
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Shared, Variant


def _variant(length: Span, delay: Span, *, symbols: int = 8, **options: Any) -> Variant:
    options |= {"length": length, "delay": delay, "symbols": symbols}
    policies = "any symbol", "keep the row and repeat it"
    return describe_variant(options, 2 * longest(length) + longest(delay), policies, chance=2 / symbols - 1)


VARIANTS = {
    "CopyDelay10-v0": _variant(5, 10),
    "CopyDelay50-v0": _variant(10, 50),
    "CopyDelay200-v0": _variant(10, 200),
    "CopyDelayJoint50-v0": _variant((1, 10), (0, 50)),
    "SelectiveCopy50-v0": _variant(10, 50, selective=True),
    "SelectiveCopy200-v0": _variant(16, 184, symbols=16, selective=True),
}


class CopyDelay(Quiz):
    """B games; see the module for the rules.

    Args:
        num_envs: B.
        length: number of symbols to keep, at least 1; given two numbers, each episode draws its own between them.
        delay: number of blanks, at least 0; given two numbers, each episode draws its own.
        symbols: number of different symbols, at least 2.
        repeats: number of times that the row is named, at least 1.
        selective: whether the blanks stand between the symbols instead of after them.
        shared: device and render_mode, see `Shared`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        length: Span = 5,
        delay: Span = 10,
        symbols: int = 8,
        repeats: int = 1,
        selective: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        if symbols < 2 or repeats < 1:
            raise ValueError(f"symbols={symbols}, repeats={repeats}: expected at least 2 symbols and 1 repeat")
        self.span, self.delay = span("length", length, 1), span("delay", delay, 0)
        self.symbols, self.repeats, self.selective = symbols, repeats, selective
        steps = self.span[1] * (1 + repeats) + self.delay[1]
        super().__init__(num_envs, (symbols + 1, 2), symbols, steps, **shared)

    def sheet(self, key: Tensor) -> Sheet:
        length, delay = draw_span(key, 0, self.span).unsqueeze(1), draw_span(key, 1, self.delay).unsqueeze(1)
        row = self.lane(key, 1, self.span[1], self.symbols)
        shows = self._places(key, length, length + delay)
        place = (shows.cumsum(1) - 1).clamp(0, self.span[1] - 1)
        token = (row.gather(1, place) + 1) * shows
        since = self.clock - length - delay
        asked = (since >= 0) & (since < self.repeats * length)
        answer = row.gather(1, since % length).masked_fill(~asked, NOTHING)
        return Sheet(torch.stack((token, asked.long()), 2), answer, (delay + (1 + self.repeats) * length).squeeze(1))

    def _places(self, key: Tensor, length: Tensor, begin: Tensor) -> Tensor:
        """[B, S] bool: the steps that show a symbol, `length` of the first `begin`."""
        if not self.selective:
            return self.clock < length
        return self.order(key, 2, self.clock < begin) < length  # 0..begin-1 in random order, then the rest

    def glyph(self, seen: list[int]) -> str:
        return "?" if seen[1] else str(seen[0] - 1) if seen[0] else ""


class CopyDelayEnv(Single):
    """One game, see the module."""

    game = CopyDelay
