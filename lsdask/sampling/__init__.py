"""Which tiles of an image to learn from: a table with one row a tile.

A tile index is a ``pandas.DataFrame``; each function takes one and gives a new one. ``survey``, ``write``, ``parts``,
``split_file`` and ``folds_file`` do the same with a table on disk, of any length, of which they hold a part.

===========  =======  =======================================================================================
column       dtype    meaning
===========  =======  =======================================================================================
y, x         int64    the tile's top-left pixel in the image
size         int64    side of the tile, in pixels
scene        object   the image's name, where a table is of several
valid        float64  share of the tile's pixels that have data, 0 to 1 (``describe``)
positive     float64  share of the tile's known pixels that are landslide, 0 to 1; NaN if none is known
                      (``describe``)
cluster      uint8    the commonest label, the lowest of equals; 255 if none is known (``describe``)
false_alarm  float64  share of the tile's known and scored pixels that a score map takes for landslide, but are
                      none; NaN if there is no such pixel (``describe``)
missed       float64  share of them that are landslide, but not by the score map (``describe``)
weight       float64  how likely ``draw`` takes the tile, 0 or more (``weigh``)
split        object   "train", "valid", "test", or "none" for tiles that belong to no side (``split``, ``as_split``)
fold         int64    0 up, or -1 for tiles that belong to no fold (``folds``)
===========  =======  =======================================================================================

A pixel is known where the mask is 0 or 1 and, if validity is given, the image has data.
"""

from lsdask.sampling.checking import check_split
from lsdask.sampling.choosing import Balance, balance, draw, hard_negatives, select, weigh
from lsdask.sampling.counting import CHUNK, Counts, check_mask_block, count_block, describe, finish, touched
from lsdask.sampling.files import parts, read, write
from lsdask.sampling.placing import by_location, even, grid, random
from lsdask.sampling.splitting import NONE, SPLITS, as_split, folds, folds_file, split, split_file
from lsdask.sampling.surveying import survey
from lsdask.sampling.tables import check, check_inside, shape_of, table

__all__ = [
    "CHUNK",
    "NONE",
    "SPLITS",
    "Balance",
    "Counts",
    "as_split",
    "balance",
    "by_location",
    "check",
    "check_inside",
    "check_mask_block",
    "check_split",
    "count_block",
    "describe",
    "draw",
    "even",
    "finish",
    "folds",
    "folds_file",
    "grid",
    "hard_negatives",
    "parts",
    "random",
    "read",
    "select",
    "shape_of",
    "split",
    "split_file",
    "survey",
    "table",
    "touched",
    "weigh",
    "write",
]
