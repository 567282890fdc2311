"""rl_zoo3's scripts with rlmin's agents in them.

    python -m rlmin.interop.zoo train --algo rlmin_ppo --env CartPoleNoVel-v1
    python -m rlmin.interop.zoo enjoy --algo rlmin_ppo --env CartPoleNoVel-v1 --folder logs

Importing this module adds two names to `rl_zoo3.ALGOS`:

    rlmin_ppo      rlmin's own PPO, as the class `ZooPPO`
    ppo_min_gru    sb3-contrib's RecurrentPPO, for `rlmin.interop.sb3_recurrent`'s policies

Run as a command it is the zoo's own script, options and all. The names have to be there before the zoo reads its
arguments, which is why its `--gym-packages` cannot bring them; and `train` takes its hyperparameters from
rlmin/configs/zoo/ALGO.yml unless a `--conf-file` is given.
"""

import argparse
import io
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from zipfile import BadZipFile, ZipFile

import torch

from rlmin.agents.ppo import PPO
from rlmin.agents.schema import read_settings
from rlmin.checks import check_names, require
from rlmin.files.trust import mark_header
from rlmin.policy import PolicyConfig
from rlmin.runs.checkpoint import CONFIG, LEARNER, POLICY, read, write_atomic
from rlmin.settings.sb3_names import check_settings

NAMES = {
    "n_steps": "horizon",
    "n_epochs": "epochs",
    "gae_lambda": "lam",
    "ent_coef": "entropy",
    "vf_coef": "value_weight",
    "lstm_hidden_size": "width",
    "n_lstm_layers": "layers",
    "shared_lstm": "share_memory",
}
"""RecurrentPPO's hyperparameters that rlmin's PPO has under another name; `PPOConfig`'s own names are taken too."""
POLICIES = {"MinGruPolicy": "min_gru", "MinLstmPolicy": "min_lstm", "MlpPolicy": "mlp"}
"""Names of policies that are not the name of an encoder."""
NETWORK = {field.name for field in fields(PolicyConfig)} - {"dropout"}
"""Settings that the weights in a file were made with, so that none of them can be another when it is gone on with."""
SCRIPTS = ("train", "enjoy")
PACKAGE = Path(__file__).parent.parent
CONFIGS = PACKAGE / "configs" / "zoo"


class ZooPPO(PPO):
    """rlmin's PPO, made, saved and loaded as rl_zoo3 does it with stable-baselines3's algorithms.

    Args:
        policy: "MinGruPolicy", "MinLstmPolicy" or the name of an encoder.
        env: a stable-baselines3 VecEnv.
        tensorboard_log: folder of TensorBoard events, or None.
        seed: None draws one.
        verbose: 1 prints a table after each update.
        device: "auto" is "cuda" where there is one.
        hyperparameters: RecurrentPPO's names (see `NAMES`) or those of `PPOConfig`; also batch_size, learning_rate (a
            number or a linear schedule), clip_range (a number) and clip_range_vf (a number; None or below 0: no limit).
            `policy_kwargs` may hold some of them.

    Raises:
        ValueError: an unknown hyperparameter, or one that rlmin's PPO has no equivalent of.
    """

    env: Any = None
    tensorboard_log: str | None = None
    verbose: int = 0

    def __init__(
        self,
        policy: str,
        env: Any,
        *,
        tensorboard_log: str | None = None,
        seed: int | None = None,
        verbose: int = 0,
        device: torch.device | str = "auto",
        **hyperparameters: Any,
    ) -> None:
        hyperparameters |= {"encoder": POLICIES.get(policy, policy)}
        settings = as_settings(hyperparameters, num_envs=env.num_envs)
        super().__init__(env, seed=_seed(seed), device=_device(device), **settings)
        self.env, self.tensorboard_log, self.verbose = env, tensorboard_log, verbose

    def learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        *,
        log_interval: int | None = 1,
        tb_log_name: str = "rlmin_ppo",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """`PPO.learn`, with stable-baselines3's logger as its algorithms set it up; log_interval=None logs nothing."""
        from stable_baselines3.common.utils import configure_logger

        if self._logger is None:
            self.set_logger(configure_logger(self.verbose, self.tensorboard_log, tb_log_name, reset_num_timesteps))
        return super().learn(
            total_timesteps,
            callback,
            progress_bar=progress_bar,
            reset_num_timesteps=reset_num_timesteps,
            log_interval=log_interval or sys.maxsize,
        )

    def save(self, path: str | Path) -> None:
        """Write what `PPO.save` writes as one zip file at `path`, to which ".zip" is added; whole or not at all."""
        content = io.BytesIO()
        with TemporaryDirectory() as folder, ZipFile(content, "w") as archive:
            super().save(folder)
            for name in (CONFIG, POLICY, LEARNER):
                archive.write(Path(folder) / name, name)
        write_atomic(_zip(path), content.getvalue())

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | Path,
        env: Any = None,
        *,
        device: torch.device | str = "auto",
        custom_objects: object = None,
        seed: int | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        trust: bool = False,
        **hyperparameters: Any,
    ) -> Self:
        """The agent saved at `path`.

        Args:
            path: with or without ".zip".
            env: to go on training in, or None.
            device, seed, tensorboard_log, verbose: as for the class; the seed None is that of the file.
            custom_objects: not needed, as nothing in the file is code.
            trust: see `rlmin.load`.
            hyperparameters: to go on with, instead of those of the file; of `NETWORK` (width, layers, ...) the file's
                stay, as the zoo passes what its file says of a new agent.

        Raises:
            ValueError: no file of rlmin's is there, `env` has other spaces, or an unknown hyperparameter.
        """
        with TemporaryDirectory() as folder:
            _unpack(_zip(path), folder)
            header, tensors = read(Path(folder), LEARNER)
        mark_header(header, trust=trust, where=str(path))
        config = read_settings(cls, header, tensors)
        rows, fixed = config.num_envs if env is None else env.num_envs, NETWORK | set(config.cell.option_names)
        settings = as_settings(hyperparameters, num_envs=rows, horizon=config.horizon)
        check_settings(settings, {*(field.name for field in fields(config)), *fixed})
        agent = cls.from_spaces(
            header["observation_space"],
            header["action_space"],
            config=config.with_settings({name: x for name, x in settings.items() if name not in fixed}),
            seed=header["seed"] if seed is None else seed,
            device=_device(device),
            env_spec=header["env"],
        )
        agent.restore(header, tensors)
        if env is not None:
            agent.set_env(env)
        agent.env, agent.tensorboard_log, agent.verbose = env, tensorboard_log, verbose
        return agent


