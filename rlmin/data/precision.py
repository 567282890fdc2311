"""What float32 loses: columns whose values it cannot tell apart, such as times in seconds since 1970."""

import numpy as np

FINE = 1e-6
"""Share of a column's range; where float32's steps are smaller than this, values are not counted."""


def find_loss(value: np.ndarray) -> tuple[int, int, int] | None:
    """The first entry of a column in which different values become equal.

    Args:
        value: [n, *shape] numbers, finite.

    Returns:
        the entry's number, its distinct values, and how many float32 leaves of them; None where nothing is lost.
    """
    if value.dtype.itemsize <= 4 or value.dtype.kind not in "iuf" or not len(value):
        return None
    columns = value.reshape(len(value), -1)
    low, high = columns.min(0), columns.max(0)
    with np.errstate(over="ignore"):
        step = np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(np.float32)).astype(np.float64)
    for entry in np.flatnonzero(step > FINE * (high.astype(np.float64) - low)):
        before = np.unique(columns[:, entry])
        with np.errstate(over="ignore"):
            after = np.unique(before.astype(np.float32))
        if len(after) < len(before):
            return int(entry), len(before), len(after)
    return None
