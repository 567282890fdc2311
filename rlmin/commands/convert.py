"""Converting logged data: `rlmin convert`, from any form that rlmin reads to a Minari dataset."""

from dataclasses import dataclass
from typing import Any

from rlmin import __version__
from rlmin.commands.collect import handle_termination
from rlmin.data.env_fit import check_env_fit
from rlmin.data.load import open_source
from rlmin.data.source import Source
from rlmin.data.to_minari import check_source, space_to_store, write_source
from rlmin.data.writer import DatasetWriter
from rlmin.settings import Positional, Settings
from rlmin.vector.arena import Arena
from rlmin.vector.make import parse_pairs, readable_errors


@dataclass(frozen=True, kw_only=True)
class Convert(Settings):
    """Write logged data of any form that rlmin reads as a Minari dataset, after a check of every value."""

    source: Positional[str]  # File (.hdf5, .npz, .csv, .parquet) or Minari id
    to: str  # Name of the dataset to write, as in pole/logged-v0
    env: str | None = None  # Gymnasium id of the environment, if the data do not name it; it provides the spaces
    env_kwargs: tuple[str, ...] = ()  # Pairs key=value for the constructor of `env`
    skip_bad_episodes: bool = False  # Whether episodes with a fault are left out, with a report; else they are errors
    check: bool = False  # Whether the data are only checked, and nothing is written
    overwrite: bool = False  # Whether a dataset of this name is replaced
    trust: bool = False  # Whether the modules that a Minari dataset names are imported, whose code then runs


def run_convert(options: Convert) -> str:
    """Convert, and describe the dataset.

    Raises:
        ValueError: the data cannot be read, have a fault or do not fit the environment, or there is such a dataset;
            nothing has been written.
        ImportError: minari or h5py is not installed.
    """
    if options.env_kwargs and options.env is None:
        raise ValueError("env_kwargs belong to an environment; name it with --env")
    env = None if options.env is None else {"id": options.env, "kwargs": parse_pairs(options.env_kwargs), "workers": 0}
    with readable_errors(options.source):
        source = open_source(options.source, env=env, trust=options.trust, skip_bad_episodes=options.skip_bad_episodes)
        if env is not None:
            check_env_fit(source, env)
        home = env or source.env
        writer = _writer(source, options, home)
        returns = check_source(source, progress=True)
    about = f"{source.num_episodes:,} episodes, {source.num_steps:,} steps, mean return {returns.mean():g}"
    skipped = [f"  {source.recipe['skipped']}"] if "skipped" in source.recipe else []
    if options.check:
        return "\n".join([f"{source.name}: {about}; every value fits, nothing was written", *skipped])
    with handle_termination(), writer:
        write_source(source, writer, progress=True)
        writer.commit(_metadata(source, options, home))
    return "\n".join([f"{writer.id}: {about}", *skipped, f"  {writer.path}"])


def _writer(source: Source, options: Convert, env: dict[str, Any] | None) -> DatasetWriter:
    """The writer of the dataset, with the environment's spec if one can be made."""
    spec = None if env is None else Arena(id=env["id"], kwargs=env["kwargs"]).spec()
    seen = space_to_store(source)
    given: dict[str, Any] = {"observation_space": seen, "action_space": source.action_space, "env_spec": spec}
    return DatasetWriter(options.to, **given, overwrite=options.overwrite)


def _metadata(source: Source, options: Convert, env: dict[str, Any] | None) -> dict[str, Any]:
    recipe: dict[str, Any] = {**source.recipe, "rlmin": __version__, "converted from": source.name}
    if env is not None:
        recipe |= {"env": str(env["id"]), "env_kwargs": env["kwargs"]}
    metadata: dict[str, Any] = {
        "description": f"Converted by rlmin {__version__} from {source.name}.",
        "recipe": recipe,
    }
    if source.reference is not None:
        metadata |= {"ref_min_score": source.reference.random, "ref_max_score": source.reference.expert}
        metadata |= {"reference_source": source.reference.source}
    return metadata
