"""Values that do not belong, and damage done to bytes: the strategies that the targets share."""

import json
import struct
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

EXTREMES = [0, -1, 1, 2, 3, 255, 256, 2**31 - 1, 2**31, 2**53 + 1, 2**62, 2**63, 2**64, -(2**63), 10**30]
WORDS = ["", " ", "None", "nan", "inf", "True", "1e999", "ppo", "mlp", "float32", "rlmin/TMaze-v0", "CartPole-v1"]
WORDS += ["../x", "a:b", "no_such_module:X-v0", "\x00", "é", "\ud800", "${x}", "{}", "[1", "-", "--", "=", "a=b"]

numbers = st.one_of(
    st.integers(-9, 9), st.sampled_from(EXTREMES), st.floats(width=32), st.sampled_from([1e308, -1e308, 5e-324, 0.5])
)
texts = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
atoms = st.one_of(st.none(), st.booleans(), numbers, texts)
values: st.SearchStrategy[Any] = st.recursive(
    atoms, lambda part: st.one_of(st.lists(part, max_size=3), st.dictionaries(texts, part, max_size=3)), max_leaves=5
)
"""Of JSON."""

damage = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "insert", "repeat", "length"]), st.floats(0, 1), st.integers(0, 255)
    ),
    max_size=3,
)
"""Done to a file: what, where as a share of its length, and a byte."""


def damaged(content: bytes, steps: list[list[Any]]) -> bytes:
    """`content` with that damage."""
    for what, share, byte in steps:
        at = min(int(share * len(content)), max(0, len(content) - 1))
        if what == "flip":
            content = content[:at] + bytes([content[at] ^ (1 << byte % 8)]) + content[at + 1 :] if content else b""
        elif what == "set":
            content = content[:at] + bytes([byte]) * (1 + byte % 8) + content[at + 1 + byte % 8 :]
        elif what == "cut":
            content = content[:at]
        elif what == "insert":
            content = content[:at] + bytes([byte]) * (1 + byte) + content[at:]
        elif what == "repeat":
            content = content[:at] + content[at : at + byte + 1] * 2 + content[at + byte + 1 :]
        else:  # a length, as headers have it
            content = content[:at] + struct.pack("<Q", 2 ** (byte % 64)) + content[at + 8 :]
    return content


def damage_file(path: Path, steps: list[list[Any]]) -> None:
    """Damage a file."""
    path.write_bytes(damaged(path.read_bytes(), steps))


edits = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["set", "drop", "add", "in"]), values), max_size=3)
"""Of nested entries: which, what, and a value."""


def edited(tree: Any, steps: list[list[Any]]) -> Any:
    """A copy of nested dicts and lists with these edits."""
    tree = json.loads(json.dumps(tree))
    for number, what, value in steps:
        places = list(_places(tree))
        if not places:
            return tree
        parent, key = places[number % len(places)]
        if what == "drop":
            del parent[key]
        elif what == "add" and isinstance(parent, dict):
            parent[str(value)[:20]] = value
        elif what == "in":
            parent[key] = [parent[key]]
        else:
            parent[key] = value
    return tree


def _places(tree: Any) -> Any:
    """Every entry: its parent, and its key there."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])