def as_settings(
    hyperparameters: dict[str, Any], *, num_envs: int, horizon: int = PPO.settings.horizon
) -> dict[str, Any]:
    """Fields of `PPOConfig` of the hyperparameters of a zoo's file; unknown ones are left for PPO to refuse.

    Args:
        hyperparameters: see `ZooPPO`.
        num_envs: B.
        horizon: T, where the hyperparameters do not say.
    """
    given = dict(hyperparameters)
    given |= given.pop("policy_kwargs", None) or {}
    settings: dict[str, Any] = {}
    for name, value in given.items():
        if name not in ("batch_size", "learning_rate", "clip_range", "clip_range_vf"):
            settings[NAMES.get(name, name)] = value
    if "learning_rate" in given:
        settings["lr"], settings["lr_final"] = _ends("learning_rate", given["learning_rate"])
    if "clip_range" in given:
        settings["clip"] = _constant("clip_range", given["clip_range"])
    if "clip_range_vf" in given:
        limit = given["clip_range_vf"]
        limit = None if limit is None else _constant("clip_range_vf", limit)
        settings["value_clip"] = limit if limit is None or limit >= 0 else None
    if "batch_size" in given:
        horizon, batch = settings.get("horizon", horizon), given["batch_size"]
        settings["minibatches"] = max(1, horizon * num_envs // batch)
        if batch < horizon:  # less than one environment's: windows, whose memory is recomputed
            settings.setdefault("bptt", batch)
    return settings


def _ends(name: str, value: float | Callable[[float], float]) -> tuple[float, float | None]:
    """First value of a schedule of the progress that remains, and the last; None where it is constant."""
    if not callable(value):
        return float(value), None
    first, middle, last = (float(value(remaining)) for remaining in (1.0, 0.5, 0.0))
    if abs(first + last - 2 * middle) > 1e-6 * abs(first):
        raise ValueError(f"{name}: expected a number or a linear schedule, got one that is {middle} half-way")
    return first, None if last == first else last


def _constant(name: str, value: float | Callable[[float], float]) -> float:
    """The number that a schedule always is."""
    first, last = _ends(name, value)
    if last is not None:
        raise ValueError(f"{name}: rlmin's PPO has no schedule for it, expected a number")
    return first


def _seed(seed: int | None) -> int:
    return int(torch.randint(2**31, ()).item()) if seed is None else seed


def _device(device: torch.device | str) -> torch.device | str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _zip(path: str | Path) -> Path:
    return Path(path) if str(path).endswith(".zip") else Path(f"{path}.zip")


def _unpack(path: Path, folder: str) -> None:
    """The three files of a run, and nothing else that may be in the archive."""
    try:
        with ZipFile(path) as archive:
            for name in (CONFIG, POLICY, LEARNER):
                (Path(folder) / name).write_bytes(archive.read(name))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (BadZipFile, KeyError) as error:
        raise ValueError(f"{path}: expected a zip that rlmin_ppo saved ({error})") from None


def register() -> None:
    """Add rlmin's names to `rl_zoo3.ALGOS`.

    Raises:
        ImportError: rl_zoo3 is not installed.
    """
    utils = require("rl_zoo3.utils", extra="zoo")
    contrib = require("rlmin.interop.sb3_recurrent", extra="sb3")
    utils.ALGOS |= {"rlmin_ppo": ZooPPO, "ppo_min_gru": contrib.RecurrentPPO}


def main(arguments: Sequence[str] | None = None) -> None:
    """`train` or `enjoy` of the zoo; see the top of this file."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return
    check_names("script of rl_zoo3", words[:1], SCRIPTS)
    script = getattr(require(f"rl_zoo3.{words[0]}", extra="zoo"), words[0])
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--algo", default="")
    parser.add_argument("-conf", "--conf-file")
    given, _ = parser.parse_known_args(words)
    config = CONFIGS / f"{given.algo}.yml"
    if words[0] == "train" and given.conf_file is None and config.exists():
        words += ["--conf-file", str(config)]
    before = sys.argv
    sys.argv = ["rlmin.interop.zoo", *words[1:]]
    try:
        script()
    finally:
        sys.argv = before


def command(arguments: Sequence[str] | None = None) -> None:
    """`main`; input that rlmin refuses prints one line and exits with code 2, errors of the zoo stay as they are."""
    try:
        main(arguments)
    except ValueError as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if not raised_in.is_relative_to(PACKAGE):
            raise
        print(f"rlmin.interop.zoo: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


register()

if __name__ == "__main__":
    command()
