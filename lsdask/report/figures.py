"""Maps that a paper could use: each function gives a matplotlib Figure, to save in any format."""

from collections.abc import Sequence
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Colormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lsdask import evaluate, inventory, schema
from lsdask.report.maps import (
    INK,
    QUALITATIVE,
    WIDTH,
    Window,
    backdrop,
    frame,
    legend,
    new_map,
    picture,
    pixel_m,
    plural,
    scale_bar,
    show,
    tallness,
    whole,
)
from lsdask.report.overviews import overview, step_of

OUTLINE = "#ffd400"

AGREEMENT = {evaluate.TP: "#1e88e5", evaluate.FP: "#ffc107", evaluate.FN: "#d81b60"}
"""Blue, amber, crimson: told apart with any colour vision (Nichols, davidmathlogic.com/colorblind)."""

SPLITS = {"train": "#4477aa", "valid": "#ccbb44", "test": "#ee6677", "none": "#bbbbbb"}
"""Three of Paul Tol's bright qualitative colours, and grey."""

USES = {"train": "trained on", "valid": "chose the best epoch", "test": "held out", "none": "not used"}


def figure(image: xr.DataArray) -> Figure:
    """Show any image of the house as what it is: scores, labels or a mask, or a scene.

    Parameters
    ----------
    image : DataArray (class, y, x), (k, y, x), (band, y, x) or (y, x)

    Returns
    -------
    Figure
    """
    if "class" in image.dims:
        return figure_scores(image)
    if "band" in image.dims:
        return figure_scene(image)
    if image.dtype == np.uint8:
        return figure_clusters(image)
    return figure_scene(image.expand_dims("band"))


def figure_scene(
    scene: xr.DataArray,
    *,
    bands: Sequence[int] | None = None,
    polygons: gpd.GeoDataFrame | None = None,
    ready: np.ndarray | None = None,
) -> Figure:
    """Show a scene in colour, with landslide outlines over it if any are given.

    Parameters
    ----------
    scene : DataArray (band, y, x)
    bands : sequence of 3 int, optional
        Places of the bands shown as red, green and blue; chosen by name otherwise.
    polygons : GeoDataFrame, optional
        In any CRS.
    ready : (y, x, 4) array, optional
        What ``maps.picture(scene, whole(scene))`` gave, to read a large scene once for several figures.

    Returns
    -------
    Figure
    """
    schema.check(scene, schema.MOSAIC, "scene")
    figure, axes = new_map(scene)
    shown = picture(scene, whole(scene), bands) if ready is None else ready
    show(axes, shown, whole(scene), step_of(scene.shape[-2:]))
    if polygons is not None:
        _outline(axes, polygons, scene)
        legend(figure, {plural(len(polygons), "landslide"): OUTLINE})
    return figure


def _outline(axes: Axes, polygons: gpd.GeoDataFrame, image: xr.DataArray) -> None:
    """Draw the rings of polygons in pixels of an image; as a picture, for there may be a million."""
    shapes = inventory.on_pixels(polygons, schema.geobox(image))
    rings = shapely.get_rings(shapely.get_parts(shapes))
    corners = [shapely.get_coordinates(ring) for ring in rings]
    for colour, width in (("black", 1.5), (OUTLINE, 0.8)):
        axes.add_collection(LineCollection(corners, colors=colour, linewidths=width, rasterized=True))


def figure_clusters(labels: xr.DataArray) -> Figure:
    """Show a cluster map, and each cluster's share of the area.

    Parameters
    ----------
    labels : DataArray (k, y, x) or (y, x) uint8
        255 unknown. Of several k the last is shown.

    Returns
    -------
    Figure
    """
    labels = labels if labels.ndim == 2 else labels.isel({labels.dims[0]: -1})
    schema.check(labels, schema.MASK, "labels")
    small = overview(labels, "first")
    colours = [QUALITATIVE[i % len(QUALITATIVE)] for i in range(schema.UNKNOWN)]
    palette = np.array([(*to_rgb(colour), 1.0) for colour in colours] + [(0.0, 0.0, 0.0, 0.0)])
    figure, axes = new_map(labels)
    show(axes, palette[small], whole(labels), step_of(labels.shape))
    counts = np.bincount(small.ravel(), minlength=256)[: schema.UNKNOWN]
    total = max(int(counts.sum()), 1)
    shown = np.flatnonzero(counts)
    legend(figure, {f"{i}  ({counts[i] / total:.0%})": colours[i] for i in shown}, columns=4)
    return figure


