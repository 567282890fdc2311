"""How torch's threads wait for each other: asleep, not spinning.

OpenMP's threads spin for milliseconds where one has to wait for another. On a busy machine the one that is waited for
may not be running: its core is taken by the one that spins, and training stands still for minutes. Asleep, they leave
the core to whoever has something to do. The runtime reads this once, when torch loads it.
"""

import os
import sys
from collections.abc import MutableMapping

POLICY = "OMP_WAIT_POLICY"
CHOICES = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which a user chooses; then nothing is changed."""


def sleep_while_waiting(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Choose it for this process and those it starts; whether it was chosen. Too late once torch is imported."""
    if "torch" in sys.modules or any(name in environment for name in CHOICES):
        return False
    environment[POLICY] = "PASSIVE"
    return True


CHOSEN = sleep_while_waiting()
"""Whether it was chosen here; this file is the first that the package imports."""
