"""Stable-baselines3's arguments as settings: exactly where there is an equivalent, an answer where there is none."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rlmin.settings.fields import Count, NonNegative, check_setting
from rlmin.settings.sb3_names import SB3_NAMES, answer

Schedule = Callable[[float], float]
"""A number as a function of the share of training that remains, from 1 to 0."""

SAME = (
    "n_envs",
    "n_steps",
    "n_epochs",
    "gae_lambda",
    "lstm_hidden_size",
    "n_lstm_layers",
    "shared_lstm",
    "squash_output",
)
"""Names whose value means the same here."""

ALWAYS: dict[str, tuple[Any, ...]] = {
    "net_arch": ([], {"pi": [], "vf": []}),
    "activation_fn": (),
    "features_extractor_class": (None,),
    "features_extractor_kwargs": (None, {}),
    "normalize_images": (True,),
    "ortho_init": (True,),
    "lstm_kwargs": (None, {}),
    "stats_window_size": (100,),
    "use_sde": (False,),
    "sde_sample_freq": (-1,),
    "use_expln": (False,),
    "full_std": (True,),
    "rollout_buffer_class": (None,),
    "rollout_buffer_kwargs": (None, {}),
    "monitor_wrapper": (True,),
}
"""Names that have no setting, and the values that say what rlmin does anyway."""

POINTS = np.append(np.linspace(1, 0, 65), [0.7071, 0.3183])
"""Points at which a schedule is compared with a straight line."""
SHORTEST = 8
"""Steps; a window of fewer would hardly train a memory."""


class Sizes(NamedTuple):
    """What a conversion depends on."""

    num_envs: int
    horizon: int
    action_space: gym.Space[Any] | None


class Converted(NamedTuple):
    """What stable-baselines3's arguments are here."""

    settings: dict[str, Any]
    schedules: dict[str, Schedule]  # Setting -> its schedule, if that is not linear


def from_sb3(
    given: Mapping[str, Any],
    known: Collection[str],
    *,
    num_envs: int,
    horizon: int,
    action_space: gym.Space[Any] | None = None,
) -> Converted:
    """The settings that these arguments give: names of stable-baselines3's are converted, unknown names stay.

    Args:
        given: arguments of stable-baselines3's PPO or RecurrentPPO, or settings; entries of `policy_kwargs` are taken
            for arguments of their own.
        known: settings there are.
        num_envs, horizon: B and T, where the arguments do not say.
        action_space: of the environment; None: not known.

    Raises:
        ValueError: an argument has no equivalent, or says something else than a setting beside it.
    """
    flat = {name: value for name, value in given.items() if name != "policy_kwargs"}
    flat |= check_setting("policy_kwargs", given.get("policy_kwargs") or {}, dict[str, Any])
    theirs = {name: value for name, value in flat.items() if name in SB3_NAMES and name not in known}
    settings = {name: value for name, value in flat.items() if name not in theirs}
    if not theirs:
        return Converted(settings, {})
    sizes = Sizes(
        _count({"num_envs": num_envs, **settings, **theirs}, "n_envs", "num_envs"),
        _count({"horizon": horizon, **settings, **theirs}, "n_steps", "horizon"),
        action_space,
    )
    schedules: dict[str, Schedule] = {}
    if theirs.get("shared_lstm") is True and theirs.get("enable_critic_lstm") is False:
        del theirs["enable_critic_lstm"]  # the critic reads the actor's memory
    for name, value in theirs.items():
        found = _convert(name, value, sizes, known)
        if callable(value) and name in SCHEDULED and not is_linear(value, name):
            schedules[SCHEDULED[name][0]] = value
        for setting, converted in found.items():
            if setting in settings and settings[setting] != converted:
                raise ValueError(
                    f"{name}={value!r:.40} is {setting}={converted!r:.40}, but {settings[setting]!r:.40} is given too"
                )
        settings |= found
    return Converted(settings, schedules)


def without_stand_ins(given: Mapping[str, Any]) -> dict[str, Any]:
    """`custom_objects` without those of 0: {"lr_schedule": lambda _: 0.0} replaces what Python cannot unpickle."""

    def is_zero(name: str, value: Any) -> bool:
        return name in SCHEDULED and (value(1.0) if callable(value) else value) == 0

    return {name: value for name, value in given.items() if not is_zero(name, value)}


def _convert(name: str, value: Any, sizes: Sizes, known: Collection[str]) -> dict[str, Any]:
    """The settings that one argument stands for."""
    setting = SB3_NAMES[name].setting
    if setting is not None and setting not in known:
        return {name: value}  # an algorithm without that setting refuses the name
    if name in SAME:
        return {str(setting): value}
    if name in SCHEDULED:
        return dict(zip(SCHEDULED[name], _ends(name, value), strict=True))
    if name in CONVERT:
        found = CONVERT[name](value, sizes)
        if found is not None:
            return found
    elif any(type(value) is type(same) and value == same for same in ALWAYS.get(name, ())):
        return {}
    raise ValueError(f"no setting {name!r} for {value!r:.60}: {answer(name, known)}")


def _count(given: Mapping[str, Any], theirs: str, ours: str) -> int:
    """A size, by the name under which it is given."""
    name = theirs if theirs in given else ours
    return int(check_setting(name, given[name], Count))


def _values(name: str, value: Schedule) -> list[float]:
    """What a schedule is at POINTS."""
    try:
        return [check_setting(name, value(float(x)), NonNegative) for x in POINTS]
    except (TypeError, ArithmeticError, KeyError, IndexError, AttributeError) as error:
        reason = f"expected a function of the share that remains, from 1 to 0, to a number: {error}"
        raise ValueError(f"{name}: {reason}") from error


