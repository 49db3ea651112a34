"""Sensors: what each one's bands are called, where they look, and how stored numbers become reflectance.

One table. Wavelengths are the middle and the width of a band in nanometres, as the source of the sensor gives them;
where it gives two ends, they are half their sum and their difference. ``reflectance = scale * stored + offset``.

Names of bands are STAC's common names, with a number where STAC has one name for several bands (``rededge1``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lsdask.errors import BadInput, sentence

Quality = Literal["scl", "qa_pixel", "bqa", "cmask", "udm", "udm2"]


@dataclass(frozen=True)
class Band:
    """One band of a sensor.

    Attributes
    ----------
    name : str
        What lsdask calls it.
    keys : tuple of str
        What catalogues call its asset; ``asset.3`` is the third band of an asset.
    wavelength_nm : float
        The middle of what it sees.
    width_nm : float
        The width of what it sees.
    resolution_m : float
        The side of a pixel.
    """

    name: str
    keys: tuple[str, ...]
    wavelength_nm: float
    width_nm: float
    resolution_m: float


@dataclass(frozen=True)
class Sensor:
    """One sensor, as one product of it is published.

    Attributes
    ----------
    name : str
    title : str
    collections : tuple of str
        Collections of known catalogues that hold it.
    platforms : tuple of str
        The satellites, as STAC writes them.
    instruments : tuple of str
        As STAC writes them, in lower case: what tells the sensor of an item of another collection. Empty where one
        instrument has several products, as the numbers of another would be taken for these.
    bands : tuple of Band
    dtype : str or None
        As stored; None where the source does not say, and the files do.
    fill : int
        What stands for void.
    scale, offset : float or None
        From stored numbers to reflectance; None where the product is no reflectance.
    offset_since_0400 : float or None
        The offset instead of ``offset`` from processing baseline 04.00 on, where the product has one.
    quality : tuple of str
        Asset keys of the band that says how good a pixel is, written as those of a ``Band``.
    quality_kind : {"scl", "qa_pixel", "bqa", "cmask", "udm", "udm2"} or None
        How that band is written, for ``mosaic.mask``.
    source : str
        The document that the numbers are from.
    """

    name: str
    title: str
    collections: tuple[str, ...]
    platforms: tuple[str, ...]
    instruments: tuple[str, ...]
    bands: tuple[Band, ...]
    dtype: str | None
    fill: int
    scale: float | None
    offset: float | None
    offset_since_0400: float | None
    quality: tuple[str, ...]
    quality_kind: Quality | None
    source: str


def get(name: str) -> Sensor:
    """Give a sensor by name.

    Raises
    ------
    BadInput
        If there is none of that name; those there are are listed.

    Examples
    --------
    >>> get("cbers-4a-wpm").bands[1]
    Band(name='blue', keys=('B1', 'BAND1'), wavelength_nm=485.0, width_nm=70.0, resolution_m=8.0)
    """
    if name not in SENSORS:
        raise BadInput(sentence("sensor", f"be one of {', '.join(SENSORS)}", f"sensor={name!r}"))
    return SENSORS[name]


def of(item: Any) -> Sensor:
    """Give the sensor of a STAC item, by its collection, else by its instrument, and by its platform.

    Parameters
    ----------
    item : pystac.Item

    Raises
    ------
    BadInput
        If the item is of none of the table, or could be of several.
    """
    platform = str(item.properties.get("platform") or "").lower().replace("_", "-")
    instruments = {str(name).lower() for name in item.properties.get("instruments") or ()}
    collection = str(item.collection_id or "")
    found = [sensor for sensor in SENSORS.values() if collection in sensor.collections]
    found = found or [sensor for sensor in SENSORS.values() if instruments & set(sensor.instruments)]
    if platform:
        found = [sensor for sensor in found if platform in sensor.platforms]
    if len(found) != 1:
        got = f"collection={collection!r}, platform={platform!r}, instruments={sorted(instruments)}"
        do = f"Pass sensor=, one of {', '.join(sensor.name for sensor in found) or ', '.join(SENSORS)}"
        raise BadInput(sentence(f"item {item.id}", "be of one sensor of the table", got, do))
    return found[0]


def band(sensor: Sensor, name: str) -> Band:
    """Give a band of a sensor by its name, or by an asset key.

    Raises
    ------
    BadInput
        If the sensor has none of that name; those it has are listed.
    """
    for part in sensor.bands:
        if name == part.name or name in part.keys:
            return part
    have = ", ".join(part.name for part in sensor.bands)
    raise BadInput(sentence("bands", f"name bands of {sensor.name}: {have}", repr(name)))


# The table


def _between(name: str, keys: tuple[str, ...], low: float, high: float, resolution_m: float) -> Band:
    """Describe a band by the two ends of what it sees, in nanometres."""
    return Band(name, keys, (low + high) / 2, high - low, resolution_m)


def _four(first: int, resolution_m: float) -> tuple[Band, ...]:
    """Describe blue, green, red and nir of INPE's multispectral cameras, numbered from ``first``."""
    ends = {"blue": (450, 520), "green": (520, 590), "red": (630, 690), "nir": (770, 890)}
    return tuple(
        _between(name, (f"B{number}", f"BAND{number}"), *pair, resolution_m)
        for number, (name, pair) in enumerate(ends.items(), first)
    )


