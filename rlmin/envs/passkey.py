"""Passkey: remember a few marked digits among many that do not matter.

Rules. `length` distractors are shown, one a step. Somewhere between them, before the first or after the last, come
`digits` passkey digits in a row. Then the agent names the passkey, one digit a step in order, with nothing to see.
Observation: (token, phase), MultiDiscrete([symbols + 1, 3]): token 0 is a blank, token i + 1 is digit i; phase 0 is a
distractor, 1 a digit of the passkey, 2 a question. Action: a digit, Discrete(symbols).
Distractors are digits too; all are drawn with equal chance. The passkey begins after `depth` * length distractors
(rounded down); with depth=None that number is drawn uniformly.

`length` is a number or a span (least, most), drawn for each episode of length + 2 digits steps. Reward: see quiz.py.

Returns: perfect 1; random, and without memory, 2/symbols - 1.

Source. Passkey retrieval: Mohtashami and Jaggi 2023, arXiv:2305.16300, with a passkey of 5 digits; as a measure of what
a recurrent state holds: Chen et al. 2024, arXiv:2410.07145. There the text is English and the filler repeats. The
digits, the rewards, and the phase entry, which alone marks the passkey, are ours.
"""

from typing import Unpack

import torch
from torch import Tensor

from rlmin.envs.quiz import NOTHING, Quiz, Sheet, Span, describe_variant, draw_span, longest, span
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Shared, Variant

DISTRACTOR, PASSKEY, QUESTION = range(3)


def _variant(length: Span, *, digits: int = 5, symbols: int = 10) -> Variant:
    options = {"length": length, "digits": digits, "symbols": symbols}
    policies = "any digit", "keep the marked digits"
    return describe_variant(options, longest(length) + 2 * digits, policies, chance=2 / symbols - 1)


VARIANTS = {
    "Passkey50-v0": _variant(50),
    "Passkey200-v0": _variant(200),
    "Passkey1000-v0": _variant(1000),
    "PasskeyJoint200-v0": _variant((0, 200)),
}


class Passkey(Quiz):
    """B games; see the module for the rules.

    Args:
        num_envs: B.
        length: number of distractors, at least 0; given two numbers, each episode draws its own between them.
        digits: length of the passkey, at least 1.
        symbols: number of different digits, at least 2.
        depth: share of the distractors that come before the passkey, in [0, 1]; None: drawn.
        shared: device and render_mode, see `Shared`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        length: Span = 50,
        digits: int = 5,
        symbols: int = 10,
        depth: float | None = None,
        **shared: Unpack[Shared],
    ) -> None:
        if digits < 1 or symbols < 2:
            raise ValueError(f"digits={digits}, symbols={symbols}: expected at least 1 digit and 2 symbols")
        if depth is not None and not 0 <= depth <= 1:
            raise ValueError(f"depth={depth}: expected a share in [0, 1], or None")
        self.span, self.digits, self.symbols, self.depth = span("length", length, 0), digits, symbols, depth
        steps = self.span[1] + 2 * digits
        super().__init__(num_envs, (symbols + 1, 3), symbols, steps, **shared)

    def sheet(self, key: Tensor) -> Sheet:
        length = draw_span(key, 0, self.span)
        place = self._place(key, length).unsqueeze(1)
        token = self.lane(key, 1, len(self.clock), self.symbols)
        since = self.clock - length.unsqueeze(1) - self.digits
        marked = (self.clock >= place) & (self.clock < place + self.digits)
        asked = (since >= 0) & (since < self.digits)
        answer = token.gather(1, place + since.clamp(0, self.digits - 1)).masked_fill(~asked, NOTHING)
        shown = torch.stack(((token + 1) * ~asked, marked * PASSKEY + asked * QUESTION), 2)
        return Sheet(shown, answer, length + 2 * self.digits)

    def _place(self, key: Tensor, length: Tensor) -> Tensor:
        """[B] int64: the step of the first digit."""
        if self.depth is not None:
            return (length.double() * self.depth).long()
        return draw_span(key, 1, (0, length))

    def glyph(self, seen: list[int]) -> str:
        return f"{seen[0] - 1 if seen[0] else ''}{('', '!', '?')[seen[1]]}"


class PasskeyEnv(Single):
    """One game, see the module."""

    game = Passkey
