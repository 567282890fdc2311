"""A step of a `Stack` as one call: when that is possible, and its table of arguments. See `rlmin.kernels.step`.

A policy's step is such a call too, with the layers before its stack and the heads behind it.
"""

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from rlmin.encoders.block import Block
from rlmin.encoders.cell import cell_of
from rlmin.encoders.conv import CausalConv
from rlmin.scan.dispatch import kernel_for
from rlmin.types import State

if TYPE_CHECKING:
    from rlmin.encoders.stack import Stack

_PARALLEL_SIZE = 1 << 11  # elements of x from which a thread pays off
_MANY = 128  # number of rows that a thread takes at once
_SIZES = 8  # numbers of rows for which buffers are kept
_NORMS: dict[type, str] = {nn.Identity: "none", nn.LayerNorm: "layer", nn.RMSNorm: "rms"}
_KNOWN = (CausalConv, nn.Linear, nn.SiLU, nn.Sequential, nn.ModuleList, nn.ModuleDict, *_NORMS)
_PARTS = {"embed", "blocks", "norm"}  # of a stack
_MLP = [nn.Linear, nn.SiLU, nn.Linear]
_NOTHING = torch.empty(0)  # the state of a part that is left out


class Fresh:
    """An object that every copy and pickle begins anew, as it knows the weights of one module."""

    def __deepcopy__(self, memo: object) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


class StackStep(Fresh):
    """`Stack.step` in one call, where that is possible: plain CPU tensors, a cell with a fast step, no gradients."""

    def __init__(self) -> None:
        self._plan: Plan | None = None

    def __call__(self, stack: "Stack", x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State] | None:
        """The result of `stack.step`, or None if its modules have to be called one by one."""
        if not plain(x):
            return None
        plan = self._plan
        if plan is None or plan.dtype is not x.dtype or not plan.holds():
            plan = self._plan = Plan(stack, x.dtype)
        done = plan.run(x, state, start)
        return None if done is None else (done[0][0], done[1])


class Ends(NamedTuple):
    """The layers of a policy around its stack."""

    front: nn.Sequential | None  # Linear, SiLU, Linear before the stack; None: x enters as it is
    heads: tuple[nn.Linear, ...]  # layers that read y
    owners: tuple[nn.Module, ...]  # further modules that the call replaces: none of them may be hooked

    def modules(self) -> list[nn.Module]:
        """All modules but those inside the heads."""
        return [*self.owners, *(() if self.front is None else self.front.modules())]


def plain(x: Tensor) -> bool:
    """Whether nothing watches, traces or transforms the operations, and the kernel is numba's."""
    return (
        type(x) is Tensor
        and x.is_cpu
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._len_torch_function_stack()
        and not torch._C._is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None
        and not (hooks._global_forward_hooks or hooks._global_forward_pre_hooks)
        and kernel_for(x.device).__name__ == "rlmin.scan.cpu"
    )