def _inpe(name: str, title: str, bands: tuple[Band, ...], *, collections: tuple[str, ...], source: str) -> Sensor:
    """Describe a camera of INPE: numbers of the detector (DN) without a public scale to reflectance."""
    *platform, instrument = name.split("-")
    return Sensor(
        name=name,
        title=title,
        collections=collections,
        platforms=("-".join(platform),),
        instruments=(instrument,),
        bands=bands,
        dtype=None,
        fill=0,
        scale=None,
        offset=None,
        offset_since_0400=None,
        quality=("CMASK", "cmask"),
        quality_kind="cmask",
        source=source,
    )


_CBERS_4A = "INPE, CBERS 04A cameras, http://www.cbers.inpe.br/sobre/cameras/cbers04a.php"
_CBERS_4 = "INPE, CBERS 03 and 04 cameras, http://www.cbers.inpe.br/sobre/cameras/cbers3-4.php"
_AMAZONIA_1 = "INPE, Amazonia 1, http://www3.inpe.br/amazonia-1/sobre-satelite/"
_MSI = (
    "ESA, Sentinel-2 MSI spatial and spectral resolution (Sentinel-2A); ESA, Products specification document, "
    "BOA_QUANTIFICATION_VALUE and BOA_ADD_OFFSET"
)
_USGS_BANDS = "USGS, What are the band designations for the Landsat satellites?"
_USGS_C2 = f"{_USGS_BANDS}; USGS, Landsat Collection 2 Level-2 science products: scale factors"
_USGS_C1 = f"{_USGS_BANDS}; USGS, Using the USGS Landsat Level-1 data product: rescaling to reflectance"
_RAPIDEYE = (
    "Planet, RapidEye imagery product specifications (2016), table of mission characteristics, order of the bands and "
    "unusable data mask; Planet, Data API, assets of REOrthoTile"
)
_PLANETSCOPE = (
    "Planet, PlanetScope product specification, instruments PS2 and PSB.SD: wavelengths, order of the bands, surface "
    "reflectance scale 0.0001, usable data mask; Planet, Data API, assets of PSScene"
)

