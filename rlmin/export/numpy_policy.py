"""A policy exported by rlmin, run by numpy alone. This file needs nothing else: copy it beside the exported .npz.

    from numpy_policy import NumpyPolicy

    policy = NumpyPolicy("policy.npz")
    action, state = policy.predict(observation, state, episode_start, deterministic=True)     # state None at first

The signature is that of stable-baselines3. An object holds its own buffers: one thread at a time.
"""

import json
import math
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

FORMAT = 1  # version of descriptions and programs; any other is refused
DESCRIPTION = "description"  # name of the array in an .npz file that holds the description: JSON as bytes
SIZES = 8  # numbers of rows for which buffers are kept
TYPES = {"bool", "float16", "float32", "float64", *(f"{kind}{2**n}" for kind in ("int", "uint") for n in (3, 4, 5, 6))}
LARGEST = 2**26  # numbers in one array, and in all buffers of a row: a file with more is damaged
ILLEGAL, PADDING = -1e8, -2e8  # logits of a forbidden choice, and of one that does not exist

Array: TypeAlias = np.ndarray[Any, Any]
ExportedState: TypeAlias = tuple[dict[str, Array], Array]
"""State that `predict` returns and takes again: the memory by name, and the last action, [B, ...] each."""


def input_name(leaf: str, path: Any) -> str:
    """The name of the input that a leaf of the observation is read from."""
    return f"observation.{leaf}" if path else "observation"


