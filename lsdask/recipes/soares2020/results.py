"""Tables 2 and 3 of the paper, and the report's figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lsdask import schema, store
from lsdask.recipes import tables as layout
from lsdask.report import experiments

KEYS = ["sampling", "size_px"]

SPREAD = "Each dot is a run; the line is the mean."

BEST = (
    "Dots are the best of each set's runs on this area by F1; rings are the paper's, of its area, where it prints them."
)

SCORES = ["precision", "recall", "f1", "iou"]

AREAS = ["tp_km2", "fp_km2", "fn_km2", "tn_km2"]

ABOUT = {
    "table2": "Tiles of each set to train on, the paper's beside; the paper counts those to validate on too.",
    "table3": "Mean landslide IoU of both areas: of the run that is best on them, as the paper chooses, and of the run "
    "that the validation tiles choose.",
    "figure5": "Test area 1: of each set's runs the one with the best F1 on this area, as the paper chooses; beside, "
    "the F1 of the run that the validation tiles choose.",
    "figure6": "Test area 2, likewise.",
    "figure7": "Areas in km2 of the runs of table 3 that are best on the test areas.",
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
        ``table2``, ``table3``, ``figure5`` to ``figure7`` and ``all_runs``.
    """
    best, chosen = (_picked(frame, KEYS, *by) for by in (("iou", "idxmax"), ("valid_loss", "idxmin")))
    scores = [f"{name}_{number}" for number in (1, 2) for name in SCORES]
    return {
        "table2": _samples(frame),
        "table3": _with_paper(_table3(best).merge(_table3(chosen), on=KEYS, suffixes=("", "_chosen"))),
        "figure5": _best_on(frame, 1),
        "figure6": _best_on(frame, 2),
        "figure7": _areas(best),
        "all_runs": frame[["dataset", *KEYS, "filters", "batch", "tiles", *scores, "iou", "valid_loss", "collapsed"]],
    }


def _samples(frame: pd.DataFrame) -> pd.DataFrame:
    """Count the tiles of each set, beside the paper's."""
    table2 = layout.pivot(frame.drop_duplicates(["dataset", *KEYS]), ["dataset", "size_px"], "sampling", "tiles")
    paper = layout.published("soares2020_samples").rename(
        columns={"regular_sampling": "Regular", "random_sampling": "Random"}
    )
    paper["dataset"] = paper["dataset"].str.replace(" ", "")
    both = [name for name in ("Regular", "Random") if name in table2]
    return layout.beside(table2, paper, on=["dataset", "size_px"], values=both)


def _picked(frame: pd.DataFrame, keys: list[str], value: str, extreme: str) -> pd.DataFrame:
    """Take from each group the run with the least or the largest value."""
    rows = getattr(frame.groupby(keys, sort=False)[value], extreme)()
    return frame.loc[rows.to_numpy()]


def _best_on(frame: pd.DataFrame, number: int) -> pd.DataFrame:
    """Give each set's best run on one area, and the F1 there of the one that validation chooses."""
    keys = ["dataset", *KEYS]
    renamed = frame.rename(columns={f"{name}_{number}": name for name in SCORES} | {"iou": "iou_mean"})
    best, chosen = (_picked(renamed, keys, *by) for by in (("f1", "idxmax"), ("valid_loss", "idxmin")))
    paper = layout.published("soares2020_scores").query("test_area == @number").drop(columns="test_area")
    made = best[[*keys, "filters", "batch", *SCORES]].merge(paper, on=keys, how="left", suffixes=("", "_paper"))
    return made.assign(f1_chosen=chosen["f1"].to_numpy())


def _areas(best: pd.DataFrame) -> pd.DataFrame:
    """Give the areas of the best runs on each test area, beside the paper's, which are of random sampling."""
    parts = []
    for number in (1, 2):
        part = best.rename(columns={f"{name}_{number}": name for name in AREAS})
        parts.append(part[[*KEYS, "dataset", *AREAS]].assign(test_area=number))
    paper = layout.published("soares2020_areas").assign(sampling="Random")
    keys = [*KEYS, "test_area"]
    made = pd.concat(parts).merge(paper, on=keys, how="left", suffixes=("", "_paper"))
    return made[[*keys, "dataset", *AREAS, *(f"{name}_paper" for name in AREAS)]]


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
    """Draw the report's figures: the best scores, IoU by each axis of the experiment, and the chosen run's maps."""
    short = frame.assign(dataset=frame["dataset"].str.replace("RapidEye", "RE").str.replace("Augmentation", "Aug"))
    spread = [
        (name.replace("_", " "), experiments.figure_axis(short, name, "iou", title="mean IoU of both areas"), SPREAD)
        for name in ("dataset", "sampling", "size_px", "filters", "batch")
    ]
    best = [
        (f"Test area {number}", experiments.figure_grid(_best_on(frame, number), KEYS, "dataset", SCORES), BEST)
        for number in (1, 2)
    ]
    shown = "Blue: found. Magenta: missed. Yellow: false alarm."
    maps = [("Test areas, the chosen run", _maps(out, frame), shown)]
    return {"Best runs, as figures 5 and 6": best, "What matters": spread, "Maps": maps}


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
