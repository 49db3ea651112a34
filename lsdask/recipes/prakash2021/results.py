"""The ranking by MCC, what leaving an area out does, and the report's figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lsdask import schema, store
from lsdask.recipes import tables as layout
from lsdask.recipes.prakash2021.layers import COLORS
from lsdask.recipes.prakash2021.work import SCORES, record
from lsdask.recipes.steps import RECORD
from lsdask.report import charts, experiments
from lsdask.report.maps import INK, MUTED, plural

ABOUT = {
    "ranking": "Trainings of one area and of all, area by area from the best MCC on; the paper's, where printed.",
    "printed": "The numbers that the paper prints; all others it shows as figures only. '-' beside M_ALL_30: it mapped "
    "nothing on B.",
    "jackknife": "How far the MCC on each area is above that of the training on all, if one is left out of training.",
    "all_runs": "Every training. A collapsed one gives one score everywhere.",
}
"""What each table shows."""

AREAS = "ABCDEFG"

REFERENCE = "M_ALL_6"
"""What trainings without an area are compared with."""

LABELS = {"mcc": "MCC", "f1": "F1", "precision": "precision", "recall": "recall"}


def by_area(frame: pd.DataFrame) -> pd.DataFrame:
    """Give a row for each run and area that it was judged on.

    Parameters
    ----------
    frame : DataFrame
        What ``grid.results`` gives, one row a run.

    Returns
    -------
    DataFrame
        ``name``, ``model``, ``family``, ``area`` and the scores.
    """
    kept = ["name", "model", "family"]
    parts = []
    for area in AREAS:
        if f"mcc_{area}" in frame:
            names = {f"{score}_{area}": score for score in SCORES}
            part = frame[[*kept, *names]].rename(columns=names).assign(area=area)
            parts.append(part[part["mcc"].notna()])
    none = pd.DataFrame(columns=[*kept, "area", *SCORES])
    return pd.concat(parts, ignore_index=True)[[*kept, "area", *SCORES]] if parts else none


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Lay results out: the ranking, the paper's printed numbers, the trainings without an area.

    Parameters
    ----------
    frame : DataFrame
        What ``grid.results`` gives.

    Returns
    -------
    dict of DataFrame
        ``ranking``, ``printed``, ``jackknife`` if there are such runs, and ``all_runs``.
    """
    judged = by_area(frame)
    changes = jackknife(judged)
    wide = layout.pivot(changes, ["model", "left_out"], "area", "change") if len(changes) else changes
    made = {"ranking": ranking(judged), "printed": printed(judged), "jackknife": wide}
    kept = ["model", "family", "resolution_m", "tiles", "stages", "epochs_run", "minutes", "collapsed"]
    every = frame[[name for name in (*kept, *(f"mcc_{area}" for area in AREAS)) if name in frame]]
    return {name: table for name, table in made.items() if len(table)} | {"all_runs": every}


def ranking(judged: pd.DataFrame) -> pd.DataFrame:
    """Rank the runs of each area by MCC, the best first; trainings without an area are not among them."""
    some = judged[judged["family"] != "jackknife"].sort_values(["area", "mcc"], ascending=[True, False], kind="stable")
    rank = some.groupby("area")["mcc"].rank(ascending=False, method="min").astype("int64")
    paper = _paper().query("metric == 'MCC'").set_index(["model", "area"])["value"]
    there = [paper.get(key, np.nan) for key in zip(some["model"], some["area"])]
    ranked = some.assign(rank=rank, mcc_paper=there)
    return ranked[["area", "rank", "model", "mcc", "mcc_paper", "f1", "precision", "recall"]].reset_index(drop=True)


def printed(judged: pd.DataFrame) -> pd.DataFrame:
    """Put the paper's numbers beside those of the runs."""
    long = judged.melt(["model", "area"], list(SCORES), "metric", "value")
    long["metric"] = long["metric"].map(lambda name: "MCC" if name == "mcc" else name)
    return layout.beside(long, _paper(), on=["model", "area", "metric"], values=["value"])


def jackknife(judged: pd.DataFrame) -> pd.DataFrame:
    """Say what leaving an area out of the training does to the MCC of each area."""
    whole = judged[judged["model"] == REFERENCE].set_index("area")["mcc"]
    some = judged[judged["family"] == "jackknife"]
    left_out = [next(area for area in "ABCD" if area not in model.split("_")[1]) for model in some["model"]]
    change = some["mcc"].to_numpy() - whole.reindex(some["area"]).to_numpy()
    made = some.assign(left_out=left_out, change=change)
    return made[["model", "left_out", "area", "mcc", "change"]].reset_index(drop=True)


