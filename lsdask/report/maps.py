"""A map: an axes in pixels of an image, at true proportions, with its scale; and pictures to lay on it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.transforms import offset_copy
from odc.geo.geobox import GeoBox

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.report.overviews import overview

WIDTH = 5.4
"""Width of a figure, in inches; with 9-point text it reads well from a phone's width to a journal's column."""

WIDE = 0.6
"""Maps less tall than this share of their width get a wider figure, and a whole row of the page."""

INK = "#1c2733"
"""Colour of text; the page turns it light on a dark background."""

MUTED = "#8a94a0"
"""Colour of frames and marks, which reads on light and dark."""

QUALITATIVE = (
    "#4477aa", "#ccbb44", "#228833", "#ee6677", "#66ccee", "#aa3377",
    "#bbbbbb", "#222255", "#ee8866", "#44bb99", "#882255", "#ffaabb",
)  # fmt: skip
"""Paul Tol's qualitative colours, for up to 12 clusters; more begin again."""

RGB = (
    ("red", "green", "blue"), ("r", "g", "b"), ("b04", "b03", "b02"), ("b4", "b3", "b2"),
    ("post_red", "post_green", "post_blue"), ("nir", "red", "green"), ("post_nir", "post_red", "post_green"),
)  # fmt: skip
"""Band names of a colour composite, lower case, in order of preference; without blue, forest is red, as is usual."""


class Window(NamedTuple):
    """A part of an image, pixels from its upper left corner."""

    y0: int
    x0: int
    y1: int
    x1: int

    def of(self, image: xr.DataArray) -> xr.DataArray:
        """Cut it out."""
        return image[..., self.y0 : self.y1, self.x0 : self.x1]


def whole(image: xr.DataArray) -> Window:
    """Give the window of all of an image."""
    return Window(0, 0, *image.shape[-2:])


def bounds(tiles: pd.DataFrame, shape: Sequence[int]) -> Window:
    """Give the window that holds all of some tiles, clipped to the image."""
    low, high = tiles[["y", "x"]], tiles[["y", "x"]].add(tiles["size"], axis=0)
    y1, x1 = high.max()
    return Window(int(low["y"].min()), int(low["x"].min()), min(int(y1), shape[-2]), min(int(x1), shape[-1]))


def pixel_m(grid: GeoBox) -> tuple[float, float]:
    """Give the size of a pixel on the ground in metres, (y, x); in degrees' grids, that in the middle.

    Raises
    ------
    BadInput
        If the grid has no CRS.
    """
    if grid.crs is None:
        raise BadInput(sentence("grid", "have a CRS", "none"))
    crs, step = grid.crs.proj, grid.transform
    if not grid.crs.geographic:
        metre = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
        return abs(step.e) * metre, abs(step.a) * metre
    x, y = step @ (grid.shape[1] / 2, grid.shape[0] / 2)
    geod: Any = crs.get_geod()
    return geod.inv(x, y - step.e / 2, x, y + step.e / 2)[2], geod.inv(x, y, x + step.a, y)[2]


