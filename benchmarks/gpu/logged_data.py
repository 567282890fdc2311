"""Stage G: a decision agent trains on the device, is loaded on the CPU, and plays for two targets."""

import tempfile
from typing import Any

import numpy as np
from record import DEVICE, DRY, add, attempt, measure

import rlmin
from rlmin import DecisionAgent
from rlmin.data import Episode
from rlmin.data.feed import Feed
from rlmin.evaluation.targets import evaluate_targets
from rlmin.vector import make_vec

CASES: dict[str, dict[str, Any]] = {
    "min_gru": {},
    "attention": {"encoder": "attention", "windows": 20, "rows": 25, "context": 60, "tokens": "triple"},
    "min_gru autocast": {"autocast": True},
}


def check_decision() -> None:
    draw, episodes = np.random.default_rng(0), []
    for length in draw.integers(20, 60, size=40 if DRY else 400):
        seen, chosen = draw.normal(size=(length + 1, 4)).astype(np.float32), draw.integers(2, size=length)
        episodes.append(Episode(observations=seen, actions=chosen, rewards=np.ones(length), terminated=True))
    for name, settings in CASES.items():
        attempt(f"decision {name}", _train, name, settings, episodes)
    attempt("decision, batches drawn ahead", _draw_ahead, episodes)


def _train(name: str, settings: dict[str, Any], episodes: list[Episode]) -> None:
    width: dict[str, Any] = {"width": 8} if DRY else {}
    agent = DecisionAgent(episodes, env="CartPole-v1", device=DEVICE, seed=0, **settings, **width)
    batch = agent.config.rows * agent.config.steps
    agent.learn(2 * batch)
    took, _ = measure(agent.learn, (4 if DRY else 40) * batch)
    add(f"decision {name}", agent.num_timesteps / took, "logged steps/s")
    with tempfile.TemporaryDirectory() as folder:
        agent.save(folder)
        rlmin.load(folder, device="cpu")
    if name == "min_gru":
        options = {"episodes": 8, "num_envs": 4, "return_scale": agent.return_scale}
        took, found = measure(
            evaluate_targets, agent.policy, lambda rows: make_vec("CartPole-v1", rows), [20.0, 50.0], **options
        )
        add("decision, two targets", took, "s", str(found)[:200])


def _draw_ahead(episodes: list[Episode]) -> None:
    """Batches are the same whether the data are on the device or a thread copies them; and the speed of the latter."""
    agents = [DecisionAgent(episodes, env="CartPole-v1", device=DEVICE, width=8 if DRY else 128) for _ in range(2)]
    resident, ahead = agents
    ahead.packing.place(ahead.dataset.step)  # back to the host
    ahead.feed = Feed(ahead.packing, ahead.device, ahead=True)
    with ahead.feed:
        for _ in range(20):
            batches = resident.feed.draw(), ahead.feed.draw()
            if not bool((batches[0] == batches[1]).all()):
                raise AssertionError("batches differ")
    took, _ = measure(ahead.learn, (4 if DRY else 40) * ahead.config.rows * ahead.config.steps)
    add("decision, batches drawn ahead", ahead.num_timesteps / took, "logged steps/s")
