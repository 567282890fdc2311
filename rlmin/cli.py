"""The command line: rlmin train, evaluate, collect, inspect, plot, list, bench.

Settings are parsed by tyro from the dataclasses that the code itself uses; a preset is turned into arguments that stand
before the user's own, which therefore win. Each command imports what it runs, so that help and mistyped names are
answered before torch is loaded.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rlmin import __version__
from rlmin.checks import check_names, check_text
from rlmin.commands.arguments import HELP, flags, split_options, values
from rlmin.commands.errors import report_error
from rlmin.commands.preset_files import describe_presets, preset_names, preset_path
from rlmin.commands.table import TABLE
from rlmin.files.trust import allow_typed
from rlmin.settings import Count, Positive, Settings

USAGE = """usage: rlmin COMMAND ...

  train PRESET|FILE.yaml [--key value ...]    train an agent; `rlmin train --help` shows every key
  train --dataset ID|FILE [--key value ...]   train a decision agent on logged data: a Minari id or a D4RL file;
                                              `rlmin train --dataset ID --help` shows its keys
  train --resume RUN [--total-timesteps N]    go on with a run
  train PRESET --seeds 5 [--jobs 2]           train many seeds at once; --on ray|slurm trains them on a cluster
  tune PRESET [--trials N] [--jobs 2]         look for better settings; the best are written as a preset
  evaluate RUN [--episodes N] [--env ID]      play whole episodes with a trained policy, also under
                                              --noise SIGMA, --drop P, --sticky P
  evaluate RUN --target-return R ...          ask a decision agent for returns; --target-score 100 50 for scores
  collect RUN ... --dataset NAME --episodes N write a Minari dataset; --env ID --policy random needs no run
  convert FILE --to NAME [--check]            write logged data of other libraries as a Minari dataset
  export RUN --onnx FILE | --torch FILE | --numpy FILE.npz    write its policy for other programs, checked
  inspect RUN [--vary length=10,100,1000]     what the memory of a policy does, as an HTML report
  inspect RUN RUN                             two runs side by side: settings, scores, memory
  inspect DATASET [--env ID]                  what a dataset holds, and whether it fits an environment
  plot RUN ... [--file PNG|SVG|PDF]           draw learning curves, seeds as one line; --over time
  compare RUN ... [--file CSV|MD|TEX]         means, intervals and probabilities of improvement at equal budgets
  hub card RUN; hub push RUN USER/NAME        write a run's model card; push it to the Hugging Face hub
  list presets|envs|encoders|datasets|zoo     what there is; zoo: policies that come with rlmin, `evaluate zoo:tmaze`
  new env|encoder NAME                        begin an environment or a memory of your own: a skeleton and its test
  completion bash|zsh|fish                    a script that lets your shell complete commands and options
  bench NAME|all|memory|offline|defaults      measure speed, or learning over a suite; `rlmin bench` lists the names
