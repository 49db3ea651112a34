"""Landslides rather than pixels: which were found, by size; which outlines match; scores that forgive an edge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from scipy import ndimage

from lsdask import inventory, schema, tiling
from lsdask.errors import BadInput, sentence
from lsdask.evaluate.agreeing import FN, FP, TP, agreement
from lsdask.evaluate.counts import Counts
from lsdask.inventory.measuring import crs_in, measure
from lsdask.inventory.zonal import reduced

SIZES_M2 = (1e3, 1e4, 1e5)
"""Where size classes begin and end: landslides under 0.1 ha, to 1 ha, to 10 ha, and larger."""


def landslides(
    scores: xr.DataArray,
    truth: gpd.GeoDataFrame,
    *,
    threshold: float = 0.5,
    valid: xr.DataArray | None = None,
    class_: Any = None,
) -> gpd.GeoDataFrame:
    """Say of each true landslide how much of it was found. Chunks without landslides are not read.

    Parameters
    ----------
    scores, threshold, valid, class_
        As in :func:`count`.
    truth : GeoDataFrame
        Outlines in any CRS. Of pixels in two outlines the later one has them.

    Returns
    -------
    GeoDataFrame
        The outlines in the CRS of the scores, with the columns area_m2 (of the outline, as ``inventory.vectorize``
        measures it), pixels (known ones) and found (share of these whose score reaches the threshold; NaN if there
        are none).

    Raises
    ------
    BadInput
        As :func:`count`; and if ``truth`` has no CRS.
    """
    grid = schema.geobox(scores, "scores")
    frame = inventory.load(truth, name="truth")
    nothing = schema.wrap(_zeros(scores), grid, schema.MASK, name="mask")
    codes = agreement(scores, nothing, threshold=threshold, valid=valid, class_=class_)
    table = reduced(frame, codes.expand_dims("band"), found_block, None)
    known = table["known"].to_numpy("int64")
    frame = frame.to_crs(grid.crs)
    found = (table["found"] / table["known"].where(known > 0)).to_numpy()
    area, _ = measure(frame.geometry.to_numpy(), crs_in(frame))
    return frame.assign(area_m2=area, pixels=known, found=found)


def _zeros(scores: xr.DataArray) -> da.Array:
    return da.zeros(scores.shape[-2:], chunks=scores.data.chunks[-2:] if scores.chunks else 2048, dtype="uint8")


def found_block(labels: np.ndarray, values: np.ndarray, offsets: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """Count known and positive pixels of each outline.

    Parameters
    ----------
    labels : (pixel,) int array
        Which of ``n`` outlines each pixel lies in.
    values : (1, pixel) uint8 array
        Of :func:`agreement` with a mask of zeros: FP is positive.
    offsets : (2, pixel) float64
        Not looked at.
    n : int

    Returns
    -------
    dict of (n,) int64
        ``known`` and ``found``.
    """
    positive = labels[values[0] == FP]
    return {"known": np.bincount(labels, minlength=n), "found": np.bincount(positive, minlength=n)}


def by_size(found: pd.DataFrame, *, edges_m2: Sequence[float] = SIZES_M2, least: float = 0.5) -> pd.DataFrame:
    """Say how well landslides of each size were found.

    Parameters
    ----------
    found : DataFrame
        From :func:`landslides`.
    edges_m2 : sequence of float
        Where a class ends and the next begins, rising; the first class begins at 0 and the last has no end.
    least : float
        A landslide is detected if at least this share of it was found.

    Returns
    -------
    DataFrame, one row a class
        Columns from_m2, to_m2, landslides (with known pixels), detected (share of them; NaN if there are none),
        recall (share of their pixels).

    Raises
    ------
    BadInput
        If the edges do not rise from above 0.
    """
    edges = np.array([0.0, *edges_m2, np.inf])
    if not (np.diff(edges) > 0).all():
        raise BadInput(sentence("edges_m2", "rise from above 0", f"edges_m2={tuple(edges_m2)}"))
    known = found[found["pixels"] > 0]
    size = np.searchsorted(edges, known["area_m2"], side="right") - 1
    rows = []
    for i in range(len(edges) - 1):
        part = known[size == i]
        pixels = part["pixels"].sum()
        detected = (part["found"] >= least).mean() if len(part) else np.nan
        recall = (part["found"] * part["pixels"]).sum() / pixels if pixels else np.nan
        rows.append((edges[i], edges[i + 1], len(part), float(detected), float(recall)))
    return pd.DataFrame(rows, columns=["from_m2", "to_m2", "landslides", "detected", "recall"])


@dataclass(frozen=True)
class Matches:
    """Which mapped outlines match which true ones.

    Attributes
    ----------
    pairs : DataFrame
        Columns mapped, truth (positions in the two tables) and iou, greatest first.
    counts : Counts
        Landslides: tp pairs, fp mapped without a partner, fn true without one; tn has no meaning and is 0, so take
        precision, recall and f1 of ``score(counts)`` only.
    """

    pairs: pd.DataFrame
    counts: Counts


def match(mapped: gpd.GeoDataFrame, truth: gpd.GeoDataFrame, *, min_iou: float = 0.5) -> Matches:
    """Pair mapped landslides with true ones, each with one at most, those of greatest overlap first.

    Parameters
    ----------
    mapped, truth : GeoDataFrame
        Valid outlines, each with a CRS.
    min_iou : float, above 0, to 1
        Least area of the intersection over that of the union. Above 0.5 the pairs are unique, if the outlines of
        one table do not overlap.

    Returns
    -------
    Matches

    Raises
    ------
    BadInput
        If a table has no CRS, or min_iou is not in (0, 1].
    """
    if not 0 < min_iou <= 1:
        raise BadInput(sentence("min_iou", "be above 0 and at most 1", f"min_iou={min_iou}"))
    for name, frame in (("mapped", mapped), ("truth", truth)):
        if frame.crs is None:
            raise BadInput(sentence(name, "have a CRS", "none", f"Use {name}.set_crs(...)"))
    ours, theirs = mapped.geometry.to_numpy(), truth.to_crs(mapped.crs).geometry.to_numpy()
    mine, other = shapely.STRtree(theirs).query(ours, predicate="intersects")
    common = shapely.area(shapely.intersection(ours[mine], theirs[other]))
    iou = common / (shapely.area(ours)[mine] + shapely.area(theirs)[other] - common)
    chosen = _one_to_one(mine, other, iou, min_iou)
    pairs = pd.DataFrame({"mapped": mine[chosen], "truth": other[chosen], "iou": iou[chosen]})
    n = len(pairs)
    return Matches(pairs, Counts(tp=n, fp=len(mapped) - n, fn=len(truth) - n))


def _one_to_one(mine: np.ndarray, other: np.ndarray, iou: np.ndarray, least: float) -> list[int]:
    """Choose pairs greatest first, none of whose partners is taken; ties in the order of the tables."""
    order = np.lexsort((other, mine, -iou))
    taken: tuple[set[int], set[int]] = set(), set()
    chosen = []
    for i in order[iou[order] >= least].tolist():
        if mine[i] not in taken[0] and other[i] not in taken[1]:
            taken[0].add(mine[i])
            taken[1].add(other[i])
            chosen.append(i)
    return chosen


def near(
    scores: xr.DataArray,
    mask: xr.DataArray,
    *,
    pixels: float = 1,
    threshold: float = 0.5,
    valid: xr.DataArray | None = None,
    class_: Any = None,
) -> dict[str, float]:
    """Score a map while forgiving edges drawn a little off: right is what lies near the right.

    Parameters
    ----------
    scores, mask, threshold, valid, class_
        As in :func:`count`.
    pixels : float
        How far two pixels' centres may lie apart to be near (Euclidean); 0 gives the plain scores.

    Returns
    -------
    dict of float
        ``precision``: share of the mapped pixels that are near a true one; ``recall``: share of the true pixels that
        are near a mapped one; ``f1``: their harmonic mean. 0 where the denominator is 0. Unknown pixels are left out
        and help nobody.

    Raises
    ------
    BadInput
        As :func:`count`; and if ``pixels`` is negative.

    Source
    ------
    Relaxed precision and recall: Mnih and Hinton 2010, Learning to detect roads, ECCV, section 5.
    """
    if not pixels >= 0:
        raise BadInput(sentence("pixels", "be 0 or more", f"pixels={pixels}"))
    codes = da.asarray(agreement(scores, mask, threshold=threshold, valid=valid, class_=class_).data)
    grid = tiling.grid(codes.shape, 2048, halo=int(np.ceil(pixels)))
    tiles = [grid[place] for place in grid.places()]
    partials = [dask.delayed(near_block)(codes[tile.read], _inner(tile), pixels) for tile in tiles]
    right, mapped, found, true = np.sum(dask.compute(*partials), axis=0).tolist()
    precision, recall = right / mapped if mapped else 0.0, found / true if true else 0.0
    both = precision + recall
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / both if both else 0.0}


def _inner(tile: tiling.Tile) -> tuple[slice, slice]:
    """Give where a tile's own pixels lie in what is read for it."""
    y, x = (slice(w.start - r.start, w.stop - r.start) for w, r in zip(tile.write, tile.read))
    return y, x


def near_block(codes: np.ndarray, inner: tuple[slice, slice], pixels: float) -> np.ndarray:
    """Count near pixels in the inner part of a block.

    Parameters
    ----------
    codes : (y, x) uint8 array
        Of :func:`agreement`, with a halo of ``pixels``.
    inner : (slice, slice)
        What to count.
    pixels : float

    Returns
    -------
    (4,) int64 array
        Mapped pixels near a true one, all mapped, true pixels near a mapped one, all true.
    """
    mapped, true = np.isin(codes, (TP, FP)), np.isin(codes, (TP, FN))
    right, found = mapped & _near(true, pixels), true & _near(mapped, pixels)
    return np.array([part[inner].sum() for part in (right, mapped, found, true)], dtype="int64")


def _near(where: np.ndarray, pixels: float) -> np.ndarray:
    """Say which pixels lie within a distance of any."""
    if not where.any():
        return where
    return ndimage.distance_transform_edt(~where) <= pixels
