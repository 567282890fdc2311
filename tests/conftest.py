"""Every test runs on one thread: the tensors are tiny, and threads that wait for each other only cost time."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Before each test, as a run with `threads` set changes it for the whole process."""
    torch.set_num_threads(1)
