"""The model card of a run: a README.md for people and the Hugging Face hub."""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from keyword import iskeyword
from pathlib import Path
from typing import Any

import yaml

from rlmin.agents.agent import Agent
from rlmin.commands.evaluate import evaluate_run, evaluate_run_targets, load_run
from rlmin.evaluation.evaluate import Evaluation
from rlmin.policy.fit import is_conditioned
from rlmin.runs.checkpoint import write_atomic
from rlmin.settings import CountOrZero
from rlmin.settings.boundary import checked

CARD = "README.md"
LOCAL = 'rlmin.load(".")'
"""Address by which a card loads the run in its own folder; a pushed card has the hub's address."""


@checked
def write_card(folder: str | Path, *, episodes: CountOrZero = 100, trust: bool = False) -> Path:
    """Write the card of a run into its folder, replacing an older one.

    Args:
        folder: the run.
        episodes: number of episodes of the greedy evaluation per target; 0, or an unknown environment: no scores.
        trust: see `rlmin.load`.

    Raises:
        ValueError: the folder is not a run, or its environment cannot be made here; nothing has been written.
    """
    folder = Path(folder)
    agent = load_run(folder, device="cpu", trust=trust)
    scores = _scores(agent, folder, episodes, trust) if episodes and agent.env_spec["id"] is not None else {}
    write_atomic(folder / CARD, card(agent, folder, scores).encode())
    return folder / CARD


def card(agent: Agent, folder: Path, scores: Mapping[str, Evaluation]) -> str:
    """The text of a card.

    Args:
        agent: agent of the run.
        folder: the run; its name is the title.
        scores: results by the name of each policy variant.
    """
    name = folder.resolve().name
    parts = [_front_matter(agent, name, scores), f"# {name}\n", _introduce(agent), _scores_table(scores)]
    if (folder / "curve.png").exists():
        parts.append("## Training\n\n![return over environment steps](curve.png)\n")
    parts += [_usage(agent), _spaces(agent), _settings(agent)]
    return "\n".join(part for part in parts if part)


def _scores(agent: Agent, folder: Path, episodes: int, trust: bool) -> dict[str, Evaluation]:
    if not is_conditioned(agent.policy):
        return {"greedy": evaluate_run(folder, episodes=episodes, trust=trust)}
    report = evaluate_run_targets(folder, episodes=episodes, trust=trust)
    return {f"greedy, asked for a return of {one.target:g}": one.evaluation for one in report.asked}


def _front_matter(agent: Agent, name: str, scores: Mapping[str, Evaluation]) -> str:
    """The hub's part: YAML between two rules."""
    env, encoder = agent.env_spec["id"] and str(agent.env_spec["id"]), agent.config.encoder
    tags = ["reinforcement-learning", "rlmin", agent.name, encoder.replace("_", "-"), *([env] if env else [])]
    about: dict[str, Any] = {"library_name": "rlmin", "pipeline_tag": "reinforcement-learning", "tags": tags}
    if scores:
        best = max(scores.values(), key=lambda found: found.mean_return)
        task = {"type": "reinforcement-learning", "name": "reinforcement-learning"}
        result = {"task": task, "dataset": {"name": env, "type": env}, "metrics": _metrics(best)}
        about["model-index"] = [{"name": name, "results": [result]}]
    return f"---\n{yaml.safe_dump(about, sort_keys=False)}---\n"


def _metrics(found: Evaluation) -> list[dict[str, Any]]:
    spread = float(found.returns.std())
    metrics: list[dict[str, Any]] = [
        {"type": "mean_reward", "name": "mean_reward", "value": f"{found.mean_return:.3f} +/- {spread:.3f}"}
    ]
    if found.success_rate is not None:
        metrics.append({"type": "success_rate", "name": "success rate", "value": round(found.success_rate, 4)})
    return metrics