class Plan:
    """A stack's weights by address: valid as long as its modules stay the same and their weights stay in place.

    Attributes:
        usable: whether the call knows all parts; otherwise the modules have to be called.
    """

    def __init__(self, stack: "Stack", dtype: torch.dtype, ends: Ends | None = None) -> None:
        from rlmin.kernels.step import loop, product, table  # need numba, which kernel_for has found

        form, self.dtype, whole = _Form.of(stack, dtype, ends), dtype, _whole(stack, ends)
        modules = [stack, *(() if ends is None else ends.modules()), *list(whole.modules())[1:]]
        self.known: list[tuple[dict[str, Any], str, object]] = [
            (owner, name, owner[name])
            for m in modules
            for owner in (m._modules, vars(m))
            for name in _names(m, owner, "" if form is None else form.attribute)
        ]
        self.hooks = [getattr(m, name) for m in modules for name in ("_forward_hooks", "_forward_pre_hooks")]
        self.slots = [] if form is None else [_slot(whole, name) for name in form.shapes()]
        self.addresses = self._addresses()
        self.usable = False
        routine = product.address(dtype)
        if form is None or routine is None or not form.fits(whole, dtype) or not all(self.addresses):
            return
        self.usable, self.form = True, form
        self.numbers = torch.tensor([form.eps, 1 / form.H], dtype=dtype)
        self.loop = loop.loop(dtype, form.average, form.parts, form.activation)
        self.room = loop.room
        found = {_entry(name): x for name, x in zip(form.shapes(), self.addresses, strict=True)}
        found |= {"layers": form.layers, "H": form.H, "width": form.width, "F": form.F, "D": form.D, "G": form.G}
        found |= {"norm": table.NORMS.index(form.norm), "routine": routine, "numbers": self.numbers.data_ptr()}
        found |= {"heads": len(form.heads)} | {f"heads_{i}_outputs": n for i, n in enumerate(form.heads)}
        names = table.names(form.layers, len(form.heads))
        self.table = [found.get(name, 0) for name in names]
        self.entry = {name: i for i, name in enumerate(names)}
        self.state_entries = [
            [self.entry[f"blocks_{i}_{part}"] for part in ("seen", "seen_after", "memory", "memory_after")]
            for i in range(form.layers)
        ]
        self.head_entries = [self.entry[f"heads_{i}_projected"] for i in range(len(form.heads))]
        self.free: dict[tuple[int, int], list[_Buffer]] = {}

    def holds(self) -> bool:
        """Whether modules, settings and weights are still those of the plan."""
        if not all(owner.get(name) is known for owner, name, known in self.known):
            return False
        return self._addresses() == self.addresses

    def _addresses(self) -> list[int]:
        try:
            return [owner[name].data_ptr() for owner, name in self.slots]
        except (KeyError, AttributeError, RuntimeError):
            return [0]

    def run(self, x: Tensor, state: State, start: Tensor) -> tuple[list[Tensor], State] | None:
        """One step: the results of the heads, or y without heads. None if the table cannot describe it."""
        if not self.usable or any(self.hooks):
            return None
        form, dtype, B = self.form, self.dtype, len(start)
        flags = _dense(start, torch.bool, (B,))
        x_ = _dense(x, dtype, (B, form.D or form.H))
        if flags is None or x_ is None or type(state) is not tuple or len(state) != form.layers:
            return None
        before: list[Tensor] = []
        for seen, memory in cast(tuple[tuple[Tensor, Tensor], ...], state):
            for part, size in ((seen, form.conv_shape(B)), (memory, (B, form.H))):
                held = _dense(part, dtype, size) if size else _NOTHING
                if held is None:
                    return None
                before.append(held)
        after = [_NOTHING if part is _NOTHING else torch.empty_like(part) for part in before]
        outputs = [torch.empty(B, n, dtype=dtype) for n in form.heads or (form.H,)]
        buffers, buffer = self._take(B)
        table, entry = buffer.table, self.entry
        table[entry["x"]], table[entry["start"]] = x_.data_ptr(), flags.data_ptr()
        for at, output in zip(self.head_entries or [entry["y"]], outputs, strict=True):
            table[at] = output.data_ptr()
        for i, (seen_at, seen_after_at, memory_at, memory_after_at) in enumerate(self.state_entries):
            table[seen_at], table[memory_at] = before[2 * i].data_ptr(), before[2 * i + 1].data_ptr()
            table[seen_after_at], table[memory_after_at] = after[2 * i].data_ptr(), after[2 * i + 1].data_ptr()
        table[entry["taken"]] = buffer.counter[0] = 0
        self.loop.run(table, buffer.threads)
        buffers.append(buffer)
        states = zip(after[::2], after[1::2], strict=True)
        return outputs, tuple([(() if seen is _NOTHING else seen, memory) for seen, memory in states])

    def _take(self, B: int) -> "tuple[list[_Buffer], _Buffer]":
        """A buffer for B rows that no other call uses, and the list to return it to."""
        threads = max(1, min(torch.get_num_threads(), B, B * self.form.H // _PARALLEL_SIZE))
        if len(self.free) > _SIZES:
            self.free = {}
        buffers = self.free.setdefault((B, threads), [])
        try:
            return buffers, buffers.pop()
        except IndexError:
            return buffers, _Buffer(self, B, threads)


class _Buffer:
    """A table and the memory it points to; one call at a time uses it."""

    def __init__(self, plan: Plan, B: int, threads: int) -> None:
        form, self.threads = plan.form, threads
        many = max(1, min(_MANY, -(-B // threads)))
        room = plan.room(many, form.H, max(form.parts * form.H, form.F, form.G))
        self.scratch = torch.empty(threads * room, dtype=plan.dtype)
        self.counter = (ctypes.c_int64 * 3)(0, 0, 1)
        self.table = (ctypes.c_int64 * len(plan.table))(*plan.table)
        mine = {"rows": B, "many": many, "room": room, "threads": ctypes.addressof(self.counter)}
        for name, value in (mine | {"scratch": self.scratch.data_ptr()}).items():
            self.table[plan.entry[name]] = value


@dataclass(frozen=True)
class _Form:
    """The structure of a stack."""

    D: int  # features of x if they are embedded, else 0
    G: int  # hidden units of that embedding, or 0
    H: int
    layers: int
    width: int  # of the convolution, or 0
    mixer: type[nn.Module]
    average: str  # gated average of the mixer
    parts: int  # of the mixer's projection
    attribute: str  # of the mixer, which names the activation
    activation: str
    F: int  # hidden units of the MLP, or 0
    norm: str
    eps: float
    heads: tuple[int, ...]  # outputs of each

    @classmethod
    def of(cls, stack: "Stack", dtype: torch.dtype, ends: Ends | None) -> Self | None:
        """The form of the first block; `fits` tells whether all blocks share it. None for an unknown form."""
        block, norm = cast(Block, stack.blocks[0]), stack.norm
        mixer, conv, mlp = block.mixer, block.conv, block.mlp
        cell = cell_of(mixer)
        if cell is None or cell.fast_step is None or type(norm) not in _NORMS or set(stack._modules) != _PARTS:
            return None
        if not getattr(mixer, cell.fast_step.plain, True):
            return None
        front, heads = (None, ()) if ends is None else (ends.front, ends.heads)
        if front is not None and ([type(m) for m in front] != _MLP or type(stack.embed) is not nn.Identity):
            return None
        first = None if front is None else cast(nn.Linear, front[0])
        eps = getattr(norm, "eps", 0.0)
        return cls(
            D=first.in_features if first else 0 if type(stack.embed) is nn.Identity else stack.input_size,
            G=first.out_features if first else 0,
            H=stack.output_size,
            layers=len(stack.blocks),
            width=0 if conv is None else conv.width,
            mixer=type(mixer),
            average=cell.fast_step.average,
            parts=cell.fast_step.parts,
            attribute=cell.fast_step.activation,
            activation=getattr(mixer, cell.fast_step.activation),
            F=0 if mlp is None else cast(nn.Linear, mlp[0]).out_features,
            norm=_NORMS[type(norm)],
            eps=torch.finfo(dtype).eps if eps is None else eps,
            heads=tuple(head.out_features for head in heads),
        )

    def fits(self, whole: nn.ModuleDict, dtype: torch.dtype) -> bool:
        """Whether every module and weight of `whole` matches this form."""
        weights = dict(whole.named_parameters(remove_duplicate=False))
        blocks = [cast(Block, part) for part in cast(nn.ModuleList, whole["blocks"])]
        norms = [whole["norm"], *(norm for part in blocks for norm in (part.norm, part.mlp_norm) if norm is not None)]
        return (
            {name: tuple(w.shape) for name, w in weights.items()} == self.shapes()
            and all(w.dtype is dtype and w.is_cpu and w.is_contiguous() for w in weights.values())
            and {type(m) for m in whole.modules()} <= {Block, self.mixer, *_KNOWN}
            and all(
                type(norm) is type(norms[0]) and getattr(norm, "eps", 0) == getattr(norms[0], "eps", 0)
                for norm in norms
            )
            and all(getattr(part.mixer, self.attribute, None) == self.activation for part in blocks)
            and not any(part.dropout and part.training for part in blocks)
            and all(part.mlp is None or [type(m) for m in part.mlp] == _MLP for part in blocks)
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight, by its name in the stack."""
        H, F = self.H, self.F
        found = self._norm("norm")
        if self.D:
            found |= _linear("embed", self.G or self.D, H)
        if self.G:
            found |= _linear("front", self.D, self.G)
        for i, n in enumerate(self.heads):
            found |= _linear(f"heads.{i}", H, n)
        for i in range(self.layers):
            block = self._norm("norm") | _linear("mixer.projection", H, self.parts * H)
            if self.width:
                block |= {"conv.weight": (self.width, H), "conv.bias": (H,)}
            if F:
                block |= self._norm("mlp_norm") | _linear("mlp.0", H, F) | _linear("mlp.2", F, H)
            found |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
        return found

    def conv_shape(self, B: int) -> tuple[int, ...]:
        """Shape of the state of the convolution."""
        return (B, self.width - 1, self.H) if self.width else ()

    def _norm(self, name: str) -> dict[str, tuple[int, ...]]:
        parts = {"layer": ("weight", "bias"), "rms": ("weight",), "none": ()}[self.norm]
        return {f"{name}.{part}": (self.H,) for part in parts}


def _names(module: nn.Module, owner: dict[str, Any], of_mixer: str) -> list[str]:
    """The children or attributes of the module `owner` that a plan relies on; `of_mixer` is one of a mixer's."""
    if owner is module._modules:
        return list(owner)
    relied = ("eps", of_mixer, "dropout", *(("training",) if owner.get("dropout") else ()))
    return [name for name in relied if name in owner]


def _entry(name: str) -> str:
    """The entry of the table that holds the address of a weight of this name."""
    return name.replace(".", "_")


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _whole(stack: "Stack", ends: Ends | None) -> nn.ModuleDict:
    """The modules with weights, named as in the table of the loop."""
    parts = {"embed": stack.embed, "blocks": stack.blocks, "norm": stack.norm}
    if ends is not None:
        parts["heads"] = nn.ModuleList(ends.heads)
    if ends is not None and ends.front is not None:
        parts["front"], _, parts["embed"] = ends.front
    return nn.ModuleDict(parts)


def _slot(whole: nn.ModuleDict, name: str) -> tuple[dict[str, Any], str]:
    """The dict that holds the parameter `name`, and its name there."""
    owner, _, last = name.rpartition(".")
    try:
        return whole.get_submodule(owner)._parameters, last
    except AttributeError:
        return {}, last


def _dense(x: Any, dtype: torch.dtype, size: tuple[int, ...]) -> Tensor | None:
    """`x` contiguous, or None if it is not a CPU tensor of this dtype and size."""
    if type(x) is not Tensor or x.dtype is not dtype or not x.is_cpu or x.shape != size:
        return None
    return x if x.is_contiguous() else x.contiguous()
