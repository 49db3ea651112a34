"""Exact Lloyd steps, over a sample in memory or over a whole mosaic, for every k together.

Sums are exact (see ``statistics``), so nothing depends on chunks, workers or threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce

import numpy as np
import xarray as xr

from lsdask import schema, statistics
from lsdask.kmeans.book import Book, make_book
from lsdask.kmeans.nearest import label_pixels

ITERATIONS = 100
"""Most Lloyd steps on the sample."""

TOLERANCE = 1e-6
"""Lloyd steps end when all centres together move less than this share of the mean variance, squared distances."""

_STRIP = 65_536  # pixels labelled and summed while they are in cache


@dataclass(frozen=True)
class Sums:
    """Exact sums of one k: of the pixels of each cluster, and of the squares of all."""

    pixels: statistics.Totals
    squares: np.ndarray

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.pixels + other.pixels, self.squares + other.squares)

    def means(self) -> np.ndarray:
        """Give the (cluster, band) means, NaN where a cluster has no pixel; each is rounded once."""
        pairs = zip(self.pixels.count.tolist(), self.pixels.sums)
        return np.array([[float(Fraction(x) / n) if n else np.nan for x in sums] for n, sums in pairs])

    def inertia(self, centers: np.ndarray, scale: np.ndarray) -> float:
        """Give the sum of squared distances to ``centers``, by which the clusters were made; rounded once."""
        total = Fraction(0)
        for band, (unit, squares) in enumerate(zip(scale.tolist(), self.squares)):
            spread = Fraction(squares)
            for n, sums, center in zip(self.pixels.count.tolist(), self.pixels.sums, centers[:, band].tolist()):
                spread += Fraction(center) * (n * Fraction(center) - 2 * Fraction(sums[band]))
            total += spread / Fraction(unit) ** 2
        return float(total)


def totals_block(data: np.ndarray, nodata: float | int | None, book: Book) -> list[Sums]:
    """Label the pixels of a block for every k and add them up by cluster, exactly.

    Parameters
    ----------
    data : (band, ...) array
        As stored.
    nodata : float, int or None
    book : Book

    Returns
    -------
    list of sums, one a k
    """
    flat = np.ascontiguousarray(data).reshape(len(data), -1)
    adders = [statistics.Adder(flat.dtype, len(flat), group.stop - group.start) for group in book.groups()]
    squares = statistics.Adder(flat.dtype, len(flat), 1, squared=True)
    for begin in range(0, flat.shape[1], _STRIP):
        strip = np.ascontiguousarray(flat[:, begin : begin + _STRIP])
        found = np.empty((len(book), strip.shape[1]), dtype="uint8")
        label_pixels(strip, nodata, book, found)
        squares.add(strip, (found[0] == schema.UNKNOWN).view("uint8"))
        for adder, groups in zip(adders, found):
            adder.add(strip, groups)
    square = squares.totals().sums[0]
    return [Sums(adder.totals(), square) for adder in adders]


def fold_totals(mosaic: xr.DataArray, centers: Sequence[np.ndarray], scale: np.ndarray) -> list[Sums]:
    """Label all valid pixels of the mosaic and add them up, in one read."""
    book, nodata = make_book(centers, scale), schema.nodata(mosaic)
    return statistics.fold(mosaic, lambda block, *_: totals_block(block, nodata, book), _merge_totals)


def _merge_totals(parts: list[list[Sums]]) -> list[Sums]:
    return [reduce(lambda one, other: one + other, same) for same in zip(*parts)]


@dataclass(frozen=True)
class Sampled:
    """The sample, (band, pixel) as stored, and the units of distance."""

    values: np.ndarray
    scale: np.ndarray

    def totals(self, centers: Sequence[np.ndarray]) -> list[Sums]:
        return totals_block(self.values, None, make_book(centers, self.scale))

    def scaled(self, rows: slice) -> np.ndarray:
        """Give (pixel, band) float64 rows in units of distance."""
        return self.values[:, rows].T.astype("float64") / self.scale

    def farthest(self, centers: np.ndarray, n: int) -> np.ndarray:
        """Give the ``n`` distinct sampled pixels farthest from their nearest centre, (n, band)."""
        labels = np.empty((1, self.values.shape[1]), dtype="uint8")
        label_pixels(self.values, None, make_book([centers], self.scale), labels)
        distance = (((self.values.T - centers[labels[0]]) / self.scale) ** 2).sum(axis=1)
        found: dict[bytes, np.ndarray] = {}
        for place in np.argsort(-distance, kind="stable"):
            found.setdefault(self.values[:, place].tobytes(), self.values[:, place])
            if len(found) == n:
                break
        return np.array(list(found.values()), dtype="float64")


def move(totals: Sequence[Sums], centers: Sequence[np.ndarray], sampled: Sampled) -> list[np.ndarray]:
    """Move every centre to the mean of its pixels, and one without pixels far away from all others."""
    moved = []
    for total in totals:
        means = total.means()
        empty = np.isnan(means[:, 0])
        if empty.any():
            means[empty] = sampled.farthest(means[~empty], int(empty.sum()))
        moved.append(means)
    return moved


def polish(sampled: Sampled, centers: list[np.ndarray]) -> list[np.ndarray]:
    """Do exact Lloyd steps on the sample, all k together, until each has settled."""
    done = list(centers)
    spread = ((sampled.values.astype("float64").T / sampled.scale).var(axis=0)).mean()
    active = list(range(len(centers)))
    for _ in range(ITERATIONS):
        before = [done[i] for i in active]
        after = move(sampled.totals(before), before, sampled)
        for i, block in zip(active, after):
            done[i] = block
        shifts = [(((new - old) / sampled.scale) ** 2).sum() for new, old in zip(after, before)]
        active = [i for i, shift in zip(active, shifts) if shift > TOLERANCE * spread]
        if not active:
            break
    return done


def ordered(centers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Order clusters by the mean of their centre over the bands, then by the bands themselves."""
    scaled = centers / scale
    return centers[np.lexsort((*scaled.T[::-1], scaled.mean(axis=1)))]
