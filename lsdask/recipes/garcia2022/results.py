"""Tables 2 to 5 of the paper, and the report's figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lsdask import schema, store
from lsdask.recipes import tables as layout
from lsdask.report import charts, experiments

FOUND = {"proposed": (15, 36), "standard": (3, 6)}
"""Of how many runs the paper's maps show scars."""

ABOUT = {
    "table2": "Precision of landslide pixels, encoders that have learnt k clusters.",
    "table3": "Recall of landslide pixels, encoders that have learnt k clusters.",
    "table4": "Precision of landslide pixels, random first weights.",
    "table5": "Recall of landslide pixels, random first weights.",
    "summary": "Means over runs, beside the paper's. whole_f1 is of maps made in one piece. tile_precision and "
    "tile_recall are means over tiles; one with nothing to find or nothing marked counts as 1. Identified: runs that "
    "find half of the landslide pixels; in the paper, those whose maps show scars.",
    "all_runs": "Beside the paper's. whole_f1 is of the map made in one piece. tile_recall is the mean over tiles; one "
    "without landslide counts as found.",
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
        ``table2`` to ``table5``, those that have runs; ``summary`` of both approaches; and ``all_runs``: every run
        with the paper's numbers.
    """
    made: dict[str, pd.DataFrame] = {}
    for number, approach, rows, value in (
        (2, "proposed", ["n_clusters", "dataset"], "precision"),
        (3, "proposed", ["n_clusters", "dataset"], "recall"),
        (4, "standard", ["dataset"], "precision"),
        (5, "standard", ["dataset"], "recall"),
    ):
        part = frame[frame["approach"] == approach].sort_values(["dataset", "n_clusters"], kind="stable")
        if len(part):
            made[f"table{number}"] = layout.pivot(part, rows, "model", value)
    keys = ["approach", "n_clusters", "dataset", "model"]
    made["summary"] = _summary(frame)
    joined = layout.beside(frame, layout.published("garcia2022"), on=keys, values=["precision", "recall"])
    extra = frame[["f1", "whole_f1", "tile_precision", "tile_recall", "identified"]].reset_index(drop=True)
    made["all_runs"] = joined.join(extra) if len(joined) == len(frame) else joined
    return made


def _summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Put the means of both approaches beside the paper's."""
    rows = []
    for approach, part in frame.groupby("approach", sort=False):
        paper = layout.published("garcia2022").query("approach == @approach")
        found, of = FOUND[str(approach)]
        beside = {name: part[name].mean() for name in ("f1", "whole_f1", "tile_precision", "tile_recall")}
        for name in ("precision", "recall"):
            beside |= {name: part[name].mean(), f"{name}_paper": paper[name].mean()}
        told = {"identified": f"{part['identified'].sum()} of {len(part)}", "identified_paper": f"{found} of {of}"}
        rows.append({"approach": approach, **beside, **told})
    return pd.DataFrame(rows)


def lead(frame: pd.DataFrame) -> str:
    """Say what was found."""
    groups = frame.groupby("approach")["f1"]
    told = " and ".join(f"{part.mean():.3f} over {len(part)} {name} runs" for name, part in groups)
    best = frame.sort_values("f1", ascending=False).iloc[0]
    return f"{len(frame)} runs. Mean F1 is {told}; the best is {best['f1']:.3f} ({str(best['name']).split('/')[-1]})."


def cards(out: Path, frame: pd.DataFrame) -> dict[str, list[tuple[str, Figure, str]]]:
    """Draw the report's figures: scores beside the paper's, F1 by each axis of the experiment, and maps."""
    beside = tables(frame)["all_runs"]
    beside = beside.assign(run=[" ".join(str(part) for part in row if part) for row in beside.iloc[:, :4].values])
    rings = experiments.figure_beside(beside, "run", ["precision", "recall"])
    spread = [
        (name, experiments.figure_axis(frame, name, "f1", title="F1"), "Each dot is a run; the line is the mean.")
        for name in ("approach", "model", "dataset")
    ]
    shown = "Each network's best run, standard and proposed. Blue: found. Magenta: missed. Yellow: false alarm."
    return {
        "Scores": [("Precision and recall", rings, "Dots are this run's, rings the paper's, on other data.")],
        "What matters": [("clusters", _by_k(frame), "0 stands for random first weights."), *spread],
        "Maps": [("The test area", _maps(out, frame), shown)],
    }


def _by_k(frame: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    charts.style_chart(axes, "clusters k (0: random first weights)", "F1")
    for (model, dataset), part in frame.groupby(["model", "dataset"], sort=False):
        points = part.assign(k=part["n_clusters"].fillna(0)).sort_values("k")
        style = "-" if dataset == "LD30" else "--"
        axes.plot(points["k"], points["f1"], style, marker="o", ms=4, label=f"{model} {dataset}")
    axes.set_xticks(sorted(frame["n_clusters"].fillna(0).unique()))
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _maps(out: Path, frame: pd.DataFrame) -> Figure:
    """Show the test area in the colours of the maps' errors, the best of each approach and network."""
    y0, x0, y1, x1 = json.loads((out / "shared/tiles/test.json").read_text())
    window = {"y": slice(y0, y1), "x": slice(x0, x1)}
    picture = experiments.picture_of(store.open(out / "shared/scene/mosaic.zarr").isel(window))
    truth = store.open(out / "shared/scene/mask.zarr").isel(window).values
    best = frame.loc[frame.groupby(["approach", "model"], sort=False)["f1"].idxmax()]
    found = {_title(row): _probability(out / str(row["name"]))[None] for _, row in best.iterrows()}
    return experiments.figure_examples(picture[None], truth[None], found)


def _title(run: pd.Series) -> str:
    kind = "standard" if run["approach"] == "standard" else f"k = {run['n_clusters']:.0f}"
    return f"{run['model']}, {kind}\n{run['dataset']}, F1 {run['f1']:.2f}"


def _probability(run: Path) -> np.ndarray:
    """Give the probabilities of a run's map, (y, x); void has none."""
    scores = store.open(run / "scores.zarr").values[0]
    return np.where(scores == schema.UNKNOWN, 0, scores / schema.SCORE_STEPS)
