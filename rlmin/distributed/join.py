"""Joining the processes that torchrun has started."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from rlmin.distributed.ranks import ALONE, LostRank, Ranks

TIMEOUT = 600.0
"""Seconds that a process waits for another one that hangs."""
RENDEZVOUS = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables by which processes find each other; something else may have set WORLD_SIZE."""
PATIENCE = 2.0
"""Seconds in which a process that fails reports its error."""


def is_one_of_many() -> bool:
    """Whether torchrun started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and all(name in os.environ for name in RENDEZVOUS)


@contextmanager
def join(*, timeout: float = TIMEOUT) -> Iterator[Ranks]:
    """The ranks of the run that torchrun began; `ALONE` in a process that it did not start.

    CPU tensors travel by gloo, CUDA tensors by NCCL.

    Args:
        timeout: seconds that a process waits for another one that hangs.
    """
    if not is_one_of_many():
        yield ALONE
        return
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=timedelta(seconds=timeout))
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    try:
        yield ranks
    finally:
        leave(ranks)


def is_reported(error: Exception) -> bool:
    """Whether another process of the run under torchrun has reported an error, so that this one need not.

    The first to ask reports. A process that has only lost another one lets that one ask first.
    """
    if isinstance(error, LostRank):
        for number in (signal.SIGINT, signal.SIGTERM):  # torchrun ends the others as soon as one has ended
            signal.signal(number, signal.SIG_IGN)
        time.sleep(PATIENCE)
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=PATIENCE))  # type: ignore[attr-defined]
        return bool(store.add(f"rlmin/errors/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", 1) > 1)
    except (LookupError, ValueError, RuntimeError):  # there is nobody to ask
        return False


def leave(ranks: Ranks) -> None:
    """Part from the other processes: no exchange follows."""
    if not ranks.is_alone and dist.is_initialized():
        dist.destroy_process_group()


def own_device(device: str, ranks: Ranks) -> str:
    """The device of this rank: of several on a machine, each has a GPU of its own."""
    return f"cuda:{ranks.local}" if device == "cuda" and not ranks.is_alone else device
