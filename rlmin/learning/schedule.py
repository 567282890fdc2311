"""Settings that change during training."""


def schedule(first: float, last: float | None, done: float) -> float:
    """first + (last - first) done, for done in [0, 1]; constant if `last` is None."""
    return first if last is None else first + (last - first) * min(max(done, 0.0), 1.0)
