"""Paired timing: contenders take turns inside one process, so that what disturbs a machine disturbs them alike.

    round 1: a b c,  round 2: c b a,  round 3: a b c, ...

Turns alternate in direction because a machine that warms up or slows down would otherwise favour one end. A number
quoted from a round is a median over rounds; a ratio is taken inside each round first, then its median. That holds on a
noisy machine, where a ratio of two medians, let alone of two minima, does not.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Case = Callable[[], object]

BLOCK = 0.002
"""Seconds that a turn lasts at least: a shorter call is repeated, and the turn's mean counts."""
SLOW = 1.0
"""Seconds beyond which a first call tells that no call will have to be repeated."""
LEAST_ROUNDS = 3
"""Rounds that are taken even where the time for them has run out, unless fewer were asked for."""


@dataclass(frozen=True)
class Timing:
    """Seconds a call, by case, one number a round; the rounds of all cases belong together."""

    seconds: dict[str, list[float]]

    @property
    def rounds(self) -> int:
        """How many there were."""
        return len(next(iter(self.seconds.values())))

    def median(self, case: str) -> float:
        """Seconds of a call of `case`."""
        return statistics.median(self.seconds[case])

    def ratio(self, case: str, base: str) -> float:
        """Time of `case` in units of `base`."""
        pairs = zip(self.seconds[case], self.seconds[base], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def difference(self, case: str, base: str) -> float:
        """Seconds by which `case` takes longer than `base`."""
        pairs = zip(self.seconds[case], self.seconds[base], strict=True)
        return statistics.median(a - b for a, b in pairs)


def time_cases(
    cases: Mapping[str, Case], *, rounds: int, device: str = "cpu", seconds: float = math.inf, block: float = BLOCK
) -> Timing:
    """Time `cases` against each other.

    Every case is called once, uncounted: that compiles and allocates. Another uncounted call says how often it must be
    repeated to fill a block; it is saved where the first took over a second, unless a GPU may have been compiled for.
    Then come the rounds.

    Args:
        cases: what to call, by name; in the order of the first round.
        rounds: how many.
        device: whose work is waited for before a clock is read.
        seconds: after this time no further round begins, once there have been `LEAST_ROUNDS`.
        block: seconds a turn lasts at least; 0 calls every case once a turn, and saves the second uncounted call.
    """
    first = {name: clock(case, 1, device) for name, case in cases.items()}
    known = {name for name, took in first.items() if block == 0 or (took > SLOW and device == "cpu")}
    calls = {name: 1 if name in known else calls_to_fill(block, clock(case, 1, device)) for name, case in cases.items()}
    found: dict[str, list[float]] = {name: [] for name in cases}
    began = time.perf_counter()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and time.perf_counter() - began > seconds:
            break
        for name in list(cases)[:: 1 if done % 2 == 0 else -1]:
            found[name].append(clock(cases[name], calls[name], device))
    return Timing(found)


def calls_to_fill(block: float, once: float) -> int:
    """Calls of `once` seconds each that last `block` seconds; at most a thousand."""
    return min(max(math.ceil(block / max(once, 1e-9)), 1), 1000)


def clock(case: Case, calls: int, device: str) -> float:
    """Seconds a call, over `calls` in a row, from an idle device to an idle device."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(calls):
        case()
    synchronize(device)
    return (time.perf_counter() - began) / calls


def synchronize(device: str) -> None:
    """Wait until `device` has nothing left to do; the CPU never has."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(torch.device(device))
