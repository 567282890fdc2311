"""rl_zoo3's scripts with rlmin's agents.

    python -m rlmin.interop.zoo train --algo rlmin_ppo --env CartPoleNoVel-v1
    python -m rlmin.interop.zoo enjoy --algo rlmin_ppo --env CartPoleNoVel-v1 --folder logs

Importing this module adds two names to `rl_zoo3.ALGOS`:

    rlmin_ppo      rlmin's own PPO, as the class `ZooPPO`
    ppo_min_gru    sb3-contrib's RecurrentPPO, for the policies of `rlmin.interop.sb3_recurrent`

As a command, it is the zoo's own script with all its options. The names must exist before the zoo reads its arguments,
so the zoo's `--gym-packages` cannot add them. `train` takes its hyperparameters from rlmin/configs/zoo/ALGO.yml unless
there is a `--conf-file`.
"""

import argparse
import io
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from zipfile import BadZipFile, ZipFile

import torch

from rlmin.agents.ppo import PPO
from rlmin.agents.sb3_habits import NETWORK
from rlmin.agents.schema import read_settings
from rlmin.checks import check_names, existing, require
from rlmin.files.trust import mark_header
from rlmin.runs.checkpoint import CONFIG, LEARNER, POLICY, read, write_atomic
from rlmin.settings.sb3_names import SB3_NAMES

UNPACKED = 20
"""Largest ratio of a file to the archive that holds it; rlmin's own archives are not compressed."""
SCRIPTS = ("train", "enjoy")
PACKAGE = Path(__file__).parent.parent
CONFIGS = PACKAGE / "configs" / "zoo"


class ZooPPO(PPO):
    """rlmin's PPO with the interface that rl_zoo3 expects of stable-baselines3's algorithms.

    Args:
        policy: "MinGruPolicy", "MinLstmPolicy" or the name of an encoder.
        env: a stable-baselines3 VecEnv.
        seed, device: as for `PPO`.
        hyperparameters: RecurrentPPO's names or those of `PPOConfig`; `policy_kwargs` may hold some of them.

    Raises:
        ValueError: an unknown hyperparameter, or one without an equivalent in rlmin's PPO.
    """

    def __init__(
        self,
        policy: str,
        env: Any,
        *,
        seed: int | None = None,
        device: torch.device | str = "auto",
        **hyperparameters: Any,
    ) -> None:
        super().__init__(policy=policy, env=env, seed=seed, device=device, **hyperparameters)

    def learn(self, total_timesteps: int, callback: Any = None, *, tb_log_name: str = "rlmin_ppo", **more: Any) -> Self:
        """See `PPO.learn`."""
        return super().learn(total_timesteps, callback, tb_log_name=tb_log_name, **more)

    def save(self, path: str | Path, exclude: Any = None, include: Any = None) -> None:
        """Write the files of `PPO.save` as one zip file at `path` + ".zip", whole or not at all."""
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
        trust: bool = False,
        **hyperparameters: Any,
    ) -> Self:
        """The agent saved at `path`.

        Args:
            path: with or without ".zip".
            env: environment for further training, or None.
            device, seed: as for the class; None as seed: that of the file.
            custom_objects: ignored, as nothing in the file is code.
            trust: see `rlmin.load`.
            hyperparameters: replacements for those of the file. Those in `NETWORK` (width, layers, ...) are ignored, as
                the zoo passes the ones for a new agent.

        Raises:
            ValueError: there is no file of rlmin's, `env` has other spaces, or an unknown hyperparameter.
        """
        with TemporaryDirectory() as folder:
            _unpack(_zip(path), folder)
            header, tensors = read(Path(folder), LEARNER)
        mark_header(header, trust=trust, where=str(path))
        config = read_settings(cls, header, tensors)
        agent = cls.from_spaces(
            header["observation_space"],
            header["action_space"],
            config=config,
            seed=header["seed"] if seed is None else seed,
            device=existing(device),
            env_spec=header["env"],
        )
        agent.restore(header, tensors)
        policy = hyperparameters.pop("policy_kwargs", None) or {}
        flat = {**hyperparameters, **policy}
        fixed = NETWORK | set(config.cell.option_names)
        agent.adopt({name: x for name, x in flat.items() if _setting(name) not in fixed}, env)
        if env is not None:
            agent.set_env(env)
        return agent


def _setting(name: str) -> str | None:
    """The setting of a hyperparameter."""
    return SB3_NAMES[name].setting if name in SB3_NAMES else name


def _zip(path: str | Path) -> Path:
    return Path(path) if str(path).endswith(".zip") else Path(f"{path}.zip")


def _unpack(path: Path, folder: str) -> None:
    """The three files of a run; anything else in the archive is ignored."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    most = UNPACKED * path.stat().st_size
    try:
        with ZipFile(path) as archive:
            for name in (CONFIG, POLICY, LEARNER):
                entry = archive.getinfo(name)
                if entry.file_size > most:
                    raise BadZipFile(f"{name}: {entry.file_size:,} bytes in a file of {path.stat().st_size:,}")
                (Path(folder) / name).write_bytes(archive.read(entry))
    except Exception as error:  # zipfile and each compression raise many kinds of errors for damaged files
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
    """`main` as a command: input that rlmin refuses prints one line and exits with code 2; the zoo's errors pass."""
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
