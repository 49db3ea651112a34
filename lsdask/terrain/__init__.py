"""Terrain: what the heights of a DEM say about the ground, on the grid of a mosaic.

Slope, aspect, hillshade and the like are those of gdaldem, to the last decimals of its float32; curvatures are those
of RichDEM (and ArcGIS), in 1/m. All are lazy if the DEM is, one task a chunk, the same whatever the chunks.

- A pixel looks at its 3 x 3 neighbours. Where one of the nine is void, so is what is derived there.
- Beyond the border of the image nothing is known, so its outer ring is void, as gdaldem's. With ``edge="extrapolate"``
  the ring is computed from heights continued straight across the border; near void nothing is ever continued.
- Heights are metres. Pixels are measured in metres whatever the CRS: degrees on its own ellipsoid, row by row; feet by
  the length of its unit. A projection's distortion is not taken out, and in Web Mercator (EPSG:3857) it is large:
  slopes at 60 degrees of latitude come out half as steep. Use a grid in UTM or in degrees.

The kernels are the room's own. Those of xarray-spatial 0.10 agree with the references on float heights in square metres
(slope, aspect, roughness, TPI, TRI, total curvature), but take ``_FillValue`` for a height, give void pixels an aspect
and a shade, mirror the sun's azimuth from north to south, call slopes in degrees 90 unless asked for a geodesic that
is thirty times slower, measure curvature with one side of the pixel, and plan 15 to 21 tasks a chunk for each.
"""

from lsdask.terrain.derivatives import (
    BANDS,
    aspect,
    bands,
    bands_block,
    curvature,
    hillshade,
    roughness,
    slope,
    tpi,
    tri,
)
from lsdask.terrain.ground import Ground, ground_of, sizes_block
from lsdask.terrain.kernels import (
    aspect_block,
    curvature_block,
    eastness_block,
    hillshade_block,
    horn_block,
    northness_block,
    roughness_block,
    slope_block,
    tpi_block,
    tri_block,
)
from lsdask.terrain.neighbours import pad_block
from lsdask.terrain.resampling import resample, resample_block

__all__ = [
    "BANDS",
    "Ground",
    "aspect",
    "aspect_block",
    "bands",
    "bands_block",
    "curvature",
    "curvature_block",
    "eastness_block",
    "ground_of",
    "hillshade",
    "hillshade_block",
    "horn_block",
    "northness_block",
    "pad_block",
    "resample",
    "resample_block",
    "roughness",
    "roughness_block",
    "sizes_block",
    "slope",
    "slope_block",
    "tpi",
    "tpi_block",
    "tri",
    "tri_block",
]
