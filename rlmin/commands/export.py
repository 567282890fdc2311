"""Exporting a run: `rlmin export`. A file that does not agree with the policy is not written."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmin.agents.agent import Agent
from rlmin.commands.evaluate import arena_of, data_returns, load_run
from rlmin.export import numpy_export, onnx, torch_export
from rlmin.export.agreement import largest_difference
from rlmin.export.form import Form
from rlmin.export.numpy_policy import ExportedPolicy
from rlmin.files.plain import readable
from rlmin.policy.fit import check_spaces, is_conditioned
from rlmin.settings import CountOrZero, NonNegative, Positional, Seed, Settings
from rlmin.vector import Vector, adapt
from rlmin.vector.arena import Arena
from rlmin.vector.make import parse_pairs, readable_errors
from rlmin.wrappers.return_to_go import VectorReturnToGo

ROWS = 2  # number of environments in a check
FORMS: dict[str, Form] = {"onnx": onnx.FORM, "torch": torch_export.FORM, "numpy": numpy_export.FORM}
"""Setting of `Export` that names the file -> form."""


@dataclass(frozen=True, kw_only=True)
class Export(Settings):
    """Write the policy of a run for other programs, after a check against the policy itself in its own environment."""

    run: Positional[Path]  # Run folder
    onnx: Path | None = None  # File of an ONNX model, with the memory among its inputs and outputs
    torch: Path | None = None  # File of a .pt2 program of torch.export, with the same inputs and outputs
    numpy: Path | None = None  # File .npz for numpy alone; numpy_policy.py, which runs it, is written beside it
    value: bool = False  # Whether ONNX and .pt2 output the value, too
    check: CountOrZero = 1000  # Steps to compare; 0: no check, if the environment is not installed (nor action masks)
    tolerance: NonNegative = 1e-5  # Largest difference |found - expected| / max(1, |expected|)
    env: str | None = None  # Gymnasium id of another environment with the same spaces, for the check
    env_kwargs: tuple[str, ...] = ()  # Pairs key=value that differ from the run's own
    target_return: float | None = None  # Return to ask a return-conditioned run for; None: the best of its data
    seed: Seed = 0  # Random seed for the check
    trust: bool = False  # Whether the module that the run's environment id names is imported, whose code then runs


def run_export(options: Export) -> str:
    """Export, check, write and describe every form that is named, or none of them.

    Raises:
        ImportError: a package that only the extra "export" installs is missing.
        ValueError: no file is named, or one cannot be written; the run cannot be read, its policy has parts
            that cannot be exported, or an exported form differs from it.
    """
    _check_files(options)
    _check_unheard(options)
    agent = load_run(options.run, device="cpu", trust=options.trust)
    if not options.check:
        return "\n".join(_write(options, agent, None, None))
    if options.env is None and agent.env_spec["id"] is None:
        raise ValueError(
            f"{options.run}: trained on an environment without an id; name one with --env, "
            "or write without a check: --check 0"
        )
    kwargs = parse_pairs(options.env_kwargs)
    arena = arena_of(agent, options.run, env=options.env, env_kwargs=kwargs, shift=None, device="cpu")
    with readable_errors(arena.id):
        vector = adapt(_with_target(agent, arena(ROWS), options.target_return))
    with closing(vector):
        check_spaces(agent.policy, vector, value=options.value)
        return "\n".join(_write(options, agent, vector, arena))


def _check_unheard(options: Export) -> None:
    """Raise a ValueError if an option would have no effect."""
    if options.value and options.onnx is None and options.torch is None:
        raise ValueError("value: a .npz file has no value; add --onnx or --torch, or leave --value out")
    given = [name for name in ("env", "env_kwargs", "target_return") if getattr(options, name) not in (None, ())]
    if not options.check and given:
        raise ValueError(f"{given[0]}: is an option of the check, which --check 0 skips; leave one of them out")


def _check_files(options: Export) -> None:
    """Raise a ValueError if no file is named, or if one cannot be written."""
    named = [(form, file) for form in FORMS if (file := getattr(options, form)) is not None]
    if not named:
        raise ValueError("export: name a file to write: --onnx FILE, --torch FILE or --numpy FILE")
    for form, file in named:
        if file.suffix != FORMS[form].suffix:
            raise ValueError(f"--{form} {file}: expected the name of a file that ends in {FORMS[form].suffix}")
        if file.is_dir():
            raise ValueError(f"--{form} {file}: expected a file, this is a folder")
        there = next(folder for folder in file.absolute().parents if folder.exists())
        if not there.is_dir():
            raise ValueError(f"--{form} {file}: {there} is a file, not a folder")
    for form, file in named:
        FORMS[form].check_file(file)


def _with_target(agent: Agent, env: Any, target: float | None) -> Any:
    """The environment; for a return-conditioned policy it includes the target return."""
    if not is_conditioned(agent.policy):
        return env
    data = data_returns(agent)
    best = 0.0 if data is None else float(data.max())
    return VectorReturnToGo(env, best if target is None else target, scale=agent.return_scale)


def _write(options: Export, agent: Agent, vector: Vector | None, arena: Arena | None) -> list[str]:
    """Pack and check every form, then write all of them; returns a line for each."""
    policy, origin = agent.policy, _origin(agent)
    masked = False
    if vector is not None and arena is not None:
        with readable_errors(arena.id):
            masked = vector.reset(seed=options.seed).action_mask is not None
    given: dict[str, Any] = {"value": options.value, "action_mask": masked, "run": origin}
    lines, ready = [], []
    for name, form in FORMS.items():
        file: Path | None = getattr(options, name)
        if file is None:
            continue
        content, result = form.pack(policy, **given), "not checked"
        if vector is not None and arena is not None:
            result = _check(options, file, agent, form.runner(content), vector, arena)
        lines.append(f"{file}: {len(content) / 1024:,.0f} KB, {result}")
        ready.append((file, content, form.write))
    for file, _, _ in ready:
        file.parent.mkdir(parents=True, exist_ok=True)
    for file, content, write in ready:
        write(file, content)
    return lines


def _check(options: Export, file: Path, agent: Agent, form: ExportedPolicy, vector: Vector, arena: Arena) -> str:
    """Check an exported policy; returns the result as text."""
    settings: dict[str, Any] = {"steps": options.check, "seed": options.seed, "where": arena.id}
    found = largest_difference(agent.policy, form, vector, **settings)
    if not found.size <= options.tolerance:
        raise ValueError(
            f"{file}: not written, it differs from the policy by {found.size:.1e} in {found.output!r} at step "
            f"{found.step}; expected at most {options.tolerance:g} (--tolerance)"
        )
    return f"largest difference from torch {found.size:.1e} in {options.check:,} steps of {arena}"


def _origin(agent: Agent) -> dict[str, Any]:
    """The origin of a policy, and the target return of a return-conditioned one."""
    origin = {
        "agent": agent.name,
        "env": readable(agent.env_spec),
        "seed": agent.seed,
        "num_timesteps": agent.num_timesteps,
    }
    if is_conditioned(agent.policy):
        data = data_returns(agent)
        origin |= {"return_scale": agent.return_scale, "best_return": None if data is None else float(data.max())}
    return origin
