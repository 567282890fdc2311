"""GRU and LSTM in parallel over time by Newton's method, beside the loops of rlmin.

    python benchmarks/newton.py

ParaRNN (Danieli et al. 2025, arXiv:2510.21450) solves h[t] = f(h[t-1], x[t]) for all t at once. From a guess g of the
whole trajectory, a Newton step solves a linear recurrence, and what it finds is the next guess, until nothing moves:

    h[t] = J[t] h[t-1] + (f(g[t-1], x[t]) - J[t] g[t-1])

`full`: J[t] = df/dh, scanned over time by products of H x H matrices. `diagonal`: its diagonal alone, so that this is
`linear_scan`, at the price of more iterations; for LSTM, the recurrence of its cell with the gates of the guess. Both
are exact where they end. Forward passes from zero in float32, one thread, alternating with the loop in one process.
`weights` multiplies the recurrent weights of a fresh layer; training lets them grow. `iterations` is what it takes to
come within 1e-4 of the loop, at most 100; without a ratio it has not. Times are CPU times, and `ratio` is the median
time of Newton's method over that of the loop: above 1, the loop is faster. Writes benchmarks/results/newton.csv.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from arguments import read_arguments
from torch import Tensor

from rlmin.encoders import GRU, LSTM
from rlmin.files.atomic import write_atomic
from rlmin.scan import linear_scan
from rlmin.suite.report import as_csv

SHAPES = [(256, 1, 32), (1024, 1, 32), (4096, 1, 32), (4096, 1, 128), (4096, 4, 32), (512, 16, 64)]
WEIGHTS, NEAR, MOST = (1.0, 3.0), 1e-4, 100
FULL = 1 << 23  # numbers in all J, above which `full` is left out
Solver = Callable[[Any, Tensor, int], Tensor]


def before(h: Tensor) -> Tensor:
    """h[t-1], zeros first."""
    return torch.cat([torch.zeros_like(h[:1]), h[:-1]])


def gru_parts(layer: GRU, projected: Tensor, last: Tensor) -> tuple[Tensor, ...]:
    """h, r, z, n and the part of n that r scales, for h[t-1] = last[t]."""
    xr, xz, xn = projected.chunk(3, -1)
    hr, hz, hn = layer.recurrence(last).chunk(3, -1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    n = torch.tanh(torch.addcmul(xn, r, hn))
    return torch.lerp(n, last, z), r, z, n, hn


def solve_gru(layer: GRU, x: Tensor, iterations: int, *, full: bool) -> Tensor:
    """[T, B, H] after so many Newton steps from zero."""
    projected, (T, B, H) = layer.projection(x), (*x.shape[:2], layer.output_size)
    weights = layer.recurrence.weight.view(3, H, H)
    g = x.new_zeros(T, B, H)
    for _ in range(iterations):
        last = before(g)
        h, r, z, n, hn = gru_parts(layer, projected, last)
        new = (1 - z) * (1 - n * n)
        slopes = new * hn * r * (1 - r), (last - n) * z * (1 - z), new * r
        if full:
            J = sum(s.unsqueeze(-1) * w for s, w in zip(slopes, weights, strict=True)) + torch.diag_embed(z)
            g = scan_matrices(J, h - (J @ last.unsqueeze(-1)).squeeze(-1))
            continue
        J = z + sum(s * w.diagonal() for s, w in zip(slopes, weights, strict=True))
        g, _ = linear_scan(J.contiguous(), torch.addcmul(h, J, last, value=-1), x.new_zeros(B, H))
    return g


def scan_matrices(J: Tensor, value: Tensor) -> Tensor:
    """h[t] = J[t] h[t-1] + value[t] from zero by doubling: log2(T) products of all matrices."""
    step, value = 1, value.unsqueeze(-1)
    while step < len(J):
        moved = J[step:] @ value[:-step]
        product = J[step:] @ J[:-step]
        value, J = torch.cat([value[:step], value[step:] + moved]), torch.cat([J[:step], product])
        step *= 2
    return value.squeeze(-1)


def solve_lstm(layer: LSTM, x: Tensor, iterations: int) -> Tensor:
    """[T, B, H] after so many steps from zero: the cell's own recurrence, with the gates of the guess."""
    projected, (T, B, H) = layer.projection(x), (*x.shape[:2], layer.output_size)
    h = x.new_zeros(T, B, H)
    for _ in range(iterations):
        i, f, g, o = (projected + layer.recurrence(before(h))).chunk(4, -1)
        c, _ = linear_scan(torch.sigmoid(f), torch.sigmoid(i) * torch.tanh(g), x.new_zeros(B, H))
        h = torch.sigmoid(o) * torch.tanh(c)
    return h


SOLVERS: dict[str, tuple[type[GRU] | type[LSTM], Solver]] = {
    "gru full": (GRU, lambda layer, x, n: solve_gru(layer, x, n, full=True)),
    "gru diagonal": (GRU, lambda layer, x, n: solve_gru(layer, x, n, full=False)),
    "lstm diagonal": (LSTM, solve_lstm),
}


def count_iterations(solve: Callable[[int], Tensor], exact: Tensor) -> int | None:
    """The fewest iterations that come near enough, found by doubling and halving; None: `MOST` do not."""
    good = next((n for n in (1, 2, 4, 8, 16, 32, 64, MOST) if near(solve(n), exact)), None)
    if good is None:
        return None
    bad = good // 2 if good < MOST else 64
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if near(solve(middle), exact) else (good, middle)
    return good


def near(found: Tensor, exact: Tensor) -> bool:
    return bool((found - exact).abs().max() < NEAR)


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of one run: other programs do not count."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


@torch.no_grad()
def measure(name: str, T: int, B: int, H: int, weights: float, repeats: int) -> dict[str, Any]:
    """A row of the table."""
    kind, solver = SOLVERS[name]
    torch.manual_seed(0)
    layer, x = kind(H, H), torch.randn(T, B, H)
    layer.recurrence.weight *= weights
    state, start = layer.initial_state(B), torch.zeros(T, B, dtype=torch.bool)
    start[0] = True  # so that LSTM takes the loop that knows resets

    def walk() -> Tensor:
        return layer(x, state, start)[0]

    iterations = count_iterations(lambda n: solver(layer, x, n), walk())
    row = {"method": name, "T": T, "B": B, "H": H, "weights": weights, "iterations": iterations or f">{MOST}"}
    if iterations is None:
        return row | {"loop ms": "", "newton ms": "", "ratio": ""}
    pairs = [(seconds(walk), seconds(lambda: solver(layer, x, iterations))) for _ in range(repeats)]
    loop, newton = (1e3 * median(times) for times in zip(*pairs, strict=True))
    ratio = median(slow / fast for fast, slow in pairs)
    return row | {"loop ms": round(loop, 2), "newton ms": round(newton, 2), "ratio": round(ratio, 2)}


def main() -> None:
    given = read_arguments(__doc__, repeats=15)
    rows: list[dict[str, Any]] = []
    for name in SOLVERS:
        for T, B, H in SHAPES:
            for weights in WEIGHTS:
                if "full" not in name or T * B * H * H <= FULL:
                    rows.append(measure(name, T, B, H, weights, given.repeats))
                    print(rows[-1], flush=True)
    write_atomic(given.results / "newton.csv", as_csv(rows))


if __name__ == "__main__":
    main()
