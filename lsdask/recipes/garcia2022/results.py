"""Tables 2 to 5 of the paper, and the report's figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lsdask import schema, store
from lsdask.recipes import tables as layout
from lsdask.report import charts, experiments

ABOUT = {
    "table2": "Precision of landslide pixels, encoders that have learnt k clusters.",
    "table3": "Recall of landslide pixels, encoders that have learnt k clusters.",
    "table4": "Precision of landslide pixels, random first weights.",
    "table5": "Recall of landslide pixels, random first weights.",
    "all_runs": "Beside the paper's. tile_recall is the mean over tiles; one without landslide counts as found.",
}
"""What each table shows."""


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Lay results out as the paper does.

    Parameters
    ----------
    frame : DataFrame
        What ``grid.results`` gives.

    Returns
    -------
    dict of DataFrame
        ``table2`` to ``table5``, those that have runs, and ``all_runs``: every run with the paper's numbers.
    """
    made = {}
    for number, approach, rows, value in (
        (2, "proposed", ["n_clusters", "dataset"], "precision"),
        (3, "proposed", ["n_clusters", "dataset"], "recall"),
        (4, "standard", ["dataset"], "precision"),
        (5, "standard", ["dataset"], "recall"),
    ):
        part = frame[frame["approach"] == approach]
        if len(part):
            made[f"table{number}"] = layout.pivot(part, rows, "model", value)
    keys = ["approach", "n_clusters", "dataset", "model"]
    joined = layout.beside(frame, layout.published("garcia2022"), on=keys, values=["precision", "recall"])
    extra = frame[["f1", "tile_precision", "tile_recall", "identified"]].reset_index(drop=True)
    made["all_runs"] = joined.join(extra) if len(joined) == len(frame) else joined
    return made


def lead(frame: pd.DataFrame) -> str:
    """Say what was found."""
    groups = frame.groupby("approach")["f1"]
    told = " and ".join(f"{part.mean():.3f} over {len(part)} {name} runs" for name, part in groups)
    best = frame.sort_values("f1", ascending=False).iloc[0]
    return f"{len(frame)} runs. Mean F1 is {told}; the best is {best['f1']:.3f} ({str(best['name']).split('/')[-1]})."


def cards(out: Path, frame: pd.DataFrame) -> dict[str, list[tuple[str, Figure, str]]]:
    """Draw the report's figures: scores beside the paper's, F1 by k, and the best map."""
    beside = tables(frame)["all_runs"]
    beside = beside.assign(run=[" ".join(str(part) for part in row if part) for row in beside.iloc[:, :4].values])
    rings = experiments.figure_beside(beside, "run", ["precision", "recall"])
    shown = "Blue: found. Magenta: missed. Yellow: false alarm."
    return {
        "Scores": [("Precision and recall", rings, "Dots are this run's, rings the paper's, on other data.")],
        "Clusters": [("F1 by number of clusters", _by_k(frame), "0 stands for random first weights.")],
        "Map": [("The best run's map of the test area", _map(out, frame), shown)],
    }


def _by_k(frame: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    axes = figure.subplots()
    charts.style_chart(axes, "clusters k (0: random first weights)", "F1")
    for (model, dataset), part in frame.groupby(["model", "dataset"], sort=False):
        points = part.assign(k=part["n_clusters"].fillna(0)).sort_values("k")
        style = "-" if dataset == "LD30" else "--"
        axes.plot(points["k"], points["f1"], style, marker="o", ms=4, label=f"{model} {dataset}")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _map(out: Path, frame: pd.DataFrame) -> Figure:
    """Show the test area in the colours of its map's errors."""
    best = str(frame.sort_values("f1", ascending=False).iloc[0]["name"])
    y0, x0, y1, x1 = json.loads((out / "shared/tiles/test.json").read_text())
    window = {"y": slice(y0, y1), "x": slice(x0, x1)}
    image = store.open(out / "shared/scene/mosaic.zarr").isel(window)
    truth = store.open(out / "shared/scene/mask.zarr").isel(window).values
    scores = store.open(out / best / "scores.zarr").values[0]
    probability = np.where(scores == schema.UNKNOWN, 0, scores / schema.SCORE_STEPS)
    picture = experiments.picture_of(image)
    return experiments.figure_examples(picture[None], truth[None], {best.split("/")[-1]: probability[None]})
