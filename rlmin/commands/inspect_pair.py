"""Two runs side by side: what they are, what they score with and without their memory, and where settings differ."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlmin.agents.agent import Agent
from rlmin.evaluation.evaluate import Evaluation
from rlmin.inspection.subject import Subject
from rlmin.inspection.wipe import WipedActor, has_memory

NONE = "-"
"""Text in the place of an entry that one of the runs lacks."""


def compare_subjects(names: Sequence[str], agents: Sequence[Agent], subjects: Sequence[Subject], episodes: int) -> str:
    """A table with a column for each run; the environments of both have the same seeds.

    Args:
        names: of the runs.
        agents: theirs.
        subjects: their policies, and where they play.
        episodes: episodes of each evaluation.
    """
    columns = [
        describe_subject(agent, one, one.evaluate(episodes)) for agent, one in zip(agents, subjects, strict=True)
    ]
    for column, one in zip(columns, subjects, strict=True):
        column["without memory"] = _without_memory(one, episodes)
    settings = [{name: str(x) for name, x in _settings(agent).items()} for agent in agents]
    differ = [
        name for name in dict.fromkeys([*settings[0], *settings[1]]) if settings[0].get(name) != settings[1].get(name)
    ]
    rows = [["", *names], *_rows(columns, list(dict.fromkeys([*columns[0], *columns[1]])))]
    rows += [["settings that differ", *[""] * len(names)]] * bool(differ) + _rows(settings, differ)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"{episodes} greedy episodes each, from seed {subjects[0].seed}; 95 % intervals"])


def _settings(agent: Agent) -> dict[str, Any]:
    """Settings by name, those of the encoder among them."""
    found = dict(agent.header()["config"])
    return found | dict(found.pop("encoder_options", {}))


def describe_subject(agent: Agent, subject: Subject, evaluation: Evaluation) -> dict[str, str]:
    """What a run is and what it scores, by name."""
    config = agent.config
    low, high = evaluation.return_interval()
    facts = {
        "environment": str(subject.arena),
        "agent": agent.name,
        "encoder": config.encoder,
        "layers": f"{config.layers} of width {config.width}",
        "parameters": f"{sum(x.numel() for x in agent.policy.parameters()):,}",
        "training steps": f"{agent.num_timesteps:,}",
        "training window": f"{subject.horizon} steps",
        "seed": str(agent.seed),
        "return": f"{evaluation.mean_return:.3f} [{low:.3f}, {high:.3f}]",
        "episodes played": f"{len(evaluation.returns)}, mean length {evaluation.lengths.mean():.1f}",
    }
    interval = evaluation.success_interval()
    if interval is not None:
        low, high = (100 * x for x in interval)
        facts["success"] = f"{100 * (evaluation.success_rate or 0):.1f} % [{low:.1f}, {high:.1f}]"
    if subject.target is not None:
        facts["asked return"] = f"{subject.target:g}"
    return facts


def _without_memory(subject: Subject, episodes: int) -> str:
    """The score of a policy whose memory is emptied before every step."""
    policy = subject.policy
    if not has_memory(policy):
        return "has none"
    found = subject.evaluate(episodes, actor=lambda rows: WipedActor(policy, rows, at=None))
    won = "" if found.success_rate is None else f", success {100 * found.success_rate:.1f} %"
    return f"return {found.mean_return:.3f}{won}"


def _rows(columns: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[list[str]]:
    return [[name, *(column.get(name, NONE) for column in columns)] for name in names]
