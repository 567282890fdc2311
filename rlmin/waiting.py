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
    """Choose sleep for this process and those it starts, before torch is imported; returns whether it was chosen."""
    if "torch" in sys.modules or any(name in environment for name in CHOICES):
        return False
    environment[POLICY] = "PASSIVE"
    return True


CHOSEN = sleep_while_waiting()
"""Whether sleep was chosen here; the package imports this file first."""
