"""The roofline: how fast a step could be for what it computes with each byte, and how fast it is.

Source: Williams, Waterman, Patterson (2009), Roofline: an insightful visual performance model, Communications of the
ACM 52, doi:10.1145/1498765.1498785.
"""

import numpy as np
from matplotlib.figure import Figure

from lsdask.bench.running import Benchmark
from lsdask.report.charts import BLUE, MUTED, RED, style_chart
from lsdask.report.maps import INK, WIDTH


def figure_roofline(benchmark: Benchmark) -> Figure:
    """Draw operations a second against operations a byte of stored pixels, under what bounds them.

    The flat roof is float32 arithmetic; the slopes are what memory and the store can feed. A step whose point touches
    a roof can be no faster on this machine. Steps that hardly compute are not shown.

    Parameters
    ----------
    benchmark : Benchmark

    Returns
    -------
    Figure
    """
    figure = Figure(figsize=(WIDTH, WIDTH * 0.7), layout="constrained")
    axes = figure.subplots()
    style_chart(axes, "operations a byte of pixels read", "billion operations a second")
    bounds, rows = benchmark.ceilings, [row for row in benchmark.rows if row["flops"]]
    at = [row["flops"] / row["bytes"] for row in rows]
    span = np.geomspace(min([1.0, *at]) / 3, max([1e4, *at]) * 3, 200)
    for name, slope, style in (("memory", "memory_GB_s", "-"), ("store", "store_GB_s", (0, (4, 3)))):
        roof = np.minimum(span * bounds[slope], bounds["GFLOP_s"])
        axes.plot(
            span, roof, color=INK if name == "memory" else MUTED, lw=1.4, ls=style, label=f"{name} and arithmetic"
        )
    for row, x in zip(rows, at):
        for way, colour, mark in (("usual", RED, "s"), ("lsdask", BLUE, "o")):
            axes.plot(x, row[way] * row["flops"] / 1e9, mark, color=colour, ms=7, label=_once(row, rows, way))
        axes.annotate(
            row["name"], (x, min(row["lsdask"], row["usual"]) * row["flops"] / 1e9), xytext=(8, -9),
            textcoords="offset points", ha="left", size=9, color=INK,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right")
    return figure


def _once(row: dict, rows: list[dict], way: str) -> str | None:
    """Name a kind of point in the key once."""
    return {"usual": "as one would write it", "lsdask": "lsdask"}[way] if row is rows[0] else None
