"""Sensors: the table against itself, against real items of the catalogues, and against documents by hand."""

from types import SimpleNamespace

import pytest

from lsdask import scenes, sensors
from lsdask.errors import BadInput

COMMON = {
    "pan", "coastal", "blue", "green", "green_i", "yellow", "red", "rededge", "rededge1", "rededge2", "rededge3",
    "nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir",
}  # fmt: skip
RANGES = {  # where a band of that name looks, nm: STAC eo extension, common band names, widened for pan and PS2
    "coastal": (400, 460), "blue": (440, 530), "green": (500, 600), "yellow": (580, 630), "red": (585, 700),
    "rededge": (690, 795), "nir": (750, 1000), "cirrus": (1350, 1400), "swir16": (1550, 1750), "swir22": (2050, 2360),
    "pan": (450, 910), "lwir": (10_000, 13_000),
}  # fmt: skip


@pytest.mark.parametrize("name", sensors.SENSORS)
def test_every_sensor_is_whole(name):
    sensor = sensors.get(name)
    assert sensor.name == name
    names = [band.name for band in sensor.bands]
    assert len(set(names)) == len(names)
    assert set(names) <= COMMON
    keys = [key for band in sensor.bands for key in {band.name, *band.keys}]
    assert len(set(keys)) == len(keys)
    for band in sensor.bands:
        low, high = RANGES[max((start for start in RANGES if band.name.startswith(start)), key=len)]
        assert low <= band.wavelength_nm - band.width_nm / 2 < band.wavelength_nm + band.width_nm / 2 <= high
        assert 2 <= band.resolution_m <= 80
        assert all(sensors.band(sensor, key) is band for key in (band.name, *band.keys))
    assert (sensor.scale is None) == (sensor.offset is None)
    assert (sensor.quality_kind is None) == (not sensor.quality)
    assert not set(sensor.quality) & set(keys)
    assert len(sensor.source) > 20


@pytest.mark.parametrize(
    ("name", "band", "wavelength", "width", "resolution"),
    [
        ("cbers-4a-wpm", "pan", 675, 450, 2),
        ("cbers-4a-wpm", "nir", 830, 120, 8),
        ("cbers-4-pan5m", "pan", 680, 340, 5),
        ("cbers-4-pan10m", "B4", 830, 120, 10),
        ("cbers-4-mux", "B5", 485, 70, 20),
        ("cbers-4-awfi", "B15", 660, 60, 64),
        ("cbers-4-irs", "B10", 1650, 200, 40),
        ("cbers-4-irs", "B12", 11_450, 2100, 80),
        ("cbers-4a-mux", "B8", 830, 120, 16.5),
        ("cbers-4a-wfi", "B13", 485, 70, 55),
        ("sentinel-2-l2a", "swir22", 2202.4, 175, 20),
        ("landsat-8-9-c2-l2", "nir08", 865, 28, 30),
        ("rapideye", "rededge", 710, 40, 5),
        ("rapideye", "analytic.5", 805, 90, 5),
        ("planetscope", "yellow", 610, 20, 3),
        ("planetscope", "ortho_analytic_8b_sr.8", 865, 40, 3),
        ("planetscope-4", "ortho_analytic_4b_sr.1", 485, 60, 3),
    ],
)
def test_numbers_of_the_documents(name, band, wavelength, width, resolution):
    found = sensors.band(sensors.get(name), band)
    assert (found.wavelength_nm, found.width_nm, found.resolution_m) == (wavelength, width, resolution)


def test_reflectance_of_the_documents():
    for name, scale, offset in (
        ("sentinel-2-l2a", 1e-4, 0.0),
        ("landsat-8-9-c2-l2", 2.75e-5, -0.2),
        ("landsat-4-7-c2-l2", 2.75e-5, -0.2),
        ("landsat-8-c1-l1", 2e-5, -0.1),
        ("cbers-4a-wpm", None, None),
    ):
        assert (sensors.get(name).scale, sensors.get(name).offset) == (scale, offset)
    assert sensors.get("sentinel-2-l2a").offset_since_0400 == -0.1