def is_linear(value: Schedule, name: str = "schedule") -> bool:
    """Whether a schedule is a straight line, which a file can keep."""
    y = np.array(_values(name, value))
    return bool(np.allclose(y, y[64] + (y[0] - y[64]) * POINTS, rtol=0, atol=1e-6 * np.abs(y).max()))


def _ends(name: str, value: float | Schedule) -> tuple[Any, float | None]:
    """First value of a schedule, and the last; None where it is constant."""
    if not callable(value):
        return value, None
    y = _values(name, value)
    return y[0], None if len(set(y)) == 1 else y[64]


def _batch(value: Any, sizes: Sizes) -> dict[str, Any]:
    """Minibatches of whole environments, or of windows where a batch is less than one environment's rollout."""
    horizon, steps = sizes.horizon, sizes.horizon * sizes.num_envs
    batch = steps if value is None else min(int(check_setting("batch_size", value, Count)), steps)
    window = math.gcd(max(batch, 1), horizon)
    if batch < 1 or steps % batch or (window < min(batch, SHORTEST)):
        hint = "set `minibatches` and `bptt` instead"
        raise ValueError(
            f"batch_size={value}: expected a divisor of n_steps * n_envs = {steps}, and a multiple or a divisor of "
            f"n_steps = {horizon}; {hint}"
        )
    return {"minibatches": steps // batch} | ({"bptt": window} if window < horizon else {})


def _value_clip(value: Any, sizes: Sizes) -> dict[str, Any]:
    """None and, in the zoo's files, numbers below 0 are no limit."""
    first, last = _ends("clip_range_vf", value) if callable(value) else (value, None)
    if last is not None:
        raise ValueError("clip_range_vf: `value_clip` has no schedule here, expected a number")
    if first is None or first < 0:
        return {"value_clip": None}
    return {"value_clip": first, "normalize_value": False}


def _deviation(value: Any, sizes: Sizes) -> dict[str, Any] | None:
    """The log of the deviation in rlmin's unit; None where the axes of the Box have different ones."""
    space = sizes.action_space
    if space is None:
        return None
    if not isinstance(space, gym.spaces.Box):
        return {"log_std": value}
    half = np.where(space.bounded_below & space.bounded_above, (space.high - space.low) / 2, 1.0).astype(np.float64)
    value = check_setting("log_std_init", value, float)
    return {"log_std": value - math.log(half.flat[0])} if half.size and np.ptp(half) == 0 else None


def _optimizer(value: Any, sizes: Sizes) -> dict[str, Any] | None:
    given = check_setting("optimizer_kwargs", value or {}, dict[str, Any])
    first, second = check_setting("betas", given.pop("betas", (0.9, 0.999)), tuple[float, float])
    rest = {name: x for name, x in given.items() if (name, x) not in (("eps", 1e-5), ("weight_decay", 0))}
    return {"beta2": second} if first == 0.9 and not rest else None


CONVERT: dict[str, Callable[[Any, Sizes], dict[str, Any] | None]] = {
    "policy": lambda value, _: {"encoder": encoder_of(value)},
    "batch_size": _batch,
    "clip_range_vf": _value_clip,
    "ent_coef": lambda value, _: {"entropy": value, "entropy_final": None},
    "vf_coef": lambda value, _: {"value_weight": 2 * check_setting("vf_coef", value, NonNegative)},
    "enable_critic_lstm": lambda value, _: {"share_memory": False} if value is True else None,
    "share_features_extractor": lambda value, _: {} if value is True else None,
    "log_std_init": _deviation,
    "optimizer_class": lambda value, _: {} if getattr(value, "__name__", None) == "Adam" else None,
    "optimizer_kwargs": _optimizer,
}
"""What an argument stands for; None: it has no equivalent."""

SCHEDULED = {
    "learning_rate": ("lr", "lr_final"),
    "lr_schedule": ("lr", "lr_final"),
    "clip_range": ("clip", "clip_final"),
}
"""Arguments that may be schedules, and the settings of their first and last value."""

POLICIES = {
    **dict.fromkeys(("MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy"), "lstm"),
    **dict.fromkeys(("RecurrentActorCriticPolicy", "RecurrentActorCriticCnnPolicy"), "lstm"),
    "RecurrentMultiInputActorCriticPolicy": "lstm",
    **dict.fromkeys(("MlpPolicy", "CnnPolicy", "MultiInputPolicy"), "mlp"),
    **dict.fromkeys(("ActorCriticPolicy", "ActorCriticCnnPolicy", "MultiInputActorCriticPolicy"), "mlp"),
    "MinGruPolicy": "min_gru",
    "MinLstmPolicy": "min_lstm",
}
"""Policy or its class -> encoder."""


def encoder_of(policy: Any) -> str:
    """The encoder that a policy's name or class stands for; the name of an encoder is itself.

    Raises:
        ValueError: a policy of the user's own.
    """
    name = policy.__name__ if isinstance(policy, type) else policy
    if isinstance(name, str) and name in POLICIES:
        return POLICIES[name]
    if isinstance(policy, str) and not policy.endswith("Policy"):
        return policy
    known = ", ".join(name for name in POLICIES if name.endswith("Policy") and "ActorCritic" not in name)
    raise ValueError(
        f"policy {policy!r:.60}: expected one of {known}, or an encoder; a memory of your own is an encoder"
    )
