"""`rlmin inspect`: an HTML report on the memory of a run, two runs side by side, or a summary of a dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmin import __version__
from rlmin.agents.agent import Agent
from rlmin.commands.evaluate import arena_of, default_targets, load_run
from rlmin.commands.inspect_pair import compare_subjects, describe_subject
from rlmin.files.read_yaml import parse_yaml
from rlmin.inspection.report import report
from rlmin.inspection.study import Study, study
from rlmin.inspection.subject import Subject
from rlmin.policy.fit import is_conditioned
from rlmin.runs.checkpoint import CONFIG, LEARNER, POLICY, write_atomic
from rlmin.runs.hub_snapshot import fetch, is_address
from rlmin.runs.own_files import check_not_of_run
from rlmin.settings import Count, Positional, Seed, Settings
from rlmin.vector.make import parse_pairs

REPORT = "inspection.html"


@dataclass(frozen=True, kw_only=True)
class Inspect(Settings):
    """Report on the memory of a trained policy, set two runs side by side, or summarise a dataset."""

    what: Positional[str]  # Run folder, zoo:NAME, hf://USER/NAME, or dataset: Minari id or file
    other: Positional[str | None] = None  # Second run, to be set beside the first in a table
    file: Path | None = None  # File to write; None: inspection.html in the run folder, NAME-returns.png of a dataset
    episodes: Count = 64  # Episodes of each evaluation of a run
    vary: str | None = None  # Argument of the run's environment with the values to try, as in length=10,50,100
    env: str | None = None  # Gymnasium id of another environment with the same spaces; one that a dataset has to fit
    env_kwargs: tuple[str, ...] = ()  # Pairs key=value that differ from the run's own
    skip_bad_episodes: bool = False  # Whether episodes of a dataset with a fault are left out, with a report
    target_return: float | None = None  # Return to ask a return-conditioned run for; None: the best of its data
    shown: Count = 2  # Number of a run's episodes to explain
    seed: Seed = 10_000  # Random seed for the environments of a run
    trust: bool = False  # Whether the modules that the run or the dataset names are imported, whose code then runs


def run_inspect(options: Inspect) -> str:
    """Inspect a run or a dataset, and describe the result.

    Raises:
        ValueError: neither a run nor a dataset, or an option that does not fit it.
    """
    if options.other is not None:
        return _pair(options, options.other)
    if not is_run(options.what):
        return _dataset(options)
    if options.skip_bad_episodes:
        raise ValueError(f"{options.what}: is a run; --skip-bad-episodes is for datasets")
    return _run(options)


def is_run(what: str) -> bool:
    """Whether this is a run folder, complete or not, or a run on the hub."""
    return is_address(what) or any((Path(what) / file).exists() for file in (POLICY, LEARNER, CONFIG))


def of_runs(options: Inspect) -> list[str]:
    """Options for runs that differ from their defaults, as on a command line."""
    own, given = Inspect(what=options.what), []
    for name in ("episodes", "vary", "env", "env_kwargs", "target_return", "shown", "seed"):
        value = getattr(options, name)
        if value != getattr(own, name):
            words = value if isinstance(value, tuple) else (value,)
            given.append(" ".join([f"--{name.replace('_', '-')}", *map(str, words)]))
    return given


def _dataset(options: Inspect) -> str:
    from rlmin.data import load_dataset
    from rlmin.data.env_fit import check_env_fit
    from rlmin.data.summary import plot_returns

    given = [option for option in of_runs(options) if not option.startswith("--env")]
    if options.env_kwargs and options.env is None:
        raise ValueError("env_kwargs belong to an environment; name it with --env")
    if given:
        raise ValueError(f"{options.what}: is not a run folder, so it is a dataset; {given[0].split()[0]} is for runs")
    env = None if options.env is None else {"id": options.env, "kwargs": parse_pairs(options.env_kwargs)}
    try:
        dataset = load_dataset(options.what, env=env, trust=options.trust, skip_bad_episodes=options.skip_bad_episodes)
    except ValueError as error:
        if str(error).startswith("no Minari dataset"):
            raise ValueError(f"{options.what}: neither a run folder nor a dataset; {error}") from error
        raise
    if env is not None:
        check_env_fit(dataset, env)
    fits = [] if env is None else [f"fits {env['id']}"]
    file = options.file or Path(f"{_file_name(options.what)}-returns.png")
    plot_returns(dataset, file)
    return "\n".join([dataset.summary(), *fits, str(file)])


def _pair(options: Inspect, other: str) -> str:
    """Two runs as a table, written to a file as well where one is named."""
    unheard = [option.split()[0] for option in of_runs(options) if option.startswith(("--vary", "--shown"))]
    if unheard or options.skip_bad_episodes:
        raise ValueError(f"{(unheard or ['--skip-bad-episodes'])[0]}: has no effect on two runs; leave it out")
    if options.file is not None:
        check_not_of_run(options.file)
    folders = [fetch(name) if is_address(name) else Path(name) for name in (options.what, other)]
    agents = [load_run(folder, device="cpu", trust=options.trust) for folder in folders]
    subjects = [subject_of_run(options, agent, folder) for agent, folder in zip(agents, folders, strict=True)]
    table = compare_subjects((options.what, other), agents, subjects, options.episodes)
    if options.file is not None:
        write_atomic(options.file, f"{table}\n".encode())
    return table


def _file_name(dataset: str) -> str:
    """The stem of a file, or a whole Minari id."""
    return Path(dataset).stem if Path(dataset).is_file() else dataset.replace("/", "-")


def _run(options: Inspect) -> str:
    distant = is_address(options.what)
    file = options.file or (Path() if distant else Path(options.what)) / REPORT
    if not file.parent.is_dir():
        raise ValueError(f"{file}: no such folder {file.parent}")
    check_not_of_run(file)
    folder = fetch(options.what) if distant else Path(options.what)
    agent = load_run(folder, device="cpu", trust=options.trust)
    subject = subject_of_run(options, agent, folder)
    found = study(subject, episodes=options.episodes, vary=parse_vary(options.vary), shown=options.shown, say=_say)
    command = " ".join(["rlmin inspect", options.what, *of_runs(options)])
    title = options.what if distant else folder.resolve().name
    page = report(found, title=title, facts=_facts(agent, found), command=command)
    write_atomic(file, page.encode())
    return f"{found.evaluation}\n{file}"


def _say(line: str) -> None:
    print(line, flush=True)


def subject_of_run(options: Inspect, agent: Agent, folder: Path) -> Subject:
    """The policy of a run, and where it plays.

    Raises:
        ValueError: no environment, a target for a policy that takes none, or no target for one that needs it.
    """
    kwargs = parse_pairs(options.env_kwargs)
    arena = arena_of(agent, folder, env=options.env, env_kwargs=kwargs, shift=None, device="cpu")
    target, config = options.target_return, agent.config
    if is_conditioned(agent.policy):
        target = max(default_targets(agent)) if target is None else target
    elif target is not None:
        raise ValueError(f"{folder}: this policy is not return-conditioned; leave --target-return out")
    return Subject(
        policy=agent.policy,
        arena=arena,
        horizon=getattr(config, "steps", 0) or getattr(config, "horizon", 0),
        trained_in=agent.env_spec["kwargs"] if arena.id == agent.env_spec["id"] else None,
        target=target,
        return_scale=agent.return_scale,
        seed=options.seed,
    )


def parse_vary(text: str | None) -> tuple[str, list[Any]] | None:
    """ "length=10,50" -> ("length", [10, 50]); values are read as YAML.

    Raises:
        ValueError: no name, no value, or a value that is nested twice or a mapping.
    """
    if text is None:
        return None
    name, equals, values = text.partition("=")
    try:
        found = parse_yaml(f"[{values}]", where="vary")
    except ValueError:
        found = None
    if not name or not equals or not found:
        raise ValueError(f"vary: expected NAME=V1,V2,..., got {text!r}")
    plain = [tuple(value) if isinstance(value, list) else value for value in found]
    for value in plain:
        if any(isinstance(part, list | dict | set) for part in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"vary: expected NAME=V1,V2,... of numbers, words or lists of these, got {text!r}")
    return name, plain


def _facts(agent: Agent, found: Study) -> dict[str, str]:
    """Lines of the report's header."""
    return describe_subject(agent, found.subject, found.evaluation) | {"rlmin": __version__}
