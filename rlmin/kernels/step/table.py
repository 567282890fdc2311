"""The argument of the loop: one table of integers, whose entries are named here and nowhere else.

The table is a `Header`, then a `Block` for each block of the stack, then a `Head` for each head. Every entry is a size
or the address of a contiguous array; 0 is the address of a missing part. Both sides find an entry by its name:
`table[HEADER.rows]` in the loop, `names(...)` in the code that fills the table.
"""

from typing import Any, NamedTuple


class Header(NamedTuple):
    """Entries of the whole step. The first three are those of every table, see `cpu_math.py`."""

    taken: int  # next row that no thread has taken
    rows: int  # B
    many: int  # rows that a thread takes at once
    layers: int
    H: int
    width: int  # of the convolution, or 0
    norm: int  # a number in NORMS
    F: int  # hidden units of the MLP, or 0
    routine: int  # address of the matrix product
    D: int  # features of x if there is an embedding, or 0
    threads: int  # a table (taken, 0, 1) that numbers the threads
    scratch: int  # `room` elements a thread
    room: int
    numbers: int  # eps and 1 / H
    start: int
    x: int
    y: int  # 0 if only heads read it
    embed_weight: int
    embed_bias: int
    norm_weight: int
    norm_bias: int
    G: int  # hidden units of the layer before the embedding, or 0
    front_weight: int
    front_bias: int
    heads: int  # how many


class Block(NamedTuple):
    """Entries of a block: its weights, and its state before and after the step."""

    norm_weight: int
    norm_bias: int
    conv_weight: int
    conv_bias: int
    mixer_projection_weight: int
    mixer_projection_bias: int
    mlp_norm_weight: int
    mlp_norm_bias: int
    mlp_0_weight: int
    mlp_0_bias: int
    mlp_2_weight: int
    mlp_2_bias: int
    seen: int  # the state of the convolution
    seen_after: int
    memory: int  # that of the mixer
    memory_after: int


class Head(NamedTuple):
    """Entries of a head: projected = weight @ y + bias."""

    outputs: int
    weight: int
    bias: int
    projected: int


def _places(kind: Any) -> Any:
    """Each entry's place in its part of the table."""
    return kind(*range(len(kind._fields)))


HEADER: Header = _places(Header)
BLOCK: Block = _places(Block)
HEAD: Head = _places(Head)
BLOCKS = len(HEADER)
"""Place of the first block."""
EACH_BLOCK, EACH_HEAD = len(BLOCK), len(HEAD)
NORMS = ("none", "layer", "rms")


def names(layers: int, heads: int) -> list[str]:
    """The name of every entry of a table, in order: blocks_0_seen, heads_1_weight."""
    blocks = [f"blocks_{i}_{name}" for i in range(layers) for name in Block._fields]
    return [*Header._fields, *blocks, *(f"heads_{i}_{name}" for i in range(heads) for name in Head._fields)]
