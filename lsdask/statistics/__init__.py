"""Per-band statistics of an image of any size: one pass over it, and the same numbers whatever its chunks.

Chunks are summed in an order that nobody controls, so every sum here is exact and order is of no account: integers of
up to 16 bit are counted value by value, floats are summed in fixed point, wide enough for every float there is.
"""

from lsdask.statistics.folding import fold
from lsdask.statistics.groups import Adder, Totals
from lsdask.statistics.measuring import bands

__all__ = ["Adder", "Totals", "bands", "fold"]
