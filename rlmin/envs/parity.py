"""Parity: say whether the number of ones shown so far is odd.

Rules. `length` fair bits are shown, one a step; the last is shown at the last step, with the query marker.
Observation: (bit, query), MultiDiscrete([2, 2]). Action: the parity, Discrete(2): 0 even, 1 odd.

    N-parity      asked once, at the last step: the parity of all bits
    streaming     asked at every step: the parity of all bits so far
    window=N      the parity of the last N bits only, in a stream of at least N; with streaming asked from bit N on

`length` is a number or a span (least, most), drawn for each episode. Reward: see quiz.py.

Without a window, one bit of memory is enough. With one, the agent has to keep the last N bits, as it does not know when
the question comes. Returns: perfect 1; random 0. An agent that misses a single bit that counts is right half the time,
so without memory N-parity scores 0. Streaming scores 1/length: the first bit is its own parity, so naming the bit in
sight is right at the first step and half the time later.

Source. N-parity: Khajehabdollahi et al. 2024, arXiv:2309.12927: the window of N bits in a sequence of N + 2 to 4N + 1;
their bits have a bias that is drawn for each sequence, ours are fair. A window of the whole sequence is the older
benchmark. Streaming parity: Van Rossem and Saxe 2025, arXiv:2507.09897. Query marker and rewards are ours.
"""

from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlmin.envs.quiz import NOTHING, Quiz, Sheet, Span, describe_variant, draw_span, longest, span
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Shared, Variant


def _variant(length: Span, floor: float = 0.0, **options: Any) -> Variant:
    policies = "the bit in sight", "count, or keep the window"
    return describe_variant({"length": length, **options}, longest(length), policies, chance=0.0, floor=floor)


VARIANTS = {
    "NParity8-v0": _variant(8),
    "NParity16-v0": _variant(16),
    "NParity32-v0": _variant(32),
    "NParityJoint32-v0": _variant((2, 32)),
    "NParityWindow8-v0": _variant((10, 33), window=8),
    "StreamingParity16-v0": _variant(16, 1 / 16, streaming=True),
    "StreamingParity64-v0": _variant(64, 1 / 64, streaming=True),
    "StreamingParity256-v0": _variant(256, 1 / 256, streaming=True),
}


class Parity(Quiz):
    """B games; see the module for the rules.

    Args:
        num_envs: B.
        length: number of bits shown, at least 1 and the window; given two numbers, each episode draws its own.
        window: number of the last bits that count; None for all.
        streaming: whether every step asks.
        shared: device and render_mode, see `Shared`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        length: Span = 16,
        window: int | None = None,
        streaming: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        if window is not None and window < 1:
            raise ValueError(f"window={window}: expected at least 1, or None for all bits")
        self.span, self.window, self.streaming = span("length", length, window or 1), window, streaming
        super().__init__(num_envs, (2, 2), 2, self.span[1], **shared)

    def sheet(self, key: Tensor) -> Sheet:
        width, length = self.span[1], draw_span(key, 0, self.span)
        bit = self.lane(key, 1, width, 2)
        ones = bit.cumsum(1)
        if self.window is not None:
            ones = ones - pad(ones, (self.window, 0))[:, :width]
        last = length.unsqueeze(1) - 1
        asked = (self.clock >= (self.window or 1) - 1) & (self.clock <= last) if self.streaming else self.clock == last
        answer = (ones % 2).masked_fill(~asked, NOTHING)
        return Sheet(torch.stack((bit, asked.long()), 2), answer, length)


class ParityEnv(Single):
    """One game, see the module."""

    game = Parity
