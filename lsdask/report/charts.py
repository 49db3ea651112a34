"""Charts that a paper could use: losses by epoch, scores by threshold, measures by number of clusters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lsdask import evaluate, schema
from lsdask.report.maps import INK, MUTED, QUALITATIVE, WIDTH

BLUE, RED, GREEN = "#4477aa", "#ee6677", "#228833"
"""Of Paul Tol's bright qualitative colours."""

LINES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "ls": "-"},
    {"color": RED, "ls": (0, (5, 1.2))},
    {"color": GREEN, "ls": (0, (6, 1.2, 1.2, 1.2))},
    {"color": MUTED, "ls": (0, (1.5, 1.2))},
)
"""Lines of one chart: told apart without colours too."""


def figure_history(history: pd.DataFrame) -> Figure:
    """Show the losses of a training, epoch by epoch, and mark the best.

    Parameters
    ----------
    history : DataFrame, one row an epoch
        Columns epoch, train and valid (NaN or absent where there was no validation).

    Returns
    -------
    Figure
    """
    figure, axes = _chart("epoch", "loss")
    for name, style in (("train", LINES[0]), ("valid", LINES[1])):
        if name in history and history[name].notna().any():
            axes.plot(history["epoch"], history[name], **style, lw=1.8, marker="o", ms=3, label=name)
    judged = history["valid"] if "valid" in history and history["valid"].notna().any() else history["train"]
    best = int(history["epoch"].iloc[int(judged.argmin())])
    axes.axvline(best, color=MUTED, lw=0.8, ls=(0, (4, 3)), label=f"best, epoch {best}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    _key(axes)
    return figure


def figure_learning(history: pd.DataFrame) -> Figure:
    """Show precision, recall, F1 and IoU of a training, epoch by epoch.

    Parameters
    ----------
    history : DataFrame, one row an epoch
        Columns epoch, precision, recall, f1 and iou, as ``training.fit`` gives them.

    Returns
    -------
    Figure
    """
    figure, axes = _chart("epoch", "score")
    for name, style in zip(("precision", "recall", "f1", "iou"), LINES):
        label = {"f1": "F1", "iou": "IoU"}.get(name, name)
        axes.plot(history["epoch"], history[name], **style, lw=1.8, marker="o", ms=3, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.02)
    _key(axes)
    return figure


def figure_thresholds(sweep: pd.DataFrame, *, threshold: float = 0.5) -> Figure:
    """Show precision, recall and F1 at every threshold.

    Parameters
    ----------
    sweep : DataFrame
        From ``evaluate.sweep``.
    threshold : float
        The one in use, marked.

    Returns
    -------
    Figure
    """
    figure, axes = _chart("threshold", "score")
    some = sweep[sweep["tp"] + sweep["fp"] > 0]
    for name, style in zip(("precision", "recall", "f1"), LINES):
        axes.plot(some["threshold"], some[name], **style, lw=1.8, label=name.replace("f1", "F1"))
    axes.axvline(threshold, color=MUTED, lw=0.8, ls=(0, (4, 3)), label=f"in use, {threshold:g}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    _key(axes)
    return figure


def figure_curves(sweep: pd.DataFrame, *, threshold: float = 0.5) -> Figure:
    """Show the precision-recall and the ROC curve, with the areas under them.

    Parameters
    ----------
    sweep : DataFrame
        From ``evaluate.sweep``; of uint8 scores ``thresholds=251`` draws every step.
    threshold : float
        The one in use, marked.

    Returns
    -------
    Figure
    """
    figure = Figure(figsize=(WIDTH, WIDTH * 0.58), layout="constrained")
    left, right = figure.subplots(1, 2)
    used = int((sweep["threshold"] - threshold).abs().to_numpy().argmin())
    some = sweep[sweep["tp"] + sweep["fp"] > 0]
    false = sweep["fp"] / (sweep["fp"] + sweep["tn"]).clip(lower=1)
    left.plot(some["recall"], some["precision"], color=BLUE, lw=1.8)
    right.plot([1.0, *false, 0.0], [1.0, *sweep["recall"], 0.0], color=BLUE, lw=1.8)
    for axes, x, y in ((left, sweep["recall"], sweep["precision"]), (right, false, sweep["recall"])):
        axes.plot(x.iloc[used], y.iloc[used], "o", color=RED, ms=5, label=f"in use, {threshold:g}")
    style_chart(left, "recall", "precision", title=f"AP {evaluate.average_precision(sweep):.3f}")
    style_chart(right, "false positive rate", "recall", title=f"AUC {evaluate.roc_auc(sweep):.3f}")
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect=1)
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right" if axes is right else "lower left")
    return figure


def figure_reliability(sweep: pd.DataFrame, *, bins: int = 10) -> Figure:
    """Show how often pixels of each score are landslides, and how many pixels have it.

    Parameters
    ----------
    sweep : DataFrame
        From ``evaluate.sweep`` with ``thresholds=251``.
    bins : int
        As in ``evaluate.reliability``.

    Returns
    -------
    Figure
        Points on the diagonal are probabilities; below it the map promises too much.
    """
    table = evaluate.reliability(sweep, bins=bins)
    figure = Figure(figsize=(WIDTH, WIDTH * 0.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (4, 3)), label="as often as it says")
    some = table[table["pixels"] > 0]
    above.plot(some["score"], some["observed"], color=BLUE, lw=1.8, marker="o", ms=4, label="this map")
    below.bar(table["from"], table["pixels"], width=1 / bins, align="edge", color=BLUE, ec="white", lw=0.6)
    below.set_yscale("log")
    style_chart(above, "", "share of landslides")
    style_chart(below, "score", "pixels")
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _key(above)
    return figure


def figure_sizes(sizes: pd.DataFrame) -> Figure:
    """Show how many landslides of each size were found, and how much of their ground.

    Parameters
    ----------
    sizes : DataFrame
        From ``evaluate.by_size``.

    Returns
    -------
    Figure
    """
    figure, axes = _chart("area of the landslide, m²", "share")
    at = np.arange(len(sizes))
    for shift, name, colour, text in (
        (-0.2, "detected", BLUE, "landslides, half of which was found"),
        (0.2, "recall", GREEN, "their pixels"),
    ):
        axes.bar(at + shift, sizes[name].fillna(0), width=0.38, color=colour, label=text)
    axes.set_xticks(at, [f"{_size(row)}\nn = {row.landslides:,}" for row in sizes.itertuples()])
    axes.set(ylim=(0, 1.02), axisbelow=True)
    _key(axes)
    return figure


def _size(row: Any) -> str:
    """Say a class of sizes."""
    if row.from_m2 == 0:
        return f"< {row.to_m2:,.0f}"
    return f"≥ {row.from_m2:,.0f}" if np.isinf(row.to_m2) else f"{row.from_m2:,.0f} to {row.to_m2:,.0f}"


def figure_k(table: pd.DataFrame) -> Figure:
    """Show what there is to choose the number of clusters by.

    Parameters
    ----------
    table : DataFrame indexed by k
        From ``kmeans.describe``.

    Returns
    -------
    Figure
        The mean squared distance (look for the bend), the simplified silhouette (higher is better) and the
        Davies-Bouldin index (lower is better); the best of the latter two is marked.
    """
    figure = Figure(figsize=(WIDTH, WIDTH * 0.36), layout="constrained")
    shown = {
        "distance2": ("mean squared distance", BLUE, None),
        "silhouette": ("silhouette", GREEN, "idxmax"),
        "davies_bouldin": ("Davies-Bouldin", RED, "idxmin"),
    }
    for axes, (column, (title, colour, best)) in zip(figure.subplots(1, 3), shown.items()):
        axes.plot(table.index, table[column], color=colour, lw=1.8, marker="o", ms=3)
        if best is not None and table[column].notna().any():
            k = getattr(table[column], best)()
            axes.plot(k, table[column][k], "o", ms=9, mfc="none", mec=INK)
            title += f", best: {k}"
        else:
            axes.set_ylim(bottom=0)
        style_chart(axes, "k", "", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def figure_spectra(
    centers: xr.DataArray, *, k: int | None = None, wavelengths: Sequence[float] | None = None
) -> Figure:
    """Show the mean spectrum of each cluster, in the colour it has on the map.

    Parameters
    ----------
    centers : DataArray (k, cluster, band)
        From ``kmeans.fit``; a centre is the mean of its cluster.
    k : int, optional
        Default: the last.
    wavelengths : sequence of float, optional
        Of the bands, in nm; bands are evenly spaced without.

    Returns
    -------
    Figure
    """
    chosen = int(centers["k"].values[-1]) if k is None else k
    values = centers.sel(k=chosen).values[:chosen]
    size = centers["size"].sel(k=chosen).values[:chosen]
    figure, axes = _chart("band" if wavelengths is None else "wavelength, nm", "mean value")
    at = np.arange(len(values[0])) if wavelengths is None else np.asarray(wavelengths)
    for i, (spectrum, share) in enumerate(zip(values, size / max(size.sum(), 1))):
        colour = QUALITATIVE[i % len(QUALITATIVE)]
        axes.plot(at, spectrum, color=colour, lw=1.8, marker="o", ms=4, label=f"{i}  ({share:.0%})")
    axes.set_xticks(at, schema.bands(centers)) if wavelengths is None else None
    _key(axes)
    return figure


def _chart(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, WIDTH * 0.58), layout="constrained")
    axes = figure.subplots()
    style_chart(axes, x, y)
    return figure, axes


def style_chart(axes: Axes, x: str, y: str, *, title: str = "") -> None:
    """Give a chart its labels and the house's quiet look."""
    axes.set_title(title, color=INK, size=10)
    axes.set_xlabel(x, color=INK, size=10)
    axes.set_ylabel(y, color=INK, size=10)
    axes.tick_params(color=MUTED, labelcolor=INK, labelsize=9)
    axes.grid(color=MUTED, alpha=0.25, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.patch.set_alpha(0)


def _key(axes: Axes) -> None:
    axes.legend(
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=4,
        handlelength=1.6,
        columnspacing=1.4,
    )
