"""Griffin: layers of RG-LRU, with a layer of local attention at regular intervals."""

from dataclasses import dataclass

from rlmin.encoders.attention import Attention, Context
from rlmin.encoders.base import Encoder
from rlmin.encoders.cell import Cell, register
from rlmin.encoders.decays import Decay
from rlmin.encoders.heads import Heads
from rlmin.encoders.rg_lru import RGLRU, RGLRUOptions
from rlmin.encoders.time_scale import TimeScales
from rlmin.settings import Count, Share, Size
from rlmin.settings.boundary import checked


@checked
def make_griffin_layer(
    input_size: Size,
    hidden_size: Size,
    *,
    layer: int = 0,
    heads: Count = 4,
    time_scales: TimeScales = (2.0, 256.0),
    decay: Decay = "softplus",
    slow_units: Share = 0.0,
    period: Count = 2,
    context: Context = 64,
) -> Encoder:
    """One layer of Griffin: the last of every `period` layers is local attention, the others are RG-LRU.

    The recurrence carries old inputs, attention looks up recent ones: copying within `context` steps takes no room in
    the recurrence.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        layer: number of the layer in the stack, from 0.
        heads: blocks of the gates of RG-LRU, and heads of attention.
        time_scales, decay, slow_units: see `RGLRU`.
        period: number of layers from one layer of attention to the next; 3 in the paper. A shorter stack has none.
        context: steps that attention sees, the present one included; the paper's is 1024.

    Raises:
        ValueError: see `RGLRU` and `Attention`.

    Source: De et al. 2024 (arXiv:2402.19427), section 2.2. Its attention has one head of keys and values for all.
    """
    if layer % period == period - 1:
        return Attention(input_size, hidden_size, heads=heads, context=context)
    return RGLRU(input_size, hidden_size, heads=heads, time_scales=time_scales, decay=decay, slow_units=slow_units)


@dataclass(frozen=True, kw_only=True)
class GriffinOptions(RGLRUOptions):
    """Options of Griffin: those of RG-LRU, and of its layers of attention."""

    heads: Heads = 4  # Number of blocks of the gates, and of heads of attention
    period: Count = 2  # Number of layers from one layer of attention to the next; 3 in the paper
    context: Context = 64  # Steps that attention sees, the present one included


CELL = register(
    Cell(
        "griffin",
        make_griffin_layer,
        about="Layers of RG-LRU, with a layer of local attention at regular intervals.",
        options=GriffinOptions,
        by_layer=True,
        output_is_memory=False,
        state_names=("h", "seen"),
        is_bounded=False,
    )
)
