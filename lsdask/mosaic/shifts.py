"""How far two images of one place lie apart: phase correlation, block by block. Reported, never corrected."""

from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from scipy import fft, ndimage

from lsdask import schema
from lsdask.errors import BadInput, sentence

FINE = 100
"""Steps a pixel is divided in to find a peak."""

SMALL = 4
"""Void narrower than twice so many pixels is filled; larger void is faded out."""

FADE = 16
"""Width of that fade, in pixels."""

NOISE = 10.0
"""Unrelated images of noise, rough or smooth, have peaks of up to 9 over the root of a block's pixels (measured at
blocks of 64 to 512), so that a higher peak is a match."""

TRUE = 0.25
"""Cycles a pixel up to which a frequency takes part: higher ones hold what a sensor saw too coarsely, at half a pixel
and finer, which moves with the pixels and not with the ground, and pulls a shift to whole pixels."""

FIELDS = ("void", "dy", "dx", "peak")
"""What ``shift_block`` finds, in order."""


def shift(
    pre: xr.DataArray, post: xr.DataArray, *, band: str | None = None, block: int = 512, max_void: float = 0.5
) -> pd.DataFrame:
    """Measure how far ``post`` is displaced against ``pre``, by phase correlation in blocks.

    Parameters
    ----------
    pre, post : DataArray (band, y, x) or (y, x)
        On one grid.
    band : str, optional
        The band to compare, where the images have several.
    block : int
        Side of a block, in pixels, at least 16. Displacements up to a quarter of it can be found.
    max_void : float
        Blocks with a larger share of pixels void in either image are not measured.

    Returns
    -------
    DataFrame
        One row a block: ``row``, ``column``, ``height``, ``width`` (its window, pixels); ``void`` (share); ``dy``,
        ``dx`` (what lies at (y, x) in ``pre`` lies at (y + dy, x + dx) in ``post``; pixels, y down); ``east``,
        ``north`` (the same in units of the CRS, metres for UTM); ``peak`` (height of the correlation's peak, 1 for
        equal images), NaN where not measured; ``sure`` (whether the peak stands out of what two unrelated images
        of noise give, see ``NOISE``).

    Raises
    ------
    BadInput
        If the images lie on other grids, have several bands and ``band`` names none, or ``block`` is below 16.

    Examples
    --------
    >>> print(shift_text(shift(pre, post, band="B3")))  # doctest: +SKIP
    """
    if block < 16:
        raise BadInput(sentence("block", "be at least 16 pixels", f"block={block}"))
    planes = [_plane(image, band, name) for image, name in ((pre, "pre"), (post, "post"))]
    schema.on_grid(planes[1], planes[0], "post", "pre")
    sides = tuple(_sides(size, block) for size in planes[0].shape)
    known = [da.asarray(schema.valid(plane).data).rechunk(sides) for plane in planes]
    values = [da.asarray(plane.data).rechunk(sides) for plane in planes]
    measure = partial(shift_block, max_void=max_void)
    counts = tuple((1,) * len(lengths) for lengths in sides)
    found = da.map_blocks(measure, *values, *known, dtype="float64", new_axis=2, chunks=(*counts, (len(FIELDS),)))
    return _table(found.compute(), sides, schema.geobox(planes[0]).transform)


def _plane(image: Any, band: str | None, name: str) -> xr.DataArray:
    if isinstance(image, xr.DataArray) and image.dims == schema.MASK:
        return image
    schema.check(image, schema.MOSAIC, name)
    names = schema.bands(image)
    if band is None and len(names) == 1:
        return image.isel(band=0, drop=True)
    if band not in names:
        raise BadInput(sentence("band", f"be one of the bands of {name}, {', '.join(names)}", f"band={band!r}"))
    return image.isel(band=names.index(band), drop=True)


