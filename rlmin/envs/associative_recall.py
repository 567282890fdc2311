"""AssociativeRecall: learn pairs of keys and values, then name the value of a key.

Rules. `pairs` different keys are drawn, each with a value (values may repeat). The pairs are shown one after another,
the key at one step and its value at the next; with joined=True both at one step. Then come `delay` blanks, then
`queries` of the keys (None: all of them), each once and in random order, one a step with the query marker set: the
agent names the value.
Observation: (key, value, query), MultiDiscrete([keys + 1, values + 1, 2]): 0 means no key, i + 1 means key i; the same
for values. Action: a value, Discrete(values). All draws are uniform.

`pairs` and `delay` are numbers or spans (least, most), drawn for each episode. Reward: see quiz.py.

Returns: perfect 1; random, and without memory, 2/values - 1: a key alone says nothing about its value.

Source. Associative recall: Graves et al. 2014, arXiv:1410.5401; in tokens, Ba et al. 2016, arXiv:1610.06258. All keys
asked: multi-query associative recall, Arora et al. 2023, arXiv:2312.04927, without the power law of its gaps and with
values that may repeat, so that none can be ruled out. The two entries for keys and values, the marker, the rewards and
the spans are ours.
"""

from typing import Any, Unpack

import torch
from torch import Tensor

from rlmin.envs.draws import permutation
from rlmin.envs.quiz import LANE, NOTHING, Quiz, Sheet, Span, describe_variant, draw_span, span
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Shared, Variant


def _variant(length: int, *, values: int = 8, **options: Any) -> Variant:
    policies = "any value", "keep all pairs"
    return describe_variant({"values": values, **options}, length, policies, chance=2 / values - 1)


VARIANTS = {
    "AssociativeRecall4-v0": _variant(12, pairs=4, keys=16),
    "AssociativeRecall8-v0": _variant(24, pairs=8, keys=32),
    "AssociativeRecall16-v0": _variant(48, pairs=16, keys=64),
    "AssociativeRecall64-v0": _variant(192, pairs=64, keys=256, values=16),
    "AssociativeRecallJoint16-v0": _variant(48, pairs=(1, 16), keys=64),
}


class AssociativeRecall(Quiz):
    """B games; see the module for the rules.

    Args:
        num_envs: B.
        pairs: number shown in an episode, at least 1; given two numbers, each episode draws its own between them.
        keys: number of different keys, at least that of pairs.
        values: number of different values, at least 2.
        queries: number of keys asked for, at most that of pairs; None: all.
        delay: blanks before the first query, at least 0; given two numbers, each episode draws its own.
        joined: whether key and value are shown at one step.
        shared: device and render_mode, see `Shared`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        pairs: Span = 4,
        keys: int = 16,
        values: int = 8,
        queries: int | None = None,
        delay: Span = 0,
        joined: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        self.pairs, self.delay = span("pairs", pairs, 1), span("delay", delay, 0)
        if keys < self.pairs[1] or values < 2:
            raise ValueError(f"keys={keys}, values={values}: expected a key for each of {pairs} pairs, and 2 values")
        if queries is not None and not 1 <= queries <= self.pairs[0]:
            raise ValueError(f"queries={queries}: expected 1 to {self.pairs[0]}, as many as there are pairs, or None")
        self.keys, self.values, self.queries, self.each = keys, values, queries, 1 if joined else 2
        steps = self.each * self.pairs[1] + self.delay[1] + (queries or self.pairs[1])
        super().__init__(num_envs, (keys + 1, values + 1, 2), values, steps, **shared)

    def sheet(self, key: Tensor) -> Sheet:
        pairs, delay = draw_span(key, 0, self.pairs).unsqueeze(1), draw_span(key, 1, self.delay).unsqueeze(1)
        queries = pairs if self.queries is None else torch.full_like(pairs, self.queries)
        most = self.pairs[1]
        names = permutation(key, LANE, self.keys)[:, :most]
        values = self.lane(key, 2, most, self.values)
        order = self.order(key, 3, torch.arange(most, device=key.device) < pairs)

        pair, learning = self.clock // self.each, self.clock < self.each * pairs
        since = self.clock - self.each * pairs - delay
        asked = (since >= 0) & (since < queries)
        which = torch.where(learning, pair, order.gather(1, since.clamp(0, most - 1))).clamp(max=most - 1)
        name, value = names.gather(1, which), values.gather(1, which)
        tells = learning & (self.clock % self.each == self.each - 1)
        names_key = asked | (learning & (self.clock % self.each == 0))
        shown = torch.stack(((name + 1) * names_key, (value + 1) * tells, asked.long()), 2)
        length = self.each * pairs + delay + queries
        return Sheet(shown, value.masked_fill(~asked, NOTHING), length.squeeze(1))

    def glyph(self, seen: list[int]) -> str:
        name, value, asked = seen
        return f"{name - 1 if name else ''}{self.name(value - 1) if value else ''}{'?' if asked else ''}"

    def name(self, answer: int) -> str:
        """Values are letters, to tell them from keys."""
        return chr(ord("a") + answer) if self.values <= 26 else f"v{answer}"


class AssociativeRecallEnv(Single):
    """One game, see the module."""

    game = AssociativeRecall
