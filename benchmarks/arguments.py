"""Arguments of the scripts that measure on one core and write one table."""

import argparse
from pathlib import Path

import torch


def read_arguments(about: str | None, **counts: int) -> argparse.Namespace:
    """The command line of a script: whole numbers with these defaults, and `--results`, the folder of its table.

    PyTorch uses one thread from then on.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in counts.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    return given
