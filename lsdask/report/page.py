"""One self-contained page about a finished run: what it found, how good it is, how it was made."""

import html
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsdask import evaluate, schema
from lsdask.errors import BadInput, sentence
from lsdask.report import charts, figures
from lsdask.report.files import write_text
from lsdask.report.maps import composite_bands, pixel_m, plural
from lsdask.report.markup import (
    Markup,
    area_text,
    card,
    document,
    seconds_text,
    section,
    share_text,
    table,
)
from lsdask.report.overviews import step_of
from lsdask.report.runs import FEWEST_BLOCKS, SCORES, Run, history, load, places

PACKAGES = ("lsdask", "torch", "segmentation-models-pytorch", "xarray", "dask", "zarr", "numpy", "scikit-learn")
"""Whose versions the page names."""


def versions() -> dict[str, str]:
    """Give the versions of Python and of the packages that made the run."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write(run: Run | str | Path, *, path: str | Path | None = None) -> Path:
    """Write one self-contained page about a run.

    Parameters
    ----------
    run : Run, str or Path
        What :func:`collect` gives, or a folder as for :func:`load`.
    path : str or Path, optional
        Where to write; default ``report.html`` in the folder.

    Returns
    -------
    Path
        The page; it needs no network and no other file.

    Raises
    ------
    NotFound, Unreadable, BadInput
        If a part of the run is missing, cannot be read, or does not fit the others; if a run comes without a path.
    """
    if isinstance(run, Run) and path is None:
        raise BadInput(sentence("path", "be given with a Run, which has no folder", "none"))
    opened = run if isinstance(run, Run) else load(run)
    target = Path(path or Path(str(run)) / "report.html")
    write_text(target, page(opened))
    return target


def page(run: Run) -> str:
    """Make the page of a run, as HTML."""
    parts = {
        "What it saw": _scene_cards(run),
        "What it found": _result_cards(run),
        "A closer look": _detail_cards(run),
        "Learning and deciding": _training_cards(run) + _block("Landslides by size", _sizes(run.sizes)),
        "Numbers": _tables(run),
        "How it was made": _made(run),
    }
    return document(
        kicker="lsdask report",
        title=f"Landslides of {run.name}",
        lead=lead(run),
        top=f'<section class="scores-row" aria-label="Scores">{_score_tiles(run)}</section>',
        sections=[section(name, content) for name, content in parts.items()],
    )


def lead(run: Run) -> str:
    """Say the result in one sentence."""
    scores, number = run.metrics, len(run.polygons)
    if not number:
        return f"The map marks no landslide at a threshold of {run.threshold:g}, over {area_text(run.area_m2)}."
    where = "in ground the model never saw" if run.held_out is not None else "in the whole scene"
    return (
        f"The map finds {share_text(scores['recall'])} of the landslide area {where}, and "
        f"{share_text(scores['precision'])} of what it marks is landslide (F1 {scores['f1']:.2f}): "
        f"{plural(number, 'landslide')}, {area_text(run.mapped_m2)}, over {area_text(run.area_m2)}."
    )


def _score_tiles(run: Run) -> str:
    return "".join(
        f'<div class="score"><b>{run.metrics[key]:.3f}</b><span>{name}</span><small>{meaning}</small>'
        f"<i>{interval_text(run.intervals, key)}</i></div>"
        for key, (name, meaning) in SCORES.items()
    )


def _scene_cards(run: Run) -> str:
    dx = pixel_m(schema.geobox(run.scene))[1]
    height, width = run.scene.shape[-2:]
    size = f"{width:,} x {height:,} pixels of {dx:.3g} m. {colours_text(schema.bands(run.scene))}"
    cuts = "The colours of tiles: what trained, what chose the best epoch, and what was held out."
    outlined = figures.figure_scene(run.scene, polygons=run.polygons, ready=run.picture)
    kinds = "Spectral clusters by k-means, with their shares of the area."
    clusters = "" if run.clusters is None else card("Clusters", figures.figure_clusters(run.clusters), kinds)
    return (
        card("The scene", figures.figure_scene(run.scene, ready=run.picture), size)
        + card("Landslides mapped", outlined, "What the model mapped, outlined.")
        + clusters
        + card(
            "Tiles and their use",
            figures.figure_splits(run.tiles, run.scene, ready=run.picture),
            run.metrics.get("split") or cuts,
        )
    )


def colours_text(names: Sequence[str]) -> str:
    """Say what the colours of a scene's picture are, and how they were stretched.

    Examples
    --------
    >>> colours_text(("green", "red", "nir"))
    'Red, green and blue show nir, red and green, each from its 2nd to its 98th percentile.'
    """
    red, green, blue = (names[i] for i in composite_bands(names))
    if (red, green, blue) == ("red", "green", "blue"):
        return "True colour, each band from its 2nd to its 98th percentile."
    return f"Red, green and blue show {red}, {green} and {blue}, each from its 2nd to its 98th percentile."


def _result_cards(run: Run) -> str:
    step = step_of(run.scores.shape[-2:])
    highest = (
        f"Each cell shows the highest score of its {step} x {step} pixels." if step > 1 else "Each cell is a pixel."
    )
    where = "In the held-out tiles only." if run.held_out is not None else "In the whole scene."
    most = " Each cell shows the most frequent of the three among its pixels, so that small ones stay visible."
    right = figures.draw_errors(run.errors, run.mask, run.window, run.scene)
    return card("Scores", figures.figure_scores(run.scores), highest) + card("Right and wrong", right, where + most)


def _detail_cards(run: Run) -> str:
    dy, dx = pixel_m(schema.geobox(run.mask))
    cards = []
    for place in places(run.errors, run.window, run.mask.shape):
        figure = figures.figure_detail(run.scene, run.mask, run.scores, place.window, threshold=run.threshold)
        told = f"A landslide of {area_text(place.area * dy * dx)}. Yellow: the truth. White: from {run.threshold:g} on."
        cards.append(card(f"{share_text(place.found)} found", figure, told))
    return "".join(cards)


def _training_cards(run: Run) -> str:
    losses = history(run.model.get("record") or {})
    best = run.sweep.loc[int(run.sweep["f1"].to_numpy().argmax())]
    where = "held-out tiles" if run.held_out is not None else "whole scene"
    note = f"On the {where}. F1 is greatest, {best['f1']:.3f}, at {best['threshold']:.3g}."
    cards = [
        card("Scores by threshold", charts.figure_thresholds(run.sweep, threshold=run.threshold), note),
        card("Curves", charts.figure_curves(run.sweep, threshold=run.threshold), f"On the {where}, all thresholds."),
    ]
    if losses is not None:
        told = f"Loss on the tiles trained on and on those kept to judge it, over {plural(len(losses), 'epoch')}."
        cards.insert(0, card("Training", charts.figure_history(losses), told))
    return "".join(cards)


def _tables(run: Run) -> str:
    counts, pixel = run.metrics.get("counts") or {}, np.prod(pixel_m(schema.geobox(run.mask)))
    names = {"tp": "Found (TP)", "fn": "Missed (FN)", "fp": "False alarm (FP)", "tn": "Rightly left out (TN)"}
    confusion = [(names[k], f"{counts[k]:,}", area_text(counts[k] * pixel)) for k in names if k in counts]
    scored = [(name, f"{run.metrics[key]:.4f}", interval_text(run.intervals, key)) for key, (name, _) in SCORES.items()]
    scored.append(("Average precision", f"{evaluate.average_precision(run.sweep):.4f}", ""))
    scored.append(("ROC AUC", f"{evaluate.roc_auc(run.sweep):.4f}", ""))
    pixels = table(confusion, head=("", "pixels", "area"), kind="next") if confusion else ""
    blocks = [_block("Scores", table(scored, head=("", "value", "95 % interval")) + _interval_note(run) + pixels)]
    if run.metrics.get("seconds"):
        blocks.append(_block("Time", _seconds(run.metrics["seconds"])))
    return "".join(blocks)


def interval_text(intervals: pd.DataFrame | None, key: str) -> str:
    """Say a score's interval, or nothing where there is none."""
    if intervals is None:
        return ""
    low, high = (intervals[name].to_dict()[key] for name in ("low", "high"))
    return f"{low:.3f} to {high:.3f}"


