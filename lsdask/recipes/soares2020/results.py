"""Tables 2 and 3 of the paper, and the report's figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lsdask import schema, store
from lsdask.recipes import tables as layout
from lsdask.report import charts, experiments

KEYS = ["sampling", "size_px"]

ABOUT = {
    "table2": "Tiles of each set to train on, the paper's beside; the paper counts those to validate on too.",
    "table3": "Mean landslide IoU of both areas: of the run that is best on them, as the paper chooses, and of the run "
    "that the validation tiles choose.",
    "areas": "Areas in km2 of the run that the validation tiles choose for each row of table 3.",
    "all_runs": "Every run. A collapsed one gives one score everywhere.",
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
        ``table2``, ``table3``, ``areas`` and ``all_runs``.
    """
    samples = frame.drop_duplicates(["dataset", *KEYS])
    table2 = layout.pivot(samples, ["dataset", "size_px"], "sampling", "tiles")
    paper = layout.published("soares2020_samples").rename(
        columns={"regular_sampling": "Regular", "random_sampling": "Random"}
    )
    paper["dataset"] = paper["dataset"].str.replace(" ", "")
    both = [name for name in ("Regular", "Random") if name in table2]
    printed = layout.beside(table2, paper, on=["dataset", "size_px"], values=both)
    best = frame.loc[frame.groupby(KEYS, sort=False)["iou"].idxmax().to_numpy()]
    chosen = frame.loc[frame.groupby(KEYS, sort=False)["valid_loss"].idxmin().to_numpy()]
    table3 = _table3(best).merge(_table3(chosen), on=KEYS, suffixes=("", "_chosen"))
    table3 = _with_paper(table3)
    km2 = [f"{name}_km2_{number}" for number in (1, 2) for name in ("tp", "fp", "fn", "tn")]
    scores = [f"{name}_{number}" for number in (1, 2) for name in ("precision", "recall", "f1", "iou")]
    return {
        "table2": printed,
        "table3": table3,
        "areas": chosen[[*KEYS, "dataset", *km2]].reset_index(drop=True),
        "all_runs": frame[["dataset", *KEYS, "filters", "batch", "tiles", *scores, "iou", "valid_loss", "collapsed"]],
    }


def _table3(part: pd.DataFrame) -> pd.DataFrame:
    return part[[*KEYS, "iou_1", "iou_2", "iou", "dataset"]]


def _with_paper(table: pd.DataFrame) -> pd.DataFrame:
    """Put the paper's best averages beside; the paper prints those of random sampling."""
    paper = layout.published("soares2020").set_index(KEYS)["average_miou"]
    keys = list(zip(table["sampling"], table["size_px"]))
    return table.assign(iou_paper=[paper.get(key, np.nan) for key in keys])


def lead(frame: pd.DataFrame) -> str:
    """Say what was found."""
    chosen = frame.sort_values("valid_loss").iloc[0]
    dead = int(frame["collapsed"].sum())
    told = f"{chosen['dataset']}, {chosen['sampling'].lower()} tiles of {chosen['size_px']} px"
    return (
        f"{len(frame)} runs, of which {dead} collapsed. The validation tiles choose {told}; "
        f"its landslide IoU on the two areas is {chosen['iou_1']:.3f} and {chosen['iou_2']:.3f}."
    )


def cards(out: Path, frame: pd.DataFrame) -> dict[str, list[tuple[str, Figure, str]]]:
    """Draw the report's figures: IoU by each axis of the experiment, and the chosen run's maps."""
    axes = [("dataset", "data set"), ("sampling", "sampling"), ("size_px", "tile, px"), ("filters", "filters"),
            ("batch", "batch")]  # fmt: skip
    spread = [(title, _spread(frame, name), "Each dot is a run; the line is the mean.") for name, title in axes]
    shown = "Blue: found. Magenta: missed. Yellow: false alarm."
    return {"What matters": spread, "Maps": [("Test areas, the chosen run", _maps(out, frame), shown)]}


def _spread(frame: pd.DataFrame, name: str) -> Figure:
    figure = Figure(figsize=(5.4, 3.0), layout="constrained")
    axes = figure.subplots()
    charts.style_chart(axes, name.replace("_", " "), "mean IoU of both areas")
    draw = np.random.default_rng(0)
    for place, (_, part) in enumerate(frame.groupby(name, sort=False)):
        axes.plot(place + draw.uniform(-0.18, 0.18, len(part)), part["iou"], "o", ms=3, alpha=0.5, color=charts.BLUE)
        axes.hlines(part["iou"].mean(), place - 0.28, place + 0.28, color=charts.RED, lw=2)
    values = [str(value).replace("RapidEye", "RE").replace("Augmentation", "Aug") for value in frame[name].unique()]
    axes.set_xticks(range(len(values)), values)
    return figure


def _maps(out: Path, frame: pd.DataFrame) -> Figure:
    """Show both areas in the colours of the chosen run's errors."""
    chosen = frame.sort_values("valid_loss").iloc[0]
    image, mask = (store.open(out / "shared/scene" / name) for name in ("mosaic.zarr", "mask.zarr"))
    windows = json.loads((out / "shared/areas/areas.json").read_text())
    pictures, truths, found = [], [], []
    for number, (y0, x0, y1, x1) in enumerate(windows, 1):
        part = {"y": slice(y0, y1), "x": slice(x0, x1)}
        pictures.append(experiments.picture_of(image.isel(part)))
        truths.append(mask.isel(part).values)
        scores = store.open(out / str(chosen["name"]) / f"scores_{number}.zarr").values[0]
        found.append(np.where(scores == schema.UNKNOWN, 0, scores / schema.SCORE_STEPS))
    return experiments.figure_examples(np.stack(pictures), np.stack(truths), {"found and missed": np.stack(found)})
