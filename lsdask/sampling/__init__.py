"""Which tiles of an image to learn from: a table with one row a tile.

A tile index is a ``pandas.DataFrame``; each function takes one and gives a new one.

========  =======  ==========================================================================================
column    dtype    meaning
========  =======  ==========================================================================================
y, x      int64    the tile's top-left pixel in the image
size      int64    side of the tile, in pixels
valid     float64  share of the tile's pixels that have data, 0 to 1 (``describe``)
positive  float64  share of the tile's known pixels that are landslide, 0 to 1; NaN if none is known (``describe``)
cluster   uint8    the commonest label, the lowest of equals; 255 if none is known (``describe``)
split     object   "train", "valid", "test", or "none" for tiles that belong to no side (``split``, ``as_split``)
fold      int64    0 up, or -1 for tiles that belong to no fold (``folds``)
========  =======  ==========================================================================================

A pixel is known where the mask is 0 or 1 and, if validity is given, the image has data.
"""

from lsdask.sampling.choosing import Balance, balance, select
from lsdask.sampling.counting import CHUNK, Counts, check_mask_block, count_block, describe, finish, touched
from lsdask.sampling.placing import grid, random
from lsdask.sampling.splitting import NONE, SPLITS, as_split, check_split, folds, split
from lsdask.sampling.tables import check, check_inside, shape_of, table

__all__ = [
    "CHUNK",
    "NONE",
    "SPLITS",
    "Balance",
    "Counts",
    "as_split",
    "balance",
    "check",
    "check_inside",
    "check_mask_block",
    "check_split",
    "count_block",
    "describe",
    "finish",
    "folds",
    "grid",
    "random",
    "select",
    "shape_of",
    "split",
    "table",
    "touched",
]