class ExportedPolicy:
    """A policy without its library, with the `predict` of stable-baselines3; a subclass computes one step.

    Args:
        description: JSON, see rlmin.export.description.
        source: origin of the description, for messages.
        seed: of samples; None: any.

    Attributes:
        description: spaces, names and shapes of inputs and outputs, and the run.

    Raises:
        ValueError: no description, or one of another version.
    """

    def __init__(self, description: str, source: str, *, seed: int | None = None) -> None:
        try:
            fields = json.loads(description)
        except (ValueError, RecursionError):
            raise ValueError(f"{source}: not exported by rlmin: it has no description") from None
        if not isinstance(fields, dict):
            raise ValueError(f"{source}: not exported by rlmin: its description is not valid")
        if fields.get("format") != FORMAT:
            found = fields.get("format")
            raise ValueError(f"{source}: expected an export of format {FORMAT}, got {found}; export it again")
        self.description: dict[str, Any] = fields
        self.generator = np.random.default_rng(seed)
        try:
            self._understand(fields)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"{source}: damaged, its description is incomplete ({error!r:.200})") from None

    def _understand(self, fields: dict[str, Any]) -> None:
        """Keep the parts of a description that `predict` needs."""
        self._leaves = [_Leaf(leaf) for leaf in fields["observation"]]
        if not self._leaves:
            raise ValueError("no observation")
        self._carried = {
            name: (_shape(x["shape"]), _type(x["dtype"]))
            for name, x in fields["inputs"].items()
            if f"next_{name}" in fields["outputs"] and name != "previous_action"
        }
        action = fields["action"]
        self._choices = action.get("choices")
        self._size = len(self._choices) if self._choices else _shape([action["point"]])[0]
        self._shape, self._dtype = _shape(action["shape"]), _type(action["dtype"])
        self._discrete = fields["action_space"]["kind"] == "Discrete"
        self._reads_action, self._reads_reward = bool(fields["previous_action"]), bool(fields["previous_reward"])
        if self._choices:
            self._first, widest = np.array(action["first"]), max(self._choices)
            self._flags = sum(_shape([n])[0] for n in self._choices)
            _shape([self._size, widest])
            self._slots = np.concatenate([k * widest + np.arange(n) for k, n in enumerate(self._choices)])
        else:
            numbers = (np.array(action[name], np.float32) for name in ("centre", "scale", "low", "high"))
            self._squash = bool(action.get("squash"))
            self._centre, self._scale, self._low, self._high = numbers

    def _try(self, source: str) -> None:
        """Take a step of one row of zeros, and of two; a ValueError where they do not fit the description."""
        try:
            for rows in (1, 2):
                self._try_rows(rows)
        except Exception as error:  # each runtime raises errors of many classes
            words = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{source}: damaged, a step does not fit its description ({words:.200})") from None

    def _try_rows(self, rows: int) -> None:
        memory, last = self.initial_state(rows)
        inputs: dict[str, Array] = {leaf.input: np.zeros((rows, *leaf.shape), leaf.dtype) for leaf in self._leaves}
        inputs |= {"start": np.ones(rows, np.bool_), "previous_reward": np.zeros(rows, np.float32), **memory}
        inputs |= {"previous_action": last}
        if self._choices:
            inputs["action_mask"] = np.ones((rows, self._flags), np.bool_)
        named = self.description["inputs"]
        with np.errstate(all="ignore"):
            outputs = self.run({name: inputs[name] for name in named})  # torch.export reads them in this order
        wanted = {f"next_{name}": x.shape for name, x in memory.items()}
        wanted |= {"logits": (rows, self._flags)} if self._choices else {"mean": (rows, self._size)}
        wrong = [f"{name} is {list(outputs[name].shape)}" for name in wanted if outputs[name].shape != wanted[name]]
        if wrong:
            raise ValueError(wrong[0])
        self._to_env(self._choose(outputs, None, True))

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """One step, everything explicit: named inputs [B, ...] -> named outputs [B, ...], see the description."""
        raise NotImplementedError

    def initial_state(self, rows: int) -> ExportedState:
        """The state of `rows` environments before their first step."""
        memory = {name: np.zeros((rows, *shape), dtype) for name, (shape, dtype) in self._carried.items()}
        return memory, np.zeros((rows, self._size), np.int64 if self._choices else np.float32)

    def predict(
        self,
        observation: Any,
        state: ExportedState | None = None,
        episode_start: Any = None,
        deterministic: bool = False,
        *,
        reward: Any = None,
        action_mask: Any = None,
    ) -> tuple[Array, ExportedState]:
        """Choose actions, one step of every environment.

        Args:
            observation: as the environment gives it: one observation, or a batch [B, ...] (a dict or tuple of such).
            state: the state that the last call returned; None before the first step.
            episode_start: [B] bool, the observation opens an episode. None: only where `state` is None.
            deterministic: the most likely action instead of a sample.
            reward: [B] the reward of the last action, for a policy that reads it.
            action_mask: [B, n] bool, True is legal; None: the entry "action_mask" of a dict observation, if any.

        Returns:
            actions in the environment's own form, [B, ...] (without B for a single observation), and the next state.

        Raises:
            FloatingPointError: the observation holds NaN or infinity.
            ValueError: the observation or another argument does not fit, or `reward` is needed and missing.
        """
        if action_mask is None and isinstance(observation, dict):
            action_mask = observation.get("action_mask")
        inputs, rows, single = self._read(observation)
        memory, last = self.initial_state(rows) if state is None else state
        if len(last) != rows:
            raise ValueError(f"state: expected {rows} rows as in the observation, got {len(last)}")
        if episode_start is None:
            start = np.full(rows, state is None)
        else:
            start = _rows("episode_start", episode_start, (rows,), np.bool_)
        inputs["start"] = start
        if self._reads_action:
            inputs["previous_action"] = last
        if self._reads_reward:
            if reward is None and not start.all():
                raise ValueError("predict: this policy reads the previous reward; pass reward=, shape [B]")
            earned = np.zeros(rows) if reward is None else reward
            inputs["previous_reward"] = _rows("reward", earned, (rows,), np.float32)
        mask = None
        if action_mask is not None and self._choices:
            mask = _rows("action_mask", action_mask, (rows, self._flags), np.bool_)
        if "action_mask" in self.description["inputs"]:
            inputs["action_mask"] = np.ones((rows, self._flags), np.bool_) if mask is None else mask
        inputs.update(memory)
        outputs = self.run(inputs)
        chosen = self._choose(outputs, mask, deterministic)
        action = self._to_env(chosen)
        if single:
            action = action[0] if self._discrete else action[0, ...]
        return action, ({name: outputs[f"next_{name}"] for name in memory}, chosen)

    def _read(self, observation: Any) -> tuple[dict[str, Array], int, bool]:
        """Checked inputs by name, the number of rows, and whether the observation had no axis B."""
        inputs: dict[str, Array] = {}
        rows, single = -1, False
        for leaf in self._leaves:
            value = leaf.pick(observation)
            if rows < 0:
                single = value.ndim == len(leaf.shape)
                rows = 1 if single or not value.ndim else len(value)
            inputs[leaf.input] = leaf.check(value[None] if single else value, rows)
        return inputs, rows, single

    def _choose(self, outputs: dict[str, Array], mask: Array | None, deterministic: bool) -> Array:
        """An action as rlmin has it: indices [B, K] from 0, or a point [B, A]."""
        if self._choices is None:
            mean = outputs["mean"]
            drawn = 0 if deterministic else self.generator.standard_normal(mean.shape, mean.dtype.type)
            point: Array = np.asarray(mean + drawn * outputs["std"])
            return np.tanh(point) if self._squash else point
        logits, rows = outputs["logits"], len(outputs["logits"])
        if mask is not None:
            logits = np.where(mask, logits, logits.dtype.type(ILLEGAL))
        if self._size > 1:
            padded = np.full((rows, self._size * max(self._choices)), PADDING, logits.dtype)
            padded[:, self._slots] = logits
            logits = padded
        logits = logits.reshape(rows, self._size, -1)
        if mask is not None:  # beside 1e8, where every choice may be illegal, noise would be rounded away
            logits = logits - logits.max(-1, keepdims=True)
        if not deterministic:  # argmax(logit - log E), E ~ Exp(1), is a draw
            logits = logits - np.log(np.maximum(self.generator.standard_exponential(logits.shape), 1e-30))
        chosen: Array = logits.argmax(-1)
        return chosen

    def _to_env(self, chosen: Array) -> Array:
        """[B, K] or [B, A] -> [B, *shape] in the environment's own numbers."""
        if self._choices:
            found: Array = chosen + self._first
        else:
            found = np.minimum(np.maximum(self._centre + self._scale * chosen, self._low), self._high)
        return np.asarray(found.reshape(len(chosen), *self._shape).astype(self._dtype, copy=False))


