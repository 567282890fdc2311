"""Vector environments: any environment as one stream of `Step` records, made by id, in workers, counted by
episode.
"""

from rlmin.vector.adapter import adapt as adapt
from rlmin.vector.base import MASK as MASK
from rlmin.vector.base import Vector as Vector
from rlmin.vector.make import make_vec as make_vec
