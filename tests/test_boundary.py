"""Whatever is wrong with an argument of a documented function, the answer is rlmin's and names the argument.

For every row of boundary_rows.py and every argument: values of a wrong type, of a wrong shape, NaN, negative, empty,
huge. Which of these are wrong follows from the type that the signature declares.
"""

import importlib
import inspect
import math
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import torch
from boundary_rows import Row, rows
from torch import Tensor

from rlmin.settings import check_setting
from rlmin.settings.boundary import _resolve, check_of

ROWS = rows()
OTHERS_WORDS = re.compile(
    r"object has no attribute|unhashable|not subscriptable|must be (real number|Tensor)|mat1|size mismatch|"
    r"shapes cannot|could not convert|expected m1|CUDA driver|Torch not compiled|alloc|difflib|numba|broadcast|"
    r"argument of type",
)

EXEMPT = {
    "rlmin.distributed.Ranks": "made by join",
    "rlmin.distributed.LostRank": "an error",
    "rlmin.distributed.join": "a context, of what torchrun has set",
    "rlmin.PPOConfig": "settings, see test_settings.py",
    "rlmin.DecisionConfig": "settings",
    "rlmin.PolicyConfig": "settings",
    "rlmin.commands.train.TrainConfig": "settings",
    "rlmin.commands.train.DecisionTrainConfig": "settings",
    "rlmin.agents.Agent": "abstract",
    "rlmin.encoders.Encoder": "abstract",
    "rlmin.vector.Vector": "abstract",
    "rlmin.data.Dataset": "made by load_dataset",
    "rlmin.data.Episode": "checked by load_dataset",
    "rlmin.data.Reference": "a record",
    "rlmin.evaluation.evaluate.Evaluation": "a record",
    "rlmin.inspection.study.Study": "a record",
    "rlmin.evaluation.collect.PlayedBy": "a record",
    "rlmin.encoders.Terms": "a record",
    "rlmin.encoders.Cell": "for authors of cells",
    "rlmin.encoders.register": "for authors of cells",
    "rlmin.envs.register": "no arguments",
    "rlmin.policy.actor.make_actor": "passes its arguments on to Actor",
    "rlmin.policy.actor.EnvActor": "made by make_actor, see test_actor.py",
    "rlmin.evaluation.collect.collect": "see test_collect.py",
    "rlmin.interop.hub.push_to_hub": "see test_hub.py",
    "rlmin.interop.hub.load_from_hub": "see test_hub.py",
    "rlmin.runs.logs.make_logger": "see test_runs.py",
    "rlmin.runs.plots.plot_runs": "see test_plots.py",
}
"""Documented names without a row, and why."""
OTHERS = re.compile(
    r"rlmin\.(inspection|interop\.(torchrl|sb3_|zoo)|export\.(onnx\.Onnx|torch_export\.Torch|numpy_policy))"
)
"""Parts of the reference whose arguments are the run's or another library's; their own tests break these."""


def reference() -> list[str]:
    """Names of functions and classes that the pages of the API describe; of a module those that it defines."""
    pages = (Path(__file__).parent.parent / "docs" / "api").glob("*.md")
    return re.findall(r"^::: (\S+)$", "\n".join(page.read_text() for page in pages), re.MULTILINE)


MODULES = {"rlmin.learning.returns", "rlmin.learning.losses"}


def documented() -> Iterator[str]:
    for name in reference():
        if name in EXEMPT or OTHERS.match(name):  # the packages of some may be missing
            continue
        module, _, last = name.rpartition(".")
        found = getattr(importlib.import_module(module), last, None) or importlib.import_module(name)
        if isinstance(found, types.ModuleType) and name in MODULES:
            for part, function in vars(importlib.import_module(name)).items():
                if inspect.isfunction(function) and function.__module__ == name and not part.startswith("_"):
                    yield f"{name}.{part}"
        elif inspect.isfunction(found) or inspect.isclass(found):
            yield name


def test_every_documented_function_has_a_row() -> None:
    missing = {name for name in documented() if name not in ROWS}
    assert not missing, "a row in boundary_rows.py, please"


def hints(row: Row) -> dict[str, Any]:
    """Argument -> declared type."""
    function = row.call.__init__ if inspect.isclass(row.call) else row.call
    function = getattr(function, "forward", function) if isinstance(function, torch.nn.Module) else function
    plain = inspect.unwrap(function)
    signature = inspect.signature(function)
    return {name: _resolve(one.annotation, plain) for name, one in signature.parameters.items()}