def test_names_that_are_not_there():
    with pytest.raises(BadInput, match=r"sensor must be one of cbers-4a-wpm, .*Got sensor='cbers-5'"):
        sensors.get("cbers-5")
    with pytest.raises(BadInput, match=r"bands must name bands of cbers-4a-mux: blue, green, red, nir. Got 'swir16'"):
        sensors.band(sensors.get("cbers-4a-mux"), "swir16")


def item(collection=None, **properties):
    return SimpleNamespace(id="a", collection_id=collection, properties=properties)


def test_the_sensor_of_an_item():
    for found, name in (
        (item("sentinel-2-l2a", platform="Sentinel-2B"), "sentinel-2-l2a"),
        (item("landsat-c2-l2", platform="landsat-9"), "landsat-8-9-c2-l2"),
        (item("landsat-c2-l2", platform="LANDSAT_5"), "landsat-4-7-c2-l2"),
        (item("CB4A-WPM-L4-DN-1"), "cbers-4a-wpm"),
        (item("mine", platform="cbers-4a", instruments=["WPM"]), "cbers-4a-wpm"),
        (item("mine", platform="cbers-4", instruments=["MUX"]), "cbers-4-mux"),
    ):
        assert sensors.of(found).name == name
    with pytest.raises(BadInput, match=r"item a must be of one sensor.*one of landsat-8-9-c2-l2, landsat-4-7-c2-l2"):
        sensors.of(item("landsat-c2-l2"))
    for product in ("sentinel-2-l1c", "ga_ls8c_ard_3"):  # other numbers of the same instruments
        with pytest.raises(BadInput, match="item a must be of one sensor"):
            sensors.of(item(product, platform="landsat-8", instruments=["OLI", "MSI"]))
    with pytest.raises(BadInput, match=r"item a must be of one sensor.*platform='terra'"):
        sensors.of(item("modis", platform="terra", instruments=["MODIS"]))


# Real items


REAL = {
    "AMAZONIA_1_WFI": "amazonia-1-wfi",
    "CBERS_4A_MUX": "cbers-4a-mux",
    "CBERS_4A_WPM": "cbers-4a-wpm",
    "CBERS_4_AWFI": "cbers-4-awfi",
    "CBERS_4_MUX": "cbers-4-mux",
    "CBERS_4_PAN10M": "cbers-4-pan10m",
    "CBERS_4_PAN5M": "cbers-4-pan5m",
    "S2A_29RKH": "sentinel-2-l2a",
    "S2A_28QCH": "sentinel-2-l2a",
    "LC08_L2SP": "landsat-8-9-c2-l2",
    "LE07_L2SP": "landsat-4-7-c2-l2",
}


@pytest.mark.realdata
def test_real_items_are_known_and_agree_with_the_table_band_by_band(data):
    paths = [path for path in sorted((data / "stac").glob("*/*.json")) if "collection" not in path.name]
    items = [scenes.read(path)[0] for path in [*paths, data / "sentinel2-29RKH" / "S2A_29RKH_20200219_0_L2A.json"]]
    seen, compared = set(), 0
    for found in items:
        name = next((name for start, name in REAL.items() if found.id.startswith(start)), None)
        if name is None:
            continue
        sensor = sensors.of(found)
        assert sensor.name == name
        seen.add(name)
        for band in sensor.bands:
            asset = next((found.assets[key] for key in band.keys if key in found.assets), None)
            if asset is None:
                assert name == "landsat-8-9-c2-l2" or band.name in ("pan",), (found.id, band.name)
                continue
            (about,) = asset.extra_fields.get("eo:bands") or asset.extra_fields.get("bands") or [{}]
            if not about:  # an item that does not say which band is which: the table is all there is
                assert name == "sentinel-2-l2a"
                continue
            told = about.get("common_name") or about.get("eo:common_name")
            assert told in (band.name, band.name.rstrip("123")), (found.id, band.name)
            centre = about.get("center_wavelength") or about.get("eo:center_wavelength")
            if centre is not None:
                assert abs(1000 * centre - band.wavelength_nm) < 60, (found.id, band.name)
                compared += 1
    assert seen == set(REAL.values())
    assert compared >= 25
