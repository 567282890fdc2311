"""A product with a block-diagonal matrix, as the gates of RG-LRU and sLSTM have it."""

from torch import Tensor


def multiply_blocks(x: Tensor, blocks: Tensor) -> Tensor:
    """[..., heads, out], each head of x times its own block; one batched product, whatever the leading axes.

    Args:
        x: [..., heads * size].
        blocks: [heads, size, out].
    """
    heads, size, out = blocks.shape
    by_head = x.reshape(-1, heads, size).transpose(0, 1)
    return (by_head @ blocks).transpose(0, 1).reshape(*x.shape[:-1], heads, out)
