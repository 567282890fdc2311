"""DelayedMatch: say whether the symbol in sight is the one shown `delay` steps ago.

Rules. Symbols are shown, one a step, and at the last step the agent is asked (the query marker is set) whether the
symbol in sight equals the one `delay` steps before. Half of the questions are matches; otherwise every other symbol is
equally likely. All other draws are uniform.
Observation: (symbol, query), MultiDiscrete([symbols, 2]). Action: Discrete(2): 0 differs, 1 matches.

    one question   length=None: delay + 1 symbols, the sample is the first. `delay` may be a span (least, most)
    unmarked       length above delay + 1, a number or a span: the sample lies somewhere, unmarked, so that the last
                   `delay` symbols have to be kept all the time
    streaming      asked at every step from symbol delay + 1 on

Reward: see quiz.py. Returns: perfect 1; random 0. An agent that no longer has the sample is right half the time: it
scores 0, without memory and with the last `delay` observations alike.

Source. N-delayed match-to-sample: Khajehabdollahi et al. 2024, arXiv:2309.12927: fair bits, one question at the end of
N + 2 to 4N + 1 bits on bits N - 1 steps apart, so their N is delay + 1. Streaming is the n-back task. More symbols,
query marker, rewards, and the sample at the start are ours.
"""

from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlmin.envs.quiz import NOTHING, Quiz, Sheet, Span, describe_variant, draw_span, span
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Shared, Variant


def _variant(steps: int, **options: Any) -> Variant:
    return describe_variant(options, steps, ("any answer", "keep the symbol of `delay` steps ago"), chance=0.0)


VARIANTS = {
    "DelayedMatch10-v0": _variant(11, delay=10),
    "DelayedMatch40-v0": _variant(41, delay=40),
    "DelayedMatch160-v0": _variant(161, delay=160),
    "DelayedMatchJoint40-v0": _variant(41, delay=(2, 40)),
    "DelayedMatchWindow8-v0": _variant(33, delay=7, length=(10, 33)),
    "StreamingMatch4-v0": _variant(64, delay=4, length=64, streaming=True),
    "StreamingMatch16-v0": _variant(128, delay=16, length=128, streaming=True),
}


class DelayedMatch(Quiz):
    """B games; see the module for the rules.

    Args:
        num_envs: B.
        delay: steps from sample to question, at least 1; given two numbers, each episode draws its own.
        symbols: number of different symbols, at least 2.
        length: symbols shown, at least delay + 1, for a delay that is one number; None: delay + 1.
        streaming: whether every step from `delay` on asks a question.
        shared: device and render_mode, see `Shared`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        delay: Span = 10,
        symbols: int = 2,
        length: Span | None = None,
        streaming: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        self.delay = span("delay", delay, 1)
        if symbols < 2:
            raise ValueError(f"symbols={symbols}: expected at least 2")
        if self.delay[0] != self.delay[1] and (streaming or length is not None):
            raise ValueError(f"delay={delay!r}: expected one number, with streaming or length nobody knows which")
        self.span = None if length is None else span("length", length, self.delay[1] + 1)
        self.symbols, self.streaming = symbols, streaming
        steps = self.delay[1] + 1 if self.span is None else self.span[1]
        super().__init__(num_envs, (symbols, 2), 2, steps, **shared)

    def sheet(self, key: Tensor) -> Sheet:
        delay = draw_span(key, 0, self.delay)
        length = delay + 1 if self.span is None else draw_span(key, 1, self.span)
        since, last = delay.unsqueeze(1), length.unsqueeze(1) - 1
        asked = self.clock >= since if self.streaming else self.clock == last
        steps = len(self.clock)
        symbol = self.lane(key, 1, steps, self.symbols)
        questions = steps if self.streaming else 1
        match = self.lane(key, 2, questions, 2)
        # where asked, the symbol is that of `delay` steps ago plus 0 (a match) or 1..symbols-1
        shift = (1 - match) * (1 + self.lane(key, 3, questions, self.symbols - 1))
        if self.streaming:
            shown = self._accumulate(torch.where(asked, shift, symbol))
        else:
            shown = torch.where(asked, shift + symbol.gather(1, last - since), symbol)
        return Sheet(torch.stack((shown % self.symbols, asked.long()), 2), torch.where(asked, match, NOTHING), length)

    def _accumulate(self, shift: Tensor) -> Tensor:
        """shift[t] + shift[t - delay] + shift[t - 2 delay] + ..."""
        rows, steps = shift.shape
        delay = self.delay[0]
        blocks = -(-steps // delay)
        whole = pad(shift, (0, blocks * delay - steps))
        return whole.view(rows, blocks, delay).cumsum(1).view(rows, -1)[:, :steps]

    def name(self, answer: int) -> str:
        return ("no", "yes")[answer]


class DelayedMatchEnv(Single):
    """One game, see the module."""

    game = DelayedMatch
