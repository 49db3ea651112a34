"""Landslide inventories: polygons to a mask, score maps of any size to polygons, and what can be said of those."""

from lsdask.inventory.attributes import change, change_block, summarize
from lsdask.inventory.burning import burn, burn_block, hull, load, on_pixels, rasterize, to_map, to_pixels
from lsdask.inventory.describing import describe
from lsdask.inventory.lie import terrain
from lsdask.inventory.polygons import batches, vectorize
from lsdask.inventory.shaping import fill_holes, simplify
from lsdask.inventory.writing import write

__all__ = [
    "batches",
    "burn",
    "burn_block",
    "change",
    "change_block",
    "describe",
    "fill_holes",
    "hull",
    "load",
    "on_pixels",
    "rasterize",
    "simplify",
    "summarize",
    "terrain",
    "to_map",
    "to_pixels",
    "vectorize",
    "write",
]
