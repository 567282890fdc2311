"""Deployed: one greedy call of `predict`, of a policy and of its exported forms.

The default blocks at width 64, an observation of 8 numbers, four actions; memory is carried from call to call. All
forms have the same signature and check an observation alike. onnxruntime runs on one thread.
"""

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from rlmin.bench.options import Options
from rlmin.bench.report import Table, Target, limit, number, plain_log
from rlmin.bench.timing import Case
from rlmin.export.numpy_export import pack_numpy
from rlmin.export.numpy_policy import NumpyPolicy
from rlmin.export.onnx import OnnxPolicy, pack_onnx
from rlmin.policy import Policy, PolicyConfig
from rlmin.policy.predict import predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENCODERS, QUICK_ENCODERS = ("min_gru", "min_lstm", "gru", "lstm"), ("min_gru",)
BATCHES, QUICK = (1, 16, 64), (1, 3)
WIDTH, QUICK_WIDTH = 64, 8
MOST = 100.0  # microseconds, of numpy alone at B=1
OBSERVATION, ACTION = gym.spaces.Box(-1, 1, (8,), np.float32), gym.spaces.Discrete(4)


def run(options: Options) -> Table:
    """Every encoder in every form at every B; see the top of this file."""
    table = Table()
    for encoder in QUICK_ENCODERS if options.quick else ENCODERS:
        config = PolicyConfig(encoder=encoder, width=QUICK_WIDTH if options.quick else WIDTH)
        policy = Policy(OBSERVATION, ACTION, config).eval()
        forms: dict[str, Any] = {"numpy": NumpyPolicy(pack_numpy(policy)).predict}
        try:
            forms["onnxruntime"] = OnnxPolicy(pack_onnx(policy)).predict
        except ImportError as reason:
            table.skip(reason, {"form": "onnxruntime", "encoder": encoder})
        forms["rlmin"] = _bound(policy)
        for B in QUICK if options.quick else BATCHES:
            cases = {form: acting(act, B) for form, act in forms.items()}
            timing = options.measure(f"{encoder}, B={B}", cases, rounds=31, seconds=4)
            for form in cases:
                seconds = timing.median(form)
                table.add(
                    {"form": form, "encoder": encoder, "B": B, "us a step": 1e6 * seconds, "rounds": timing.rounds}
                )
    for row in table.where(form="numpy", B=1):
        table.targets.append(Target(f"{row['encoder']} in numpy at B=1, us a step", number(row["us a step"]), MOST))
    return table


def _bound(policy: Policy) -> Any:
    return lambda *given, **more: predict(policy, *given, **more)


def acting(act: Any, B: int) -> Case:
    """One call of `predict` with the state that the last one returned."""
    observation, start = np.random.default_rng(0).normal(size=(B, 8)).astype(np.float32), np.zeros(B, np.bool_)
    state: Any = None

    def step() -> None:
        nonlocal state
        _, state = act(observation, state, start, deterministic=True)

    return step


def draw(table: Table, figure: "Figure") -> None:
    """Microseconds a step over B, a line a form."""
    encoders = table.each("encoder")
    for axes, encoder in zip(np.ravel(figure.subplots(1, len(encoders), sharey=True)), encoders, strict=True):
        for form in table.each("form"):
            rows = table.where(encoder=encoder, form=form)
            axes.plot([number(r["B"]) for r in rows], [number(r["us a step"]) for r in rows], marker=".", label=form)
        plain_log(axes, x=True, y=True)
        axes.set_title(f"{encoder}, us a step", fontsize=10)
        axes.set_xlabel("environments, B")
        limit(axes, MOST, f"target at B=1: {MOST:g}")
    figure.axes[0].legend(fontsize=8)