def _interval_note(run: Run) -> str:
    side = 2 * int(run.tiles["size"].max())
    told = f"Threshold {run.threshold:g}. Intervals by drawing the held-out blocks of {side} x {side} px anew."
    few = f"Threshold {run.threshold:g}. Fewer than {FEWEST_BLOCKS} blocks were held out: too few for intervals."
    return f"<p class=note>{few if run.intervals is None else told}</p>"


def _sizes(sizes: pd.DataFrame) -> str:
    """Make the table of landslides found by size."""
    rows = []
    for low, high, number, detected, recall in sizes.to_numpy().tolist():
        name = f"over {area_text(low)}" if np.isinf(high) else f"to {area_text(high)}"
        shares = (share_text(detected), share_text(recall)) if number else ("", "")
        rows.append((name, f"{number:,.0f}", *shares))
    note = "<p class=note>Held-out landslides of the truth; one is detected if half of it was found.</p>"
    return table(rows, head=("area", "landslides", "detected", "area found")) + note


def _block(title: str, content: str) -> str:
    return f'<div class="card"><h3>{html.escape(title)}</h3>{content}</div>'


def _seconds(seconds: Mapping[str, float]) -> str:
    """Make the table of seconds a stage, with bars."""
    longest = max(max(seconds.values()), 1e-9)
    rows = [
        (name, seconds_text(took), Markup(f'<i style="width:{100 * took / longest:.1f}%"></i>'))
        for name, took in seconds.items()
    ]
    if "total" not in seconds:
        rows.append(("total", seconds_text(sum(seconds.values())), Markup("")))
    return table(rows, kind="bars")


