"""Parsers and checks that take a fraction of a millisecond: each target is how a case is drawn and how it is tried.

A case is plain JSON, as for the slower targets. What is accepted is compared with a second way to read it.
"""

import copy
import functools
import io
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import MISSING, asdict, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import minigrid
import numpy as np
import torch
import yaml

from rlmin import PPO
from rlmin.agents.schema import read_settings
from rlmin.cli import Resume
from rlmin.commands.collect import Collect
from rlmin.commands.evaluate import Evaluate
from rlmin.commands.export import Export
from rlmin.commands.inspect import Inspect
from rlmin.commands.parse import parse
from rlmin.commands.plot import Plot
from rlmin.commands.train_config import DecisionTrainConfig, TrainConfig
from rlmin.encoders import CELLS
from rlmin.export.numpy_export import pack_numpy
from rlmin.export.numpy_policy import DESCRIPTION, NumpyPolicy
from rlmin.files.plain import decode, encode
from rlmin.files.read_yaml import parse_yaml
from rlmin.files.trust import from_file
from rlmin.runs.checkpoint import LEARNER, POLICY, read, read_header
from rlmin.runs.header import read_header_text, rebuild_spaces
from rlmin.runs.logs import read_rows
from rlmin.settings import describe_settings
from rlmin.spaces.as_json import space_from_json, space_to_json
from rlmin.vector.make import import_provider, parse_pairs

from . import drawn
from .case import DifferenceError, RefusedError
from .junk import damaged, edited

Case = dict[str, Any]


class Quick(NamedTuple):
    """A target of which thousands of cases are tried in one process."""

    draw: Callable[[Random], Case]
    run: Callable[[Case], None]
    weight: int  # cases of it beside those of other targets, where there are so many in all
    ready: Callable[[], object] = lambda: None  # makes what every case starts from


PIECES = "&a *a << ? | > !!binary !!set !!timestamp !!python/name:os.system --- ... %YAML [ ] { } , : - # 1e3 0x_ .inf"
PIECES += " ~ null 2001-01-01 1:30 '' \" ' \t"
CLASSES: dict[str, Any] = {
    kind.__name__: kind for kind in (TrainConfig, DecisionTrainConfig, Evaluate, Collect, Export, Inspect, Plot, Resume)
}
NEEDED = {"env": "a", "dataset": "a", "run": "a", "runs": ["a"], "what": "a", "episodes": 4, "resume": "a"}


@functools.cache
def _presets() -> str:
    """Text of every preset and suite."""
    folder = Path(sys.modules["rlmin"].__path__[0]) / "configs"
    return "\n".join(file.read_text() for file in sorted(folder.rglob("*.y*ml")))


def draw_yaml(random: Random) -> Case:
    return {"text": drawn.spliced(random, _presets(), PIECES.split(" "))}


def try_yaml(case: Case) -> None:
    """What is accepted is what yaml's safe loader reads."""
    found = parse_yaml(case["text"], where="text")
    _same(found, yaml.load(case["text"], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def draw_pairs(random: Random) -> Case:
    return {"pairs": [drawn.text(random, 6) + random.choice(["=", "", "=="]) + drawn.text(random) for _ in range(2)]}


def try_pairs(case: Case) -> None:
    found = parse_pairs(case["pairs"])
    if found.keys() != {pair.split("=")[0] for pair in case["pairs"]}:
        raise DifferenceError(f"{sorted(found)} of {case['pairs']}")


def draw_settings(random: Random) -> Case:
    name = random.choice(list(CLASSES))
    names = [*describe_settings(CLASSES[name]), *(["no_such_setting"] if random.random() < 0.05 else [])]
    return {"class": name, "given": {random.choice(names): _usual(random) for _ in range(random.randint(1, 3))}}


def _usual(random: Random) -> Any:
    """More often than not something that some setting may be."""
    usual: list[Any] = [
        1,
        2,
        8,
        16,
        0.5,
        0.9,
        1e-3,
        True,
        False,
        None,
        "cpu",
        "a",
        "tanh",
        [1, 5],
        ["a=1"],
        {"size": 4},
    ]
    return random.choice([*usual, *CELLS]) if random.random() < 0.6 else drawn.value(random)


def try_settings(case: Case) -> None:
    """What is accepted is kept as plain values, which are accepted again and stay as they are."""
    kind = CLASSES[case["class"]]
    if case["given"].keys() - describe_settings(kind).keys():
        raise RefusedError("Python's own: an unexpected argument")
    needed = {name: NEEDED[name] for name, about in describe_settings(kind).items() if about.default is MISSING}
    config = kind(**{**needed, **case["given"]})
    if replace(config) != config or kind(**asdict(config)) != config:
        raise DifferenceError(f"{config} is made into another one")
    encode({name: x if not isinstance(x, Path) else str(x) for name, x in asdict(config).items()})


def draw_space(random: Random) -> Case:
    return {"space": edited(_space(random, 2), drawn.edits(random, 2)) if random.random() < 0.7 else _space(random, 2)}


def _space(random: Random, depth: int) -> Any:
    size = [random.choice([0, 1, 2, 3, 4, 7]) for _ in range(random.randrange(4))]
    kind = random.randrange(8 if depth else 6)
    if kind < 2:
        low, high = random.choice([(-1.0, 1.0), (0, 255), ("-inf", "inf"), (0, 1), (2, 1)])
        dtype = random.choice(["float32", "float64", "uint8", "int64", "bool", "float16"])
        return {"kind": "Box", "low": low, "high": high, "shape": size, "dtype": dtype}
    if kind == 2:
        return {"kind": "Discrete", "n": random.choice([1, 2, 5, 0, 2**40]), "start": random.randint(-2, 2)}
    if kind == 3:
        n = [random.choice([1, 2, 3, 0]) for _ in range(random.randint(1, 3))]
        return {"kind": "MultiDiscrete", "nvec": n, "start": [0] * len(n)}
    if kind == 4:
        return {"kind": "MultiBinary", "shape": random.choice([3, size])}
    if kind == 5:
        return {"kind": "Text"}
    parts = [_space(random, depth - 1) for _ in range(random.randrange(4))]
    if kind == 6:
        return {"kind": "Tuple", "parts": parts}
    return {"kind": "Dict", "parts": {f"{random.choice('abcd')}{i}": part for i, part in enumerate(parts)}}


def try_space(case: Case) -> None:
    """What is accepted is written as what makes the same space."""
    space = space_from_json(case["space"], most=2**16)
    again = space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False)), most=2**16)
    if space != again:
        raise DifferenceError(f"{space} and not {again}")


