"""The formulas, on numpy arrays.

A *block* holds heights in metres, one pixel more on each side than what is made of it, and NaN where void::

    a b c
    d e f      north is up
    g h i

*sizes* are the widths and heights of its inner pixels, m, one of each a row. A *gradient* is how much the ground rises
a metre to the east and a metre to the north. Everything made is float32, and NaN where one of the nine is void.
Sums run in float64: heights of thousands of metres leave float32 only millimetres.
"""

import numpy as np

from lsdask.compiling import njit

NORTH_WEST = 315.0
"""Where the sun of a hillshade stands by default, degrees clockwise from north: as maps are lit."""


@njit(nogil=True, cache=True)
def horn_block(block: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Give the gradient of each pixel.

    Parameters
    ----------
    block : (y + 2, x + 2) float array
    sizes : (2, y) float64

    Returns
    -------
    (2, y, x) float32
        Rise to the east and to the north, m a metre.
        Source: Horn 1981, Hill shading and the reflectance map, Proceedings of the IEEE 69(1), equation for p_w, q_w.
    """
    gradient = np.empty((2, block.shape[0] - 2, block.shape[1] - 2), np.float32)
    for y in range(gradient.shape[1]):
        across, along = 1 / (8 * sizes[0, y]), 1 / (8 * sizes[1, y])
        for x in range(gradient.shape[2]):
            a, b, c = np.float64(block[y, x]), np.float64(block[y, x + 1]), np.float64(block[y, x + 2])
            d, e, f = np.float64(block[y + 1, x]), np.float64(block[y + 1, x + 1]), np.float64(block[y + 1, x + 2])
            g, h, i = np.float64(block[y + 2, x]), np.float64(block[y + 2, x + 1]), np.float64(block[y + 2, x + 2])
            hole = 0 * (b + d + e + f + h)  # what one of the two sums does not look at
            gradient[0, y, x] = ((c + 2 * f + i) - (a + 2 * d + g)) * across + hole
            gradient[1, y, x] = ((a + 2 * b + c) - (g + 2 * h + i)) * along + hole
    return gradient


def slope_block(gradient: np.ndarray, *, units: str = "degrees") -> np.ndarray:
    """Give how steep the ground is: the angle from level, or the rise in metres a hundred metres.

    Parameters
    ----------
    gradient : (2, y, x) float32
    units : {"degrees", "percent", "radians"}

    Returns
    -------
    (y, x) float32
    """
    rise = _steepness(gradient)
    if units == "percent":
        return rise * np.float32(100)
    angle = np.arctan(rise)
    return angle if units == "radians" else np.degrees(angle)


def _steepness(gradient: np.ndarray) -> np.ndarray:
    return np.sqrt(gradient[0] * gradient[0] + gradient[1] * gradient[1])  # hypot takes twice the time


def aspect_block(gradient: np.ndarray) -> np.ndarray:
    """Give the direction in which the ground falls.

    Parameters
    ----------
    gradient : (2, y, x) float32

    Returns
    -------
    (y, x) float32
        Degrees clockwise from north, [0, 360); NaN where the ground is level.
    """
    east, north = gradient
    turned = np.degrees(np.arctan2(-east, -north))
    turned = np.where(turned < 0, turned + np.float32(360), turned)
    turned[turned >= 360] = 0  # a hair to the west of north rounds up to 360
    return np.where((east == 0) & (north == 0), np.float32("nan"), turned)


def northness_block(gradient: np.ndarray) -> np.ndarray:
    """Give how much the ground faces north: sine of the slope times cosine of the aspect.

    Parameters
    ----------
    gradient : (2, y, x) float32

    Returns
    -------
    (y, x) float32
        -1 to 1, 0 where level. Source: Amatulli et al. 2018, Scientific Data 5:180040, table 2.
    """
    return -gradient[1] / np.sqrt(1 + _steepness(gradient) ** 2)


def eastness_block(gradient: np.ndarray) -> np.ndarray:
    """Give how much the ground faces east: sine of the slope times sine of the aspect. Else as ``northness_block``."""
    return -gradient[0] / np.sqrt(1 + _steepness(gradient) ** 2)


def hillshade_block(
    gradient: np.ndarray, *, azimuth: float = NORTH_WEST, altitude: float = 45.0, z: float = 1.0
) -> np.ndarray:
    """Give how brightly the sun lights the ground.

    Parameters
    ----------
    gradient : (2, y, x) float32
    azimuth, altitude : float
        Where the sun stands: degrees clockwise from north, degrees above the horizon.
    z : float
        What heights are multiplied by.

    Returns
    -------
    (y, x) float32
        1 where the ground faces away from the sun, 255 where it faces it: 1 + 254 times the cosine of the angle
        between them. Rounded, it is gdaldem's. Source: Horn 1981, as above; GDAL, the page of gdaldem.
    """
    around, above = np.radians(azimuth), np.radians(altitude)
    to_east, to_north = np.sin(around) * np.cos(above) * z, np.cos(around) * np.cos(above) * z
    facing = np.float32(np.sin(above)) - np.float32(to_east) * gradient[0] - np.float32(to_north) * gradient[1]
    cosine = facing / np.sqrt(1 + (np.float32(z) * _steepness(gradient)) ** 2)
    return 1 + 254 * np.clip(cosine, 0, 1)


CURVATURES = {"total": (1, 0), "profile": (0, 1), "plan": (1, 1)}
"""Kinds of curvature: how many times they hold the total and the profile curvature."""


def curvature_block(block: np.ndarray, sizes: np.ndarray, *, kind: str = "total") -> np.ndarray:
    """Give how the ground bends.

    Through the nine heights goes z = D x2 + E y2 + F x y + G x + H y + e. Its second derivative along the fall line is
    the profile curvature, that across it, with its sign changed, the plan curvature. Where the ground is level there
    is no fall line; the mean over all directions stands for both.

    Parameters
    ----------
    block : (y + 2, x + 2) float array
    sizes : (2, y) float64
    kind : {"total", "plan", "profile"}

    Returns
    -------
    (y, x) float32
        1/m; see ``curvature`` for the signs. Source: Zevenbergen and Thorne 1987, Quantitative analysis of land
        surface topography, Earth Surface Processes and Landforms 12; signs as ArcGIS and RichDEM have them.
    """
    return _bent(block, sizes, *CURVATURES[kind])


@njit(nogil=True, cache=True)
def _bent(block: np.ndarray, sizes: np.ndarray, totals: int, profiles: int) -> np.ndarray:
    out = np.empty((block.shape[0] - 2, block.shape[1] - 2), np.float32)
    for y in range(out.shape[0]):
        width, height = sizes[0, y], sizes[1, y]
        for x in range(out.shape[1]):
            a, b, c = np.float64(block[y, x]), np.float64(block[y, x + 1]), np.float64(block[y, x + 2])
            d, e, f = np.float64(block[y + 1, x]), np.float64(block[y + 1, x + 1]), np.float64(block[y + 1, x + 2])
            g, h, i = np.float64(block[y + 2, x]), np.float64(block[y + 2, x + 1]), np.float64(block[y + 2, x + 2])
            bend_x, bend_y = ((d + f) / 2 - e) / width**2, ((b + h) / 2 - e) / height**2
            twist = ((c - a) + (g - i)) / (4 * width * height)
            east, north = (f - d) / (2 * width), (b - h) / (2 * height)
            steep = east * east + north * north
            profile = bend_x + bend_y
            if steep > 0:
                profile = 2 * (bend_x * east * east + bend_y * north * north + twist * east * north) / steep
            hole = 0 * twist  # the total does not look at the corners
            out[y, x] = profiles * profile - totals * 2 * (bend_x + bend_y) + hole
    return out


@njit(nogil=True, cache=True)
def roughness_block(block: np.ndarray) -> np.ndarray:
    """Give the difference between the highest and the lowest of the nine.

    Parameters
    ----------
    block : (y + 2, x + 2) float array

    Returns
    -------
    (y, x) float32
        m. Source: Wilson et al. 2007, Multiscale terrain analysis of multibeam bathymetry data, Marine Geodesy 30.
    """
    out = np.empty((block.shape[0] - 2, block.shape[1] - 2), np.float32)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            low = high = block[y, x]
            total = low
            for i in range(1, 9):
                value = block[y + i // 3, x + i % 3]
                low, high, total = min(low, value), max(high, value), total + value
            out[y, x] = high - low if total == total else np.nan
    return out


@njit(nogil=True, cache=True)
def tpi_block(block: np.ndarray) -> np.ndarray:
    """Give how much higher a pixel is than the mean of its eight neighbours (topographic position index).

    Parameters
    ----------
    block : (y + 2, x + 2) float array

    Returns
    -------
    (y, x) float32
        m. Source: Wilson et al. 2007, as above.
    """
    out = np.empty((block.shape[0] - 2, block.shape[1] - 2), np.float32)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            middle, total = np.float64(block[y + 1, x + 1]), 0.0
            for i in range(9):
                total += np.float64(block[y + i // 3, x + i % 3]) - middle
            out[y, x] = -total / 8
    return out


@njit(nogil=True, cache=True)
def tri_block(block: np.ndarray) -> np.ndarray:
    """Give the root of the summed squares of the differences to the eight neighbours (terrain ruggedness index).

    Parameters
    ----------
    block : (y + 2, x + 2) float array

    Returns
    -------
    (y, x) float32
        m. Source: Riley et al. 1999, A terrain ruggedness index that quantifies topographic heterogeneity,
        Intermountain Journal of Sciences 5.
    """
    out = np.empty((block.shape[0] - 2, block.shape[1] - 2), np.float32)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            middle, total = np.float64(block[y + 1, x + 1]), 0.0
            for i in range(9):
                total += (np.float64(block[y + i // 3, x + i % 3]) - middle) ** 2
            out[y, x] = np.sqrt(total)
    return out
