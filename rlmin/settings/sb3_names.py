"""Stable-baselines3's names: what each of PPO's and RecurrentPPO's arguments is called here."""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from rlmin.checks import check_names


class Here(NamedTuple):
    """What stands for a name of stable-baselines3."""

    setting: str | None  # of the same meaning; None: there is none
    note: str = ""  # what else there is to know, as a clause


SB3_NAMES: dict[str, Here] = {
    "policy": Here("encoder", "the policy is made of settings, such as `encoder` and `width`"),
    "policy_kwargs": Here(None, "its entries are settings of their own: `width`, `layers`, `encoder`, ..."),
    "learning_rate": Here("lr", "a schedule is linear, from `lr` to `lr_final`"),
    "lr_schedule": Here("lr_final", "a schedule is linear, from `lr` to `lr_final`"),
    "n_envs": Here("num_envs"),
    "n_steps": Here("horizon"),
    "batch_size": Here("minibatches", "it is a number: num_envs * horizon / batch_size"),
    "n_epochs": Here("epochs"),
    "gae_lambda": Here("lam"),
    "clip_range": Here("clip"),
    "clip_range_vf": Here("value_clip"),
    "ent_coef": Here("entropy"),
    "vf_coef": Here("value_weight"),
    "lstm_hidden_size": Here("width"),
    "n_lstm_layers": Here("layers"),
    "net_arch": Here("width", "`layers` and `mlp` belong to it"),
    "shared_lstm": Here("share_memory"),
    "enable_critic_lstm": Here("share_memory", "False gives the critic a memory of its own"),
    "log_std_init": Here("log_std"),
    "optimizer_class": Here(None, "the optimizer is Adam"),
    "optimizer_kwargs": Here("beta2", "the optimizer is Adam"),
    "features_extractor_class": Here(None, "the spaces of the environment choose how observations are read"),
    "features_extractor_kwargs": Here(None, "the spaces of the environment choose how observations are read"),
    "activation_fn": Here(None, "the MLP's activation is SiLU"),
    "ortho_init": Here(None, "layers are always initialised so"),
    "tensorboard_log": Here(None, "write `agent.set_logger(rlmin.runs.logs.make_logger(folder))`"),
    "verbose": Here(None, "write `agent.learn(steps, progress_bar=True)`"),
    "stats_window_size": Here(None),
    "use_sde": Here(None),
    "sde_sample_freq": Here(None),
    "rollout_buffer_class": Here(None),
    "rollout_buffer_kwargs": Here(None),
}


def answer(name: str, known: Collection[str]) -> str | None:
    """What a user of stable-baselines3's `name` should write; None where it is not one of its names.

    Args:
        name: given, with underscores.
        known: settings there are.
    """
    here = SB3_NAMES.get(name)
    if here is None or (here.setting is not None and here.setting not in known):
        return None
    clause = f"; {here.note}" if here.note else ""
    if here.setting is not None:
        return f"`{name}` is `{here.setting}` here{clause}"
    return f"`{name}` has no setting here{clause}"


def check_settings(given: Iterable[str], known: Collection[str]) -> None:
    """Raise a ValueError for the first of `given` that is no setting; stable-baselines3's names are answered."""
    for name in given:
        if name not in known and (said := answer(name, known)) is not None:
            raise ValueError(f"no setting {name!r}: {said}")
        check_names("setting", [name], known)


def check_positional(kind: str, first: Any, others: tuple[Any, ...]) -> None:
    """Raise a TypeError where more than the environment is given by position, as to stable-baselines3's algorithms.

    Args:
        kind: name of the agent's class.
        first: the argument that should be the environment.
        others: what follows it.
    """
    if not others:
        return
    if isinstance(first, str) and first.endswith("Policy"):
        memory = "mlp" if first == "MlpPolicy" else "min_gru"
        raise TypeError(
            f"{kind}({first!r}, env): the policy is made of settings here, not of a name; "
            f'write {kind}(env, encoder="{memory}", width=128)'
        )
    raise TypeError(f"{kind}: expected settings as keywords, as in {kind}(env, lr=1e-3), got {others[0]!r:.60}")