def plural(number: int, noun: str) -> str:
    """Count things.

    Examples
    --------
    >>> plural(1, "tile"), plural(2500, "tile")
    ('1 tile', '2,500 tiles')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def nice(length: float) -> float:
    """Give the greatest 1, 2 or 5 times a power of ten that is not above ``length``.

    Examples
    --------
    >>> nice(799.0), nice(0.13)
    (500.0, 0.1)
    """
    power = 10.0 ** math.floor(math.log10(length))
    return max(step * power for step in (1, 2, 5) if step * power <= length * (1 + 1e-9))


def tallness(image: xr.DataArray, window: Window | None = None) -> float:
    """Give height over width of a window on the ground."""
    y0, x0, y1, x1 = window or whole(image)
    dy, dx = pixel_m(schema.geobox(image))
    return (y1 - y0) * dy / ((x1 - x0) * dx)


def new_map(image: xr.DataArray, window: Window | None = None) -> tuple[Figure, Axes]:
    """Make a figure with one axes that shows a window of an image at its true proportions, north up.

    Parameters
    ----------
    image : DataArray (..., y, x)
        Gives grid and size; no pixel is read.
    window : Window, optional
        The whole image by default.

    Returns
    -------
    (Figure, Axes)
        The axes is in pixels of the image and carries a scale bar. A wide window gets a figure half as wide again.
    """
    tall = tallness(image, window)
    width = WIDTH * (1.5 if tall < WIDE else 1.0)
    size = min(width, WIDTH * 1.15 / tall), min(width * tall, WIDTH * 1.15)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
    axes = figure.subplots()
    dy, dx = pixel_m(schema.geobox(image))
    frame(axes, window or whole(image), dy / dx)
    scale_bar(axes, window or whole(image), dx)
    return figure, axes


def frame(axes: Axes, window: Window, aspect: float) -> None:
    axes.set(xlim=(window.x0, window.x1), ylim=(window.y1, window.y0), xticks=[], yticks=[], aspect=aspect)
    for spine in axes.spines.values():
        spine.set(color=MUTED, linewidth=0.6)


def scale_bar(axes: Axes, window: Window, metres: float) -> None:
    """Draw a scale bar at the lower left and an arrow to the north at the upper right."""
    length = nice(0.28 * (window.x1 - window.x0) * metres)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    share = length / metres / (window.x1 - window.x0)
    halo = [withStroke(linewidth=2.2, foreground="black", alpha=0.65)]
    edge = [withStroke(linewidth=4, foreground="black", alpha=0.65)]
    style: dict[str, Any] = {"color": "white", "path_effects": halo, "zorder": 9}
    figure = axes.get_figure(root=True)
    corner = offset_copy(axes.transAxes, figure, x=9, y=9, units="points")
    axes.plot([0, share], [0, 0], lw=2.2, transform=corner, **{**style, "path_effects": edge})
    above = offset_copy(corner, figure, y=3, units="points")
    axes.text(share / 2, 0, text, size=9, ha="center", va="bottom", transform=above, **style)
    far = offset_copy(axes.transAxes, figure, x=-9, y=-5, units="points")
    axes.text(1, 1, "\u25b2\nN", size=9, ha="center", va="top", linespacing=1.15, transform=far, **style)


def show(axes: Axes, values: np.ndarray, window: Window, step: int, **options: Any) -> Any:
    """Lay a picture or values, each pixel of which spans ``step`` of the image, over a window."""
    height, width = values.shape[:2]
    extent = (window.x0, window.x0 + width * step, window.y0 + height * step, window.y0)
    limits = axes.get_xlim(), axes.get_ylim(), axes.get_aspect()
    shown = axes.imshow(values, extent=extent, **options)
    axes.set(xlim=limits[0], ylim=limits[1], aspect=limits[2])
    return shown


def legend(figure: Figure, entries: Mapping[str, str], columns: int = 4) -> None:
    """Explain colours below a map: colour by text."""
    patches = [Patch(facecolor=colour, label=text) for text, colour in entries.items()]
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=min(columns, len(patches)),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=1,
        handleheight=1,
        columnspacing=1.4,
        borderpad=0.7,
    )


def composite_bands(names: Sequence[str]) -> list[int]:
    """Choose the bands shown as red, green and blue: by name, else the first three, else one as grey."""
    places = {name.lower(): i for i, name in enumerate(names)}
    for wanted in RGB:
        if all(name in places for name in wanted):
            return [places[name] for name in wanted]
    return [0, 1, 2] if len(names) >= 3 else [0, 0, 0]


def stretch(bands: np.ndarray, percentiles: tuple[float, float] = (2, 98)) -> np.ndarray:
    """Turn three bands into a picture, each stretched between two percentiles of its own.

    Parameters
    ----------
    bands : (3, y, x) float array
        NaN where there is no data.
    percentiles : (float, float)
        Shown as 0 and 1.

    Returns
    -------
    (y, x, 4) float array
        Red, green, blue, a little brightened, and 0 opacity where any band has no data.
    """
    known = ~np.isnan(bands).any(axis=0)
    if not known.any():
        return np.zeros((*known.shape, 4))
    low, high = np.percentile(bands[:, known], percentiles, axis=1)[..., None, None]
    # A root lifts the dark forest that fills most scenes with landslides.
    shade = np.clip((bands - low) / np.where(high > low, high - low, 1), 0, 1) ** 0.75
    return np.dstack([*np.where(known, shade, 0), known])


def picture(scene: xr.DataArray, window: Window, bands: Sequence[int] | None = None) -> np.ndarray:
    """Give a window of a scene as a picture, (y, x, 4)."""
    chosen = list(bands or composite_bands(schema.bands(scene)))
    return stretch(overview(window.of(scene.isel(band=chosen)), "mean"))


def backdrop(shown: np.ndarray) -> np.ndarray:
    """Turn a picture, (y, x, 4), to light grey: a ground for colours."""
    grey = 0.55 + 0.4 * shown[..., :3].mean(axis=-1, keepdims=True)
    return np.concatenate([np.repeat(grey, 3, axis=-1), shown[..., 3:]], axis=-1)
