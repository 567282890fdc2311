"""Acting: one step of a policy for B environments, the action sampled, beside its bare matrix products.

The policy is the default one (two blocks of width 128, convolution and MLP) on an observation of 8 numbers and four
actions, for every memory; memory is carried from step to step. A step is `Policy.step` and
`distribution.sample`, without an environment. `products` is the time of the same matrix products, on tensors of the
same sizes, in the same process; `beyond` is the rest of the step. The peer is the forward pass of sb3-contrib's
recurrent policy with two LSTM layers of that width.
"""

from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np
import torch

from rlmin.bench.options import Options
from rlmin.bench.peers import Missing, need
from rlmin.bench.products import Products
from rlmin.bench.report import Table, Target, limit, number, plain_log
from rlmin.bench.timing import Case
from rlmin.encoders import MIXERS
from rlmin.policy import Policy, PolicyConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
QUICK = (1, 3)
WIDTH, QUICK_WIDTH = 128, 8
TARGET_B, MOST_BEYOND = 64, 150.0  # microseconds, of minGRU
PEER = "sb3-contrib RecurrentPPO"
OBSERVATION, ACTION = gym.spaces.Box(-1, 1, (8,), np.float32), gym.spaces.Discrete(4)


def run(options: Options) -> Table:
    """Every memory at every B; see the top of this file."""
    table, width = Table(), QUICK_WIDTH if options.quick else WIDTH
    for B in QUICK if options.quick else BATCHES:
        cases: dict[str, Case] = {}
        for name in MIXERS:
            cases[name] = own_step(name, B, width, options.device)
            cases[f"products of {name}"] = Products(cases[name])
        try:
            cases[PEER] = peer_step(B, width, options.device)
        except Missing as reason:
            table.skip(reason, {"policy": PEER, "B": B})
        timing = options.measure(f"B={B}", cases, rounds=51, seconds=6, block=0.005)
        for name in [name for name in cases if not name.startswith("products")]:
            products = None if name == PEER else f"products of {name}"
            table.add(
                {
                    "policy": name,
                    "B": B,
                    "us a step": 1e6 * timing.median(name),
                    "products": products and 1e6 * timing.median(products),
                    "beyond": products and 1e6 * timing.difference(name, products),
                    "steps/s": round(B / timing.median(name)),
                    "rounds": timing.rounds,
                }
            )
    for row in table.where(policy="min_gru", B=TARGET_B):
        what = f"min_gru at B={TARGET_B}, us beyond its products"
        table.targets.append(Target(what, number(row["beyond"]), MOST_BEYOND))
    return table


def own_step(encoder: str, B: int, width: int, device: str) -> Case:
    """One step of rlmin's default policy with this memory, and a sampled action."""
    policy = Policy(OBSERVATION, ACTION, PolicyConfig(encoder=encoder, width=width)).to(device).eval()
    generator = torch.Generator(device).manual_seed(0)
    observation = {"observation": torch.randn(B, 8).to(device)}
    start, state = torch.zeros(B, dtype=torch.bool, device=device), policy.initial_state(B)

    @torch.no_grad()
    def step() -> None:
        nonlocal state
        out = policy.step(observation, state, start)
        out.distribution.sample(generator)
        state = out.state

    return step


def peer_step(B: int, width: int, device: str) -> Case:
    """One forward pass of sb3-contrib's policy, which samples too."""
    recurrent = need("sb3_contrib.common.recurrent.policies").RecurrentActorCriticPolicy
    states = need("sb3_contrib.common.recurrent.type_aliases").RNNStates
    sizes = {"lstm_hidden_size": width, "n_lstm_layers": 2, "net_arch": [width]}
    shared = {"shared_lstm": True, "enable_critic_lstm": False}
    policy = recurrent(OBSERVATION, ACTION, lambda _: 1e-3, **sizes, **shared).to(device)
    policy.set_training_mode(False)
    observation, start = torch.randn(B, 8).to(device), torch.zeros(B, device=device)
    zeros = torch.zeros(2, B, width, device=device)
    state = states((zeros, zeros), (zeros, zeros))

    @torch.no_grad()
    def step() -> None:
        nonlocal state
        _, _, _, state = policy(observation, state, start)

    return step


def draw(table: Table, figure: "Figure") -> None:
    """Microseconds a step, and those beyond the products, over B; a line a policy."""
    for axes, column in zip(figure.subplots(1, 2), ["us a step", "beyond"], strict=True):
        for colour, name in enumerate(table.each("policy")):
            rows = [row for row in table.where(policy=name) if row[column] is not None]
            style = {"color": f"C{colour}", "linestyle": ":" if name == PEER else "-", "marker": "."}
            if rows:
                axes.plot(
                    [number(row["B"]) for row in rows], [number(row[column]) for row in rows], label=name, **style
                )
        plain_log(axes, x=True, y=True)
        axes.set_xlabel("environments, B")
    left, right = figure.axes
    left.set_title("a step, us", fontsize=10)
    right.set_title("beyond its matrix products, us", fontsize=10)
    limit(right, MOST_BEYOND, f"target at B={TARGET_B}: {MOST_BEYOND:g}")
    left.legend(fontsize=8)
