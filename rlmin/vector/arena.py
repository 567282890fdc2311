"""Arena: a place where policies play: an environment by its id, its arguments, and changes to it."""

import warnings
from dataclasses import dataclass, field
from typing import Any

from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from rlmin.vector.make import make_one, make_vec, readable_errors
from rlmin.wrappers.shift import Shift


@dataclass(frozen=True, kw_only=True)
class Arena:
    """Called with a number of rows, it makes a vector environment of as many."""

    id: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    shift: Shift = field(default_factory=Shift)
    device: str = "cpu"
    workers: int = 0

    def __call__(self, rows: int) -> VectorEnv[Any, Any, Any]:
        """`rows` environments, shifted.

        Raises:
            ValueError: there is no such environment, or its arguments or the shift do not fit.
        """
        with readable_errors(self.id):
            return self.shift.vector(make_vec(self.id, rows, device=self.device, workers=self.workers, **self.kwargs))

    def __str__(self) -> str:
        shift = f" under {self.shift}" if str(self.shift) else ""
        return self.id + "".join(f" {key}={value}" for key, value in self.kwargs.items()) + shift

    def spec(self) -> EnvSpec | None:
        """Gymnasium's spec of one of these; None, with a warning, if it cannot be written down."""
        with readable_errors(self.id):
            one = self.shift.single(make_one(self.id, **self.kwargs))
        spec = one.spec
        one.close()
        try:
            if spec is None:
                raise ValueError("it has no spec")
            spec.to_json()
        except (TypeError, ValueError) as error:
            warnings.warn(f"{self.id}: the dataset will not know its environment ({error})", stacklevel=2)
            return None
        return spec
