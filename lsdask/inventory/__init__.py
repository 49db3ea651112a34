"""Landslide inventories: polygons to a mask, and score maps of any size to polygons."""

from lsdask.inventory.burning import burn, burn_block, hull, load, on_pixels, rasterize, to_map, to_pixels
from lsdask.inventory.polygons import vectorize, write

__all__ = [
    "burn",
    "burn_block",
    "hull",
    "load",
    "on_pixels",
    "rasterize",
    "to_map",
    "to_pixels",
    "vectorize",
    "write",
]
