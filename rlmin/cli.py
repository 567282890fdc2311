"""The command line: rlmin train, evaluate, plot, list, bench.

Settings are parsed by tyro from the dataclasses that the code itself uses; a preset is turned into arguments that stand
before the user's own, which therefore win.
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import tyro

from rlmin.checks import check_names

USAGE = """usage: rlmin COMMAND ...

  train PRESET|FILE.yaml [--key value ...]    train an agent; `rlmin train --help` shows every key
  train --resume RUN [--total-timesteps N]    go on with a run
  evaluate RUN [--episodes N] [--env ID]      play whole episodes with a trained policy
  plot RUN ... [--file PNG]                   draw learning curves
  list presets|envs|encoders                  what there is
  bench NAME|all|memory                       measure speed, or learning over a suite; `rlmin bench` lists the names
"""

MEMORY = "memory"
"""The benchmark of learning; every other one is of speed."""


@dataclass(frozen=True, kw_only=True)
class Resume:
    """Go on with a run."""

    resume: Path  # the run folder
    total_timesteps: int | None = None  # where to stop; None: where the run was to stop
    device: str | None = None  # to go on on; None: the run's own


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Play whole episodes with the policy of a run, and print mean return and success with 95 % intervals."""

    run: tyro.conf.Positional[Path]  # the run folder
    env: str | None = None  # another environment with the same spaces
    env_kwargs: tuple[str, ...] = ()  # key=value pairs that differ from the run's own
    episodes: int = 200
    deterministic: bool = True  # the most likely action; False samples
    seed: int = 10_000  # of environments and actions
    num_envs: int = 16  # played at once
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Draw the learning curves of runs into one picture."""

    runs: tyro.conf.Positional[tuple[Path, ...]]  # run folders
    file: Path = Path("curves.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Bad input prints one line and exits with code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    if arguments[0] == "--version":
        from rlmin import __version__

        print(__version__)
        return
    try:
        check_names("command", arguments[:1], COMMANDS)
        COMMANDS[arguments[0]](arguments[1:])
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"rlmin: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("rlmin: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def train_command(arguments: list[str]) -> None:
    from rlmin.encoders import MIXERS
    from rlmin.scan import ACTIVATIONS
    from rlmin.train import PAIRS, TrainConfig, preset_arguments, read_preset, resume, train

    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    own = arguments[1 if name else 0 :]
    if "--resume" in flags(own):
        if name:
            raise ValueError(f"--resume takes the run folder alone, its settings come from the run; leave out {name!r}")
        given = tyro.cli(Resume, args=own, prog="rlmin train", description="Go on with a run.")
        resume(given.resume, total_timesteps=given.total_timesteps, device=given.device)
        return
    for name_of, choices in (("encoder", MIXERS), ("candidate", ACTIVATIONS)):
        check_names(name_of, values(own, flag(name_of)), choices)
    check_names("option", flags(own), ["--help", "--resume", *(flag(f.name) for f in fields(TrainConfig))])
    settings = read_preset(name) if name else {}
    if "--env" in flags(own):  # what the preset says of its own environment does not fit another
        settings = {key: value for key, value in settings.items() if key not in PAIRS}
    config = tyro.cli(
        Annotated[TrainConfig, tyro.conf.FlagConversionOff],
        args=preset_arguments(settings) + own,
        prog="rlmin train PRESET",
        description=f"Train an agent. Presets: {', '.join(presets())}, or your own .yaml file; keys given here win.",
    )
    pairs = [*settings.get("env_kwargs", []), *config.env_kwargs]  # changing one key of a preset keeps the others
    config = replace(config, env_kwargs=tuple({pair.split("=")[0]: pair for pair in pairs}.values()))
    train(config, name=Path(name).stem if name else re.split("[/:]", config.env)[-1])


def flags(arguments: Sequence[str]) -> list[str]:
    """The options among the arguments, as --with-dashes; a value may follow after "="."""
    return [flag(argument.split("=")[0][2:]) for argument in arguments if argument.startswith("--")]


def values(arguments: Sequence[str], option: str) -> list[str]:
    """What is given for one option, as `--option value` or `--option=value`."""
    after = [value for given, value in pairwise(arguments) if given == option]
    return after + [argument[len(option) + 1 :] for argument in arguments if argument.startswith(f"{option}=")]


def flag(name: str) -> str:
    """The option of a setting: env_kwargs is given as --env-kwargs."""
    return "--" + name.replace("_", "-")


def evaluate_command(arguments: list[str]) -> None:
    from rlmin.train import evaluate_run, parse_pairs

    given = tyro.cli(
        Annotated[Evaluate, tyro.conf.FlagConversionOff],
        args=arguments,
        prog="rlmin evaluate",
    )
    result = evaluate_run(
        given.run,
        env=given.env,
        env_kwargs=parse_pairs(given.env_kwargs),
        episodes=given.episodes,
        deterministic=given.deterministic,
        seed=given.seed,
        num_envs=given.num_envs,
        device=given.device,
    )
    print(result)


def plot_command(arguments: list[str]) -> None:
    from rlmin.plots import plot_runs

    given = tyro.cli(Plot, args=arguments, prog="rlmin plot")
    if not given.runs:
        raise ValueError("plot: name at least one run folder")
    plot_runs(given.runs, given.file)
    print(given.file)


def list_command(arguments: list[str]) -> None:
    kinds: dict[str, Callable[[], list[str]]] = {"presets": presets, "envs": envs, "encoders": encoders}
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(f"usage: rlmin list {'|'.join(kinds)}")
        raise SystemExit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    check_names("list of", arguments, kinds)
    print("\n".join(kinds[arguments[0]]()))


def bench_command(arguments: list[str]) -> None:
    from rlmin.bench import NAMES, Options, module, run, summary

    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if name is None:
        about = f"{summary()}\n  {MEMORY:9} Learning: a suite of memory tasks, cell by cell (hours)."
        print(f"usage: rlmin bench NAME [--quick] [--key value ...]; `rlmin bench NAME --help` says more\n\n{about}")
        raise SystemExit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    check_names("benchmark", [name], [*NAMES, "all", MEMORY])
    if name == MEMORY:
        from rlmin.suite import SuiteOptions, run_suite

        print(run_suite(tyro.cli(SuiteOptions, args=arguments[1:], prog=f"rlmin bench {name}")))
        return
    about = summary() if name == "all" else module(name).__doc__ or ""
    run(name, tyro.cli(Options, args=arguments[1:], prog=f"rlmin bench {name}", description=about))


def presets() -> list[str]:
    """Names of the presets."""
    from rlmin.train import PRESETS

    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def envs() -> list[str]:
    """Rlmin's own environments: ids, spaces, lengths, floors and ceilings."""
    from rlmin.envs.catalog import lines

    return lines()


def encoders() -> list[str]:
    """Names of the memories a policy can have."""
    from rlmin.encoders import MIXERS

    return list(MIXERS)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train_command,
    "evaluate": evaluate_command,
    "plot": plot_command,
    "list": list_command,
    "bench": bench_command,
}