"""

MEMORY, OFFLINE, DEFAULTS = "memory", "offline", "defaults"
"""The benchmarks of learning; every other one is of speed."""

OF_SEEDS = ("--seeds", "--on", "--jobs", "--retries", "--resources")
"""Options of `rlmin train` that concern many seeds."""


@dataclass(frozen=True, kw_only=True)
class Resume(Settings):
    """Go on with a run."""

    resume: Path  # Run folder
    total_timesteps: Count | None = None  # Step at which training stops; None: where the run was to stop
    device: str | None = None  # Device of the weights; None: the run's own
    dataset: str | None = None  # Place where the data of a decision agent are now; None: where they were
    wandb: str | None = None  # Project of Weights & Biases to log to from here on, or "none"; None: as before
    env: str | None = None  # Id of the run's own environment, typed, so that it may import the module that it names
    trust: bool = False  # Whether that module is imported because the run says so
    rank_timeout: Positive = 600.0  # Seconds that a process under torchrun waits for another one that hangs


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Bad input prints one line and exits with code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    if arguments[0] == "--version":
        print(__version__)
        return
    try:
        for argument in arguments:
            check_text("command line", argument)
        check_names("command", arguments[:1], COMMANDS)
        ids = values(arguments, "--env")
        if set(arguments[1:]) & set(HELP) and not any(":" in id for id in ids):  # a module may register settings
            from rlmin.commands.early_answers import answer_help

            answer_help(arguments)
        check_alone(arguments)
        with allow_typed(ids):
            import_named(ids)
            COMMANDS[arguments[0]](arguments[1:])
    except (ValueError, ArithmeticError, OSError, ImportError, RuntimeError) as error:
        if not report_error(error):
            raise
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("rlmin: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def check_alone(arguments: Sequence[str]) -> None:
    """Raise a ValueError if several processes under torchrun would each do the whole work instead of sharing it."""
    if arguments[0] == "train" and "--seeds" not in flags(arguments):
        return
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return
    from rlmin.distributed import is_one_of_many

    if is_one_of_many():
        what, size = "train --seeds" if arguments[0] == "train" else arguments[0], os.environ["WORLD_SIZE"]
        raise ValueError(
            f"{what}: expected one process, torchrun started {size}, which would each do all of it; run it without "
            "torchrun, only `rlmin train` of a single run takes several"
        )


def import_named(ids: Sequence[str]) -> None:
    """Import the modules that these typed ids name: encoders may be registered there too."""
    for id in ids:
        if ":" in id:
            from rlmin.vector.make import import_provider

            import_provider(id)


BESIDE_SETTINGS = ("--resume", "--dataset", "--seeds")
"""Options of `rlmin train` that are no settings of a run in an environment."""


def train_command(arguments: list[str]) -> None:
    if not arguments:
        presets = ", ".join(preset_names())
        raise ValueError(f"train: expected a preset ({presets}), or --env ID, --dataset DATA or --resume RUN")
    name = arguments[0] if not arguments[0].startswith("-") else None
    own = arguments[1 if name else 0 :]
    if name and "--resume" not in flags(own):
        preset_path(name)  # a mistyped name is answered before torch is loaded
    check_early("train", own, others=(*BESIDE_SETTINGS, *OF_SEEDS))
    from rlmin.commands.parse import parse
    from rlmin.commands.train import resume, train

    many, own = split_options(own, OF_SEEDS)
    if many and "--seeds" not in many:
        raise ValueError(f"{many[0]}: belongs to --seeds N, which trains N runs")
    if "--resume" in flags(own):
        if many:
            raise ValueError("--resume: goes on with a single run; seeds go on by the command that began them")
        if name:
            raise ValueError(f"--resume takes the run folder alone, its settings come from the run; leave out {name!r}")
        given = parse(Resume, own, prog="rlmin train")
        settings = {key: value for key, value in vars(given).items() if key != "resume"}
        with plain_warnings():
            resume(given.resume, **settings)
        return
    from rlmin.commands.typed_run import read_typed_run

    config, called = read_typed_run(name, own, command="train", others=BESIDE_SETTINGS)
    with plain_warnings():
        if not many:
            train(config, name=called)
            return
        from rlmin.suite.seeds import SeedsOptions, train_seeds

        print(train_seeds(config, parse(SeedsOptions, many, prog="rlmin train --seeds N"), name=called))


def tune_command(arguments: list[str]) -> None:
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if name:
        preset_path(name)
    from rlmin.commands.help_text import option_flags
    from rlmin.commands.parse import parse
    from rlmin.suite.tuning.options import TuneOptions

    typed, own = split_options(arguments[1 if name else 0 :], option_flags(TuneOptions))
    if (not own and not name) or any(word in ("-h", "--help") for word in own):
        parse(TuneOptions, [*typed, "--help"], prog="rlmin tune PRESET")
    options = parse(TuneOptions, typed, prog="rlmin tune PRESET")
    from rlmin.commands.typed_run import read_typed_run
    from rlmin.suite.tuning.study import tune

    config, called = read_typed_run(name, own, command="tune", others=option_flags(TuneOptions))
    with plain_warnings():
        print(tune(config, options, name=called))


def check_early(command: str, arguments: Sequence[str], *, others: Collection[str] = ()) -> None:
    """Answer a mistyped option, unless torch is loaded already: see `rlmin.commands.early_answers.check_options`."""
    from rlmin.commands.early_answers import check_options

    check_options(command, arguments, others=others)


def run_from_table(command: str, arguments: list[str]) -> None:
    """Run a command of `TABLE` with the settings that its arguments give, and print what it returns."""
    check_early(command, arguments)
    from rlmin.commands.parse import parse

    found = TABLE[command]
    module = importlib.import_module(found.module)
    kind, run = getattr(module, found.settings), getattr(module, str(found.run))
    given = parse(kind, arguments, prog=f"rlmin {command}", switches=found.switches)
    with plain_warnings():
        print(run(given))


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings as one line each, without the place in the code they come from."""

    def show(message: Warning | str, *place: Any, **more: Any) -> None:
        print(f"rlmin: warning: {message}", file=sys.stderr)

    is_main = os.environ.get("RANK", "0") == "0"  # processes of a run under torchrun warn of the same
    with warnings.catch_warnings():
        warnings.simplefilter("default" if is_main else "ignore", UserWarning)  # once a place: training is a loop
        warnings.showwarning = show
        yield


