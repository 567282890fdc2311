"""Where the runs of a command run, and how many at once."""

from dataclasses import dataclass
from typing import Any, Literal

from rlmin.settings import CountOrZero, Jobs, Settings
from rlmin.suite.executors.job import Executor
from rlmin.suite.executors.local import Local
from rlmin.suite.executors.on_ray import OnRay
from rlmin.suite.executors.on_slurm import OnSlurm
from rlmin.vector.make import parse_pairs


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions(Settings):
    """The place of runs. They are independent of each other, so any number can run at once."""

    on: Literal["local", "ray", "slurm"] = "local"  # Place of the runs: this machine, a Ray cluster, or a SLURM cluster
    jobs: Jobs | None = None  # Runs at once, each on one thread; None: 1 here, on a cluster all that fit
    retries: CountOrZero = 3  # Further attempts at a run whose process was killed
    resources: tuple[str, ...] = ()  # Pairs key=value that each run asks of Ray or SLURM, such as num_gpus=0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resources and self.on == "local":
            raise ValueError("resources: expected none on this machine; they belong to --on ray or --on slurm")

    def make_executor(self) -> Executor:
        """The executor; it starts nothing yet.

        Raises:
            ValueError: a resource is unknown.
        """
        resources: dict[str, Any] = parse_pairs(self.resources)
        if self.on == "ray":
            return OnRay(self.jobs, resources=resources)
        if self.on == "slurm":
            return OnSlurm(self.jobs, resources=resources)
        return Local(self.jobs or 1)
