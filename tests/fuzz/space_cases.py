"""Spaces as JSON: usual ones, odd ones, and ones that nobody can see or do."""

from hypothesis import strategies as st

from .junk import numbers

sizes = st.lists(st.sampled_from([1, 1, 2, 3, 4, 5, 7, 12, 16, 0]), max_size=3)
types = st.sampled_from(["float32", "float64", "float16", "uint8", "int8", "int32", "int64", "bool", "uint16"])
sides = st.one_of(st.sampled_from([0, 1, -1, 255, 1.0, -2.5, "-inf", "inf"]), numbers)
counts = st.one_of(st.integers(1, 6), st.sampled_from([0, -1, 40, 2**40]))
box = st.fixed_dictionaries({"kind": st.just("Box"), "low": sides, "high": sides, "shape": sizes, "dtype": types})
usual = st.fixed_dictionaries(
    {"kind": st.just("Box"), "low": st.just(-1.0), "high": st.just(1.0), "shape": sizes, "dtype": st.just("float32")}
)
picture = st.fixed_dictionaries(
    {
        "kind": st.just("Box"),
        "low": st.just(0),
        "high": st.just(255),
        "shape": st.sampled_from([[16, 17, 3], [3, 18, 16], [20, 16], [5, 5, 3], [2, 16, 16, 3]]),
        "dtype": st.just("uint8"),
    }
)
choice = st.builds(lambda n, start: {"kind": "Discrete", "n": n, "start": start}, counts, st.integers(-2, 2))
choices = st.lists(counts, min_size=1, max_size=3).map(
    lambda n: {"kind": "MultiDiscrete", "nvec": n, "start": [0] * len(n)}
)
bits = st.one_of(counts, sizes).map(lambda n: {"kind": "MultiBinary", "shape": n})
leaf = st.one_of(usual, box, picture, choice, choices, bits)
several = st.one_of(
    st.dictionaries(st.sampled_from(["a", "b", "previous_action", "x.y", "é", ""]), leaf, max_size=3).map(
        lambda parts: {"kind": "Dict", "parts": parts}
    ),
    st.lists(leaf, max_size=3).map(lambda parts: {"kind": "Tuple", "parts": parts}),
)