def _made(run: Run) -> str:
    model, grid = run.model, schema.geobox(run.scene)
    dy, dx = pixel_m(grid)
    crs = f"EPSG:{grid.crs.epsg}" if grid.crs and grid.crs.epsg else str(grid.crs and grid.crs.proj.name)
    facts = [
        (
            "Scene",
            f"{run.scene.shape[-1]:,} x {run.scene.shape[-2]:,} px, {dx:.4g} x {dy:.4g} m, {crs}, {run.scene.dtype}",
        ),
        ("Model", " · ".join(filter(None, (model.get("name", ""), model.get("encoder", ""))))),
        *((name.capitalize(), f"{model[name]} px") for name in ("tile", "halo") if model.get(name) is not None),
        ("Tiles", ", ".join(f"{n:,} {name}" for name, n in run.tiles["split"].value_counts().items())),
        ("Held out", run.metrics.get("split") or plural(int((run.tiles["split"] == "test").sum()), "tile")),
    ]
    facts += _told(model.get("record") or {})
    used = ", ".join(f"{name} {number}" for name, number in versions().items())
    bands = [
        (band, f"{mean:.5g}", f"{std:.5g}")
        for band, mean, std in zip(model.get("bands", ()), model.get("mean", ()), model.get("std", ()))
    ]
    return _block("The run", table([*facts, ("Software", used)], kind="facts")) + _block(
        "Bands and their normalisation", table(bands, head=("band", "mean", "std"))
    )


def _told(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Give what a training record says in single values."""
    simple = {key: value for key, value in record.items() if isinstance(value, str | int | float)}
    return [
        (key.replace("_", " ").capitalize(), f"{value:.4g}" if isinstance(value, float) else str(value))
        for key, value in simple.items()
        if key not in PACKAGES
    ]
