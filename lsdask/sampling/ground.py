"""Where tiles lie on the ground, also those of several scenes that overlap."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.sampling.tables import shape_of, windows_of

Scenes = xr.DataArray | Mapping[str, xr.DataArray] | None
"""The image that tiles lie in, or by name the images of a table with the column ``scene``."""

ONLY = ""
"""Stands for the name of the only scene."""

DIGITS = 3
"""Places are rounded to a thousandth of a pixel, within which grids count as one."""

BULGE = 0.5
"""Pixels added to each side of a tile's outline in another CRS, whose bent edges are followed by points only."""

_SIDE = np.linspace(0, 1, 5)[:4]
_RING = np.concatenate(
    [
        np.stack([_SIDE, 0 * _SIDE], axis=1),
        np.stack([0 * _SIDE + 1, _SIDE], axis=1),
        np.stack([1 - _SIDE, 0 * _SIDE + 1], axis=1),
        np.stack([0 * _SIDE, 1 - _SIDE], axis=1),
    ]
)  # (16, 2) points round the unit square


@dataclass(frozen=True)
class Ground:
    """Puts tiles on one ground: the pixels of the only scene, or of the first.

    Attributes
    ----------
    grids : mapping of str to GeoBox
        One a scene; none where tables are of one image of unknown grid.
    shapes : mapping of str to (int, int)
        Height and width of each scene, or of the ``ONLY`` one; what lies outside is not seen.
    """

    grids: Mapping[str, GeoBox]
    shapes: Mapping[str, tuple[int, int]]

    @property
    def first(self) -> GeoBox | None:
        """The grid whose pixels are the unit."""
        return next(iter(self.grids.values()), None)

    def boxes(self, tiles: pd.DataFrame, buffer: int) -> np.ndarray:
        """Give what tiles see: (tile, 4) float64, y0, x0, y1, x1 in pixels of the ground.

        A tile of a scene in another CRS, or turned against the first, gets the upright box around it.
        """
        if ONLY in self.shapes:
            return seen(tiles, buffer, self.shapes[ONLY])
        boxes = np.empty((len(tiles), 4))
        for name, rows in tiles.groupby("scene", observed=True, sort=False).indices.items():
            boxes[rows] = self.place(str(name), seen(tiles.iloc[rows], buffer, self.shapes[str(name)]))
        return boxes

    def place(self, name: str, windows: np.ndarray) -> np.ndarray:
        """Give the boxes around windows (tile, 4) of a scene."""
        if self.first is None or ONLY in self.shapes:
            return windows.astype("float64")
        return placed(windows, self.grids[name], self.first)


def ground(scenes: Scenes, extents: Mapping[str, "Extent"]) -> Ground:
    """Make the ground of some scenes.

    Parameters
    ----------
    scenes : DataArray, mapping or None
        Where there is none, the tiles' own extent stands for the image.
    extents : mapping of str to Extent
        What the tiles of each scene that is named cover; by ``ONLY`` where none is.

    Raises
    ------
    BadInput
        If a scene that is named is not given, several are given that no table tells apart, or tiles lie outside.
    """
    if isinstance(scenes, Mapping):
        made = _several(scenes, set(extents))
    elif len(extents) > 1:
        do = "Pass scenes={name: image, ...}"
        raise BadInput(sentence("scenes", f"give the images of {', '.join(extents)}", "one or none", do))
    elif scenes is None:
        made = Ground({}, {ONLY: next(iter(extents.values())).high})
    else:
        grids = {ONLY: schema.geobox(scenes, "scenes")} if "spatial_ref" in scenes.coords else {}
        made = Ground(grids, {ONLY: shape_of(scenes)})
    for name, extent in extents.items():
        height, width = made.shapes[ONLY if ONLY in made.shapes else name]
        if min(extent.low) < 0 or extent.high[0] > height or extent.high[1] > width:
            got = f"up to y={extent.high[0]}, x={extent.high[1]}"
            raise BadInput(sentence("tiles", f"lie inside their image of {height} x {width} px", got))
    return made


