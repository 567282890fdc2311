"""Offline data: logged episodes as one record, in memory or memory-mapped, wherever they come from."""

from rlmin.data.dataset import Dataset as Dataset
from rlmin.data.dataset import Episode as Episode
from rlmin.data.dataset import Reference as Reference
from rlmin.data.load import load_dataset as load_dataset
