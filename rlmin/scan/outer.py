"""Matrix memories: a gated sum of outer products, and the delta rule, in chunks of time."""

import os

import torch
from torch import Tensor

from rlmin.scan.boundary import carry_dtype, check_float, check_start, check_tensors, full_precision
from rlmin.scan.dispatch import runs_loops
from rlmin.scan.outer_chunks import LEAST_OF_HEAD as LEAST_OF_HEAD
from rlmin.scan.outer_chunks import LEAST_OF_KEY as LEAST_OF_KEY
from rlmin.scan.outer_chunks import Removal, outer_chunks


def outer_scan(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    start: Tensor | None = None,
    *,
    write: Tensor | None = None,
    remove: tuple[Tensor, Tensor] | None = None,
    exclusive: bool = False,
) -> tuple[Tensor, Tensor]:
    """Recurrence of a matrix [K, V] per head that outer products are added to, with resets, read by queries.

        S[t] = decay[t] * S[t-1] + key[t] value[t]'                       decay = exp(log_decay), over the rows of S
        y[t] = query[t]' S[t]                                             exclusive: query[t]' S[t-1]

    with S[-1] = state, and S[t-1] read as 0 where start[t]. A step can first remove old content:

        write:    P = decay[t] * S[t-1];   S[t] = P + write[t] * key[t] (value[t] - P' key[t])'      the delta rule
        remove:   S[t] = decay[t] * S[t-1] + add (probe' S[t-1]) + key[t] value[t]',   probe, add = remove

    With write = 1 and keys of length 1, the delta rule replaces the value stored under a key. The matrices of single
    steps are never stored: a chunk of steps is a handful of matrix products.

    Args:
        query, key: [T, B, heads, K] float.
        value: [T, B, heads, V] float.
        log_decay: float that broadcasts to [T, B, heads] or to [T, B, heads, K] with as many axes: the logarithm of
            the share that stays, at most 0. None: everything stays. Clipped at -20 (a decay of 2e-9) for a whole head,
            and at -8 (3e-4) if each key feature has a decay of its own.
        state: [B, heads, K, V] float, the memory that enters step 0.
        start: [T, B] bool or None, the state that enters step t is replaced by 0.
        write: [T, B, heads] float in [0, 2], the share that the delta rule replaces. S stays bounded only if keys have
            at most length 1. Above 1 the transition has a negative eigenvalue.
        remove: two [T, B, heads, K] float, or None. Not together with `write`.
        exclusive: whether the query reads the memory before step t, neither decayed nor written.

    Returns:
        y: [T, B, heads, V] in the dtype of `value`; last: [B, heads, K, V] float32 or float64, the state after step
        T-1 (`state` where T = 0). Gradients flow to every float argument, twice differentiable; a clipped log decay
        gets none.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, `write` beside `remove`, or a log decay above 0 (checked
            on a CPU only; elsewhere it is clipped to 0).

    Source: gated linear attention in chunks, Yang et al. 2023 (arXiv:2312.06635); the delta rule in its WY form, Yang
    et al. 2024 (arXiv:2406.06484). Resets are masks over segments of a chunk, so none is the logarithm of 0.
    """
    _check(query, key, value, log_decay, state, start, write, remove)
    if not isinstance(exclusive, bool):
        raise ValueError(f"exclusive: expected True or False, got {exclusive!r:.60}")
    carry = carry_dtype(value)
    with full_precision(value):
        q, k, v, S = (x.to(carry) for x in (query, key, value, state))
        g = None if log_decay is None else log_decay.to(carry).expand(query.shape[: log_decay.dim()])
        extra, add = (write, None) if remove is None else remove
        extra, add = (None if x is None else x.to(carry) for x in (extra, add))
        if os.environ.get("RLMIN_KERNEL") == "reference":
            y, last = _loop(q, k, v, g, S, extra, add, start, exclusive)
        elif len(v) == 0:
            y, last = v.clone(), S.clone()
        elif runs_loops(query):
            from rlmin.scan.outer_cpu import Inputs, run  # needs numba, which runs_loops has found

            y, last = run(_in_chunks, Inputs(q, k, v, g, S, extra, add), start, exclusive)
        else:
            y, last = _in_chunks(q, k, v, g, S, extra, add, start, exclusive)
    return y.to(value.dtype), last


