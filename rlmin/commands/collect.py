"""Collecting from runs: `rlmin collect`."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rlmin.agents.agent import Agent
from rlmin.commands.evaluate import arena_of, data_returns, load_run
from rlmin.data.reference import make_reference, reference_in
from rlmin.evaluation.collect import PlayedBy, collect
from rlmin.evaluation.play import LONGEST
from rlmin.evaluation.targets import warn_of_outliers
from rlmin.policy.fit import is_conditioned
from rlmin.settings import Count, CountOrZero, Positional, Seed, Size, Workers
from rlmin.vector.arena import Arena
from rlmin.vector.make import parse_pairs, readable_errors
from rlmin.wrappers.shift import Shift


@dataclass(frozen=True, kw_only=True)
class Collect(Shift):
    """Play episodes with the policies of runs, and write a Minari dataset."""

    runs: Positional[tuple[Path, ...]] = ()  # Run folders; each plays the same number of episodes
    dataset: str  # Name of the dataset, as in cartpole/expert-v0
    episodes: Count  # Episodes of all sources together
    policy: Literal["runs", "random"] = "runs"  # Further source of actions; random: uniformly drawn ones
    stochastic: bool = False  # Whether actions are sampled; False takes the most likely one
    env: str | None = None  # Gymnasium id of the environment; None: that of the first run
    env_kwargs: tuple[str, ...] = ()  # Pairs key=value that differ from the run's own
    target_return: float | None = None  # Return to ask a return-conditioned run for; None: the best of its data
    num_envs: Size = 16  # Number of environments to play at once
    workers: Workers = 0  # Processes that step the environments; 0: none beside this one
    seed: Seed = 20_000  # Random seed for environments and actions
    max_steps: Count = LONGEST  # Steps after which an episode counts as one that never ends
    device: str = "cpu"  # Device of the weights: cpu, cuda, ...
    reference: tuple[float, float] | None = None  # Returns of a random policy and an expert
    measure_reference: CountOrZero = 0  # Episodes of random actions for score 0, if unknown; 100 is the dataset's best
    overwrite: bool = False  # Whether a dataset of this name is replaced
    trust: bool = False  # Whether the module that the first run's environment id names is imported; its code runs


def run_collect(options: Collect) -> str:
    """Collect episodes and describe the dataset.

    Raises:
        ValueError: no run and no random policy, no environment, or see `rlmin.evaluation.collect.collect`.
    """
    agents = [load_run(folder, device=options.device, trust=options.trust) for folder in options.runs]
    sources, arena = _sources(options, agents), _arena(options, agents)
    known = None if str(arena.shift) else reference_in(arena.id, arena.kwargs)
    with handle_termination(), readable_errors(arena.id):
        dataset = collect(
            sources,
            arena,
            options.dataset,
            num_envs=options.num_envs,
            seed=options.seed,
            env_spec=arena.spec(),
            reference=make_reference(options.reference) or known,
            measure_reference=options.measure_reference,
            recipe={"env": arena.id, "env_kwargs": arena.kwargs, "shift": str(arena.shift)},
            overwrite=options.overwrite,
            max_steps=options.max_steps,
        )
    metadata = dataset.storage.metadata
    lines = [f"{dataset.id}: {dataset.total_episodes:,} episodes, {dataset.total_steps:,} steps of {arena}"]
    for source in metadata["recipe"]["sources"]:
        about = f"{source['name']} ({source['policy']})"
        asked = "" if source.get("target_return") is None else f", asked for {source['target_return']:g}"
        lines.append(f"  {about}: {source['episodes']:,} episodes{asked}, mean return {source['return_mean']:.3f}")
    if "ref_min_score" in metadata:
        random, expert = metadata["ref_min_score"], metadata["ref_max_score"]
        lines.append(f"  {random:g} counts as 0, {expert:g} as 100: {metadata['reference_source']}")
    return "\n".join([*lines, f"  {Path(dataset.storage.data_path).parent}"])


def _sources(options: Collect, agents: Sequence[Agent]) -> list[PlayedBy]:
    """The runs, and random actions on request, each with its share of the episodes."""
    count = len(options.runs) + (options.policy == "random")
    if not count:
        raise ValueError("collect: name a run folder, or --env ID --policy random")
    if options.stochastic and not options.runs:
        raise ValueError("stochastic: has no effect on random actions; leave --stochastic out")
    if options.episodes < count:
        raise ValueError(f"episodes={options.episodes}: expected at least one for each of {count} sources")
    shares = [options.episodes // count + (i < options.episodes % count) for i in range(count)]
    if agents and options.target_return is not None and not any(is_conditioned(agent.policy) for agent in agents):
        raise ValueError(f"{options.runs[0]}: this policy is not return-conditioned; leave --target-return out")
    runs = zip(options.runs, agents, shares, strict=False)  # the last share is that of random actions
    sources = [_run(folder, agent, share, options) for folder, agent, share in runs]
    if options.policy == "random":
        sources.append(PlayedBy(name="random", policy=None, episodes=shares[-1]))
    return sources


def _run(folder: Path, agent: Agent, episodes: int, options: Collect) -> PlayedBy:
    target = None
    if is_conditioned(agent.policy):
        data = data_returns(agent)
        target = options.target_return if options.target_return is not None or data is None else float(data.max())
        if target is None:
            raise ValueError(f"{folder}: the policy is return-conditioned; name a target: --target-return R")
        warn_of_outliers([target], data)
    return PlayedBy(
        name=agent.name,
        policy=agent.policy,
        episodes=episodes,
        deterministic=not options.stochastic,
        target=target,
        return_scale=agent.return_scale,
        details={"run": folder.resolve().name, "num_timesteps": agent.num_timesteps, "seed": agent.seed},
    )


def _arena(options: Collect, agents: Sequence[Agent]) -> Arena:
    """Where to play: --env, or the environment of the first run."""
    kwargs, id = parse_pairs(options.env_kwargs), options.env
    where: dict[str, Any] = {"shift": options.shift, "device": options.device, "workers": options.workers}
    if agents:
        return arena_of(agents[0], options.runs[0], env=id, env_kwargs=kwargs, **where)
    if id is None:
        raise ValueError("collect: --policy random needs --env ID, or a run with an environment")
    return Arena(id=id, kwargs=kwargs, **where)


@contextmanager
def handle_termination() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that half-written files are removed. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> Any:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
