"""How well each k separates the pixels."""

from collections.abc import Iterator

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from lsdask.errors import BadInput, sentence
from lsdask.kmeans.book import book_of
from lsdask.kmeans.drawing import sample


def describe(
    pixels: xr.DataArray | da.Array | np.ndarray, centers: xr.DataArray, *, n_samples: int = 100_000, seed: int = 0
) -> pd.DataFrame:
    """Measure how well each k separates the pixels, to choose one.

    Parameters
    ----------
    pixels : DataArray (band, y, x), or (pixel, band) array
        A mosaic, which is sampled in one read, or a sample of it.
    centers : DataArray (k, cluster, band)
        From ``fit`` or ``open``. Distances are in their ``scale``.
    n_samples, seed : int
        Of the sample, if ``pixels`` is a mosaic.

    Returns
    -------
    DataFrame indexed by ``k``
        ``distance2``, the mean squared distance to the own centre (look for the bend); ``silhouette``, simplified,
        -1 to 1 (higher is better); ``davies_bouldin``, 0 and more (lower is better); ``smallest``, the share of
        pixels in the smallest cluster. The middle two are NaN for k=1.

    Raises
    ------
    BadInput
        If the bands are not those of the centres, or no pixel is valid.

    Source
    ------
    Hruschka, Campello and de Castro (2006), doi:10.1016/j.ins.2005.07.015 (simplified silhouette: distances to
    centres, not to pixels); Davies and Bouldin (1979), doi:10.1109/TPAMI.1979.4766909.
    """
    if isinstance(pixels, xr.DataArray):
        book_of(centers, pixels)
        pixels = sample(pixels, n_samples, seed)
    if pixels.ndim != 2 or pixels.shape[1] != centers.sizes["band"] or not len(pixels):
        rule = f"have shape (pixel, band) with {centers.sizes['band']} bands"
        raise BadInput(sentence("pixels", rule, str(pixels.shape)))
    scale = centers["scale"].values if "scale" in centers.coords else np.ones(centers.sizes["band"])
    rows = np.asarray(pixels, dtype="float64") / scale
    ks = [int(k) for k in centers["k"].values]
    table = [separation_block(rows, centers.values[i, :k] / scale) for i, k in enumerate(ks)]
    return pd.DataFrame(table, index=pd.Index(ks, name="k"))


def separation_block(rows: np.ndarray, centers: np.ndarray) -> dict[str, float]:
    """Measure how well centres separate pixels; see ``describe``.

    Parameters
    ----------
    rows : (pixel, band) float64 array
    centers : (cluster, band) float64 array

    Returns
    -------
    dict of ``distance2``, ``silhouette``, ``davies_bouldin``, ``smallest``
    """
    label, own, other = (np.concatenate(parts) for parts in zip(*_two_nearest(rows, centers)))
    count = np.bincount(label, minlength=len(centers))
    return {
        "distance2": float((own**2).mean()),
        "silhouette": _silhouette(own, other) if len(centers) > 1 else np.nan,
        "davies_bouldin": _davies_bouldin(np.bincount(label, own, len(centers)), count, centers),
        "smallest": float(count.min() / len(rows)),
    }


def _two_nearest(rows: np.ndarray, centers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Give each pixel's cluster, its distance to that centre and to the next, some pixels at a time."""
    for begin in range(0, len(rows), 8192):
        part = rows[begin : begin + 8192]
        squared = sum(np.subtract.outer(part[:, band], centers[:, band]) ** 2 for band in range(rows.shape[1]))
        distance = np.sqrt(squared)
        label = distance.argmin(axis=1)
        own = distance[np.arange(len(part)), label]
        distance[np.arange(len(part)), label] = np.inf
        yield label, own, distance.min(axis=1)


def _silhouette(own: np.ndarray, other: np.ndarray) -> float:
    """Mean of how much nearer the own centre is than the next; 0 for a pixel on both. ``other`` is the larger."""
    return float(np.divide(other - own, other, out=np.zeros_like(own), where=other > 0).mean())


def _davies_bouldin(distance: np.ndarray, count: np.ndarray, centers: np.ndarray) -> float:
    """Mean over clusters of the worst ratio of two clusters' spreads to the distance of their centres."""
    present = count > 0
    if present.sum() < 2:
        return np.nan
    spread, centers = distance[present] / count[present], centers[present]
    apart = np.sqrt(((centers[:, None] - centers[None]) ** 2).sum(axis=2))
    np.fill_diagonal(apart, np.inf)
    return float(((spread[:, None] + spread[None]) / apart).max(axis=1).mean())