def _sides(size: int, block: int) -> tuple[int, ...]:
    """Cut an axis into blocks; what is left over and shorter than half a block joins the one before."""
    count = max((size + block // 2) // block, 1)
    return (*[block] * (count - 1), size - block * (count - 1))


def _table(found: np.ndarray, sides: tuple[tuple[int, ...], ...], transform: Any) -> pd.DataFrame:
    starts = [np.cumsum([0, *lengths])[:-1] for lengths in sides]
    row, column = np.meshgrid(*starts, indexing="ij")
    height, width = np.meshgrid(*sides, indexing="ij")
    table = pd.DataFrame({"row": row.ravel(), "column": column.ravel()})
    table["height"], table["width"] = height.ravel(), width.ravel()
    table[list(FIELDS)] = found.reshape(-1, len(FIELDS))
    table.insert(7, "east", table["dx"] * transform.a)
    table.insert(8, "north", table["dy"] * transform.e)
    table["sure"] = table["peak"] > NOISE / np.sqrt(table["height"] * table["width"])
    return table


def shift_text(table: pd.DataFrame) -> str:
    """Say in a sentence what ``shift`` found."""
    measured = table[table["sure"]]
    if measured.empty:
        return f"None of {len(table)} blocks could be matched: they are void, or show nothing in common."
    far = np.hypot(measured["dy"], measured["dx"])
    dy, dx, peak = (float(measured[name].median()) for name in ("dy", "dx", "peak"))
    return (
        f"{len(measured)} of {len(table)} blocks matched: median shift {dy:+.2f} rows, {dx:+.2f} columns; "
        f"{(far > 0.5).mean():.0%} of these are off by more than half a pixel; median peak {peak:.2f}."
    )


def shift_block(
    pre: np.ndarray, post: np.ndarray, pre_known: np.ndarray, post_known: np.ndarray, *, max_void: float
) -> np.ndarray:
    """Measure the displacement of a block.

    Spectra are whitened by half only (the root of their size is left), as fine detail, which phase correlation makes
    as strong as all else, is where the edges of void are and the ground is not; the finest takes no part, see ``TRUE``.
    Errors in tests are below 0.1 pixels, on real scenes without void below 0.05; void scattered pixel by pixel over a
    tenth of a smooth block pulls a shift below a pixel towards 0 by up to 0.3.

    Parameters
    ----------
    pre, post : (y, x) array
    pre_known, post_known : (y, x) bool
    max_void : float
        Largest share of void to measure at.

    Returns
    -------
    (1, 1, 4) float64
        ``FIELDS``; NaN for what is not measured: too much void, or an image without contrast.

    Notes
    -----
    Sources: C. D. Kuglin and D. C. Hines, The phase correlation image alignment method, 1975; M. Guizar-Sicairos,
    S. T. Thurman and J. R. Fienup, Efficient subpixel image registration algorithms, Optics Letters 33(2), 2008, for
    the refinement by a matrix-multiplied Fourier transform around the peak, to 1/100 of a pixel; H. S. Stone, M. T.
    Orchard, E.-C. Chang and S. A. Martucci, A fast direct Fourier-based algorithm for subpixel registration of images,
    IEEE Transactions on Geoscience and Remote Sensing 39(10), 2001, for leaving out aliased frequencies.
    """
    known = pre_known & post_known
    void = 1 - known.mean()
    nothing = np.array([[[void, np.nan, np.nan, np.nan]]])
    if void > max_void or not known.any():
        return nothing
    weight = _weight(known)
    spectra = [fft.fft2(_levelled(image, known) * weight) for image in (pre, post)]
    cross = spectra[1] * np.conj(spectra[0])
    size = np.abs(cross)
    if not size.max() > 0:
        return nothing
    # Where there is nothing but rounding, phases are noise.
    phase = np.where(size > 1e-12 * size.max(), cross / np.where(size > 0, size, 1), 0)
    dy, dx = _peak(phase * np.sqrt(size / size.max()) * _is_true(phase.shape))
    return np.array([[[void, dy, dx, _height(phase, dy, dx)]]])


def _is_true(shape: tuple[int, ...]) -> np.ndarray:
    """Say which frequencies of a block are free of aliasing."""
    down, across = (fft.fftfreq(size) for size in shape)
    return np.hypot(down[:, np.newaxis], across) <= TRUE


def _weight(known: np.ndarray) -> np.ndarray:
    """Fade the borders of a block and those of large void out, which lie at the same place in both images."""
    weight = np.hanning(known.shape[0] + 2)[1:-1, np.newaxis] * np.hanning(known.shape[1] + 2)[1:-1]
    core = ndimage.distance_transform_edt(~known) > SMALL
    if not core.any():
        return weight
    large = ndimage.distance_transform_edt(~core) <= SMALL
    near = np.minimum(ndimage.distance_transform_edt(~large), FADE) / FADE
    return weight * (0.5 - 0.5 * np.cos(np.pi * near))


def _levelled(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Take the mean of known pixels away, and fill the others from near ones: at first very near, then farther.

    Any sharp edge of the void lies at the same place in both images, and would pull the peak to no shift at all.
    """
    values = image.astype("float64")
    level = np.where(known, values - values[known].mean(), 0)
    filled, left = level.copy(), ~known
    for width in (1, 2, 4, 8) if left.any() else ():
        weight = ndimage.gaussian_filter(known.astype("float64"), width)
        put = left & (weight > 0.05)
        filled[put] = ndimage.gaussian_filter(level, width)[put] / weight[put]
        left &= ~put
    return filled


def _peak(phase: np.ndarray) -> tuple[float, float]:
    """Give the place of the highest correlation: first to the pixel, up to a quarter of the block, then finer."""
    correlation = fft.ifft2(phase).real
    offsets = [fft.fftfreq(n, 1 / n) for n in phase.shape]
    near = [np.abs(offset) <= n // 4 for offset, n in zip(offsets, phase.shape)]
    row, column = np.unravel_index(np.argmax(np.where(np.outer(*near), correlation, -np.inf)), phase.shape)
    y, x = offsets[0][row], offsets[1][column]
    for step in (10, FINE):
        ys, xs = (centre + np.arange(-12, 13) / step for centre in (y, x))
        finer = _transform(phase, ys, xs)
        row, column = np.unravel_index(np.argmax(finer), finer.shape)
        y, x = ys[row], xs[column]
    return float(y), float(x)


def _transform(phase: np.ndarray, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    """Give the inverse Fourier transform at any places, pixels: (len(ys), len(xs))."""
    rows = np.exp(2j * np.pi * np.outer(ys, fft.fftfreq(phase.shape[0])))
    columns = np.exp(2j * np.pi * np.outer(fft.fftfreq(phase.shape[1]), xs))
    return (rows @ phase @ columns).real / phase.size


def _height(phase: np.ndarray, dy: float, dx: float) -> float:
    """Give the correlation at a place, as a share of what equal images have."""
    return float(_transform(phase, np.array([dy]), np.array([dx]))[0, 0] / np.abs(phase).mean())