class _Leaf:
    """One leaf of an observation: its place, shape, dtype and bounds."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.name, self.path, self.shape = fields["name"], fields["path"], _shape(fields["shape"])
        self.input = input_name(self.name, self.path)
        self.dtype, self.declared = _type(fields["dtype"]), _type(fields["declared"])
        self.bounds = (np.array(fields["low"]), np.array(fields["high"])) if "low" in fields else None

    def pick(self, observation: Any) -> Array:
        value = observation
        try:
            for key in self.path:
                value = value[key]
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"observation {self.name!r} is missing: {type(observation).__name__} given") from None
        return value if isinstance(value, np.ndarray) else np.asarray(value)

    def check(self, value: Array, rows: int) -> Array:
        """[B, *shape] of this leaf's dtype."""
        lossy = value.dtype.kind not in "biu" + "f" * (self.dtype.kind == "f")
        if value.shape != (rows, *self.shape) or lossy:
            shape = ", ".join(map(str, (rows, *self.shape)))
            raise ValueError(
                f"observation {self.name!r}: expected [{shape}] {self.declared} (or without the {rows} for a single "
                f"one), got {list(value.shape)} {value.dtype}"
            )
        if self.bounds is not None and not ((value >= self.bounds[0]) & (value <= self.bounds[1])).all():
            low, high = (x.tolist() for x in self.bounds)
            raise ValueError(f"observation {self.name!r}: expected {low}..{high}, got {value.tolist()}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise FloatingPointError(f"predict: observation {self.name!r} holds NaN or infinity")
        return value.astype(self.dtype, copy=False)


def _shape(sizes: Any) -> tuple[int, ...]:
    """The shape in a file, if an array may have it."""
    shape = tuple(sizes)
    if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) > LARGEST:
        raise ValueError(f"no shape of an array: {sizes!r:.50}")
    return shape


def _type(name: Any) -> np.dtype[Any]:
    """The type of numbers in a file."""
    if not isinstance(name, str) or name not in TYPES:
        raise ValueError(f"no type of numbers: {name!r:.50}")
    found: np.dtype[Any] = np.dtype(name)
    return found


