"""Offline data: logged episodes as one record, in memory or memory-mapped, wherever they come from."""

from rlmin.data.dataset import Dataset as Dataset
from rlmin.data.dataset import Episode as Episode
from rlmin.data.dataset import Reference as Reference
from rlmin.data.from_columns import episodes_from_columns as episodes_from_columns
from rlmin.data.from_files import episodes_from_npz as episodes_from_npz
from rlmin.data.from_files import episodes_from_table as episodes_from_table
from rlmin.data.from_objects import episodes_from_buffer as episodes_from_buffer
from rlmin.data.from_objects import episodes_from_trajectories as episodes_from_trajectories
from rlmin.data.load import load_dataset as load_dataset
