"""Jobs of a SLURM cluster, by submitit."""

import contextlib
import re
import shutil
import time
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rlmin.checks import require
from rlmin.suite.executors.job import Attempt, Lost, describe

LOGS = ".slurm"
"""The folder of submitit, inside the shared one: what was submitted, and what it printed."""
USUAL: dict[str, Any] = {"name": "rlmin", "timeout_min": 24 * 60, "cpus_per_task": 1, "mem_gb": 4}
"""Resources that a job asks of the cluster, unless the user sets them."""

NAMED = re.compile(r"[A-Za-z_][\w.]*: ")
"""The beginning of the last line of a trace."""


class Task:
    """An attempt that the cluster may preempt: it then goes on from its last checkpoint."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt

    def __call__(self) -> str | None:
        return self.attempt()

    def checkpoint(self) -> Any:
        """The call that submitit queues again after a preemption or when the time is over."""
        return require("submitit", extra="slurm").helpers.DelayedSubmission(self)


class OnSlurm:
    """Jobs of a SLURM cluster; those submitted together are one array.

    Args:
        slots: attempts at once; None: as many as the cluster has room for.
        resources: of a job, as in submitit's `update_parameters`; what SLURM alone knows begins with slurm_.
        cluster: submitit's name of the cluster; "local" runs the jobs as processes of this machine.
    """

    def __init__(
        self,
        slots: int | None = None,
        *,
        resources: Mapping[str, Any] | None = None,
        cluster: Literal["slurm", "local"] = "slurm",
    ) -> None:
        self.slots = 1_000 if slots is None else slots  # SLURM keeps what it has no room for; arrays have a limit
        self.resources = {**USUAL, **(resources or {})}
        self.cluster = cluster
        self.executor: Any = None
        self.running: set[Any] = set()

    @contextmanager
    def open(self, folder: Path) -> Iterator[None]:
        """See `Executor.open`."""
        submitit = require("submitit", extra="slurm")
        if self.cluster == "slurm" and shutil.which("sbatch") is None:
            raise ValueError("slurm: expected the command sbatch on this machine, found none; log in to the cluster")
        logs = folder.resolve() / LOGS
        self.executor = submitit.AutoExecutor(folder=logs, cluster=self.cluster)
        try:
            self.executor.update_parameters(**self.resources)
        except (NameError, AssertionError, ValueError) as error:
            raise ValueError(f"resources: {describe(error).removeprefix(f'{type(error).__name__}: ')}") from None
        if self.cluster == "slurm":
            _cancel_earlier(submitit, logs)
        try:
            yield
        except BaseException:
            for job in self.running:
                job.cancel(check=False)
            raise
        shutil.rmtree(logs, ignore_errors=True)

    def submit(self, attempts: Sequence[Attempt]) -> Sequence[Hashable]:
        """See `Executor.submit`."""
        with self.executor.batch() if len(attempts) > 1 else contextlib.nullcontext():
            jobs = [self.executor.submit(Task(attempt)) for attempt in attempts]
        self.running |= set(jobs)
        return jobs

    def wait(self, handles: Collection[Hashable], seconds: float) -> Collection[Hashable]:
        """See `Executor.wait`."""
        jobs: Any = handles
        done = [job for job in jobs if job.done()]
        if not done:
            time.sleep(seconds)
        return done

    def result(self, handle: Hashable) -> str | None:
        """See `Executor.result`."""
        job: Any = handle
        self.running.discard(job)
        error = job.exception()
        if error is None:
            answer: str | None = job.result()
            return answer
        if type(error).__name__ == "FailedJobError":  # the node has no rlmin, or another version of a package
            return _find_cause(str(error))
        raise Lost(f"job {job.job_id} was killed, stopped or out of memory")


def _find_cause(trace: str) -> str:
    """The line of a trace that names the error."""
    named = [line for line in trace.splitlines() if NAMED.match(line)]
    return named[-1] if named else " ".join(trace.split())[-300:]


def _cancel_earlier(submitit: Any, logs: Path) -> None:
    """Cancel the jobs of an earlier command that was killed: they save, and this one goes on with their cells."""
    for path in logs.glob("*_submitted.pkl"):
        job = submitit.SlurmJob(folder=logs, job_id=path.name.removesuffix("_submitted.pkl"))
        if not job.paths.result_pickle.exists():
            job.cancel(check=False)
