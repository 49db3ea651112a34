"""How quality bands are written: their classes and bits, and what of them is no view of the ground."""

SCL = {
    "no_data": 0,
    "defective": 1,
    "dark": 2,
    "cloud_shadow": 3,
    "vegetation": 4,
    "bare": 5,
    "water": 6,
    "unclassified": 7,
    "cloud_medium": 8,
    "cloud_high": 9,
    "cirrus": 10,
    "snow": 11,
}
"""Classes of the Sentinel-2 scene classification. Source: ESA, Level-2A Algorithm Theoretical Basis Document."""

QA_PIXEL = {
    "fill": (0, 1, 1),
    "dilated_cloud": (1, 1, 1),
    "cirrus": (2, 1, 1),
    "cloud": (3, 1, 1),
    "cloud_shadow": (4, 1, 1),
    "snow": (5, 1, 1),
    "water": (7, 1, 1),
}
"""Landsat 8-9 Collection 2: (first bit, bits, least value that says yes). Source: USGS LSDS-1619, table 6-3."""

BQA = {
    "fill": (0, 1, 1),
    "terrain": (1, 1, 1),
    "cloud": (4, 1, 1),
    "cloud_shadow": (7, 2, 3),
    "snow": (9, 2, 3),
    "cirrus": (11, 2, 3),
}
"""Landsat 8 Collection 1, of which confidence 3 is high; ``terrain`` is what a mountain hides from the sensor.
Source: USGS LSDS-1873, Quality Assessment band."""

CMASK = {"no_data": 0, "clear": 127, "cloud": 255}
"""Classes of the cloud mask that INPE delivers with CBERS scenes. Source: INPE, Brazil Data Cube, Using cube-builder,
"Creating data cube CBERS-4 AWFI" (clear_data 127, not_clear_data 255, nodata 0),
https://github.com/brazil-data-cube/cube-builder/blob/master/USING.rst."""

UDM = {"fill": (0, 1, 1), "cloud": (1, 1, 1), "suspect": (2, 5, 1)}
"""Planet's unusable data mask, as RapidEye has it; ``suspect`` is missing or doubtful in one of the five bands.
Source: Planet, Imagery product specifications, Unusable data mask file."""

UDM2 = {"not_clear": 0, "clear": 1}
"""The first band of Planet's usable data mask: free of cloud, haze, shadow and snow. Each of these has a band of its
own. Source: Planet, Usable data mask, https://docs.planet.com/data/imagery/udm/."""

CLOUDS: dict[str, tuple[str, ...]] = {
    "scl": ("no_data", "defective", "cloud_shadow", "cloud_medium", "cloud_high", "cirrus"),
    "qa_pixel": ("fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow"),
    "bqa": ("fill", "cloud", "cloud_shadow", "cirrus"),
    "cmask": ("no_data", "cloud"),
    "udm": ("fill", "cloud", "suspect"),
    "udm2": ("not_clear",),
}
"""What each kind of quality band hides unless asked otherwise: clouds, their shadows, and what is no data."""

NO_DATA = {"scl": 0, "qa_pixel": 1, "bqa": 1, "cmask": 0, "udm": 1, "udm2": 0}
"""What each kind holds where nothing is known, all of which ``CLOUDS`` hides: a quality band that is opened with it as
``nodata`` hides scenes that lack the band, which else might be taken for clear."""

CLASSES: dict[str, dict[str, int]] = {"scl": SCL, "cmask": CMASK, "udm2": UDM2}
"""The kinds of which each number is a class."""

BITS: dict[str, dict[str, tuple[int, int, int]]] = {"qa_pixel": QA_PIXEL, "bqa": BQA, "udm": UDM}
"""The kinds that are made of bits."""