def outer_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    *,
    write: Tensor | None = None,
    remove: tuple[Tensor, Tensor] | None = None,
    exclusive: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of `outer_scan`, on [B, ...]: y [B, heads, V] and the state after it.

    The definition, a line for each part of the equation. Nothing is checked, and the state is wiped already.
    """
    S = state
    if log_decay is not None:
        decay = clip_decay(log_decay, query).exp()
        S = S * (decay[..., None] if decay.dim() == query.dim() else decay[..., None, None])
    if write is not None:
        value = write[..., None] * (value - _read(key, S))
    if remove is not None:
        probe, add = remove
        S = S + add[..., None] * _read(probe, state)[..., None, :]
    S = S + key[..., None] * value[..., None, :]
    return _read(query, state if exclusive else S), S


def act(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    start: Tensor,
    *,
    write: Tensor | None = None,
    remove: tuple[Tensor, Tensor] | None = None,
    exclusive: bool = False,
) -> tuple[Tensor, Tensor]:
    """`outer_step` of a memory that is wiped where start [B], all of one dtype, by the fastest way there is."""
    if runs_loops(query) and not torch.is_grad_enabled():
        from rlmin.scan import outer_cpu  # needs numba, which runs_loops has found

        if outer_cpu.steps(value):
            extra, add = (write, None) if remove is None else remove
            g = None if log_decay is None else log_decay.expand(query.shape[: log_decay.dim()])
            return outer_cpu.step(outer_cpu.Inputs(query, key, value, g, state, extra, add), start, exclusive)
    state = state.masked_fill(start.view(-1, 1, 1, 1), 0)
    return outer_step(query, key, value, log_decay, state, write=write, remove=remove, exclusive=exclusive)


def clip_decay(log_decay: Tensor, query: Tensor) -> Tensor:
    """The log decay, clipped to the range that is computed exactly."""
    return log_decay.clamp(LEAST_OF_KEY if log_decay.dim() == query.dim() else LEAST_OF_HEAD, 0.0)


def _in_chunks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    extra: Tensor | None,
    add: Tensor | None,
    start: Tensor | None,
    exclusive: bool,
) -> tuple[Tensor, Tensor]:
    """The scan by torch operations; extra is the share to write, or a probe, to which `add` belongs."""
    g = query.new_zeros(()).expand(query.shape[:3]) if log_decay is None else clip_decay(log_decay, query)
    g = g if start is None else g.masked_fill(start.view(*start.shape, *[1] * (g.dim() - 2)), 0)
    g, removal = g if g.dim() == 4 else g[..., None], None
    if extra is not None and add is None:  # the delta rule in its general form: add = write * key, probe = -decay * key
        written = extra[..., None] * key
        key, removal = written, Removal(-g.exp() * key, written)
    elif extra is not None and add is not None:
        removal = Removal(extra, add)
    return outer_chunks(query, key, value, g, state, start, removal, exclusive)


def _read(query: Tensor, S: Tensor) -> Tensor:
    """query' S, [..., V]."""
    return (query[..., None, :] @ S).squeeze(-2)


def _loop(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    extra: Tensor | None,
    add: Tensor | None,
    start: Tensor | None,
    exclusive: bool,
) -> tuple[Tensor, Tensor]:
    """The scan step by step."""
    S, found = state, []
    for t in range(len(value)):
        if start is not None:
            S = torch.where(start[t].view(-1, 1, 1, 1), torch.zeros_like(S), S)
        y, S = outer_step(
            query[t],
            key[t],
            value[t],
            None if log_decay is None else log_decay[t],
            S,
            write=None if extra is None or add is not None else extra[t],
            remove=None if extra is None or add is None else (extra[t], add[t]),
            exclusive=exclusive,
        )
        found.append(y)
    return torch.stack(found) if found else value.clone(), S.clone()


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    start: Tensor | None,
    write: Tensor | None,
    remove: tuple[Tensor, Tensor] | None,
) -> None:
    check_tensors(query=query, key=key, value=value, state=state)
    if query.dim() != 4:
        raise ValueError(f"query: expected [T, B, heads, K], got {list(query.shape)}")
    T, B, heads, K = query.shape
    V = value.shape[-1] if value.dim() == 4 else 0
    wanted: dict[str, tuple[Tensor, list[int]]] = {
        "key": (key, [T, B, heads, K]),
        "value": (value, [T, B, heads, V]),
        "state": (state, [B, heads, K, V]),
    }
    if write is not None:
        check_tensors(write=write)
        wanted["write"] = write, [T, B, heads]
    if remove is not None:
        wanted |= {f"remove[{i}]": (x, [T, B, heads, K]) for i, x in enumerate(_pair(remove))}
    check_float("query", query, value.dtype, value.device)
    for name, (x, shape) in wanted.items():
        if list(x.shape) != shape:
            raise ValueError(f"{name}: expected {shape} as query is {list(query.shape)}, got {list(x.shape)}")
        check_float(name, x, value.dtype, value.device)
    if write is not None and remove is not None:
        raise ValueError("write: expected None beside remove, which says what a step removes; give one of the two")
    if log_decay is not None:
        _check_decay(log_decay, query)
    check_start(start, "query", query)


def _pair(remove: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    if not isinstance(remove, tuple) or len(remove) != 2:
        raise ValueError(f"remove: expected two tensors (probe, add), got {type(remove).__name__}")
    check_tensors(**{"remove[0]": remove[0], "remove[1]": remove[1]})
    return remove


def _check_decay(log_decay: Tensor, query: Tensor) -> None:
    check_tensors(log_decay=log_decay)
    shape, found = list(query.shape), list(log_decay.shape)
    sizes = zip(found, shape, strict=False)
    if len(found) not in (3, 4) or not all(own in (1, size) for own, size in sizes):
        raise ValueError(f"log_decay: expected {shape[:3]} or {shape}, each 1 where it is constant, got {found}")
    check_float("log_decay", log_decay, query.dtype, query.device)
    seen = log_decay.device.type == "cpu" and not torch.compiler.is_compiling()
    if seen and log_decay.numel() and (most := float(log_decay.detach().max())) > 0:
        raise ValueError(f"log_decay: expected at most 0, a decay of 1, got {most:.6g}; is it a decay? Take its log()")
