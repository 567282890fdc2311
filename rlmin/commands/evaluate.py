"""Evaluating a run: its policy in its own environment or in another one, with or without shifts and target returns."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlmin.agents.agent import Agent
from rlmin.agents.load import load
from rlmin.commands.film import film
from rlmin.evaluation.evaluate import Evaluation, evaluate, evaluate_random
from rlmin.evaluation.play import LONGEST
from rlmin.evaluation.scores import NO_REFERENCE, describe_reference, score, unscore, width
from rlmin.evaluation.targets import TargetReport, evaluate_targets
from rlmin.files.plain import encode
from rlmin.policy.fit import is_conditioned
from rlmin.runs.hub_snapshot import is_address
from rlmin.settings import Count, CountOrZero, Positional, Seed, Size
from rlmin.vector import adapt
from rlmin.vector.arena import Arena
from rlmin.vector.make import parse_pairs, readable_errors
from rlmin.wrappers.shift import Shift

if TYPE_CHECKING:  # tensordict is slow to import
    from rlmin.data import Reference


@dataclass(frozen=True, kw_only=True)
class Evaluate(Shift):
    """Play whole episodes with the policy of a run, and print mean return and success with 95 % intervals.

    A return-conditioned policy is asked for returns; a table, a CSV and a picture show what it achieved.
    """

    run: Positional[Path]  # Run folder, zoo:NAME or hf://USER/NAME
    env: str | None = None  # Gymnasium id of another environment with the same spaces; None: the run's own
    env_kwargs: tuple[str, ...] = ()  # Pairs key=value that differ from the run's own
    episodes: Count = 200  # Episodes of each target
    deterministic: bool = True  # Whether the most likely action is taken; False samples
    seed: Seed = 10_000  # Random seed for environments and actions
    num_envs: Size = 16  # Number of environments to play at once, over all targets
    max_steps: Count = LONGEST  # Steps after which an episode counts as one that never ends
    device: str = "cpu"  # Device of the weights: cpu, cuda, ...
    target_return: tuple[float, ...] = ()  # Returns to ask for, env units; none: largest and mean return of the data
    target_score: tuple[float, ...] = ()  # Scores to ask for, random being 0 and expert 100
    reference: tuple[float, float] | None = None  # Returns of a random policy and an expert
    measure_reference: CountOrZero = 0  # Episodes of random actions for score 0, if unknown; 100: the best of the data
    video: Path | None = None  # Film of episodes: an .mp4 file for all of them, or a folder for a file each
    video_episodes: Count = 1  # Episodes of the film
    file: Path | None = None  # PNG of achieved against target return, with a CSV beside it; None: RUN/targets.png
    trust: bool = False  # Whether the module that the run's environment id names is imported, whose code then runs


def load_run(folder: Path, *, device: str, trust: bool = False) -> Agent:
    """The agent of a run; `trust`: see `rlmin.load`.

    Raises:
        ValueError: the run cannot be read.
    """
    with readable_errors(str(folder)):
        return load(folder, device=device, trust=trust)


def arena_of(
    agent: Agent,
    folder: Path,
    *,
    env: str | None,
    env_kwargs: Mapping[str, Any] | None,
    shift: Shift | None,
    device: str,
    workers: int = 0,
) -> Arena:
    """The environment of a run's agent, with other arguments, or another environment.

    Raises:
        ValueError: the run has no environment id, and `env` is None.
    """
    spec = agent.env_spec
    if env is None and spec["id"] is None:
        raise ValueError(f"{folder}: trained on an environment without an id; name one with --env")
    kwargs = {**(spec["kwargs"] if env is None else {}), **(env_kwargs or {})}
    return Arena(id=env or spec["id"], kwargs=kwargs, shift=shift or Shift(), device=device, workers=workers)


def evaluate_run(
    folder: Path,
    *,
    env: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    episodes: int = 200,
    deterministic: bool = True,
    seed: int = 10_000,
    num_envs: int = 16,
    device: str = "cpu",
    shift: Shift | None = None,
    max_steps: int = LONGEST,
    trust: bool = False,
) -> Evaluation:
    """Evaluate the policy of a run.

    Args:
        folder: the run.
        env: another environment with the same spaces; None: the run's own.
        env_kwargs: differences from the run's own.
        episodes, deterministic, seed, max_steps: see `rlmin.evaluation.evaluate.evaluate`.
        num_envs: environments to play at once.
        shift: noise, dropped frames and sticky actions; None: none.
        trust: see `rlmin.load`.

    Raises:
        ValueError: the run cannot be read, its policy does not fit the environment, or it is return-conditioned.
    """
    agent = load_run(folder, device=device, trust=trust)
    arena = arena_of(agent, folder, env=env, env_kwargs=env_kwargs, shift=shift, device=device)
    if is_conditioned(agent.policy):
        raise ValueError(f"{folder}: this policy is return-conditioned; use `evaluate_run_targets`")
    settings: dict[str, Any] = {"deterministic": deterministic, "seed": seed, "max_steps": max_steps}
    return _evaluate(agent, arena, episodes=episodes, num_envs=num_envs, **settings)


def _evaluate(agent: Agent, arena: Arena, *, episodes: int, num_envs: int, **settings: Any) -> Evaluation:
    vector = adapt(arena(max(min(num_envs, episodes), 1)), device=arena.device)
    try:
        with readable_errors(arena.id):
            return evaluate(agent.policy, vector, episodes=episodes, **settings)
    finally:
        vector.close()


def evaluate_run_targets(
    folder: Path,
    *,
    target_return: tuple[float, ...] = (),
    target_score: tuple[float, ...] = (),
    env: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    episodes: int = 200,
    deterministic: bool = True,
    seed: int = 10_000,
    num_envs: int = 16,
    device: str = "cpu",
    shift: Shift | None = None,
    max_steps: int = LONGEST,
    reference: "Reference | None" = None,
    measure_reference: int = 0,
    trust: bool = False,
) -> TargetReport:
    """Ask the return-conditioned policy of a run for returns, and measure what it achieves.

    Args:
        folder: the run.
        target_return: returns to ask for, env units.
        target_score: scores to ask for; needs reference scores. Neither: largest and mean return of the data.
        reference, measure_reference: see `reference_for`.
        env, env_kwargs, episodes, deterministic, seed, num_envs, shift, max_steps, trust: see `evaluate_run`.

    Raises:
        ValueError: see `evaluate_run` and `rlmin.evaluation.targets.evaluate_targets`; scores without a reference.
    """
    agent = load_run(folder, device=device, trust=trust)
    return _make_targets(
        agent,
        arena_of(agent, folder, env=env, env_kwargs=env_kwargs, shift=shift, device=device),
        target_return=target_return,
        target_score=target_score,
        given=reference,
        measure=measure_reference,
        seed=seed,
        episodes=episodes,
        deterministic=deterministic,
        num_envs=num_envs,
        max_steps=max_steps,
    )


def _make_targets(
    agent: Agent,
    arena: Arena,
    *,
    target_return: tuple[float, ...],
    target_score: tuple[float, ...],
    given: "Reference | None",
    measure: int,
    seed: int,
    **settings: Any,
) -> TargetReport:
    found = reference_for(agent, arena, given=given, measure=measure, seed=seed)
    asked = _list_returns(target_return, target_score, found)
    with readable_errors(arena.id):
        return evaluate_targets(
            agent.policy,
            arena,
            asked or default_targets(agent),
            seed=seed,
            return_scale=agent.return_scale,
            reference=found,
            data=data_returns(agent),
            env=str(arena),
            **settings,
        )


def _list_returns(returns: tuple[float, ...], scores: tuple[float, ...], reference: "Reference | None") -> list[float]:
    """Every target in env units, returns first."""
    if scores and reference is None:
        raise ValueError(f"target_score={list(scores)}: {NO_REFERENCE}")
    return [*returns, *(unscore(share, reference) for share in scores if reference is not None)]


def reference_for(
    agent: Agent, arena: Arena, *, given: "Reference | None", measure: int, seed: int
) -> "Reference | None":
    """The returns that count as 0 and 100: those given, else the data's, else D4RL's, else measured ones, else None.

    In its own environment a dataset has the scores that rlmin wrote with it, else D4RL's, else those in its metadata.

    Args:
        measure: episodes of random actions, in the environment as it is, for 0; 100 is then the largest return of the
            data. 0 episodes: nothing is measured.

    Raises:
        ValueError: scores are to be measured, and the run stores no returns of its data.
    """
    from rlmin.data import Reference
    from rlmin.data.reference import reference_in

    is_own = arena.id == agent.env_spec["id"] and encode(arena.kwargs) == encode(agent.env_spec["kwargs"])
    own = agent.run.get("data", {}).get("reference") if is_own else None
    found = given or (Reference(**own) if own else None) or reference_in(arena.id, arena.kwargs)
    if found is not None or not measure:
        return found
    data = data_returns(agent)
    if data is None:
        raise ValueError("the run stores no returns of its data, so nothing counts as 100; use --reference")
    plain = replace(arena, shift=Shift())
    vector = adapt(plain(min(16, measure)), device=arena.device)
    try:
        random = evaluate_random(vector, episodes=measure, seed=seed)
    finally:
        vector.close()
    source = f"measured: {len(random.returns)} episodes of random actions on {plain}; the largest return of the data"
    return Reference(random=random.mean_return, expert=float(data.max()), source=source)


def data_returns(agent: Agent) -> np.ndarray | None:
    """Returns of the episodes that an agent learned from, or their quantiles; None: it did not learn from data."""
    data = agent.run.get("data")
    return None if data is None else np.asarray(data["returns"], dtype=np.float64)


def default_targets(agent: Agent) -> list[float]:
    """Largest and mean return of the data.

    Raises:
        ValueError: the run does not store them.
    """
    data = agent.run.get("data")
    if data is None:
        raise ValueError("the run stores no returns of its data; name targets: --target-return R ...")
    return [max(data["returns"]), data["mean"]]


def run_evaluate(options: Evaluate) -> str:
    """Evaluate, and format the result; a return-conditioned run also gets a CSV and a picture."""
    from rlmin.data.reference import make_reference

    agent = load_run(options.run, device=options.device, trust=options.trust)
    kwargs = parse_pairs(options.env_kwargs)
    arena = arena_of(agent, options.run, env=options.env, env_kwargs=kwargs, shift=options.shift, device=options.device)
    given = make_reference(options.reference)
    names = ("episodes", "deterministic", "seed", "num_envs", "max_steps")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    conditioned = is_conditioned(agent.policy)
    if not conditioned and (options.target_return or options.target_score):
        raise ValueError(f"{options.run}: this policy is not return-conditioned, so it takes no target")
    if not conditioned and options.file is not None:
        why = "this policy is not return-conditioned, so there is no picture"
        raise ValueError(f"{options.run}: {why}; leave --file out")
    if options.video is None and options.video_episodes != Evaluate.video_episodes:
        raise ValueError(f"video_episodes={options.video_episodes}: there is no film without --video FILE")
    reference = reference_for(agent, arena, given=given, measure=options.measure_reference, seed=options.seed)
    filmed = _make_film(options, agent, arena, reference)
    if conditioned:
        settings |= {"target_return": options.target_return, "target_score": options.target_score}
        report = _make_targets(agent, arena, given=reference, measure=0, **settings)
        return "\n".join([_write_report(options, report), *filmed])
    found = _evaluate(agent, arena, **settings)
    lines = [str(found), *([f"under {options.shift}"] if str(options.shift) else [])]
    if reference is not None:
        error = 100 * found.return_error / abs(width(reference))
        lines.append(
            f"score {score(found.mean_return, reference):.1f}, s.e. {error:.1f}; {describe_reference(reference)}"
        )
    return "\n".join([*lines, *filmed])


def _make_film(options: Evaluate, agent: Agent, arena: Arena, reference: "Reference | None") -> list[str]:
    """Film, and describe the film. It comes first, so that its errors do not appear after a long evaluation."""
    if options.video is None:
        return []
    asked = _list_returns(options.target_return, options.target_score, reference)
    aim: dict[str, Any] = {"target_return": asked[0]} if asked else {}
    settings: dict[str, Any] = {name: getattr(options, name) for name in ("deterministic", "seed", "max_steps")}
    return [str(film(agent, arena, options.video, episodes=options.video_episodes, **settings, **aim))]


def _write_report(options: Evaluate, report: TargetReport) -> str:
    """Write the table and the picture of a report; returns its text."""
    picture = options.file or (Path() if is_address(options.run) else options.run) / "targets.png"
    report.write_csv(picture.with_suffix(".csv"))
    report.plot(picture)
    chosen = options.target_return or options.target_score
    asked = [] if chosen else ["no target given: using the largest and the mean return of the data"]
    return "\n".join([*asked, str(report), f"{picture.with_suffix('.csv')}, {picture}"])
