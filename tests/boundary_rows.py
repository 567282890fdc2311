"""One row for every documented function and class: a call that works, to break one argument of at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

import rlmin
from rlmin import PPO, DecisionAgent, Policy, PolicyConfig, data, wrappers
from rlmin import encoders as cells
from rlmin.commands.film import film
from rlmin.commands.train import resume, train
from rlmin.data import Episode, load_dataset
from rlmin.evaluation.evaluate import evaluate, evaluate_random
from rlmin.evaluation.targets import evaluate_targets
from rlmin.export.numpy_export import export_numpy
from rlmin.export.onnx import export_onnx
from rlmin.export.torch_export import export_torch
from rlmin.interop.model_card import write_card
from rlmin.learning import losses
from rlmin.learning.real_time import add_gradient
from rlmin.learning.returns import discounted_return, gae, return_to_go
from rlmin.policy.actor import Actor
from rlmin.policy.predict import predict
from rlmin.scan import linear_scan, min_gru_scan, min_lstm_scan, outer_scan, rotating_scan, warm_up
from rlmin.vector import adapt
from rlmin.vector.arena import Arena
from rlmin.wrappers import vector as vector_wrappers

T, B, D = 4, 3, 8
COLUMNS = {
    "observations": np.zeros((T, 2)),
    "actions": np.zeros((T, 1)),
    "rewards": np.ones(T),
    "terminals": [0, 0, 0, 1],
}
MAZE = "rlmin/TMaze-v0"


@dataclass(frozen=True)
class Row:
    """A call that works.

    Attributes:
        call: function, class or bound method.
        valid: its arguments, by name.
        wrong: values to try for arguments whose type says nothing (`Any`), or beside those that follow from the type.
        fine: arguments that may be anything.
        called: other words by which a message names an argument.
        runs: whether the valid call itself is made (it may train, write or need a network).
    """

    call: Callable[..., Any]
    valid: dict[str, Any]
    wrong: dict[str, list[Any]] = field(default_factory=dict)
    fine: tuple[str, ...] = ()
    called: dict[str, str] = field(default_factory=dict)
    runs: bool = True


def x(*size: int) -> Tensor:
    return torch.zeros(size)


def no(*size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.bool)


def _summed(_: int, y: Tensor) -> Tensor:
    return y.sum()


def agent() -> PPO:
    return PPO(MAZE, num_envs=B, horizon=T, width=D)


def policy(space: gym.Space[Any] | None = None) -> Policy:
    return Policy(space or Box(-1, 1, (2,)), Discrete(4), PolicyConfig(width=D))


def episodes() -> list[Episode]:
    return [Episode(np.zeros((9, 2)), np.zeros(8, np.int64), np.zeros(8), terminated=True) for _ in range(4)]


def single() -> gym.Env[Any, Any]:
    return gym.make("CartPole-v1")


def many() -> Any:
    return rlmin.make_vec("CartPole-v1", 2)


NO_ENV: list[Any] = [3, None, [], object(), "no-such-env"]
NO_DATA: list[Any] = [3, None, [], object(), "no-such-data"]
NO_STATE: list[Any] = [3, "a", x(B, D + 1), (x(B, D),), x(B + 1, D)]
NO_LEAVES: list[Any] = [3, None, "a", {}, x(B, 2)]
SEEN = {"observation": [3, "a", None, object(), [], {}, np.zeros(3), np.full((B, 2), np.nan)]}
ENCODER: dict[str, Any] = {"input_size": D, "hidden_size": D}
FORWARD: dict[str, Any] = {"x": x(T, B, D), "start": no(T, B)}


def encoder(kind: Any, **options: Any) -> dict[str, Row]:
    """The rows of an encoder: how it is made and how it runs."""
    made = kind(D, D, **options)
    has_memory = kind is not cells.MLP
    wrong = {"state": NO_STATE if has_memory else [], "start": [x(T, B), no(B, T)]}
    wrong["x"] = [x(T, B, D).long(), np.zeros((T, B, D), np.float32)]
    beside = {"x": "x|start|state", "start": "start"}  # of two that differ either may be the wrong one
    fine = () if has_memory else ("state",)
    row = Row(made, FORWARD | {"state": made.initial_state(B)}, wrong, fine=fine, called=beside)
    counts: dict[str, list[Any]] = {"B": [-1, "a", None, 1.5]} if has_memory else {}
    initial = Row(made.initial_state, {"B": B}, counts, fine=() if has_memory else ("B",))
    return {
        f"rlmin.encoders.{kind.__name__}": Row(kind, ENCODER | options),
        f"rlmin.encoders.{kind.__name__}.forward": row,
        f"rlmin.encoders.{kind.__name__}.initial_state": initial,
    }


WRONG_OF_WRAPPERS: dict[str, dict[str, list[Any]]] = {
    "HiddenVelocity": {"shown": [3, "a", (), (9,), (-1,), (0.5,)]},
    "ReturnToGo": {"target": ["a", None, float("nan"), [float("inf")], object(), [1.0, 2.0, 3.0], [[1.0]]]},
}


def wrapper(name: str, **options: Any) -> dict[str, Row]:
    """The rows of a wrapper, for one environment and for many."""
    wrong = {"env": NO_ENV, **WRONG_OF_WRAPPERS.get(name, {})}
    return {
        f"rlmin.wrappers.{name}": Row(getattr(wrappers, name), {"env": single(), **options}, wrong),
        f"rlmin.wrappers.vector.{name}": Row(getattr(vector_wrappers, name), {"env": many(), **options}, wrong),
    }


def rows() -> dict[str, Row]:
    """Every row, by the name in the documentation."""
    one, head, vector = agent(), policy(), adapt(MAZE, num_envs=B)
    seen = {"observation": np.zeros((B, 2), np.float32)}
    scan = {"state": x(B, D), "start": no(T, B)}
    sums = {"reward": x(T, B), "start": no(T, B)}
    found: dict[str, Row] = {
        "rlmin.PPO": Row(
            PPO, {"env": MAZE, "seed": 0, "device": "cpu", "env_kwargs": {}, "workers": 0}, {"env": NO_ENV}
        ),
        "rlmin.PPO.learn": Row(
            one.learn,
            {
                "total_timesteps": T * B,
                "callback": None,
                "progress_bar": False,
                "reset_num_timesteps": True,
                "log_interval": 1,
            },
            {"callback": [3, "a", object()], "total_timesteps": [-5, 1.5]},
            runs=False,
        ),
        "rlmin.PPO.predict": Row(
            one.predict,
            {**seen, "deterministic": True},
            SEEN | {"state": [3, "a", x(B, D)], "episode_start": ["a", [True], object()], "action_mask": ["a", [True]]},
        ),
        "rlmin.PPO.save": Row(one.save, {"folder": "x"}, runs=False),
        "rlmin.PPO.resume": Row(one.resume, {"folder": "x"}, {"folder": ["no-such-run"]}, runs=False),
        "rlmin.PPO.set_env": Row(one.set_env, {"env": MAZE}, {"env": NO_ENV}, runs=False),
        "rlmin.PPO.set_logger": Row(one.set_logger, {"logger": None}, {"logger": [3, "a", None]}, runs=False),
        "rlmin.DecisionAgent": Row(
            DecisionAgent,
            {"dataset": episodes(), "seed": 0, "device": "cpu"},
            {"dataset": NO_DATA, "env": [3, [], "no-such-env"]},
        ),
        "rlmin.DecisionAgent.learn": Row(
            DecisionAgent(episodes(), width=D, rows=2, horizon=4).learn,
            {"total_timesteps": 8, "callback": None, "progress_bar": False, "log_interval": 1},
            {"callback": [3, "a", object()], "total_timesteps": [-5, 1.5]},
            runs=False,
        ),
        "rlmin.load": Row(rlmin.load, {"folder": "x", "device": "cpu"}, {"folder": ["no-such-run"]}, runs=False),
        "rlmin.make_vec": Row(
            rlmin.make_vec,
            {"id": MAZE, "num_envs": 2, "seed": 0, "device": "cpu", "workers": 0},
            {"id": NO_ENV},
            called={"id": "environment|id"},
        ),
        "rlmin.verify_consistency": Row(
            rlmin.verify_consistency,
            {"agent": one, "env": MAZE, "tolerance": 1e-4, "steps": 8},
            {"agent": [3, object()], "env": [3, "no-such-env"]},
        ),
        "rlmin.Policy": Row(
            Policy,
            {"observation_space": Box(-1, 1, (2,)), "action_space": Discrete(2), "config": PolicyConfig(width=D)},
        ),
        "rlmin.Policy.initial_state": Row(head.initial_state, {"rows": 2}),
        "rlmin.Policy.unroll": Row(
            head.unroll,
            {"observation": {"observation": x(T, B, 2)}, "state": head.initial_state(B), "start": no(T, B)},
            {"observation": NO_LEAVES, "state": NO_STATE},
            called={"start": "start|observation"},
        ),
        "rlmin.policy.predict.predict": Row(predict, {"policy": head, **seen, "deterministic": True}, SEEN),
        "rlmin.learning.returns.gae": Row(
            gae,
            {
                "reward": x(T, B),
                "value": x(T, B),
                "next_value": x(T, B),
                "terminated": no(T, B),
                "truncated": no(T, B),
                "gamma": 0.9,
                "lam": 0.9,
            },
            {"terminated": [x(T, B)], "truncated": [x(T, B)]},
            called={"reward": "reward|value"},
        ),
        "rlmin.learning.returns.discounted_return": Row(
            discounted_return,
            {**sums, "carry": x(B), "gamma": 0.9},
            {"start": [x(T, B)]},
            called={"carry": "carry|state", "reward": "reward|start"},
        ),
        "rlmin.learning.returns.return_to_go": Row(
            return_to_go, {**sums, "gamma": 0.9}, {"start": [x(T, B)]}, called={"reward": "reward|start"}
        ),
        "rlmin.scan.linear_scan": Row(
            linear_scan, {"decay": x(T, B, D), "value": x(T, B, D), **scan, "reverse": False}
        ),
        "rlmin.scan.min_gru_scan": Row(
            min_gru_scan,
            {"gate": x(T, B, D), "candidate": x(T, B, D), **scan, "activation": "tanh"},
            {"activation": ["no", None, 3]},
        ),
        "rlmin.scan.min_lstm_scan": Row(
            min_lstm_scan,
            {"forget": x(T, B, D), "input": x(T, B, D), "candidate": x(T, B, D), **scan, "activation": "tanh"},
            {"activation": ["no", None, 3]},
        ),
        "rlmin.scan.rotating_scan": Row(
            rotating_scan,
            {"decay": x(T, B, D), "phase": x(T, B, D), "value": x(T, B, D, 2), "state": x(B, D, 2), "start": no(T, B)},
            called={"value": "value|decay|state"},
            fine=("decay", "phase"),  # of any shape that broadcasts; test_rotating_scan.py has those that do not
        ),
        "rlmin.scan.outer_scan": Row(
            outer_scan,
            {
                **{name: x(T, B, 2, D) for name in ("query", "key", "value")},
                "log_decay": -x(T, B, 2).abs(),
                "state": x(B, 2, D, D),
                "start": no(T, B),
                "write": x(T, B, 2),
                "remove": None,
                "exclusive": False,
            },
            {"remove": [3, x(T, B, 2, D), (x(T, B, 2, D),)]},
            fine=("log_decay",),  # of any shape that broadcasts; test_outer_scan.py has those that do not
            called={"query": "query|log_decay|key", "value": "value|state"},
        ),
        "rlmin.scan.warm_up": Row(
            warm_up, {"device": "cpu", "shape": (1, 1, 1)}, {"shape": [3, (1, 1), (-1, 1, 1), ("a", 1, 1)]}, runs=False
        ),
        "rlmin.learning.real_time.add_gradient": Row(
            add_gradient,
            {"mixer": cells.MinGRU(D, D), "x": x(T, B, D), "state": x(B, D), "start": no(T, B), "loss": _summed},
            {
                "x": [3, "a", None, x(T, B, D + 1), x(T, B + 1, D), x(T + 1, B, D)],
                "start": [3, "a", None, x(T, B), no(T, B + 1)],
                "state": NO_STATE,
                "loss": [3, "a", None],
            },
            called={"x": "x|start", "state": "state|x"},  # of two that differ either may be the wrong one
        ),
        "rlmin.learning.losses.weighted_mean": Row(losses.weighted_mean, {"x": x(T, B), "weight": x(T, B) + 1}),
        "rlmin.learning.losses.clipped_surrogate": Row(
            losses.clipped_surrogate,
            {"log_prob": x(T, B), "old_log_prob": x(T, B), "advantage": x(T, B), "weight": x(T, B) + 1, "clip": 0.2},
        ),
        "rlmin.learning.losses.value_loss": Row(
            losses.value_loss,
            {"value": x(T, B), "target": x(T, B), "weight": x(T, B) + 1, "old_value": x(T, B), "clip": 0.2},
        ),
        "rlmin.learning.losses.ratio_penalty": Row(
            losses.ratio_penalty, {"log_prob": x(T, B), "old_log_prob": x(T, B), "weight": None, "clip": 0.2}
        ),
        "rlmin.learning.losses.step_kl": Row(
            losses.step_kl, {"log_prob": x(T, B), "old_log_prob": x(T, B), "weight": None}
        ),
        "rlmin.learning.losses.approximate_kl": Row(
            losses.approximate_kl, {"log_prob": x(T, B), "old_log_prob": x(T, B), "weight": x(T, B) + 1}
        ),
        "rlmin.learning.losses.explained_variance": Row(
            losses.explained_variance, {"value": x(T, B), "target": x(T, B), "weight": x(T, B) + 1}
        ),
        "rlmin.vector.adapt": Row(
            adapt,
            {"env": MAZE, "num_envs": 2, "device": "cpu", "seed": 0, "workers": 0, "env_kwargs": {}},
            {"env": NO_ENV},
        ),
        "rlmin.evaluation.evaluate.evaluate": Row(
            evaluate,
            {
                "policy": one.policy,
                "vector": vector,
                "episodes": 2,
                "deterministic": True,
                "seed": 0,
                "max_steps": 1000,
            },
        ),
        "rlmin.evaluation.evaluate.evaluate_random": Row(
            evaluate_random, {"vector": vector, "episodes": 2, "seed": 0, "max_steps": 10_000}
        ),
        "rlmin.evaluation.targets.evaluate_targets": Row(
            evaluate_targets,
            {
                "policy": one.policy,
                "make_vector": None,
                "targets": [1.0],
                "episodes": 2,
                "num_envs": 2,
                "deterministic": True,
                "seed": 0,
                "return_scale": 1.0,
                "max_steps": 9,
            },
            {"targets": [3, [], ["a"], [float("nan")], None]},
            fine=("make_vector",),
            runs=False,
        ),
        "rlmin.policy.actor.Actor": Row(
            Actor,
            {"policy": head, "deterministic": True, "return_scale": 1.0, "seed": 0},
            {"target_return": [1.0, "a"]},
        ),
        "rlmin.commands.film.film": Row(
            film,
            {
                "agent": one,
                "arena": Arena(id=MAZE, kwargs={}),
                "target": "x.mp4",
                "episodes": 1,
                "deterministic": True,
                "seed": 0,
                "target_return": None,
                "max_steps": 9,
            },
            {"arena": [3, None]},
            runs=False,
        ),
        "rlmin.commands.train.train": Row(
            train, {"config": None, "name": "x", "progress_bar": False}, {"config": [3, None, "a"]}, runs=False
        ),
        "rlmin.commands.train.resume": Row(
            resume,
            {"folder": "x", "total_timesteps": None, "device": None, "progress_bar": False},
            {"folder": ["no-such-run"]},
            runs=False,
        ),
        "rlmin.data.load_dataset": Row(
            load_dataset,
            {"source": episodes()},
            {"source": NO_DATA, "env": [3, [], "no-such-env"]},
            called={"source": "dataset"},
        ),
        "rlmin.data.episodes_from_buffer": Row(data.episodes_from_buffer, {"buffer": []}, {"buffer": [3]}, runs=False),
        "rlmin.data.episodes_from_trajectories": Row(
            data.episodes_from_trajectories,
            {"trajectories": [COLUMNS]},
            {"trajectories": [[3], [{}]]},
            called={"trajectories": "trajector(ies|y 0)"},
        ),
        "rlmin.data.episodes_from_columns": Row(data.episodes_from_columns, {"columns": COLUMNS}, {"columns": [{}]}),
        "rlmin.data.episodes_from_npz": Row(
            data.episodes_from_npz, {"path": "x.npz"}, {"path": ["no-such-file.npz"]}, runs=False
        ),
        "rlmin.data.episodes_from_table": Row(
            data.episodes_from_table, {"table": "x.csv"}, {"table": [3, "no-such-file.csv"]}, runs=False
        ),
        "rlmin.interop.model_card.write_card": Row(
            write_card, {"folder": "x", "episodes": 2}, {"folder": ["no-such-run"]}, runs=False
        ),
        "rlmin.export.onnx.export_onnx": Row(export_onnx, {"policy": head, "file": "x.onnx"}, runs=False),
        "rlmin.export.torch_export.export_torch": Row(export_torch, {"policy": head, "file": "x.pt2"}, runs=False),
        "rlmin.export.numpy_export.export_numpy": Row(export_numpy, {"policy": head, "file": "x.npz"}, runs=False),
    }
    for cell in cells.CELLS.values():
        found |= encoder(cell.cls)
    found |= encoder(cells.Stack, mixer="min_gru", layers=2, conv=4, mlp=2, norm="layer", dropout=0.0)
    conv = cells.CausalConv(D)
    found["rlmin.encoders.CausalConv"] = Row(cells.CausalConv, {"size": D, "width": 4})
    found["rlmin.encoders.CausalConv.forward"] = Row(
        conv, FORWARD | {"state": conv.initial_state(B)}, {"state": NO_STATE}, called={"x": "x|start"}
    )
    found |= wrapper("DelayedReward", every=2)
    found |= wrapper("FrameFlicker", probability=0.5)
    found |= wrapper("HiddenVelocity", shown=(0, 2))
    found |= wrapper("ObservationNoise", sigma=0.1)
    found |= wrapper("PreviousAction") | wrapper("PreviousReward")
    found |= wrapper("ReturnToGo", target=1.0, scale=1.0)
    found |= wrapper("StickyAction", probability=0.1) | wrapper("TimeStep", limit=3)
    return found