def figure_scores(scores: xr.DataArray, *, colours: str | Colormap = "magma") -> Figure:
    """Show a score map; of the pixels that share a picture cell the highest.

    Parameters
    ----------
    scores : DataArray (class, y, x) or (y, x), uint8 or float
        Of several classes the last is shown.
    colours : str or Colormap

    Returns
    -------
    Figure
    """
    flat = scores if scores.ndim == 2 else scores.isel({scores.dims[0]: -1})
    schema.check(flat, schema.MASK, "scores")
    figure, axes = new_map(flat)
    shown = show(axes, _highest(flat, whole(flat)), whole(flat), step_of(flat.shape), cmap=colours, vmin=0, vmax=1)
    bar = figure.colorbar(shown, ax=axes, location="bottom", shrink=0.6, aspect=36, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=INK, labelcolor=INK, labelsize=9)
    bar.set_label("landslide probability", color=INK, size=9)
    return figure


def _highest(scores: xr.DataArray, window: Window) -> np.ndarray:
    """Give the highest probabilities in a window, float32, NaN where unknown."""
    part = window.of(scores)
    if part.dtype != np.uint8:
        steps = da.map_blocks(schema.encode_scores_block, da.asarray(part.data), "uint8", dtype="uint8")
        part = part.copy(data=steps)
    return schema.decode_scores_block(overview(part, "max"))


def errors(
    scores: xr.DataArray,
    mask: xr.DataArray,
    *,
    threshold: float = 0.5,
    valid: xr.DataArray | None = None,
    window: Window | None = None,
) -> np.ndarray:
    """Count true and false positives and negatives in each cell of an overview.

    Parameters
    ----------
    scores, mask, threshold, valid
        As in ``evaluate.count``.
    window : Window, optional
        A part of the image; all of it by default.

    Returns
    -------
    (4, y, x) int64 array
        In the order of ``evaluate.TN, TP, FP, FN``.
    """
    agreement = evaluate.agreement(scores, mask, threshold=threshold, valid=valid)
    part = (window or whole(mask)).of(agreement)
    return overview(xr.concat([part == code for code in range(4)], "code"), "sum")


def figure_agreement(
    scores: xr.DataArray,
    mask: xr.DataArray,
    *,
    threshold: float = 0.5,
    valid: xr.DataArray | None = None,
    window: Window | None = None,
    scene: xr.DataArray | None = None,
) -> Figure:
    """Show where a map is right and wrong: what it found, what it missed and its false alarms.

    A picture cell shows the most frequent of the three among its pixels, so that small ones stay visible.

    Parameters
    ----------
    scores, mask, threshold, valid, window
        As in :func:`errors`.
    scene : DataArray (band, y, x), optional
        A ground for the colours.

    Returns
    -------
    Figure
    """
    window = window or whole(mask)
    return draw_errors(errors(scores, mask, threshold=threshold, valid=valid, window=window), mask, window, scene)


def draw_errors(counts: np.ndarray, mask: xr.DataArray, window: Window, scene: xr.DataArray | None = None) -> Figure:
    """Draw what :func:`errors` counted in a window: see :func:`figure_agreement`."""
    figure, axes = new_map(mask, window)
    ground = np.full((*counts.shape[1:], 4), 0.9) if scene is None else backdrop(picture(scene, window))
    show(axes, paint_errors(counts, ground), window, step_of((window.y1 - window.y0, window.x1 - window.x0)))
    names = {evaluate.TP: "found", evaluate.FN: "missed", evaluate.FP: "false alarm"}
    legend(figure, {f"{text}": AGREEMENT[code] for code, text in names.items()})
    return figure


