"""Observation and action spaces: as a flat dict of tensor leaves, and as JSON."""

from rlmin.spaces.leaves import NUMPY_TYPE as NUMPY_TYPE
from rlmin.spaces.leaves import SINGLE as SINGLE
from rlmin.spaces.leaves import Leaf as Leaf
from rlmin.spaces.leaves import as_read as as_read
from rlmin.spaces.leaves import leaf_spaces as leaf_spaces
from rlmin.spaces.leaves import leaf_tensor as leaf_tensor
from rlmin.spaces.leaves import leaves_of as leaves_of
from rlmin.spaces.leaves import pick as pick
from rlmin.spaces.leaves import require_leaf as require_leaf
from rlmin.spaces.leaves import to_observation as to_observation
from rlmin.spaces.leaves import without as without
