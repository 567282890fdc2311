"""Stable-baselines3's names: what each argument of its PPO and RecurrentPPO is called here.

`rlmin.settings.sb3_convert` turns them into settings; where there is no equivalent, the answer names what to write.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from rlmin.checks import check_names


class Here(NamedTuple):
    """What stands for a name of stable-baselines3."""

    setting: str | None  # Setting of the same meaning; None: there is none
    note: str = ""  # What else there is to know, as a clause


SPACES = "the spaces of the environment choose how observations are read; see `pictures`, `symbols` and `numbers`"

SB3_NAMES: dict[str, Here] = {
    "policy": Here("encoder", "MlpLstmPolicy is `lstm`, MinGruPolicy `min_gru`, MlpPolicy `mlp`, which has no memory"),
    "policy_kwargs": Here(None, "its entries are settings of their own: `width`, `layers`, `encoder`, ..."),
    "learning_rate": Here(
        "lr", "a number is constant (`lr_final` None), a linear schedule goes from `lr` to `lr_final`"
    ),
    "lr_schedule": Here("lr", "as `learning_rate`"),
    "n_envs": Here("num_envs"),
    "n_steps": Here("horizon"),
    "batch_size": Here("minibatches", "it is num_envs * horizon / batch_size; a batch below `horizon` sets `bptt` too"),
    "n_epochs": Here("epochs"),
    "gae_lambda": Here("lam"),
    "clip_range": Here("clip", "a linear schedule goes from `clip` to `clip_final`"),
    "clip_range_vf": Here("value_clip", "the larger of both errors counts; values keep their unit (`normalize_value`)"),
    "ent_coef": Here("entropy", "it is constant (`entropy_final` None)"),
    "vf_coef": Here("value_weight", "it is twice the number, since the loss here is half the squared error"),
    "lstm_hidden_size": Here("width"),
    "n_lstm_layers": Here("layers"),
    "net_arch": Here("width", "`layers` and `mlp` belong to it; an empty one, heads without layers, is what there is"),
    "shared_lstm": Here("share_memory"),
    "enable_critic_lstm": Here("share_memory", "True gives the critic a memory of its own; no critic is without one"),
    "log_std_init": Here("log_std", "in the unit in which the bounds of a Box, [low, high], are [-1, 1]"),
    "squash_output": Here("squash", "the tanh of every Gaussian, with or without gSDE"),
    "optimizer_class": Here(None, "the optimizer is Adam"),
    "optimizer_kwargs": Here("beta2", "the optimizer is Adam with eps=1e-5 and betas=(0.9, beta2)"),
    "features_extractor_class": Here(None, SPACES),
    "features_extractor_kwargs": Here(None, SPACES),
    "share_features_extractor": Here("share_memory", "inputs and memory are shared together"),
    "normalize_images": Here(None, "pictures of bytes are always divided by 255"),
    "activation_fn": Here(None, "the MLP's activation is SiLU"),
    "ortho_init": Here(None, "layers are always initialised so"),
    "lstm_kwargs": Here(None, "options of an encoder are settings of their own; `rlmin list encoders` shows them"),
    "tensorboard_log": Here(None, "an argument of PPO(...); `rlmin train` writes events into every run folder"),
    "verbose": Here(None, "an argument of PPO(...); `rlmin train` shows progress"),
    "stats_window_size": Here(None, "means are over the last 100 episodes"),
    "use_sde": Here(None, "noise is drawn anew at every step"),
    "sde_sample_freq": Here(None, "noise is drawn anew at every step"),
    "use_expln": Here(None, "there is no state-dependent exploration"),
    "full_std": Here(None, "there is no state-dependent exploration"),
    "rollout_buffer_class": Here(None, "a rollout is one TensorDict [T, B]"),
    "rollout_buffer_kwargs": Here(None, "a rollout is one TensorDict [T, B]"),
    "monitor_wrapper": Here(None, "returns and lengths of episodes are always counted"),
}
"""Arguments of the algorithms and, from `policy_kwargs`, of their policies."""

OTHER_NAMES = {
    "hidden_size": "width",
    "hidden_dim": "width",
    "num_layers": "layers",
    "memory": "encoder",
    "num_steps": "horizon",
    "num_minibatches": "minibatches",
    "update_epochs": "epochs",
    "clip_coef": "clip",
    "clip_eps": "clip",
    "entropy_coef": "entropy",
    "value_coef": "value_weight",
    "discount": "gamma",
    "seq_len": "horizon",
    "anneal_lr": "lr_final",
    "norm_adv": "normalize_advantage",
    "n_timesteps": "total_timesteps",
    "timesteps": "total_timesteps",
    "num_timesteps": "total_timesteps",
}
"""Names of CleanRL, rl_zoo3, d3rlpy and others -> the setting here; they are explained, but not accepted."""

NO_SETTINGS = {
    "total_timesteps": "`agent.learn(total_timesteps)` takes it",
    "render_mode": "it is an argument of the environment, in `env_kwargs`",
    "cuda": "`device` says where an agent learns",
    "frame_stack": "the memory reads an observation a step; stack them by a wrapper of the environment",
    "normalize": "`normalize_observation` and `normalize_return` are two settings",
    "vec_env_class": "`workers` runs the environments in processes of their own",
    "torch_deterministic": "equal seeds give equal runs on a CPU",
}
"""Arguments of other libraries that are no setting -> what to write."""

FIRST_WORDS = {
    "preset": "train tmaze",
    "config": "train mine.yaml",
    "model": "evaluate runs/tmaze-0",
    "run": "evaluate runs/tmaze-0",
    "checkpoint": "evaluate runs/tmaze-0",
}
"""What is an option elsewhere, and a word without one here."""


def answer(name: str, known: Collection[str]) -> str | None:
    """What to write instead of another library's `name`; None for a name that is not known.

    Args:
        name: given, with underscores.
        known: settings there are.
    """
    if name in FIRST_WORDS:
        return f"it is the first word, as in `rlmin {FIRST_WORDS[name]}`"
    if name in NO_SETTINGS and name not in known:
        return NO_SETTINGS[name]
    here = SB3_NAMES.get(name, Here(OTHER_NAMES[name]) if name in OTHER_NAMES else None)
    if here is None or (here.setting is not None and here.setting not in known):
        return None
    clause = f"; {here.note}" if here.note else ""
    if here.setting is not None:
        return f"`{name}` is `{here.setting}` here{clause}"
    return f"`{name}` has no setting here{clause}"


def check_settings(given: Iterable[str], known: Collection[str]) -> None:
    """Raise a ValueError for the first of `given` that is no setting; stable-baselines3's names are answered."""
    for name in given:
        if name not in known and (hint := answer(name, known)) is not None:
            raise ValueError(f"no setting {name!r}: {hint}")
        check_names("setting", [name], known)
