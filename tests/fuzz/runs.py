"""Run folders: bytes damaged, headers and tensors rewritten with right digests."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from rlmin import PPO, DecisionAgent, load
from rlmin.agents.agent import Agent
from rlmin.data import Episode
from rlmin.runs.checkpoint import CONFIG, LEARNER, POLICY, _pack

from .case import DifferenceError
from .junk import damage, damage_file, edited, edits

CHANGES = ["nan", "inf", "huge", "negative", "flat", "axis", "cut", "empty", "turned", "drop", "rename", "copy"]
CHANGES += [f"to {name}" for name in ("int8", "float64", "float16", "complex64", "bool", "int64", "bfloat16")]

CASES = st.one_of(
    st.fixed_dictionaries(
        {
            "base": st.sampled_from(["ppo", "decision"]),
            "only_policy": st.booleans(),
            "header": edits,
            "tensors": st.lists(st.tuples(st.integers(0, 999), st.sampled_from(CHANGES)), max_size=2),
        }
    ),
    st.fixed_dictionaries(
        {
            "base": st.sampled_from(["ppo", "decision"]),
            "only_policy": st.booleans(),
            "file": st.sampled_from([POLICY, LEARNER, CONFIG]),
            "bytes": damage,
            "start": st.booleans(),
        }
    ),
)

USUAL = {"base": "ppo", "only_policy": True, "header": [], "tensors": []}


def prepare(base: Path) -> None:
    """Two runs."""
    small: dict[str, Any] = {"width": 8, "horizon": 8, "num_envs": 4, "minibatches": 2, "epochs": 1}
    agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": 4}, normalize_observation=True, **small)
    agent.learn(64).save(base / "ppo")
    draw = np.random.default_rng(0)
    episodes = [Episode(draw.normal(size=(9, 3)).astype("f4"), [0, 1] * 4, [1.0] * 8, True) for _ in range(6)]
    cloner = DecisionAgent(episodes, width=8, rows=2, horizon=8, encoder="attention", heads=2, context=4)
    cloner.learn(64).save(base / "decision")


def run(case: dict[str, Any], base: Path, work: Path) -> None:
    """Change the run, load it, act, and go on with it."""
    source, folder = base / case["base"], work / "run"
    shutil.copytree(source, folder)
    if "bytes" in case:
        steps = [[what, share / 50 if case["start"] else share, byte] for what, share, byte in case["bytes"]]
        damage_file(folder / case["file"], steps)
    else:
        for file in (POLICY, LEARNER):
            forge(folder / file, case["header"], case["tensors"])
    if case["only_policy"]:
        (folder / LEARNER).unlink()
    agent = load(folder)
    if "bytes" in case:
        _check_same(agent, load(source))
    _act(agent)
    if not case["only_policy"] and isinstance(agent, PPO) and agent.config.horizon * agent.config.num_envs <= 4096:
        agent.resume(folder)
        agent.learn(64)


def forge(path: Path, header_edits: list[Any], tensor_changes: list[Any]) -> None:
    """Rewrite a file of tensors, with a digest of its new content."""
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    header = edited(json.loads(metadata["header"]), header_edits)
    for number, what in tensor_changes:
        if tensors:
            _change(tensors, sorted(tensors)[number % len(tensors)], what)
    path.write_bytes(_pack(tensors, json.dumps(header), int(metadata["saved"])))


def _change(tensors: dict[str, Tensor], name: str, what: str) -> None:
    x = tensors[name]
    if what in ("drop", "rename"):
        del tensors[name]
        if what == "rename":
            tensors[name + "x"] = x
    elif what == "copy":
        tensors["policy." + name] = x
    elif what.startswith("to "):
        tensors[name] = x.to(getattr(torch, what[3:]))
    elif what in ("nan", "inf", "huge"):
        tensors[name] = torch.full_like(x.double(), {"nan": torch.nan, "inf": torch.inf, "huge": 3e38}[what]).to(
            x.dtype
        )
    elif what == "negative":
        tensors[name] = -x.to(torch.float64).sub(1).to(x.dtype) if x.dtype != torch.bool else ~x
    else:
        shapes = {"flat": x.flatten(), "axis": x[None], "cut": x[:1] if x.ndim else x, "empty": x.flatten()[:0]}
        tensors[name] = (shapes[what] if what in shapes else x.movedim(0, -1) if x.ndim else x).contiguous()


def _check_same(agent: Agent, base: Agent) -> None:
    """Damage that a digest did not see must not have changed a weight."""
    want, found = base.policy.state_dict(), agent.policy.state_dict()
    if any(name not in found or not torch.equal(x, found[name]) for name, x in want.items()):
        raise DifferenceError("other weights than were saved were loaded, without a word")


def _act(agent: Agent) -> None:
    space = agent.policy.observation_space
    space.seed(0)
    sample: Any = space.sample()
    action, _ = agent.predict(sample, deterministic=True)
    if not agent.policy.action_space.contains(np.asarray(action) if np.ndim(action) else action):
        raise DifferenceError(f"the action {action} is none of {agent.policy.action_space}")