def draw_values(random: Random) -> Case:
    x = drawn.value(random)
    tags = ["tuple", "set", "frozenset", "dict", "bytes", "path", "date", "datetime", "array", "x"]
    for _ in range(random.randrange(3)):
        inside = random.choice([x, [x], [[x, x]], ["float32", [1], [x]], "aGVq", "2001-02-03", ["int8", [2], [1, 300]]])
        x = {"$" + random.choice(tags): inside}
    return {"x": x}


def try_values(case: Case) -> None:
    """What is accepted is written as what is read as the same again."""
    with np.errstate(all="ignore"):
        found = decode(case["x"])
        _same(decode(json.loads(json.dumps(encode(found)))), found)


LOADED = (minigrid.__name__, "encodings")
"""What an id may import, and what decoding text does."""


class Run(NamedTuple):
    """A run to start from."""

    agent: PPO
    text: str  # its header
    files: dict[str, bytes]
    npz: bytes


@functools.cache
def _run() -> Run:
    small: dict[str, Any] = {"width": 4, "layers": 1, "horizon": 4, "num_envs": 2, "minibatches": 1, "epochs": 1}
    agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": 3}, **small)
    with tempfile.TemporaryDirectory() as folder:
        agent.learn(8).save(folder)
        files = {name: (Path(folder) / name).read_bytes() for name in (POLICY, LEARNER)}
        read_header(Path(folder))
    length = int.from_bytes(files[POLICY][:8], "little")
    text = json.loads(files[POLICY][8 : 8 + length])["__metadata__"]["header"]
    return Run(agent, text, files, pack_numpy(agent.policy))


def draw_header(random: Random) -> Case:
    if random.random() < 0.3:
        return {"bytes": drawn.damage(random)}
    return {"edits": drawn.edits(random)}


def try_header(case: Case) -> None:
    """What is accepted fits the weights, or is refused when they are looked at."""
    told, (agent, text, _, _) = case, _run()
    if "bytes" in told:
        text = damaged(text.encode(), told["bytes"]).decode(errors="replace")
    else:
        text = json.dumps(edited(json.loads(text), told["edits"]))
    header = read_header_text(text, where="header")
    rebuild_spaces(header, elements=1000, where="header")
    weights = {f"policy.{name}": x for name, x in agent.policy.state_dict().items()}
    read_settings(PPO, copy.copy(header), weights)


def draw_weights(random: Random) -> Case:
    return {"file": random.choice([POLICY, LEARNER]), "bytes": drawn.damage(random)}


def try_weights(case: Case) -> None:
    """What is accepted are the weights that were saved."""
    content = _run().files[case["file"]]
    with tempfile.TemporaryDirectory(prefix="rlmin-fuzz-", dir=_quick_folder()) as folder:
        (Path(folder) / case["file"]).write_bytes(damaged(content, case["bytes"]))
        _, found = read(Path(folder), case["file"])
    for name, x in _run().agent.policy.state_dict().items():
        if not torch.equal(found[f"policy.{name}"], x):
            raise DifferenceError(f"{name}: other weights than were saved were read, without a word")


@functools.cache
def _quick_folder() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


ROWS = [["time/total_timesteps", "a", "b,c"], ["16", "1.5", 'x"y'], ["32", "", "two\nlines"], ["48", "nan", "\u00e9"]]
ROWS += [["64", "-inf", ""], ["80", "0.25", "z"]]


@functools.cache
def _csv() -> bytes:
    import csv

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(ROWS)
    return text.getvalue().encode()


