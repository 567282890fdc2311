"""Paired timing: contenders take turns inside one process, so that a disturbance of the machine affects them alike.

    round 1: a b c,  round 2: c b a,  round 3: a b c, ...

Turns alternate in direction because a machine that warms up or slows down would otherwise favour one end. A number
quoted from a round is a median over rounds; a ratio is taken inside each round first, then its median. That is reliable
on a noisy machine; a ratio of two medians, or of two minima, is not.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Case = Callable[[], object]

BLOCK = 0.002
"""Least seconds of a turn: a shorter call is repeated, and the turn's mean counts."""
SLOW = 1.0
"""Seconds of a first call beyond which no call needs to be repeated."""
LEAST_ROUNDS = 3
"""Least number of rounds, even if the time has run out, unless fewer were asked for."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call, by case, one number per round; round i of all cases was measured together."""

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

    Every case is called once, uncounted, to compile and allocate. Another uncounted call shows how often it must be
    repeated to fill a block; it is left out if the first took over a second, unless that may have been a GPU compiler.
    Then come the rounds.

    Args:
        cases: functions by name, in the order of the first round.
        rounds: number of rounds.
        device: device to wait for before a clock is read.
        seconds: time after which no further round begins, once there have been `LEAST_ROUNDS`.
        block: least seconds of a turn; 0 calls every case once a turn, without the second uncounted call.
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
    """Number of calls of `once` seconds each that last `block` seconds; at most a thousand."""
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
