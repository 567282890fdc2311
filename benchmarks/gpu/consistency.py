"""Stage C: acting equals training for every encoder; runs travel between devices; a graph plays like the loop."""

import tempfile
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from iteration import LENGTH, is_graph, make_maze
from record import DEVICE, DRY, add, attempt, fail, measure, set_precision, wait

import rlmin
from rlmin.bench.scan import force_kernel
from rlmin.encoders import CELLS
from rlmin.evaluation.evaluate import evaluate
from rlmin.vector import adapt

IN_TF32 = ("min_gru", "min_lstm", "gru", "attention", "gated_linear", "delta_net")
"""Encoders that are tried in TF32, too."""
PATIENCE = 25  # seconds for all games


def check_consistency() -> None:
    for tf32 in (False,) if DRY else (False, True):
        set_precision(tf32=tf32)
        names = list(IN_TF32 if tf32 else CELLS)[:: 5 if DRY else 1]
        for encoder in names:
            attempt(f"consistency {encoder} tf32={tf32}", _verify, encoder, tf32)
    set_precision(tf32=False)
    attempt("save, load, predict, evaluate", _travel)
    attempt("native games", _compare_games)


def _verify(encoder: str, tf32: bool) -> None:
    fed: dict[str, Any] = {"previous_action": True, "previous_reward": True}
    agent = make_maze(64, encoder=encoder, horizon=64, **fed)
    with torch.no_grad():  # logits that differ, or a disagreement would not show
        head: Any = agent.policy.action_head
        head.projection.weight.mul_(100)
    found = rlmin.verify_consistency(agent, tolerance=1.0, steps=16 if DRY else 128)
    note = "" if found <= 1e-5 else "above the default tolerance 1e-5"
    add(f"verify_consistency {encoder} tf32={tf32}", found, "nats", note)
    if found > (1e-2 if tf32 else 1e-3):
        fail(f"consistency {encoder}", f"{found:.3g} nats")


def _travel() -> None:
    """Save on the device, load there and on the CPU, act, and go on in all of them."""
    agent = make_maze(64)
    config, rollout = agent.config, agent.config.num_envs * agent.config.horizon
    agent.learn(4 * rollout)
    with tempfile.TemporaryDirectory() as folder:
        agent.save(folder)
        there, back = rlmin.load(folder, device="cpu"), rlmin.load(folder, device=DEVICE)
        again = make_maze(64)
        again.resume(folder)
    observation = np.zeros((5, 2), np.float32)
    back.predict(observation, back.predict(observation, deterministic=True)[1], deterministic=False)
    with force_kernel("portable"):  # numba would compile for a minute what is called once
        action, state = there.predict(observation, deterministic=True)
        there.predict(observation, state, deterministic=False)
    add("prediction on the CPU of a run of the device", str(action.tolist()))
    for one in (agent, again):
        one.learn(2 * rollout, reset_num_timesteps=False)
    pairs = zip(agent.policy.state_dict().values(), again.policy.state_dict().values(), strict=True)
    same = all(torch.equal(x, y) for x, y in pairs)
    add("resumed run equals the one that went on, bit for bit", str(same))
    if not same:
        fail("resume", "weights differ")
    with force_kernel("portable"), tempfile.TemporaryDirectory() as folder:
        agent.save(folder)
        sizes: dict[str, Any] = {"num_envs": config.num_envs, "horizon": config.horizon, "width": config.width}
        moved = rlmin.PPO("rlmin/TMaze-v0", env_kwargs={"length": LENGTH}, **sizes)
        moved.resume(folder)
        moved.learn(rollout, reset_num_timesteps=False)
    add("steps of a run of the device that went on on the CPU", str(moved.num_timesteps))
    mazes = 8 if DRY else 256
    vector = adapt("rlmin/TMaze-v0", num_envs=mazes, device=DEVICE, env_kwargs={"length": LENGTH})
    took, found = measure(evaluate, agent.policy, vector, episodes=mazes)
    add(f"evaluation of {mazes} episodes of {LENGTH + 1} steps", took, "s", str(found))


def _compare_games() -> None:
    """Every native game: its rollouts as a graph and by the loop."""
    ids = [id for id, spec in gym.registry.items() if id.startswith("rlmin/") and spec.vector_entry_point]
    chosen, began, tried = ids[:: 30 if DRY else 4], wait(), 0
    for id in chosen:
        attempt(f"game {id}", _compare_game, id)
        tried += 1
        if wait() - began > PATIENCE:
            break
    add("native games tried, graph against loop", tried, f"of {len(ids)}")


def _compare_game(id: str) -> None:
    rollouts = []
    for graph in (False, True):
        small: dict[str, Any] = {"num_envs": 32, "horizon": 8, "width": 16, "layers": 1}
        agent = rlmin.PPO(id, device=DEVICE, cuda_graph=graph, seed=1, **small)
        found = [agent.collector.collect() for _ in range(3)][-1]
        assert found is not None, "no callback stops it"
        rollouts.append(found.batch.clone())
    if DEVICE == "cuda" and not is_graph(agent):
        fail(f"game {id}", "no graph")
    if not bool((rollouts[0] == rollouts[1]).all()):
        fail(f"game {id}", "the graph plays another game than the loop")