_WPM = (_between("pan", ("B0", "BAND0"), 450, 900, 2.0), *_four(1, 8.0))
_PAN10M = (
    _between("green", ("B2", "BAND2"), 520, 590, 10.0),
    _between("red", ("B3", "BAND3"), 630, 690, 10.0),
    _between("nir", ("B4", "BAND4"), 770, 890, 10.0),
)
_IRS = (
    _between("pan", ("B9", "BAND9"), 500, 900, 40.0),
    _between("swir16", ("B10", "BAND10"), 1550, 1750, 40.0),
    _between("swir22", ("B11", "BAND11"), 2080, 2350, 40.0),
    _between("lwir", ("B12", "BAND12"), 10_400, 12_500, 80.0),
)
_SENTINEL_2 = (
    Band("coastal", ("coastal", "B01", "B01_60m"), 442.7, 21, 60.0),
    Band("blue", ("blue", "B02", "B02_10m"), 492.4, 66, 10.0),
    Band("green", ("green", "B03", "B03_10m"), 559.8, 36, 10.0),
    Band("red", ("red", "B04", "B04_10m"), 664.6, 31, 10.0),
    Band("rededge1", ("rededge1", "B05", "B05_20m"), 704.1, 15, 20.0),
    Band("rededge2", ("rededge2", "B06", "B06_20m"), 740.5, 15, 20.0),
    Band("rededge3", ("rededge3", "B07", "B07_20m"), 782.8, 20, 20.0),
    Band("nir", ("nir", "B08", "B08_10m"), 832.8, 106, 10.0),
    Band("nir08", ("nir08", "B8A", "B8A_20m"), 864.7, 21, 20.0),
    Band("nir09", ("nir09", "B09", "B09_60m"), 945.1, 20, 60.0),
    Band("swir16", ("swir16", "B11", "B11_20m"), 1613.7, 91, 20.0),
    Band("swir22", ("swir22", "B12", "B12_20m"), 2202.4, 175, 20.0),
)
_OLI = (
    _between("coastal", ("coastal", "SR_B1", "B1"), 435, 451, 30.0),
    _between("blue", ("blue", "SR_B2", "B2"), 452, 512, 30.0),
    _between("green", ("green", "SR_B3", "B3"), 533, 590, 30.0),
    _between("red", ("red", "SR_B4", "B4"), 636, 673, 30.0),
    _between("nir08", ("nir08", "SR_B5", "B5"), 851, 879, 30.0),
    _between("swir16", ("swir16", "SR_B6", "B6"), 1566, 1651, 30.0),
    _between("swir22", ("swir22", "SR_B7", "B7"), 2107, 2294, 30.0),
)
_OLI_L1 = (
    *_OLI,
    _between("pan", ("pan", "B8"), 503, 676, 15.0),
    _between("cirrus", ("cirrus", "B9"), 1363, 1384, 30.0),
)
_ETM = (
    _between("blue", ("blue", "SR_B1", "B1"), 450, 520, 30.0),
    _between("green", ("green", "SR_B2", "B2"), 520, 600, 30.0),
    _between("red", ("red", "SR_B3", "B3"), 630, 690, 30.0),
    _between("nir08", ("nir08", "SR_B4", "B4"), 770, 900, 30.0),
    _between("swir16", ("swir16", "SR_B5", "B5"), 1550, 1750, 30.0),
    _between("swir22", ("swir22", "SR_B7", "B7"), 2090, 2350, 30.0),
)
_JENA = (
    _between("blue", ("blue", "analytic.1"), 440, 510, 5.0),
    _between("green", ("green", "analytic.2"), 520, 590, 5.0),
    _between("red", ("red", "analytic.3"), 630, 685, 5.0),
    _between("rededge", ("rededge", "analytic.4"), 690, 730, 5.0),
    _between("nir", ("nir", "analytic.5"), 760, 850, 5.0),
)
_DOVE = (
    _between("blue", ("blue", "ortho_analytic_4b_sr.1", "analytic_sr.1"), 455, 515, 3.0),
    _between("green", ("green", "ortho_analytic_4b_sr.2", "analytic_sr.2"), 500, 590, 3.0),
    _between("red", ("red", "ortho_analytic_4b_sr.3", "analytic_sr.3"), 590, 670, 3.0),
    _between("nir", ("nir", "ortho_analytic_4b_sr.4", "analytic_sr.4"), 780, 860, 3.0),
)
_SUPERDOVE = (
    _between("coastal", ("coastal_blue", "coastal", "ortho_analytic_8b_sr.1"), 431, 452, 3.0),
    _between("blue", ("blue", "ortho_analytic_8b_sr.2"), 465, 515, 3.0),
    _between("green_i", ("green_i", "ortho_analytic_8b_sr.3"), 513, 549, 3.0),
    _between("green", ("green", "ortho_analytic_8b_sr.4"), 547, 583, 3.0),
    _between("yellow", ("yellow", "ortho_analytic_8b_sr.5"), 600, 620, 3.0),
    _between("red", ("red", "ortho_analytic_8b_sr.6"), 650, 680, 3.0),
    _between("rededge", ("rededge", "ortho_analytic_8b_sr.7"), 697, 713, 3.0),
    _between("nir", ("nir", "ortho_analytic_8b_sr.8"), 845, 885, 3.0),
)
_LANDSAT_C2 = ("landsat-c2-l2", "landsat-c2l2-sr", "landsat-c2l2alb-sr")

