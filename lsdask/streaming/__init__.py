"""Batches of tiles out of an image on disk, about as fast as out of memory.

The image is read in *cells*, one or a few neighbouring chunks; each is read once, ahead of time, by threads. Tiles
that lie in one cell are cut from it; tiles that lie across several are put together as their cells come by. The
order is planned in integers before anything is read:

1. Cells come in a random order (inside *regions*, themselves in a random order, where an image is so large that
   the tiles waiting for another cell would not fit the buffer).
2. The tiles that a cell completes are spread evenly over the next cells to come, as many as the buffer holds; so a
   batch mixes tiles of all cells in the buffer.

So the order of an epoch depends on the seed and the epoch, never on threads or timing; any batch of it can be gone
on from; and ranks and loader workers take disjoint shares of it.

A stream's batches can be read by Dask workers (``client=``), made by other processes (``stream.in_processes()``), and
taken as torch tensors (``stream.torch()``), on a device (``stream.on(device)``), or by Lightning (``data_module``).
"""

from lsdask.schema import floats_block
from lsdask.streaming.epochs import Stream, data_module
from lsdask.streaming.folders import stack
from lsdask.streaming.holding import Batch, Batches
from lsdask.streaming.mixed import MixedStream
from lsdask.streaming.planning import Layout, Plan
from lsdask.streaming.tiles import MIB, TileStream

__all__ = [
    "MIB",
    "Batch",
    "Batches",
    "Layout",
    "MixedStream",
    "Plan",
    "Stream",
    "TileStream",
    "data_module",
    "floats_block",
    "stack",
]