def _rows(name: str, x: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """`x` as an array of `shape`; for a single environment the axis B may be missing."""
    array = np.asarray(x, dtype)
    if array.size != math.prod(shape):
        raise ValueError(f"{name}: expected {list(shape)}, got {list(array.shape)}")
    return array.reshape(shape)


class NumpyPolicy(ExportedPolicy):
    """The policy in an .npz file: see `ExportedPolicy`.

    Args:
        file: path, or content.
        seed: of samples; None: any.

    Raises:
        ValueError: the file is damaged, or not exported by rlmin.
    """

    def __init__(self, file: str | Path | bytes, *, seed: int | None = None) -> None:
        source = "content" if isinstance(file, bytes) else str(file)
        try:
            if not isinstance(file, bytes) and not Path(file).is_file():  # nobody may ever write to a pipe, or close it
                raise ValueError("there is no such file")
            content = file if isinstance(file, bytes) else Path(file).read_bytes()
            with np.load(BytesIO(content), allow_pickle=False) as opened:
                arrays = {name: opened[name] for name in opened.files}
        except Exception as error:  # zipfile, zlib and numpy raise errors of many classes
            raise ValueError(f"{source}: damaged, expected an .npz file ({error})") from None
        description = arrays.pop(DESCRIPTION, np.zeros(0, np.uint8)).tobytes().decode(errors="replace")
        super().__init__(description, source, seed=seed)
        self._weights, self._plans = arrays, dict[int, _Plan]()
        try:
            self._plans[1] = _Plan(self.description["program"], arrays, 1)
        except Exception as error:  # numpy raises errors of many classes
            raise ValueError(f"{source}: damaged, its program does not fit its arrays ({error!r:.200})") from None
        self._try(source)

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        rows = len(inputs["start"])
        if rows not in self._plans:
            if len(self._plans) == SIZES:
                self._plans.clear()
            self._plans[rows] = _Plan(self.description["program"], self._weights, rows)
        return self._plans[rows](inputs)


class _Plan:
    """A step of B rows: a list of numpy calls on fixed buffers.

    The program has buffers, views of them, and calls of `FUNCTIONS` on these and the weights, by name. It is made
    by rlmin.export.numpy_export, which knows policies; only `FUNCTIONS` and `VIEWS` can be called here.
    """

    def __init__(self, program: dict[str, Any], weights: dict[str, Array], rows: int) -> None:
        arrays = dict(weights)
        each = [_shape([1 if size == "B" else size for size in shape]) for _, shape, *_ in program["buffers"]]
        if sum(map(math.prod, each)) > LARGEST:
            raise ValueError("its buffers are too many or too large")
        for name, shape, dtype, fill in program["buffers"]:
            arrays[name] = np.full([rows if size == "B" else size for size in shape], fill, _type(dtype))
        for name, source, how, *args in program["views"]:
            arrays[name] = VIEWS[how](arrays[source], *args)
        self._inputs = [(name, arrays[buffer]) for name, buffer in program["inputs"].items()]
        self._outputs = [(name, arrays[buffer]) for name, buffer in program["outputs"].items()]
        self._calls = [
            partial(FUNCTIONS[function], *(arrays[x] if isinstance(x, str) else x for x in args))
            for function, *args in program["calls"]
        ]

    def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
        for name, buffer in self._inputs:
            buffer[...] = inputs[name]
        with np.errstate(over="ignore"):  # exp(-x) may be infinite: the sigmoid is 0 then
            for call in self._calls:
                call()
        return {name: buffer.copy() for name, buffer in self._outputs}


def _wipe(x: Array, start: Array) -> None:
    """Zeros in the rows that start."""
    if start.any():
        x[start] = 0


def _blank(x: Array, start: Array) -> None:
    """In the rows that start, zeros and a last 1: there is nothing before."""
    _wipe(x, start)
    x[start, -1] = 1


def _one_hot(x: Array, index: Array) -> None:
    """Ones at index [B, K] of x [B, n], zeros elsewhere."""
    x.fill(0)
    x[np.arange(len(x))[:, None], index] = 1


FUNCTIONS: dict[str, Any] = {
    **{name: getattr(np, name) for name in ("matmul", "add", "subtract", "multiply", "divide")},
    **{name: getattr(np, name) for name in ("exp", "tanh", "sqrt", "logaddexp", "less", "copyto")},
    "minimum": lambda x, y, out: np.minimum(x, y, out=out),
    "maximum": lambda x, y, out: np.maximum(x, y, out=out),
    "subtract_whole": partial(np.subtract, casting="unsafe"),
    "copy_where": lambda out, x, where: np.copyto(out, x, where=where),
    "sum": lambda x, axis, out: np.add.reduce(x, axis, None, out),
    "take": lambda table, index, out: np.take(table, index, 0, out, "clip"),
    "one_hot": _one_hot,
    "wipe": _wipe,
    "blank": _blank,
}
VIEWS: dict[str, Any] = {
    "columns": lambda x, first, last: x[:, first:last],
    "column": lambda x, at: x[:, at],
    "all_but_last": lambda x: x[..., :-1],
    "reshape": lambda x, shape: x.reshape([len(x) if size == "B" else size for size in shape]),
    "transpose": lambda x, axes: x.transpose(axes),
    "windows": lambda x, size, stride: sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride],
}
