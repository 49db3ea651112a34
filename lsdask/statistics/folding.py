"""An image is reduced to one small thing, chunk by chunk."""

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed

_IN_MEMORY_CHUNK = 2048


def fold(
    image: xr.DataArray,
    partial: Callable[[np.ndarray, int, int], Any],
    merge: Callable[[list[Any]], Any],
    *,
    width: int = 8,
) -> Any:
    """Reduce an image to one small thing, reading each chunk once and holding none after its turn.

    Parameters
    ----------
    image : DataArray (band, y, x)
        Lazy or in memory.
    partial : callable of (block, y, x)
        Reduces one chunk, a (band, y, x) array with all bands, whose first pixel lies at row ``y``, column ``x``.
    merge : callable of a list
        Joins up to ``width`` of what ``partial`` or ``merge`` gave; must not depend on their order.
    width : int
        How many are joined at a time.

    Returns
    -------
    what ``merge`` gives
    """
    data = image.data
    if not isinstance(data, da.Array):
        data = da.from_array(data, chunks=(-1, _IN_MEMORY_CHUNK, _IN_MEMORY_CHUNK), name=False)
    data = data.rechunk({0: -1})
    corners = [np.cumsum((0, *sizes))[:-1] for sizes in data.chunks[1:]]
    step, join = dask.delayed(partial, pure=False), dask.delayed(merge, pure=False)
    blocks = data.to_delayed()[0]
    parts: list[Delayed] = [
        step(blocks[row, column], int(y), int(x))
        for row, y in enumerate(corners[0])
        for column, x in enumerate(corners[1])
    ]
    while len(parts) > 1:
        parts = [join(parts[i : i + width]) for i in range(0, len(parts), width)]
    return parts[0].compute()
