"""Count, extremes, mean, deviation and percentiles of each band."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import xarray as xr

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.statistics.counting import Counted, count_block, is_small
from lsdask.statistics.folding import fold
from lsdask.statistics.summing import LARGEST, Summed, merge, sum_block


def bands(image: xr.DataArray, *, percentiles: Sequence[float] = (2, 50, 98)) -> xr.Dataset:
    """Measure each band over the pixels that have data in every band. Reads the image once, now.

    The result is the same, bit for bit, for any chunking, scheduler and number of workers.

    Parameters
    ----------
    image : DataArray (band, y, x)
        Any integer or float dtype; lazy or in memory. No chunk is held longer than its own sums take.
    percentiles : sequence of float
        0 to 100, with linear interpolation as ``numpy.percentile``. Exact for integers of up to 16 bit; for other
        dtypes within 2**-11 (0.05 %) of the value itself, from counts of values rounded to 12 significant bits.

    Returns
    -------
    Dataset over ``band``
        ``count`` (int64, valid pixels), ``min``, ``max``, ``mean``, ``std`` (population) and one variable a
        percentile, named ``p02``, ``p50``, ``p98``, ``p99_9`` (float64, in the image's units; NaN where no pixel is
        valid).

    Raises
    ------
    BadInput
        If the dims are not (band, y, x), a percentile is out of range, or a value is infinite.
    """
    schema.check(image, schema.MOSAIC)
    names = [_percentile_name(percentile) for percentile in percentiles]
    measured = _measure(image)
    columns = {"count": np.full(image.sizes["band"], measured.count, dtype="int64"), **measured.moments()}
    for name, percentile in zip(names, percentiles):
        columns[name] = measured.percentile(percentile)
    band = ("band", np.asarray(schema.bands(image)))
    data = {name: ("band", values) for name, values in columns.items()}
    return xr.Dataset(data, coords={"band": band}, attrs={"pixels": image.sizes["y"] * image.sizes["x"]})


def _percentile_name(percentile: float) -> str:
    if not 0 <= percentile <= 100:
        raise BadInput(sentence("percentiles", "lie from 0 to 100", f"percentiles={percentile}"))
    return f"p{percentile:02g}".replace(".", "_")


def _measure(image: xr.DataArray) -> Counted | Summed:
    nodata = schema.nodata(image)
    if is_small(image.dtype):
        counts = fold(image, lambda block, *_: count_block(block, nodata), _add)
        return Counted(counts, int(np.iinfo(image.dtype).min))
    sums: Summed = fold(image, lambda block, *_: sum_block(block, nodata), lambda parts: reduce(merge, parts))
    if sums.beyond:
        do = f"Make them NaN with image.where(abs(image) <= {LARGEST:g})"
        raise BadInput(sentence("image", "hold finite values", f"{sums.beyond} pixels that are infinite or huge", do))
    return sums


def _add(parts: list[np.ndarray]) -> np.ndarray:
    return np.sum(parts, axis=0)
