"""Several processes that train one agent, and the random numbers that do not depend on how many they are."""

from rlmin.distributed.join import is_one_of_many as is_one_of_many
from rlmin.distributed.join import join as join
from rlmin.distributed.ranks import ALONE as ALONE
from rlmin.distributed.ranks import LostRank as LostRank
from rlmin.distributed.ranks import Moments as Moments
from rlmin.distributed.ranks import Ranks as Ranks