def paint_errors(counts: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Paint cells with the most frequent of TP, FP and FN over a ground that shows where only TN are.

    Parameters
    ----------
    counts : (4, y, x) array
        From :func:`errors`.
    ground : (y, x, 4) float array

    Returns
    -------
    (y, x, 4) float array, opacity 0 where nothing was counted
    """
    painted = ground.copy()
    painted[counts.sum(axis=0) == 0] = 0
    most = counts[1:].argmax(axis=0) + 1
    some = counts[1:].sum(axis=0) > 0
    for code, colour in AGREEMENT.items():
        painted[some & (most == code)] = (*to_rgb(colour), 1.0)
    return painted


def figure_detail(
    scene: xr.DataArray,
    mask: xr.DataArray,
    scores: xr.DataArray,
    window: Window,
    *,
    threshold: float = 0.5,
    colours: str | Colormap = "magma",
) -> Figure:
    """Show one place three times: the scene, the scene with the truth over it, and the scores.

    Parameters
    ----------
    scene : DataArray (band, y, x)
    mask : DataArray (y, x)
    scores : DataArray (class, y, x) or (y, x)
    window : Window
        The place.
    threshold : float
        Drawn as an outline of what was mapped over the scores.

    Returns
    -------
    Figure
    """
    flat = scores if scores.ndim == 2 else scores.isel({scores.dims[0]: -1})
    dy, dx = pixel_m(schema.geobox(mask))
    tall = tallness(mask, window)
    close = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01)
    figure = Figure(figsize=(WIDTH, WIDTH / 3 * tall + 0.25), layout=close)
    step = step_of((window.y1 - window.y0, window.x1 - window.x0))
    truth, score = overview(window.of(mask), "max"), _highest(flat, window)
    for axes, title in zip(figure.subplots(1, 3), ("scene", "truth", "score")):
        frame(axes, window, dy / dx)
        axes.set_title(title, size=9, color=INK, pad=3)
        if title == "score":
            show(axes, score, window, step, cmap=colours, vmin=0, vmax=1)
            _edge(axes, np.nan_to_num(score) >= threshold, window, step, "white")
        else:
            show(axes, picture(scene, window), window, step)
        if title == "truth":
            _edge(axes, truth == 1, window, step, OUTLINE)
    scale_bar(figure.axes[0], window, dx)
    return figure


def _edge(axes: Axes, where: np.ndarray, window: Window, step: int, colour: str) -> None:
    """Draw the outline of pixels along their edges."""
    inside = np.pad(where, 1)
    ys, xs = np.nonzero(inside[1:, 1:-1] != inside[:-1, 1:-1])
    flat = np.stack([xs, ys, xs + 1, ys], axis=1)
    ys, xs = np.nonzero(inside[1:-1, 1:] != inside[1:-1, :-1])
    upright = np.stack([xs, ys, xs, ys + 1], axis=1)
    lines = np.concatenate([flat, upright]).reshape(-1, 2, 2) * step + (window.x0, window.y0)
    axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=1.1, capstyle="round", rasterized=True))


def figure_splits(tiles: pd.DataFrame, scene: xr.DataArray, *, ready: np.ndarray | None = None) -> Figure:
    """Show which tiles trained, validated and tested.

    Parameters
    ----------
    tiles : DataFrame
        Columns y, x, size, split.
    scene : DataArray (band, y, x)
        The ground.
    ready : (y, x, 4) array, optional
        As in :func:`figure_scene`.

    Returns
    -------
    Figure
    """
    figure, axes = new_map(scene)
    ground = picture(scene, whole(scene)) if ready is None else ready
    show(axes, backdrop(ground), whole(scene), step_of(scene.shape[-2:]))
    present = {}
    for name, colour in SPLITS.items():
        part = tiles.loc[tiles["split"] == name, ["y", "x", "size"]].to_numpy(dtype="float64")
        if not len(part):
            continue
        y, x, size = part.T
        corners = np.stack([[x, y], [x + size, y], [x + size, y + size], [x, y + size]]).transpose(2, 0, 1)
        style: dict[str, Any] = {"facecolors": (*to_rgb(colour), 0.55), "edgecolors": (1, 1, 1, 0.5), "lw": 0.2}
        axes.add_collection(PolyCollection(list(corners), rasterized=True, **style))
        present[f"{USES[name]}  ({len(part):,})"] = colour
    legend(figure, present, columns=2 if len(present) > 3 else 3)
    return figure
