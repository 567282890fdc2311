"""Stable-baselines3's form of the constructor: PPO("MlpLstmPolicy", env, n_steps=128, policy_kwargs=...)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rlmin.agents.env_spec import describe_env
from rlmin.agents.ppo_config import PPOConfig
from rlmin.settings import check_setting, field_types
from rlmin.settings.fields import Size
from rlmin.settings.sb3_convert import Schedule, encoder_of, from_sb3


class Made(NamedTuple):
    """What an agent is made of."""

    env: Any
    env_spec: dict[str, Any]
    env_kwargs: dict[str, Any] | None  # None: they are in `env` already
    config: PPOConfig
    schedules: dict[str, Schedule]
    num_envs: int | None  # Environments asked for; None: as many as `env` has


def read_form(
    kind: str,
    args: tuple[Any, ...],
    *,
    env: Any,
    policy: Any,
    config: PPOConfig,
    settings: Mapping[str, Any],
    env_kwargs: dict[str, Any] | None,
    workers: int,
) -> Made:
    """What the arguments of an agent's class say, in rlmin's form or in stable-baselines3's.

    With a policy in front, the environment is what stable-baselines3 makes of it: a VecEnv, of one environment if there
    is no `num_envs`, each in a Monitor.

    Args:
        kind: name of the class, for messages.
        args: by position: the environment, or a policy and the environment.
        env, policy, config, settings, env_kwargs, workers: as for the class.

    Raises:
        TypeError: something else by position, or no environment.
        ValueError: a setting that does not exist, or an argument of stable-baselines3's without an equivalent.
    """
    policy, env = policy_and_env(kind, args, policy=policy, env=env)
    spec = describe_env(env, env_kwargs, workers)
    given = dict(settings)
    if policy is not None:
        given = {"encoder": encoder_of(policy), **given}
        if workers:
            raise ValueError(f"workers={workers}: with a policy's name, give a SubprocVecEnv; or leave the name out")
        env, env_kwargs = _vec_env(env, given, env_kwargs), None
    rows = config.num_envs if isinstance(env, str) else getattr(env, "num_envs", 1)
    space = None if isinstance(env, str) else getattr(env, "single_action_space", getattr(env, "action_space", None))
    sizes = {"num_envs": rows, "horizon": config.horizon}
    plain, schedules = from_sb3(given, list_settings(config), **sizes, action_space=space)
    config = config.with_settings(plain)
    asked = config.num_envs if isinstance(env, str) else plain.get("num_envs")
    return Made(env, spec, env_kwargs, config, schedules, asked)


def list_settings(config: PPOConfig) -> set[str]:
    """Every name that is a setting, or an option of the encoder."""
    kind: Any = type(config)
    return {*field_types(kind), *config.cell.option_names}


def policy_and_env(kind: str, args: tuple[Any, ...], *, policy: Any, env: Any) -> tuple[Any, Any]:
    """The policy, None in rlmin's form, and the environment; see `read_form`."""
    rest = list(args)
    if rest and policy is None and _is_policy(rest[0], env=rest[1] if len(rest) > 1 else env):
        policy = rest.pop(0)
    if rest and env is None:
        env = rest.pop(0)
    if rest:
        raise TypeError(f"{kind}: expected settings as keywords, as in {kind}(env, lr=1e-3), got {rest[0]!r:.60}")
    if env is None:
        raise TypeError(f"{kind}: env is missing; expected an id or an environment, as in {kind}('CartPole-v1')")
    return policy, env


def _is_policy(x: Any, *, env: Any) -> bool:
    """Whether what comes first is a policy; a word in front of an environment is one too."""
    if isinstance(x, str):
        return x.endswith("Policy") or isinstance(env, str) or hasattr(env, "reset")
    return isinstance(x, type) and hasattr(x, "forward")


def _vec_env(env: Any, given: Mapping[str, Any], env_kwargs: dict[str, Any] | None) -> Any:
    """What stable-baselines3 makes of an environment or its id; a vector environment stays as it is."""
    if hasattr(env, "num_envs"):
        return env
    from rlmin.vector.sb3 import as_vec_env  # needs stable-baselines3, slow to load

    rows = check_setting("num_envs", given.get("num_envs", given.get("n_envs", 1)), Size)
    if not isinstance(env, str) and rows > 1:
        raise ValueError(f"num_envs={rows}: this environment is made already; give its id instead")
    return as_vec_env(env, rows, env_kwargs or {})


def convert_settings(
    given: Mapping[str, Any], config: PPOConfig, num_envs: int
) -> tuple[PPOConfig, dict[str, Schedule]]:
    """`config` with other settings, also by stable-baselines3's names, and the schedules that are no lines."""
    plain, schedules = from_sb3(given, list_settings(config), num_envs=num_envs, horizon=config.horizon)
    return config.with_settings(plain), schedules
