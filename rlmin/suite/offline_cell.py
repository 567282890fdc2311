"""A cell of the offline suite: one decision agent trained on one dataset and scored in closed loop."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmin.agents.load import load
from rlmin.commands.evaluate import evaluate_run, evaluate_run_targets
from rlmin.commands.parse_agent import parse_agent
from rlmin.commands.presets import preset_arguments
from rlmin.commands.train_config import DecisionTrainConfig
from rlmin.data import Reference
from rlmin.evaluation.scores import score, unscore
from rlmin.suite.cells import Cell, Row, train_or_resume

SEED = 10_000  # random seed of the environments for scores: each seed of a column has its own
NUM_ENVS = 50
NOT_OF_A_RUN = ("asked", "peer", "data")
BEST = "best"  # target: the return of the best episode in the data


@dataclass(frozen=True)
class OfflineCell(Cell):
    """One decision agent on one dataset; `encoder` is the name of the agent's column.

    Its settings are those of the run, "asked" (targets, variants, episodes) and "data" (identifies the data).
    """

    @property
    def held_out_seed(self) -> int:
        """Random seed of the environments for scores; it depends on the cell's seed, so intervals include episodes."""
        return SEED + 1000 * self.seed

    @property
    def config(self) -> DecisionTrainConfig:  # type: ignore[override]
        """The settings as the command line would read them."""
        args = preset_arguments({name: x for name, x in self.settings.items() if name not in NOT_OF_A_RUN})
        return parse_agent(DecisionTrainConfig, args, prog="rlmin bench offline")

    def run(self, folder: Path) -> Row:
        """Train in `folder`, or continue there, and score; returns the row of the cell."""
        train_or_resume(self.config, folder)
        agent = load(folder, trust=self.config.trust)
        facts = agent.run["data"]
        if facts["reference"] is None:
            raise ValueError(f"dataset {self.task!r}: has no reference scores, so there is no score")
        results = [x for variant in self.settings["asked"]["variants"] for x in _results(self, folder, variant, facts)]
        return self.row(agent.num_timesteps, facts, results)

    def row(self, steps: int, facts: Mapping[str, Any], results: Sequence[Row]) -> Row:
        """The row of the cell: training steps, facts about the data, a result for each variant and target."""
        line = {"task": self.task, "encoder": self.encoder, "seed": self.seed, "steps": steps}
        line |= {"behaviour": facts["mean"], "best": resolve_target(BEST, facts), "reference": facts["reference"]}
        return line | {"final": results[0]["score"], "results": list(results)}


def _results(cell: OfflineCell, folder: Path, variant: Mapping[str, Any], facts: Mapping[str, Any]) -> list[Row]:
    """Results of the last checkpoint, greedy: one entry a target, in one variant of the environment."""
    reference, asked = Reference(**facts["reference"]), cell.settings["asked"]
    shared: dict[str, Any] = {"env_kwargs": variant, "episodes": asked["episodes"], "num_envs": NUM_ENVS}
    shared |= {"seed": cell.held_out_seed, "trust": cell.config.trust}
    if cell.config.agent_settings.conditioned:
        wanted = [resolve_target(target, facts) for target in asked["targets"]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # warnings of targets outside the data, which the table names
            each = [evaluate_run_targets(folder, target_return=(x,), reference=reference, **shared) for x in wanted]
        found = [report.asked[0].evaluation for report in each]
    else:
        found = [evaluate_run(folder, **shared)] * len(asked["targets"])
    return [
        result(variant, target, one.mean_return, float(one.lengths.mean()), one.success_rate, reference)
        for target, one in zip(asked["targets"], found, strict=True)
    ]


def resolve_target(target: float | str, facts: Mapping[str, Any]) -> float:
    """The return for a target of a suite, in the environment's own units; `facts`: of the data."""
    if target == BEST:
        return float(max(facts["returns"]))
    return float(unscore(float(target), Reference(**facts["reference"])))


def result(
    variant: Mapping[str, Any],
    target: float | str,
    achieved: float,
    length: float,
    success: float | None,
    on: Reference,
) -> Row:
    """The result of one target in one variant of the environment."""
    named = " ".join(f"{key}={value}" for key, value in variant.items())
    line = {"variant": named, "target": target, "return": achieved, "score": score(achieved, on)}
    return line | {"success": success, "length": length}
