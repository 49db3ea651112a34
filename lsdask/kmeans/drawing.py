"""A fair sample of the valid pixels of a mosaic.

Every pixel has a random key, made from the seed, its row and its column; the sample is the pixels with the smallest
keys, in the order of their keys. So it is fair, shuffled, and the same whatever the chunks and workers.
"""

from dataclasses import dataclass

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import schema, statistics
from lsdask.compiling import njit
from lsdask.errors import BadInput, sentence
from lsdask.kmeans.book import missing_value

BLOCK_ROWS = 65_536
"""Rows of a block of the sample."""

_EXPECTED_VOID = 64  # a sample takes a second pass where fewer than one pixel in this many is valid


def sample(mosaic: xr.DataArray, n: int, seed: int) -> da.Array:
    """Draw pixels fairly: uniform over the valid pixels of the whole mosaic, without replacement, shuffled.

    Reads the mosaic once, now (a second time only if it has more than 64 ``n`` pixels of which fewer than one in
    64 is valid), and holds a few times ``n`` rows. The same rows in the same order for any chunks and workers.

    Parameters
    ----------
    mosaic : DataArray (band, y, x)
        Any integer or float dtype.
    n : int
        Rows to draw; all valid pixels where there are fewer.
    seed : int
        Another seed, another sample.

    Returns
    -------
    Dask array (pixel, band), dtype as stored, in blocks of 65 536 rows

    Raises
    ------
    BadInput
        If no pixel is valid, or a valid one is infinite.
    """
    drawn = draw(mosaic, n, seed)
    return da.from_array(drawn.rows, chunks=(BLOCK_ROWS, -1))


@dataclass(frozen=True)
class Drawn:
    """Some valid pixels, those with the smallest keys, and how many valid ones there are.

    Attributes
    ----------
    keys : (n,) uint64 array
    rows : (n, band) array
    valid : int
    infinite : int
        Pixels that have data in every band, but infinite.
    """

    keys: np.ndarray
    rows: np.ndarray
    valid: int
    infinite: int

    def least(self, n: int) -> "Drawn":
        """Keep the ``n`` rows with the smallest keys, in any order."""
        if len(self.keys) <= n:
            return self
        kept = np.argpartition(self.keys, n - 1)[:n]
        return Drawn(self.keys[kept], self.rows[kept], self.valid, self.infinite)

    def shuffled(self) -> "Drawn":
        """Order the rows by their keys."""
        order = np.argsort(self.keys)
        return Drawn(self.keys[order], self.rows[order], self.valid, self.infinite)


def draw(mosaic: xr.DataArray, n: int, seed: int) -> Drawn:
    schema.check(mosaic, schema.MOSAIC, "mosaic")
    if n < 1:
        raise BadInput(sentence("n_samples", "be at least 1", f"n_samples={n}"))
    pixels = mosaic.sizes["y"] * mosaic.sizes["x"]
    drawn = _draw_below(mosaic, n, seed, _EXPECTED_VOID * n / max(pixels, 1))
    while len(drawn.keys) < min(n, drawn.valid):
        # Eight standard deviations more than are needed: once is enough.
        drawn = _draw_below(mosaic, n, seed, (n + 8 * n**0.5 + 64) / drawn.valid)
    if drawn.infinite:
        do = "Make them NaN with mosaic.where(np.isfinite(mosaic))"
        raise BadInput(sentence("mosaic", "hold finite values", f"{drawn.infinite} infinite pixels", do))
    if drawn.valid == 0:
        rule = "have pixels with data in every band"
        raise BadInput(sentence("mosaic", rule, f"none in {pixels}", "Look at its nodata value"))
    return drawn.shuffled()


def _draw_below(mosaic: xr.DataArray, n: int, seed: int, share: float) -> Drawn:
    """Draw from the pixels whose keys lie in the lowest ``share`` of all keys."""
    salts = np.random.default_rng([seed, 0]).integers(0, 2**64, 2, dtype="uint64")
    limit = _Limit(2**64 - 1 if share >= 1 else int(share * 2.0**64), n)
    nodata = schema.nodata(mosaic)

    def partial(block: np.ndarray, y: int, x: int) -> Drawn:
        return limit.keep(draw_block(block, nodata, y=y, x=x, salts=salts, limit=np.uint64(limit.value)))

    return statistics.fold(mosaic, partial, lambda parts: limit.keep(_join(parts)))


class _Limit:
    """The largest key that may still be among the ``n`` smallest.

    Whatever ``n`` pixels have been kept, no key above all of theirs is needed any more. Knowing it spares the chunks
    that follow in this process most of their work, and changes nothing in what is kept in the end.
    """

    def __init__(self, value: int, n: int) -> None:
        self.value, self._n = value, n

    def keep(self, drawn: Drawn) -> Drawn:
        """Keep the ``n`` smallest, and remember their largest if there are ``n``."""
        kept = drawn.least(self._n)
        if len(kept.keys) == self._n:
            self.value = min(self.value, int(kept.keys.max()))
        return kept


def _join(parts: list[Drawn]) -> Drawn:
    return Drawn(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.rows for part in parts]),
        sum(part.valid for part in parts),
        sum(part.infinite for part in parts),
    )


def draw_block(
    data: np.ndarray, nodata: float | int | None, *, y: int, x: int, salts: np.ndarray, limit: np.uint64
) -> Drawn:
    """Draw the valid pixels of a block whose keys do not exceed ``limit``.

    A key is a mix of the pixel's place in the mosaic, a bijection on 64 bits, so no two pixels have the same.

    Parameters
    ----------
    data : (band, y, x) array
    nodata : float, int or None
    y, x : int
        The row and column of the block's first pixel in the mosaic.
    salts : (2,) uint64 array
        From the seed.
    limit : uint64

    Source
    ------
    Steele, Lea and Flood (2014), Fast splittable pseudorandom number generators, doi:10.1145/2660193.2660195,
    with Stafford's variant 13 of the mix.
    """
    flat = np.ascontiguousarray(data).reshape(len(data), -1)
    missing, declared = missing_value(data.dtype, nodata)
    size = int(flat.shape[1] * min(float(limit) / 2.0**64 * 1.1, 1.0)) + 1024
    while True:
        places, keys = np.empty(size, dtype="int64"), np.empty(size, dtype="uint64")
        found, valid, infinite = _keys(flat, missing, declared, y, x, data.shape[2], salts, limit, places, keys)
        if found <= size:
            rows = np.ascontiguousarray(flat[:, places[:found]].T)
            return Drawn(keys[:found].copy(), rows, valid, infinite)
        size = found


@njit(nogil=True, cache=True)
def _mix(z):  # type: ignore[no-untyped-def]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(nogil=True, cache=True)
def _keys(flat, missing, declared, top, left, width, salts, limit, places, keys):  # type: ignore[no-untyped-def]
    found, valid, infinite = 0, 0, 0
    for row in range(flat.shape[1] // width):
        line = (np.uint64(top + row) << np.uint64(32)) + np.uint64(left)
        for column in range(width):
            i = row * width + column
            known, finite = True, True
            for band in range(flat.shape[0]):
                value = flat[band, i]
                known &= not (declared and value == missing)
                known &= value == value
                finite &= np.float64(value) - np.float64(value) == 0.0
            valid += known and finite
            infinite += known and not finite
            if known and finite:
                key = _mix(_mix(line + np.uint64(column) + salts[0]) + salts[1])
                if key <= limit:
                    if found < len(keys):
                        places[found] = i
                        keys[found] = key
                    found += 1
    return found, valid, infinite