def _introduce(agent: Agent) -> str:
    config, env = agent.config, agent.env_spec["id"]
    where = f" on `{env}`{_words(agent.env_spec['kwargs'])}" if env else ""
    memory = f"{config.layers} layers of `{config.encoder}`, width {config.width}"
    return f"{agent.about}{where}: {memory}, {agent.num_timesteps:,} steps of training, with rlmin.\n"


def _scores_table(scores: Mapping[str, Evaluation]) -> str:
    if not scores:
        return ""
    lines = ["## Scores\n", "| policy | return | 95 % | success | length | episodes |", "|---|---|---|---|---|---|"]
    for name, found in scores.items():
        low, high = found.return_interval()
        won = "-" if found.success_rate is None else f"{100 * found.success_rate:.1f} %"
        cells = [name, f"{found.mean_return:.3f}", f"{low:.3f} to {high:.3f}", won, f"{found.lengths.mean():.1f}"]
        lines.append(f"| {' | '.join([*cells, str(len(found.returns))])} |")
    return "\n".join(lines) + "\n"


def _usage(agent: Agent) -> str:
    """Code to load the run and act, which runs as it stands."""
    spec = agent.env_spec
    lines = ["import rlmin", "", f"agent = {LOCAL}"]
    if spec["id"] is None:
        lines += ["act = agent.actor()          # action = act(observation); act.reset() where an episode starts"]
    else:
        lines += [
            f"act = agent.actor(rlmin.make_vec({_literal(str(spec['id']))}, 1{_arguments(spec['kwargs'])}))",
            "act.reset(seed=0)",
            "for _ in range(10):",
            "    observation, reward, terminated, truncated, info = act.step()",
        ]
    code = _fence("python", "\n".join(lines) + "\n")
    return f"## Use\n\n{_installation()}\n{code}\n`act` keeps the policy's memory.\n"


def _installation() -> str:
    """Installation of rlmin: from the git address of this installation, if it has one, else from a clone."""
    try:
        origin = json.loads(distribution("rlmin").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # rlmin runs from its sources
        origin = {}
    address, commit = str(origin.get("url", "")), origin.get("vcs_info", {}).get("commit_id")
    if commit and address.startswith("https://") and "@" not in address:  # no local path, no password
        return f'    pip install "rlmin[hub] @ git+{address}@{commit}"\n'
    return 'In a clone of rlmin\'s repository, with Python 3.11 or newer:\n\n    pip install -e ".[hub]"\n'


def _arguments(kwargs: Mapping[str, Any]) -> str:
    """Arguments in the form of a call; a name that is not valid in Python is quoted."""
    plain = {key: value for key, value in kwargs.items() if key.isidentifier() and not iskeyword(key)}
    other = {key: value for key, value in kwargs.items() if key not in plain}
    named = "".join(f", {key}={_literal(value)}" for key, value in plain.items())
    return named + (f", **{other!r}" if other else "")


def _literal(value: Any) -> str:
    """A value as Python code, text in the quotes that formatters use."""
    quoted = isinstance(value, str) and value.isprintable()
    return json.dumps(value, ensure_ascii=False) if quoted else repr(value)


def _spaces(agent: Agent) -> str:
    policy = agent.policy
    return f"## Spaces\n\n- observation: `{policy.observation_space}`\n- action: `{policy.action_space}`\n"


def _settings(agent: Agent) -> str:
    plain = {name: value for name, value in agent.header()["config"].items() if value is not None}
    return f"## Settings\n\n{_fence('yaml', yaml.safe_dump(plain, sort_keys=False))}"


def _fence(language: str, text: str) -> str:
    """A block of code in Markdown, with a fence longer than any in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}{fence}\n"


def _words(kwargs: Mapping[str, Any]) -> str:
    """Arguments in a sentence, quoted and escaped, so that their text cannot begin a paragraph or code."""
    return f" ({', '.join(f'{json.dumps(key)[1:-1]}={value!r}' for key, value in kwargs.items())})" if kwargs else ""
