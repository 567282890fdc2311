"""Policies of any spaces and settings: unrolled as stepped, loaded as saved, and in numpy as in torch."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from hypothesis import strategies as st
from torch import Tensor

from rlmin import PPO, load
from rlmin.agents.ppo_config import PPOConfig
from rlmin.encoders import CELLS
from rlmin.export.numpy_export import pack_numpy
from rlmin.export.numpy_policy import NumpyPolicy
from rlmin.policy import Policy
from rlmin.policy.predict import predict
from rlmin.spaces import to_observation
from rlmin.spaces.as_json import space_from_json

from .case import DifferenceError
from .junk import numbers, values
from .space_cases import bits, box, choice, choices, leaf, several, usual

T, B = 7, 3
BOUND = 1e-6  # in float64; the scale of whole numbers is kept in float32

names = st.lists(st.sampled_from(["observation", "a", "b", "x"]), max_size=2)
settings = st.fixed_dictionaries(
    {"width": st.sampled_from([8, 8, 6, 1, 5, 12, 0])},
    optional={
        "encoder": st.sampled_from([*CELLS, "no"]),
        "layers": st.integers(0, 3),
        "conv": st.integers(0, 5),
        "mlp": st.integers(0, 2),
        "candidate": st.sampled_from(["tanh", "identity", "g", None, "relu"]),
        "time_scales": st.sampled_from([None, "default", [1, 5], [5, 1], [0, 3], [2, 2000]]),
        "heads": st.sampled_from([1, 2, 3, None]),
        "context": st.sampled_from([1, 2, 5, None]),
        "dropout": st.sampled_from([0.0, 0.5, 1.0]),
        "previous_action": st.booleans(),
        "previous_reward": st.booleans(),
        "share_memory": st.booleans(),
        "log_std": st.one_of(st.just(-1.0), numbers),
        "normalize_observation": st.booleans(),
        "pictures": names,
        "symbols": names,
        "numbers": names,
        "tokens": st.sampled_from(["fused", "triple"]),
        "encoder_options": st.dictionaries(st.sampled_from(["x", "norm"]), values, max_size=1),
    },
)
CASES = st.fixed_dictionaries(
    {
        "observation": st.one_of(leaf, several),
        "action": st.one_of(usual, choice, choices, bits, box, several),
        "settings": settings,
        "seed": st.integers(0, 99),
    }
)

USUAL = {
    "observation": {"kind": "Box", "low": -1, "high": 1, "shape": [3], "dtype": "float32"},
    "action": {"kind": "Discrete", "n": 2, "start": 0},
    "settings": {"width": 8},
    "seed": 0,
}


def run(case: dict[str, Any], base: Path, work: Path) -> None:
    """Make the policy, and compare."""
    seen, taken = (space_from_json(case[name], most=2**20) for name in ("observation", "action"))
    config = PPOConfig(horizon=8, num_envs=2, minibatches=1, epochs=1, **case["settings"])
    torch.manual_seed(case["seed"])
    agent = PPO.from_spaces(seen, taken, config=config, seed=case["seed"])
    agent.save(work / "run")
    try:
        loaded = load(work / "run")
    except Exception as error:
        raise DifferenceError(f"what was saved cannot be loaded: {error}") from error
    _same(agent.policy.state_dict(), loaded.policy.state_dict(), bound=0.0, what="saved and loaded")
    policy = loaded.policy.double().eval()
    with torch.no_grad():
        for weight in policy.parameters():
            weight.data += 0.3 * torch.randn(weight.shape, dtype=weight.dtype)
    _compare_unroll(policy, case["seed"])
    try:
        content = pack_numpy(policy)
    except ValueError:
        return  # no form in numpy
    _compare_numpy(policy, NumpyPolicy(content), case["seed"])


def _observations(policy: Policy, seed: int) -> list[dict[str, Tensor]]:
    batch = batch_space(policy.observation_space, B)
    batch.seed(seed)
    action: Any = policy.action_space
    action.seed(seed)
    found = []
    for _ in range(T):
        sample = batch.sample()
        predict(policy, sample, reward=np.zeros(B))  # refuses what is not finite
        seen = to_observation(sample, policy.observation_space, torch.device("cpu"))
        done = policy.action_head.from_env(torch.as_tensor(np.stack([action.sample() for _ in range(B)])))
        found.append(policy.with_previous(seen, done, torch.linspace(-1, 1, B)))
    return found


@torch.no_grad()
def _compare_unroll(policy: Policy, seed: int) -> None:
    seen = _observations(policy, seed)
    start = torch.rand(T, B, generator=torch.Generator().manual_seed(seed)) < 0.3
    state = policy.initial_state(B)
    whole = policy.unroll({k: torch.stack([x[k] for x in seen]) for k in seen[0]}, state, start)
    values_, kls = [], []
    for t in range(T):
        out = policy.step(seen[t], state, start[t])
        state = out.state
        values_.append(out.value)
        kls.append(_parameters(out.distribution))
    _same({"value": whole.value}, {"value": torch.stack(values_)}, bound=BOUND, what="unrolled and stepped")
    parameters = _parameters(whole.distribution)
    _same({"action": parameters}, {"action": torch.stack(kls)}, bound=BOUND, what="unrolled and stepped")


def _parameters(distribution: Any) -> Tensor:
    found = vars(distribution).get("logits", vars(distribution).get("mean"))
    assert isinstance(found, Tensor)
    return found


def _compare_numpy(policy: Policy, runner: NumpyPolicy, seed: int) -> None:
    batch = batch_space(policy.observation_space, B)
    batch.seed(seed)
    draw = np.random.default_rng(seed)
    states: list[Any] = [None, None]
    for t in range(T):
        start = draw.random(B) < 0.3 if t else np.ones(B, np.bool_)
        step = partial(_acted, batch.sample(), start, draw.normal(size=B))
        want, states[0] = step(partial(predict, policy), states[0])
        found, states[1] = step(runner.predict, states[1])
        worst = float(np.abs(np.asarray(found, np.float64) - np.asarray(want, np.float64)).max(initial=0))
        if found.shape != want.shape or found.dtype != want.dtype or not worst < 1e-4:
            raise DifferenceError(f"numpy: step {t}: {found.tolist()} and not {want.tolist()}")


def _acted(seen: Any, start: Any, reward: Any, act: Any, state: Any) -> Any:
    return act(seen, state, start, True, reward=reward)


def _same(want: dict[str, Tensor], found: dict[str, Tensor], *, bound: float, what: str) -> None:
    if want.keys() != found.keys():
        raise DifferenceError(f"{what}: {sorted(want.keys() ^ found.keys())}")
    for name, x in want.items():
        y = found[name]
        if x.shape != y.shape or x.dtype != y.dtype:
            raise DifferenceError(f"{what}: {name}: {y.dtype} {list(y.shape)} and not {x.dtype} {list(x.shape)}")
        if torch.equal(x, y) or not x.numel():
            continue
        worst = float(((x.double() - y.double()).abs() / x.double().abs().clamp(min=1)).nan_to_num(torch.inf).max())
        if not worst <= bound:
            raise DifferenceError(f"{what}: {name}: differ by {worst:.3g}")