def options(hint: Any) -> list[Any]:
    return list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]


def kind_of(hint: Any) -> Any:
    kind = hint.__origin__ if get_origin(hint) is Annotated else hint
    return get_origin(kind) or kind


NONSENSE: list[Any] = [object(), {}, math.nan, -1, 10**30, 1.5, True, "x", "", None, b"x", 1j, [], [object()]]


def wrong_values(hint: Any, valid: Any) -> list[Any]:
    """What does not fit a type: of NONSENSE what `check_setting` would refuse, and tensors of another kind or shape."""
    kinds = {kind_of(one) for one in options(hint)}
    if Tensor in kinds and isinstance(valid, Tensor):
        return wrong_tensors(valid) + ([] if type(None) in kinds else [None])
    if kinds & {torch.device}:
        return [object(), 3, "gpu", "", "meta", "cuda" if not torch.cuda.is_available() else "cuda:99"]
    if kinds == {str, Path} or Path in kinds:
        return [3, object(), "", *([] if type(None) in kinds else [None])]
    if kinds & {dict}:
        return [3, "a", object(), [1]]
    if check_of(hint) is None:
        return []
    if kinds & {int, float, bool, str, tuple}:
        return [value for value in NONSENSE if refused(value, hint)]
    return [3, object(), "a"]


def refused(value: Any, hint: Any) -> bool:
    try:
        check_setting("x", value, hint)
    except ValueError:
        return True
    return False


def wrong_tensors(valid: Tensor) -> list[Any]:
    wrong: list[Any] = [3, "a", object(), valid.tolist(), valid.numpy(), valid[:0] if valid.dim() > 1 else valid[None]]
    wrong += [valid[0], valid[..., :1] if valid.shape[-1] > 1 else valid[None], torch.cat([valid, valid])]
    return [*wrong, valid.bool() if valid.is_floating_point() else valid.float()]


def cases() -> dict[tuple[str, str], list[Any]]:
    """Row and argument -> wrong values."""
    found: dict[tuple[str, str], list[Any]] = {}
    for name, row in ROWS.items():
        declared = hints(row)
        for argument in {**row.valid, **row.wrong}:
            if argument not in row.fine:
                of_type = wrong_values(declared.get(argument, Any), row.valid.get(argument))
                found[name, argument] = of_type + row.wrong.get(argument, [])
    return {case: values for case, values in found.items() if values}


CASES = cases()


@pytest.mark.parametrize(("name", "argument"), list(CASES), ids=str)
def test_a_wrong_argument_is_named(name: str, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = ROWS[name]
    for value in CASES[name, argument]:
        with pytest.raises((ValueError, TypeError, FloatingPointError)) as caught:
            print(f"{argument}={value!r:.200}")  # shown where nothing is raised
            row.call(**{**row.valid, argument: value})
        said = str(caught.value)
        if isinstance(value, str) and value.startswith("no-such"):
            assert value in said
        else:
            assert re.search(rf"\b({row.called.get(argument, argument)})", said), f"{argument}={value!r:.60}: {said}"
        assert not OTHERS_WORDS.search(said), said
        assert not list(tmp_path.iterdir()), "nothing was written"


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.runs])
def test_the_call_of_a_row_works(name: str) -> None:
    ROWS[name].call(**ROWS[name].valid)


def test_each_argument_of_a_row_is_broken_or_excused() -> None:
    for name, row in ROWS.items():
        broken = {argument for of, argument in CASES if of == name}
        assert set(row.valid) - set(row.fine) <= broken, f"{name}: nothing wrong is tried for some argument"


def test_an_interval_of_zero_is_an_error() -> None:
    """What was found from outside, by value: which values the tests above try follows from what is declared."""
    agent = ROWS["rlmin.PPO.learn"].call
    for wrong in (0, -1, 1.5, True, "1", math.nan):
        with pytest.raises(ValueError, match=r"^log_interval: expected a whole number of at least 1 or None"):
            agent(8, log_interval=wrong)
    others: list[Any] = [-5, math.inf, "8", None]
    for wrong in others:
        with pytest.raises(ValueError, match=r"^total_timesteps: expected a whole number of at least 0"):
            agent(wrong)
