"""What the gradient steps of an update measure, read from the device once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlmin.distributed import Ranks
from rlmin.kernels.ppo_loss import MEASURED as LOSSES

LOGGED = (*LOSSES, "grad_norm")
"""What a gradient step measures."""
CHECKED = ("policy_loss", "value_loss", "entropy", "grad_norm")
"""What has to be finite for a step to be taken."""
MEASURED = (*CHECKED, *(name for name in LOGGED if name not in CHECKED))
"""All of it, in the order of a step's tensor."""


def join(measured: Mapping[str, Tensor], bad: Tensor) -> tuple[Tensor, Tensor]:
    """What a step measured as one tensor, and whether to skip the step: 1 or 0, on the device.

    `bad` is 0 until a step is not finite, and then NaN: that step and later ones are skipped.
    """
    found = torch.stack([measured[name] for name in MEASURED])
    bad.add_(found[: len(CHECKED)].sum(), alpha=0)  # 0 times infinity is NaN
    return found, (bad != 0).float()


def read_steps(
    steps: list[Tensor], facts: Sequence[Tensor], check: Callable[[list[float]], Any], check_step: Callable[..., Any]
) -> tuple[list[dict[str, float]], list[float]]:
    """What the steps measured, by name, and further scalars, in one transfer.

    Args:
        steps: a tensor a step, see `join`; after an error those before the one that was not finite.
        facts: scalars.
        check: called with the values of `facts`.
        check_step: called with what has to be finite of each step.

    Raises:
        FloatingPointError: from one of them.
    """
    numbers: list[float] = torch.cat([torch.stack([*facts]), *steps]).tolist()
    known, rows, width = numbers[: len(facts)], numbers[len(facts) :], len(MEASURED)
    taken = [dict(zip(MEASURED, rows[i : i + width], strict=True)) for i in range(0, len(rows), width)]
    good = 0
    try:
        check(known)
        for step in taken:
            check_step({name: step[name] for name in CHECKED})
            good += 1
    except FloatingPointError:
        del steps[good:]
        raise
    return [{name: step[name] for name in LOGGED} for step in taken], known


def summarise(taken: list[dict[str, float]], minibatches: int, ranks: Ranks) -> dict[str, float]:
    """Means over the steps of an update, and the divergence of its last epoch, which has the whole update behind it."""
    last = taken[-minibatches:]
    kl_max = max(step["kl_max"] for step in last)  # of this rank, as no mean gives the largest
    return {name: sum(step[name] for step in taken) / len(taken) for name in taken[0]} | {
        "update_kl": sum(step["approx_kl"] for step in last) / len(last),
        "kl_max": kl_max if ranks.is_alone else float(ranks.max(torch.tensor(kl_max))),
    }
