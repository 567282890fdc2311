"""Stages D1, D3 and D4: environment steps a second of PPO, compiled, and beside sb3-contrib's RecurrentPPO."""

from typing import Any

import torch
from iteration import is_graph, iterate, make_maze
from record import DEVICE, DRY, add, attempt, fail, measure, set_precision

MODES: dict[str, dict[str, Any]] = {
    "graph": {},
    "graph tf32": {"tf32": True},
    "graph autocast": {"autocast": True},
    "loop": {"cuda_graph": False},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "epochs 1": {"epochs": 1},
    "no conv": {"conv": 0},
    "1 layer": {"layers": 1},
    "gru": {"encoder": "gru"},
}


def measure_ppo() -> None:
    """PPO from 1,024 to 16,384 environments, in every mode; what its parts cost."""
    sweep = [(n, name) for n in (4096, 16384, 1024) for name in MODES if name != "loop" or n <= 4096]
    for num_envs, name in sweep[-2:] if DRY else sweep:
        attempt(f"PPO {num_envs} {name}", _measure, num_envs, name, MODES[name])
    for name, settings in list(VARIANTS.items())[: 1 if DRY else None]:
        attempt(f"PPO 4096 {name}", _measure, 4096, f"graph tf32, {name}", {"tf32": True, **settings})


def measure_compiled() -> None:
    """PPO through torch.compile."""
    for name, settings in {"tf32": {"tf32": True}, "tf32 autocast": {"tf32": True, "autocast": True}}.items():
        attempt(f"PPO compiled {name}", _measure, 4096, f"compiled {name}", {"compile": True, **settings})


def measure_peer() -> None:
    """PPO beside sb3-contrib's RecurrentPPO on this device, with as many environments, in its own words."""
    attempt("RecurrentPPO", _measure_peer)


def _measure(num_envs: int, name: str, settings: dict[str, Any]) -> float:
    settings = dict(settings)
    set_precision(tf32=settings.pop("tf32", False))
    try:
        agent = make_maze(num_envs, **settings)
        agent.warm_up()
        iterate(agent, 2)  # the loop, then the recording
        collect, update = iterate(agent, 1 if DRY else 3)
        speed = agent.config.num_envs * agent.config.horizon / (collect + update)
        label = f"PPO {num_envs} envs {name}"
        add(label, speed, "steps/s", f"rollout {1e3 * collect:.1f} ms, update {1e3 * update:.1f} ms")
        if DEVICE == "cuda":
            if agent.collector.graph is not None and not is_graph(agent):
                fail(label, "no graph")
            add(f"{label}, most memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")
            del agent
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return speed
    finally:
        set_precision(tf32=False)


def _measure_peer() -> None:
    from rlmin.bench.sb3 import make_recurrent_ppo

    num_envs, horizon, width = (4, 8, 8) if DRY else (1024, 128, 128)
    sizes: dict[str, Any] = {"num_envs": num_envs, "horizon": horizon, "batch": num_envs * horizon // 4, "width": width}
    kind: dict[str, Any] = {"policy": "MlpLstmPolicy", "shared_lstm": False, "enable_critic_lstm": True}
    peer = make_recurrent_ppo("rlmin/TMaze-v0", {"length": 50}, epochs=1 if DRY else 4, device=DEVICE, **sizes, **kind)
    steps = num_envs * horizon
    took = min(measure(peer.learn, steps, reset_num_timesteps=False)[0] for _ in range(2))
    add(f"RecurrentPPO {num_envs} envs", steps / took, "steps/s", "its LSTM, games on the CPU as it needs them")
    ours = _measure(num_envs, "graph tf32, beside RecurrentPPO", {"tf32": True})
    add("PPO over RecurrentPPO", ours * took / steps, "times")
