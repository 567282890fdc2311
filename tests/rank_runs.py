"""Runs of several ranks: real processes of gloo, forked, so that they need not import torch again."""

import multiprocessing
import os
import pickle
import socket
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch

from rlmin.distributed import Ranks, join

Work = Callable[..., Any]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run_ranks(size: int, work: Work, *arguments: Any, timeout: float = 120) -> list[Any]:
    """What `work(ranks, *arguments)` returns on each of `size` ranks; an error there is one here."""
    context, port = multiprocessing.get_context("fork"), free_port()
    ends = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        context.Process(target=_work, args=(rank, size, port, ends[rank][1], work, arguments), daemon=True)
        for rank in range(size)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of others; none of them holds a lock
        for process in processes:
            process.start()
    try:
        found = []
        for reader, _ in ends:
            assert reader.poll(timeout), "a rank did not answer"
            found.append(pickle.loads(reader.recv_bytes()))
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    errors = [text for failed, text in found if failed]
    assert not errors, "\n".join(errors)
    return [content for _, content in found]


def _work(rank: int, size: int, port: int, pipe: Any, work: Work, arguments: tuple[Any, ...]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    try:
        with join(timeout=60) as ranks:
            found = (False, work(ranks, *arguments))
    except BaseException:
        found = (True, traceback.format_exc())
    pipe.send_bytes(pickle.dumps(found))  # not `send`, which would share the memory of tensors


def alone(work: Work, *arguments: Any) -> Any:
    """What `work` returns in one process."""
    return work(Ranks(), *arguments)