def hub_command(arguments: list[str]) -> None:
    from rlmin.interop.hub_command import run_hub

    with plain_warnings():
        print(run_hub(arguments))


def completion_command(arguments: list[str]) -> None:
    from rlmin.commands.completion import completion_words, write_completion

    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print("usage: rlmin completion bash|zsh|fish")
        raise SystemExit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    print(write_completion(arguments[0], completion_words(COMMANDS)), end="")


def list_command(arguments: list[str]) -> None:
    listed = {"envs": list_envs, "encoders": list_encoders, "datasets": list_datasets, "zoo": list_zoo}
    kinds = {"presets": describe_presets, **listed}
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(f"usage: rlmin list {'|'.join(kinds)}")
        raise SystemExit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    check_names("list of", arguments, kinds)
    print("\n".join(kinds[arguments[0]]()))


def bench_command(arguments: list[str]) -> None:
    from rlmin.bench import NAMES, module, summary

    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if name is None:
        about = f"{summary()}\n  {MEMORY:9} Learning: a suite of memory tasks, cell by cell (hours)."
        about += f"\n  {OFFLINE:9} Learning: decision agents on logged data, cell by cell; --make makes these (hours)."
        about += f"\n  {DEFAULTS:9} Learning: agents with nothing set, beside other libraries', cell by cell (hours)."
        print(f"usage: rlmin bench NAME [--quick] [--key value ...]; `rlmin bench NAME --help` says more\n\n{about}")
        raise SystemExit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    check_names("benchmark", [name], [*NAMES, "all", MEMORY, OFFLINE, DEFAULTS])
    if name in (MEMORY, OFFLINE, DEFAULTS):
        print(learn(name, arguments[1:]))
        return
    from rlmin.bench.options import Options
    from rlmin.bench.run import run
    from rlmin.commands.parse import parse

    about = summary() if name == "all" else module(name).__doc__ or ""
    run(name, parse(Options, arguments[1:], prog=f"rlmin bench {name}", description=about, switches=True))


def learn(name: str, arguments: list[str]) -> str:
    """Run a benchmark of learning; its report."""
    from rlmin.commands.parse import parse

    prog = f"rlmin bench {name}"
    if name == MEMORY:
        from rlmin.suite import SuiteOptions, run_suite

        return run_suite(parse(SuiteOptions, arguments, prog=prog, switches=True))
    if name == OFFLINE:
        from rlmin.suite.offline import OfflineOptions, run_offline

        return run_offline(parse(OfflineOptions, arguments, prog=prog, switches=True))
    from rlmin.suite.defaults import DefaultOptions, run_defaults

    return run_defaults(parse(DefaultOptions, arguments, prog=prog, switches=True))


def list_envs() -> list[str]:
    """Rlmin's own environments: ids, spaces, lengths, floors and ceilings."""
    from rlmin.envs.catalog import lines

    return lines()


def list_encoders() -> list[str]:
    """The memories that a policy can have, their options and what they can do."""
    from rlmin.encoders.capabilities import lines

    return lines()


def list_zoo() -> list[str]:
    """The policies that come with rlmin: names, scores, and the commands that trained them."""
    from rlmin.runs.policy_zoo import describe_zoo

    return describe_zoo()


def list_datasets() -> list[str]:
    """Minari's datasets on this machine: ids, sizes, environments."""
    from rlmin.data.minari import local_datasets

    return local_datasets()


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train_command,
    "tune": tune_command,
    **{name: partial(run_from_table, name) for name, command in TABLE.items() if command.run},
    "hub": hub_command,
    "completion": completion_command,
    "list": list_command,
    "bench": bench_command,
}
