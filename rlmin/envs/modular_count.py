"""ModularCount: keep a count modulo `modulus`.

Rules. The count starts at 0. `length` tokens are shown, one a step, each with equal chance; token i adds increments[i]
to the count, modulo `modulus`. The last token is shown at the last step, with the query marker.
Observation: (token, query), MultiDiscrete([tokens, 2]). Action: the count, Discrete(modulus).

    increments=(0, 1)         count the ones (modulus 2: parity)
    increments=(-1, 0, 1)     back, stay, forward on a ring: cycle navigation
    increments=range(m)       the sum of digits modulo m

The game asks once, at the last step, for the count over all tokens; with streaming=True at every step, for the count so
far.
`length` is a number or a span (least, most), drawn for each episode. Reward: see quiz.py.

Returns: perfect 1; random 2/modulus - 1. The best policy without memory adds the token in sight to a guess of the count
before it. `without_memory` computes its return exactly; it is a little above random, as the count of a short stream is
not uniform.

Source. Counting modulo 3: Grazzi et al. 2024, arXiv:2411.12537 (a linear recurrence needs a transition that is not
triangular). Cycle navigation on 5 places: Deletang et al. 2022, arXiv:2207.02098. Sums: Fan et al. 2023,
arXiv:2309.07412. Streaming, query marker and rewards are ours.
"""

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from rlmin.envs.quiz import NOTHING, Quiz, Sheet, Span, describe_variant, draw_span, longest, span
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Shared, Variant


def without_memory(modulus: int, increments: Sequence[int], length: Span, streaming: bool = False) -> float:
    """The best return of a function of the observation alone, over all games: exact, by the law of the count."""
    lengths = range(length, length + 1) if isinstance(length, int) else range(length[0], length[1] + 1)
    law, laws = [1.0] + [0.0] * (modulus - 1), []  # of the count before token t
    for _ in range(lengths[-1]):
        laws.append(law)
        law = [sum(law[(c - i) % modulus] for i in increments) / len(increments) for c in range(modulus)]
    chance = [0.0] * modulus  # that the count before the token is c, averaged over questions
    for n in lengths:
        asked = laws[:n] if streaming else [laws[n - 1]]
        for c in range(modulus):
            chance[c] += sum(law[c] for law in asked) / len(asked) / len(lengths)
    return 2 * max(chance) - 1


def _variant(modulus: int, increments: tuple[int, ...], length: Span, streaming: bool = False) -> Variant:
    options: dict[str, Any] = {"modulus": modulus, "increments": increments, "length": length, "streaming": streaming}
    policies = "the likeliest count before, and the token in sight", "count"
    floor = without_memory(modulus, increments, length, streaming)
    return describe_variant(options, longest(length), policies, chance=2 / modulus - 1, floor=floor)


VARIANTS = {
    "ModularCount3-v0": _variant(3, (0, 1), 16),
    "ModularCount5-v0": _variant(5, (0, 1), 32),
    "ModularCount7-v0": _variant(7, (0, 1), 64),
    "ModularCountJoint3-v0": _variant(3, (0, 1), (2, 32)),
    "StreamingCount3-v0": _variant(3, (0, 1), 64, True),
    "CycleNavigation5-v0": _variant(5, (-1, 0, 1), 40),
}


class ModularCount(Quiz):
    """B games; see the module for the rules.

    Args:
        num_envs: B.
        modulus: at least 2.
        increments: what each token adds, at least two tokens.
        length: number of tokens shown, at least 1; given two numbers, each episode draws its own between them.
        streaming: whether every step asks.
        shared: device and render_mode, see `Shared`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        modulus: int = 3,
        increments: Sequence[int] = (0, 1),
        length: Span = 16,
        streaming: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        if modulus < 2:
            raise ValueError(f"modulus={modulus}: expected at least 2")
        if len(increments) < 2:
            raise ValueError(f"increments={tuple(increments)}: expected at least two tokens")
        self.span, self.modulus, self.streaming = span("length", length, 1), modulus, streaming
        self.increments = tuple(increments)
        seen = (len(increments), 2)
        super().__init__(num_envs, seen, modulus, self.span[1], **shared)
        self._adds = torch.tensor(self.increments, device=self.device)

    def sheet(self, key: Tensor) -> Sheet:
        length = draw_span(key, 0, self.span)
        token = self.lane(key, 1, self.span[1], len(self.increments))
        last = length.unsqueeze(1) - 1
        asked = self.clock <= last if self.streaming else self.clock == last
        answer = (self._adds[token].cumsum(1) % self.modulus).masked_fill(~asked, NOTHING)
        return Sheet(torch.stack((token, asked.long()), 2), answer, length)

    def glyph(self, seen: list[int]) -> str:
        return f"{self.increments[seen[0]]:+d}{'?' if seen[1] else ''}"


class ModularCountEnv(Single):
    """One game, see the module."""

    game = ModularCount
