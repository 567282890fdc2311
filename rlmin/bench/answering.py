"""A process that computes on request, and answers with a line."""

import select
import subprocess
import sys
from collections.abc import Mapping, Sequence


class Answering:
    """A Python script that prints "ready", and then a line for every line that it reads.

    Args:
        script: its code.
        arguments: its command line.
        environment: all of its variables.
        starting: seconds until it is ready; None: as long as it takes.
    """

    def __init__(
        self, script: str, arguments: Sequence[str], environment: Mapping[str, str], *, starting: float | None = None
    ) -> None:
        command, pipe = [sys.executable, "-c", script, *arguments], subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        self.ready, self.starting = False, starting

    def wait_ready(self) -> None:
        """Wait until it has started; a TimeoutError if that takes too long."""
        if not self.ready:
            self.answer(self.starting)
            self.ready = True

    def ask(self) -> None:
        """Ask for a line."""
        assert self.process.stdin is not None, "it was asked for"
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def answer(self, patience: float | None = None) -> str:
        """The next line; a TimeoutError if it does not come within `patience` seconds."""
        assert self.process.stdout is not None, "it was asked for"
        if patience is not None and not select.select([self.process.stdout], [], [], patience)[0]:
            raise TimeoutError(f"a turn took over {patience:g} s: the machine is not idle")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process ended with code {self.process.wait()}")
        return line

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None, "it was asked for"
            pipe.close()