_ALL = (
    _inpe(
        "cbers-4a-wpm",
        "CBERS-4A WPM, 8 m multispectral and 2 m panchromatic",
        _WPM,
        collections=("CBERS4A-WPM", "CBERS-4A-WPM", "CB4A-WPM-L2-DN-1", "CB4A-WPM-L4-DN-1"),
        source=_CBERS_4A,
    ),
    _inpe(
        "cbers-4a-mux",
        "CBERS-4A MUX, 16.5 m",
        _four(5, 16.5),
        collections=("CBERS4A-MUX", "CBERS-4A-MUX", "CB4A-MUX-L2-DN-1", "CB4A-MUX-L4-DN-1"),
        source=_CBERS_4A,
    ),
    _inpe(
        "cbers-4a-wfi",
        "CBERS-4A WFI, 55 m",
        _four(13, 55.0),
        collections=("CBERS4A-WFI", "CBERS-4A-WFI", "CB4A-WFI-L2-DN-1", "CB4A-WFI-L4-DN-1", "CB4A-WFI-L4-SR-1"),
        source=_CBERS_4A,
    ),
    _inpe(
        "cbers-4-pan5m",
        "CBERS-4 PAN, 5 m panchromatic",
        (_between("pan", ("B1", "BAND1"), 510, 850, 5.0),),
        collections=("CBERS4-PAN5M", "CB4-PAN5M-L2-DN-1", "CB4-PAN5M-L4-DN-1"),
        source=_CBERS_4,
    ),
    _inpe(
        "cbers-4-pan10m",
        "CBERS-4 PAN, 10 m multispectral",
        _PAN10M,
        collections=("CBERS4-PAN10M", "CB4-PAN10M-L2-DN-1", "CB4-PAN10M-L4-DN-1"),
        source=_CBERS_4,
    ),
    _inpe(
        "cbers-4-mux",
        "CBERS-4 MUX, 20 m",
        _four(5, 20.0),
        collections=("CBERS4-MUX", "CB4-MUX-L2-DN-1", "CB4-MUX-L4-DN-1"),
        source=_CBERS_4,
    ),
    _inpe(
        "cbers-4-awfi",
        "CBERS-4 WFI (AWFI), 64 m",
        _four(13, 64.0),
        collections=("CBERS4-AWFI", "CB4-WFI-L2-DN-1", "CB4-WFI-L4-DN-1", "CB4-WFI-L4-SR-1", "CB4-16D-2"),
        source=_CBERS_4,
    ),
    _inpe("cbers-4-irs", "CBERS-4 IRS, 40 m, thermal 80 m", _IRS, collections=(), source=_CBERS_4),
    _inpe(
        "amazonia-1-wfi",
        "Amazonia-1 WFI, 64 m",
        _four(1, 64.0),
        collections=("AMAZONIA1-WFI", "AMZ1-WFI-L2-DN-1", "AMZ1-WFI-L4-DN-1", "AMZ1-WFI-L4-SR-1"),
        source=_AMAZONIA_1,
    ),
    Sensor(
        name="sentinel-2-l2a",
        title="Sentinel-2 MSI, surface reflectance (Level-2A)",
        collections=(
            "sentinel-2-l2a",
            "sentinel-2-c1-l2a",
            "sentinel-2-pre-c1-l2a",
            "sentinel-s2-l2a",
            "sentinel-s2-l2a-cogs",
            "S2_L2A-1",
        ),
        platforms=("sentinel-2a", "sentinel-2b", "sentinel-2c"),
        instruments=(),
        bands=_SENTINEL_2,
        dtype="uint16",
        fill=0,
        scale=1e-4,
        offset=0.0,
        offset_since_0400=-0.1,
        quality=("scl", "SCL", "SCL_20m"),
        quality_kind="scl",
        source=_MSI,
    ),
    Sensor(
        name="landsat-8-9-c2-l2",
        title="Landsat 8 and 9 OLI, surface reflectance (Collection 2 Level-2)",
        collections=_LANDSAT_C2,
        platforms=("landsat-8", "landsat-9"),
        instruments=(),
        bands=_OLI,
        dtype="uint16",
        fill=0,
        scale=2.75e-5,
        offset=-0.2,
        offset_since_0400=None,
        quality=("qa_pixel", "QA_PIXEL"),
        quality_kind="qa_pixel",
        source=_USGS_C2,
    ),
    Sensor(
        name="landsat-4-7-c2-l2",
        title="Landsat 4 and 5 TM and 7 ETM+, surface reflectance (Collection 2 Level-2)",
        collections=_LANDSAT_C2,
        platforms=("landsat-4", "landsat-5", "landsat-7"),
        instruments=(),
        bands=_ETM,
        dtype="uint16",
        fill=0,
        scale=2.75e-5,
        offset=-0.2,
        offset_since_0400=None,
        quality=("qa_pixel", "QA_PIXEL"),
        quality_kind="qa_pixel",
        source=f"{_USGS_C2}; wavelengths of ETM+, from which those of TM differ by 10 nm at most",
    ),
    Sensor(
        name="landsat-8-c1-l1",
        title="Landsat 8 OLI, at the top of the atmosphere, sun not corrected (Collection 1 Level-1)",
        collections=("landsat-8-l1-c1", "landsat-8-l1", "landsat-l1-c1"),
        platforms=("landsat-8",),
        instruments=(),
        bands=_OLI_L1,
        dtype="uint16",
        fill=0,
        scale=2e-5,
        offset=-0.1,
        offset_since_0400=None,
        quality=("BQA", "bqa"),
        quality_kind="bqa",
        source=_USGS_C1,
    ),
    Sensor(
        name="rapideye",
        title="RapidEye, 5 m, radiance (Level 3A)",
        collections=("REOrthoTile", "rapideye"),
        platforms=("rapideye", "rapideye-1", "rapideye-2", "rapideye-3", "rapideye-4", "rapideye-5"),
        instruments=("rapideye", "jss56"),
        bands=_JENA,
        dtype="uint16",
        fill=0,
        scale=None,
        offset=None,
        offset_since_0400=None,
        quality=("udm",),
        quality_kind="udm",
        source=_RAPIDEYE,
    ),
    Sensor(
        name="planetscope",
        title="PlanetScope SuperDove (PSB.SD), 8 bands, surface reflectance",
        collections=("PSScene", "planetscope"),
        platforms=("planetscope",),
        instruments=("psb.sd",),
        bands=_SUPERDOVE,
        dtype="uint16",
        fill=0,
        scale=1e-4,
        offset=0.0,
        offset_since_0400=None,
        quality=("ortho_udm2.1", "udm2.1"),
        quality_kind="udm2",
        source=_PLANETSCOPE,
    ),
    Sensor(
        name="planetscope-4",
        title="PlanetScope Dove (PS2), 4 bands, surface reflectance",
        collections=("PSScene4Band",),
        platforms=("planetscope",),
        instruments=("ps2",),
        bands=_DOVE,
        dtype="uint16",
        fill=0,
        scale=1e-4,
        offset=0.0,
        offset_since_0400=None,
        quality=("ortho_udm2.1", "udm2.1"),
        quality_kind="udm2",
        source=_PLANETSCOPE,
    ),
)

SENSORS: Mapping[str, Sensor] = {sensor.name: sensor for sensor in _ALL}
"""Every sensor by name."""
