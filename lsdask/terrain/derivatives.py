"""Slope, aspect, hillshade and the rest: one by one, or several as the bands of a mosaic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.terrain import kernels
from lsdask.terrain.neighbours import Edge, derive


@dataclass(frozen=True)
class Band:
    """What is derived of a DEM.

    Attributes
    ----------
    function : callable
        From a gradient (2, y, x), a block (y + 2, x + 2), or a block and sizes, to (y, x) float32.
    reads : {"gradient", "block", "block and sizes"}
        Which of these.
    long_name : str
    units : str
    """

    function: Callable[..., np.ndarray]
    reads: str
    long_name: str
    units: str


def elevation_block(block: np.ndarray) -> np.ndarray:
    """Give the heights themselves: (y + 2, x + 2) to (y, x) float32."""
    return block[1:-1, 1:-1].astype("float32")


BANDS = {
    "elevation": Band(elevation_block, "block", "elevation", "m"),
    "slope": Band(kernels.slope_block, "gradient", "slope", "degrees"),
    "aspect": Band(kernels.aspect_block, "gradient", "direction of fall, clockwise from north", "degrees"),
    "northness": Band(kernels.northness_block, "gradient", "sine of slope times cosine of aspect", "1"),
    "eastness": Band(kernels.eastness_block, "gradient", "sine of slope times sine of aspect", "1"),
    "hillshade": Band(kernels.hillshade_block, "gradient", "hillshade, 1 to 255", "1"),
    "curvature": Band(kernels.curvature_block, "block and sizes", "total curvature", "1/m"),
    "plan_curvature": Band(partial(kernels.curvature_block, kind="plan"), "block and sizes", "plan curvature", "1/m"),
    "profile_curvature": Band(
        partial(kernels.curvature_block, kind="profile"), "block and sizes", "profile curvature", "1/m"
    ),
    "roughness": Band(kernels.roughness_block, "block", "highest minus lowest of 3 x 3 pixels", "m"),
    "tpi": Band(kernels.tpi_block, "block", "topographic position index", "m"),
    "tri": Band(kernels.tri_block, "block", "terrain ruggedness index", "m"),
}
"""What ``bands`` offers, by name."""


def slope(
    dem: xr.DataArray, *, units: Literal["degrees", "percent", "radians"] = "degrees", edge: Edge = "void"
) -> xr.DataArray:
    """Give how steep the ground is.

    Parameters
    ----------
    dem : DataArray (y, x)
        Heights, m; any number of any CRS; integers are void where they hold ``_FillValue``.
    units : {"degrees", "percent", "radians"}
        The angle from level, or the rise in metres a hundred metres.
    edge : {"void", "extrapolate"}
        What the outermost pixels hold: nothing, or what follows from heights continued straight across the border.

    Returns
    -------
    DataArray (y, x) float32, lazy if ``dem`` is
        NaN where one of the 3 x 3 pixels is void.

    Raises
    ------
    BadInput
        If ``dem`` has other dims, no numbers or no grid that is north up, or ``units`` or ``edge`` is unknown.

    Examples
    --------
    >>> slope(scenes.open("dem.tif")[0, 0])  # doctest: +SKIP
    """
    if units not in ("degrees", "percent", "radians"):
        raise BadInput(sentence("units", "be 'degrees', 'percent' or 'radians'", f"units={units!r}"))
    return _one(dem, "slope", edge, units=units, said=units)


def aspect(dem: xr.DataArray, *, edge: Edge = "void") -> xr.DataArray:
    """Give the direction in which the ground falls: degrees clockwise from north, [0, 360).

    Level ground has none, so it is NaN there, as it is in void (gdaldem writes its nodata, -9999). As a band of a
    mosaic, ``northness`` and ``eastness`` of ``bands`` serve better: they do not jump from 360 to 0, and are 0 where
    level. Where pixels are not square on the ground, as in degrees, it is the direction on the ground; gdaldem's is
    that on the grid, 20 degrees off at 60 degrees of latitude.

    Parameters
    ----------
    dem, edge
        As in ``slope``.

    Returns
    -------
    DataArray (y, x) float32, lazy if ``dem`` is

    Raises
    ------
    BadInput
        As in ``slope``.
    """
    return _one(dem, "aspect", edge)


def hillshade(
    dem: xr.DataArray,
    *,
    azimuth: float = kernels.NORTH_WEST,
    altitude: float = 45.0,
    z: float = 1.0,
    edge: Edge = "void",
) -> xr.DataArray:
    """Give how brightly the sun lights the ground, without cast shadows.

    Parameters
    ----------
    dem, edge
        As in ``slope``.
    azimuth : float
        Where the sun stands, degrees clockwise from north.
    altitude : float
        How high it stands, degrees above the horizon, 0 to 90.
    z : float
        What heights are multiplied by, to exaggerate them.

    Returns
    -------
    DataArray (y, x) float32, lazy if ``dem`` is
        1 (dark) to 255 (bright), not rounded, NaN where void. For gdaldem's bytes, void 0:
        ``shade.round().fillna(0).astype("uint8")``.

    Raises
    ------
    BadInput
        As in ``slope``, or if ``altitude`` or ``z`` is out of range.
    """
    if not 0 <= altitude <= 90:
        raise BadInput(sentence("altitude", "be from 0 to 90 degrees", f"altitude={altitude}"))
    if not (np.isfinite(azimuth) and np.isfinite(z) and z > 0):
        raise BadInput(sentence("azimuth and z", "be finite, and z positive", f"azimuth={azimuth}, z={z}"))
    return _one(dem, "hillshade", edge, azimuth=float(azimuth), altitude=float(altitude), z=float(z))


def curvature(
    dem: xr.DataArray, *, kind: Literal["total", "plan", "profile"] = "total", edge: Edge = "void"
) -> xr.DataArray:
    """Give how the ground bends.

    ``profile`` curvature is that along the fall line: negative where the ground bulges (it gets steeper downhill),
    positive where it is hollow. ``plan`` curvature is that across the fall line: positive on spurs, where water parts,
    negative in gullies. ``total`` is plan minus profile: positive where the ground bulges, minus the Laplacian.

    Parameters
    ----------
    dem, edge
        As in ``slope``.
    kind : {"total", "plan", "profile"}

    Returns
    -------
    DataArray (y, x) float32, lazy if ``dem`` is
        1/m. ArcGIS and RichDEM write 1/100 m: multiply by 100 for their numbers. On level ground, where they write 0,
        plan and profile are the mean over all directions, half the total.

    Raises
    ------
    BadInput
        As in ``slope``, or if ``kind`` is unknown.
    """
    if kind not in kernels.CURVATURES:
        raise BadInput(sentence("kind", f"be one of {', '.join(kernels.CURVATURES)}", f"kind={kind!r}"))
    return _one(dem, "curvature" if kind == "total" else f"{kind}_curvature", edge)


def roughness(dem: xr.DataArray, *, edge: Edge = "void") -> xr.DataArray:
    """Give the difference between the highest and the lowest of 3 x 3 pixels, m; else as ``slope``."""
    return _one(dem, "roughness", edge)


def tpi(dem: xr.DataArray, *, edge: Edge = "void") -> xr.DataArray:
    """Give how much higher a pixel is than the mean of its eight neighbours, m; else as ``slope``."""
    return _one(dem, "tpi", edge)


def tri(dem: xr.DataArray, *, edge: Edge = "void") -> xr.DataArray:
    """Give the root of the summed squares of the differences to the eight neighbours (Riley), m; else as ``slope``."""
    return _one(dem, "tri", edge)


def bands(
    dem: xr.DataArray,
    names: Sequence[str] = ("elevation", "slope", "northness", "eastness", "hillshade"),
    *,
    edge: Edge = "void",
) -> xr.DataArray:
    """Give what is derived of a DEM as the bands of a mosaic, reading each chunk of it once.

    Parameters
    ----------
    dem, edge
        As in ``slope``.
    names : sequence of str
        Some of ``BANDS``, each as the function of that name gives it by default.

    Returns
    -------
    DataArray (band, y, x) float32, lazy if ``dem`` is
        ``aspect`` is NaN also where the ground is level, so that lakes and the sea count as void in every band.

    Raises
    ------
    BadInput
        As in ``slope``, or if a name is unknown or comes twice.

    Examples
    --------
    >>> bands(dem, ("slope", "tpi"))  # doctest: +SKIP
    """
    asked = [names] if isinstance(names, str) else list(names)
    if not asked or len(set(asked)) < len(asked) or not set(asked) <= set(BANDS):
        raise BadInput(sentence("names", f"hold some of {', '.join(BANDS)}, each once", f"names={names!r}"))
    planes = tuple(BANDS[name] for name in asked)
    data = derive(dem, partial(bands_block, planes=planes), edge=edge, leading=(len(planes),))
    return schema.wrap(data, schema.geobox(dem), schema.MOSAIC, name="terrain", coords={"band": asked})


def bands_block(block: np.ndarray, sizes: np.ndarray, *, planes: Sequence[Band]) -> np.ndarray:
    """Derive several bands of one block, its gradient once.

    Parameters
    ----------
    block : (y + 2, x + 2) float array
        Heights, m.
    sizes : (2, y) float64
        Widths and heights of its inner pixels, m.
    planes : sequence of Band

    Returns
    -------
    (plane, y, x) float32 array
    """
    out = np.empty((len(planes), block.shape[0] - 2, block.shape[1] - 2), "float32")
    given = _given(block, sizes, {plane.reads for plane in planes})
    for i, plane in enumerate(planes):
        out[i] = plane.function(*given[plane.reads])
    return out


def band_block(block: np.ndarray, sizes: np.ndarray, *, plane: Band) -> np.ndarray:
    """Derive one band of a block, as ``bands_block`` does: (y, x) float32."""
    return plane.function(*_given(block, sizes, {plane.reads})[plane.reads])


def _given(block: np.ndarray, sizes: np.ndarray, reads: set[str]) -> dict[str, tuple[np.ndarray, ...]]:
    """Give what functions of bands read; the gradient only if one does."""
    given: dict[str, tuple[np.ndarray, ...]] = {"block": (block,), "block and sizes": (block, sizes)}
    return given | ({"gradient": (kernels.horn_block(block, sizes),)} if "gradient" in reads else {})


def _one(dem: Any, name: str, edge: Edge, *, said: str | None = None, **options: Any) -> xr.DataArray:
    """Derive one band, with options of its function, as an image (y, x)."""
    band = BANDS[name]
    plane = Band(partial(band.function, **options), band.reads, band.long_name, said or band.units)
    data = derive(dem, partial(band_block, plane=plane), edge=edge)
    attrs = {"long_name": plane.long_name, "units": plane.units}
    return schema.wrap(data, schema.geobox(dem), schema.MASK, name=name, attrs=attrs)