@dataclass(frozen=True)
class Extent:
    """What some tiles of a scene cover, in its pixels.

    Attributes
    ----------
    low, high : (int, int)
        The least y and x, and where the last tile ends.
    size : int
        The largest tile.
    """

    low: tuple[int, int]
    high: tuple[int, int]
    size: int

    def __or__(self, other: "Extent") -> "Extent":
        low = min(self.low[0], other.low[0]), min(self.low[1], other.low[1])
        high = max(self.high[0], other.high[0]), max(self.high[1], other.high[1])
        return Extent(low, high, max(self.size, other.size))


def extents_of(parts: Iterable[pd.DataFrame]) -> dict[str, Extent]:
    """Give what the tiles of each scene cover; of all by ``ONLY`` where none is named."""
    found: dict[str, Extent] = {}
    for part in parts:
        if "scene" in part and part["scene"].isna().any():
            raise BadInput(sentence("tiles", "all name their scene", f"{part['scene'].isna().sum()} that do not"))
        scenes = part.groupby("scene", observed=True) if "scene" in part else [(ONLY, part)]
        for name, tiles in scenes:
            windows = windows_of(tiles)
            low, high = windows[:, :2].min(axis=0).tolist(), windows[:, 2:].max(axis=0).tolist()
            mine = Extent((low[0], low[1]), (high[0], high[1]), int(tiles["size"].max()))
            found[str(name)] = found[str(name)] | mine if str(name) in found else mine
    return found


def _several(scenes: Mapping[str, xr.DataArray], names: set[str]) -> Ground:
    if names == {ONLY}:
        do = "Say which tile is of which: tiles.assign(scene=name)"
        raise BadInput(sentence("tiles", "have the column 'scene', as scenes are named", "none", do))
    lacking = sorted(names - set(scenes))
    if lacking:
        raise BadInput(sentence("scenes", f"hold the scene {lacking[0]!r} of the tiles", f"{list(scenes)}"))
    grids = {name: schema.geobox(image, f"scenes[{name!r}]") for name, image in scenes.items()}
    return Ground(grids, {name: shape_of(image) for name, image in scenes.items()})


def seen(tiles: pd.DataFrame, buffer: int, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Give the windows with a buffer on each side, cut to the image: (tile, 4) int64."""
    windows = windows_of(tiles) + np.array([-buffer, -buffer, buffer, buffer])
    return windows if shape is None else np.clip(windows, 0, [*shape, *shape])


def placed(windows: np.ndarray, grid: GeoBox, frame: GeoBox) -> np.ndarray:
    """Give the boxes around windows of one grid in pixels of another.

    Parameters
    ----------
    windows : (tile, 4) array
        y0, x0, y1, x1 in pixels of ``grid``.

    Returns
    -------
    (tile, 4) float64 array
        y0, x0, y1, x1 in pixels of ``frame``, on whole pixels where both grids are one.
    """
    low, high = windows[:, None, 1::-1], windows[:, None, :1:-1]
    xy = _through(grid.transform, low + (high - low) * _RING)
    bulge = 0.0
    if grid.crs != frame.crs:
        xy, bulge = _into(grid.crs, frame.crs, xy), BULGE
    xy = _through(~frame.transform, xy)
    return np.round(np.concatenate([xy.min(axis=1)[:, ::-1] - bulge, xy.max(axis=1)[:, ::-1] + bulge], axis=1), DIGITS)


def _into(crs: Any, other: Any, xy: np.ndarray) -> np.ndarray:
    """Put points (..., 2) of one CRS into another."""
    there = np.stack(Transformer.from_crs(crs, other, always_xy=True).transform(xy[..., 0], xy[..., 1]), axis=-1)
    if not np.isfinite(there).all():
        got, do = f"one that {other} does not reach", "Divide them apart"
        raise BadInput(sentence("scenes", "all lie where the first one's CRS holds", got, do))
    return there


def _through(transform: Affine, xy: np.ndarray) -> np.ndarray:
    """Send points (..., 2) through a transform."""
    x, y = xy[..., 0], xy[..., 1]
    down = transform.d * x + transform.e * y + transform.f
    return np.stack([transform.a * x + transform.b * y + transform.c, down], axis=-1)
