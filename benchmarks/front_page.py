"""The picture of the README: success over steps with minGRU, with a published LSTM-PPO and without memory.

    python benchmarks/learning.py minigrid-memory --seeds 5 --control 2
    python benchmarks/front_page.py

Reads benchmarks/results/minigrid-memory-curves.csv and writes docs/images/success.png.
"""

from pathlib import Path

from curves import draw_bands, read_curves

HERE = Path(__file__).parent
PUBLISHED = ((0.51e6, 0.82), (1.54e6, 0.93))
"""Steps and return of LSTM-PPO, mean of 10 runs, on pixels of the same setting (MarcoMeter's recurrent PPO)."""


def main() -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axes = figure.subplots()
    labels = {"min_gru": "minGRU in rlmin", "mlp": "no memory"}
    draw_bands(axes, read_curves(HERE / "results" / "minigrid-memory-curves.csv"), labels=labels, width=5)
    axes.plot(
        *zip(*PUBLISHED, strict=True), "s:", color="C3", markersize=6, label="LSTM-PPO on pixels, published (10 runs)"
    )
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.set_ylabel("return of training episodes")
    axes.set_xlim(0, 1.6e6)
    axes.set_ylim(0, 1.02)
    axes.set_title("Remember an object and find its twin: MiniGrid memory, 3x3 view", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(HERE.parent / "docs" / "images" / "success.png", dpi=130)


if __name__ == "__main__":
    main()
