"""The commands that take settings: the class of these settings, and the function that runs the command.

Both are named instead of imported, as most of their modules load torch, which help and mistyped options do not need.
"""

from typing import NamedTuple


class Command(NamedTuple):
    """What stands behind a command."""

    module: str
    settings: str  # name of the class
    run: str | None = None  # name of the function: (settings) -> text to print; None: `rlmin.cli` has one of its own
    switches: bool = False  # whether `--quick` and `--no-quick` stand without a value


TABLE = {
    "evaluate": Command("rlmin.commands.evaluate", "Evaluate", "run_evaluate"),
    "collect": Command("rlmin.commands.collect", "Collect", "run_collect"),
    "convert": Command("rlmin.commands.convert", "Convert", "run_convert", switches=True),
    "export": Command("rlmin.commands.export", "Export", "run_export"),
    "inspect": Command("rlmin.commands.inspect", "Inspect", "run_inspect"),
    "plot": Command("rlmin.commands.plot", "Plot", "run_plot", switches=True),
    "compare": Command("rlmin.commands.compare", "Compare", "run_compare", switches=True),
    "new": Command("rlmin.commands.new", "New", "run_new"),
    "train": Command("rlmin.commands.train_config", "TrainConfig"),
    "train --dataset": Command("rlmin.commands.train_config", "DecisionTrainConfig"),
    "train --resume": Command("rlmin.cli", "Resume"),
    "train --seeds": Command("rlmin.suite.seeds", "SeedsOptions"),
    "tune": Command("rlmin.suite.tuning.options", "TuneOptions"),
    "hub card": Command("rlmin.interop.hub_command", "Card", switches=True),
    "hub push": Command("rlmin.interop.hub_command", "Push", switches=True),
    "bench": Command("rlmin.bench.options", "Options", switches=True),
    "bench memory": Command("rlmin.suite", "SuiteOptions", switches=True),
    "bench offline": Command("rlmin.suite.offline", "OfflineOptions", switches=True),
    "bench defaults": Command("rlmin.suite.defaults", "DefaultOptions", switches=True),
}