def draw_log(random: Random) -> Case:
    return {"bytes": drawn.damage(random)} if random.random() < 0.7 else {"cut": random.randrange(len(_csv()))}


def try_log(case: Case) -> None:
    """A cut file has the first rows; a damaged one has rows of as many values."""
    content = damaged(_csv(), case["bytes"]) if "bytes" in case else _csv()[: case["cut"]]
    with tempfile.NamedTemporaryFile(prefix="rlmin-fuzz-", dir=_quick_folder()) as file:
        file.write(content)
        file.flush()
        keys, rows = read_rows(Path(file.name))
    if any(list(row) != list(dict.fromkeys(keys)) for row in rows):
        raise DifferenceError("a row of other columns")
    if "cut" in case and [list(row.values()) for row in rows] != ROWS[1 : 1 + len(rows)]:
        raise DifferenceError(f"{rows} of a file that was cut")


def draw_npz(random: Random) -> Case:
    return {"bytes": drawn.damage(random)} if random.random() < 0.4 else {"edits": drawn.edits(random, 2)}


@functools.cache
def _arrays() -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(_run().npz)) as opened:
        return {name: opened[name] for name in opened.files}


def try_npz(case: Case) -> None:
    """What is accepted acts, or says what is wrong with it."""
    content = _run().npz
    if "bytes" in case:
        content = damaged(content, case["bytes"])
    else:
        arrays, file = dict(_arrays()), io.BytesIO()
        told = edited(json.loads(arrays[DESCRIPTION].tobytes()), case["edits"])
        arrays[DESCRIPTION] = np.frombuffer(json.dumps(told).encode(), np.uint8)
        np.savez(file, **arrays)  # type: ignore[arg-type]
        content = file.getvalue()
    policy = NumpyPolicy(content)
    with np.errstate(all="ignore"):
        policy.predict(_run().agent.policy.observation_space.sample(), deterministic=True)


def draw_words(random: Random) -> Case:
    name = random.choice(list(CLASSES))
    options = ["--" + option.replace("_", "-") for option in describe_settings(CLASSES[name])]
    words = [drawn.text(random)] if random.random() < 0.5 else []
    for _ in range(random.randint(1, 3)):
        option = random.choice(options) if random.random() < 0.9 else f"--{drawn.text(random, 5)}"
        said = [str(_usual(random)) for _ in range(random.choice([0, 1, 1, 1, 2]))]
        words += [f"{option}={said[0]}"] if said and random.random() < 0.3 else [option, *said]
    return {"class": name, "words": [word for word in words if word not in ("-h", "--help")]}


def try_words(case: Case) -> None:
    """What is accepted are settings."""
    kind = CLASSES[case["class"]]
    config = parse(kind, case["words"], prog="rlmin")
    if type(config) is not kind:
        raise DifferenceError(f"{type(config).__name__} of {case['words']}")


def draw_id(random: Random) -> Case:
    modules = [
        "json.tool",
        "antigravity",
        "this",
        "tests.fuzz",
        "os",
        ".",
        "a..b",
        "../x",
        "x-y",
        "minigrid",
        "",
        "\u0430",
    ]
    module = random.choice(modules) if random.random() < 0.7 else drawn.text(random)
    name = random.choice(["CartPole-v1", "rlmin/TMaze-v0", "rlmin/TMaze", "No-v0", drawn.text(random)])
    return {"id": random.choice([f"{module}:{name}", name, module, drawn.value(random)])}


def try_id(case: Case) -> None:
    """Nothing new is imported for an id that a file has."""
    before = set(sys.modules)
    id = from_file(case["id"], where="file")
    try:
        import_provider(id)
    finally:
        new = {name for name in set(sys.modules) - before if name.partition(".")[0] not in LOADED}
        if new:
            raise DifferenceError(f"{case['id']!r} imported {sorted(new)[:3]}")


QUICK = {
    "yaml": Quick(draw_yaml, try_yaml, 2400),
    "pairs": Quick(draw_pairs, try_pairs, 1500),
    "settings": Quick(draw_settings, try_settings, 1000),
    "spaces": Quick(draw_space, try_space, 1500),
    "values": Quick(draw_values, try_values, 1800),
    "headers": Quick(draw_header, try_header, 30, _run),
    "weights": Quick(draw_weights, try_weights, 30, _run),
    "logs": Quick(draw_log, try_log, 700),
    "npz": Quick(draw_npz, try_npz, 100, _run),
    "words": Quick(draw_words, try_words, 150),
    "ids": Quick(draw_id, try_id, 700),
}


def _same(x: Any, y: Any) -> None:
    """Raise where two plain values differ in type or value, NaN being NaN."""
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        if x.dtype != y.dtype or not np.array_equal(x, y, equal_nan=x.dtype.kind == "f"):
            raise DifferenceError(f"{x!r} and not {y!r}")
        return
    if type(x) is not type(y) or (repr(x) != repr(y) and x != y):
        raise DifferenceError(f"{x!r:.200} and not {y!r:.200}")
