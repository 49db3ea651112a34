"""A made-up Serra do Mar of any size: coast, towns, pasture, forested scarp, and landslide scars with their outlines.

Every value is a pure function of the seed and of a place on the ground: gradient noise on lattices whose corners
are hashed, and scars drawn per lattice cell. So any window is computed alone, and any chunking gives the same
pixels bit for bit. The landscape is laid out in metres, from the scene's upper left corner: a finer resolution
shows the same ground in more detail.
"""

from lsdask.synthetic.compiled import FULL_SCALE, STATIONS
from lsdask.synthetic.scenes import BANDS, CRS, NODATA, ORIGIN, Landscape, elevation, landscape, mask, polygons, scene

__all__ = [
    "BANDS",
    "CRS",
    "FULL_SCALE",
    "NODATA",
    "ORIGIN",
    "STATIONS",
    "Landscape",
    "elevation",
    "landscape",
    "mask",
    "polygons",
    "scene",
]
