"""The patches of an xbatcher generator, as windows."""

from typing import Any

import numpy as np
import xarray as xr

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.streaming.ordering import Windows


def patches_of(generator: Any) -> Windows:
    """Give the windows that an ``xbatcher.BatchGenerator`` cuts, in its batches.

    Raises
    ------
    BadInput
        If it cuts anything but a DataArray (band, y, x), or cuts its bands.
    """
    schema.check(generator.ds, schema.MOSAIC, "generator.ds")
    batches = [batch for batch in generator._batch_selectors.selectors.values() if batch]
    places = np.array([_window(patch, generator.ds) for batch in batches for patch in batch])
    return Windows(places, np.cumsum([0, *(len(batch) for batch in batches)]))


def _window(patch: Any, image: xr.DataArray) -> tuple[int, int, int, int]:
    spans = [patch.get(dim, slice(None)).indices(image.sizes[dim]) for dim in schema.MOSAIC]
    if spans[0] != (0, image.sizes["band"], 1):
        raise BadInput(sentence("generator", "take all bands in a patch", f"bands {spans[0][0]} to {spans[0][1]}"))
    return spans[1][0], spans[2][0], spans[1][1], spans[2][1]


def with_edges(windows: Windows, shape: tuple[int, int]) -> Windows:
    """Add the windows that end with the image, in the rows and columns of those there are."""
    side, starts = windows.side, windows.places[:, :2]
    ends = [np.union1d(starts[:, axis], shape[axis] - side[axis]) for axis in (0, 1)]
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 2)
    edge = (corners + side == shape).any(axis=1)
    more = np.concatenate([corners, corners + side], axis=1)[edge]
    known = set(map(tuple, windows.places.tolist()))
    new = [place for place in more.tolist() if tuple(place) not in known]
    return Windows(np.concatenate([windows.places, np.array(new, dtype="int64").reshape(-1, 4)]))