def lead(frame: pd.DataFrame) -> str:
    """Say what was found."""
    told = ranking(by_area(frame))
    best = told[told["rank"] == 1].drop_duplicates("area")
    named = ", ".join(f"{row.area} {row.model} ({row.mcc:.3f})" for row in best.itertuples())
    ground = " on synthetic ground" if frame["synthetic"].all() else ""
    return f"{plural(len(frame), 'run')}{ground}. The best MCC of each area: {named or 'none yet'}."


def cards(out: Path, frame: pd.DataFrame) -> dict[str, list[tuple[str, Figure, str]]]:
    """Draw the report's figures: scores of all runs on each area, what each area adds, and the best maps."""
    judged = by_area(frame)
    some = judged[judged["family"] != "jackknife"]
    spiders = [(f"Area {area}", _spider(part), "From 0 in the middle to 1.") for area, part in some.groupby("area")]
    changes = jackknife(judged)
    best = some.loc[some.groupby("area")["mcc"].idxmax()]
    shown = "Blue: found. Magenta: missed. Yellow: false alarm."
    maps = [
        (f"Area {area}, {model}", _map(out, name, area), shown)
        for area, model, name in zip(best["area"], best["model"], best["name"])
    ]
    caption = f"MCC less that of {REFERENCE}: below 0, the area that was left out had helped."
    return {
        "Scores": spiders,
        "Without an area": [("Change of MCC", _changes(changes), caption)] if changes["change"].notna().any() else [],
        "Maps": maps,
    }


def _paper() -> pd.DataFrame:
    return layout.published("prakash2021").rename(columns={"test_area": "area"})


def _spider(part: pd.DataFrame) -> Figure:
    """Show the scores of the runs of an area, a spoke a run."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.add_subplot(projection="polar")
    angle = np.linspace(0, 2 * np.pi, len(part), endpoint=False)
    for (score, label), colour in zip(LABELS.items(), (INK, charts.GREEN, charts.BLUE, charts.RED)):
        values = part[score].to_numpy()
        width = 2.2 if score == "mcc" else 1.2
        axes.plot([*angle, angle[0]], [*values, values[0]], color=colour, lw=width, marker="o", ms=3, label=label)
    axes.set_theta_offset(np.pi / 2)  # type: ignore[attr-defined]
    axes.set_theta_direction(-1)  # type: ignore[attr-defined]
    axes.set_xticks(angle, part["model"], color=INK, fontsize=8)
    axes.set_ylim(min(0.0, float(part["mcc"].min())), 1)
    axes.tick_params(axis="x", pad=9)
    axes.tick_params(axis="y", labelcolor=MUTED, labelsize=7)
    axes.grid(color=MUTED, alpha=0.35, lw=0.6)
    axes.spines["polar"].set_color(MUTED)
    axes.patch.set_alpha(0)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _changes(changes: pd.DataFrame) -> Figure:
    """Show what leaving each area out changes."""
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    axes = figure.subplots()
    charts.style_chart(axes, "area judged", f"MCC less that of {REFERENCE}")
    names = sorted(changes["area"].unique())
    axes.axhline(0, color=MUTED, lw=1)
    colours = (charts.BLUE, charts.RED, charts.GREEN, INK)
    for number, ((left_out, part), colour) in enumerate(zip(changes.groupby("left_out"), colours)):
        place = part["area"].map(names.index) + 0.16 * (number - 1.5)
        axes.vlines(place, 0, part["change"], color=colour, lw=1)
        axes.plot(place, part["change"], "o", ms=5, color=colour, label=f"without {left_out}")
    axes.set_xticks(range(len(names)), names)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _map(out: Path, run: str, area: str) -> Figure:
    """Show a test region, and its map in the colours of its errors."""
    step = out / _layers(out / run, area)
    y0, x0, y1, x1 = record(step)["test_box"]
    box = {"y": slice(y0, y1), "x": slice(x0, x1)}
    image = store.open(step / "mosaic.zarr").isel(box).sel(band=[f"post_{color}" for color in COLORS])
    truth = store.open(step / "test.zarr").isel(box).values
    scores = store.open(out / run / f"scores_{area}.zarr").values[0]
    found = np.where(scores == schema.UNKNOWN, 0, scores / schema.SCORE_STEPS)
    picture = experiments.picture_of(image.assign_coords(band=list(COLORS)))
    return experiments.figure_examples(picture[None], truth[None], {"found and missed": found[None]})


def _layers(run: Path, area: str) -> str:
    """Give the step that made the layers on which a run was judged."""
    held = json.loads((run / RECORD).read_text())
    (name,) = (name for name in held["spec"]["tests"] if name[0] == area)
    return str(held["needs"][name])
