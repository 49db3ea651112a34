"""STAC: the two engines against each other and against files opened without a catalogue."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from lsdask import scenes, schema
from lsdask.errors import BadInput, NotFound, Unreadable

CRS = "EPSG:32723"
ORIGIN = Affine(10.0, 0.0, 400_000.0, 0.0, -10.0, 7_400_000.0)
ENGINES = ("odc", "stackstac")
WHEN = datetime(2020, 3, 1, tzinfo=UTC)


def read(cube):
    return cube.compute(scheduler="synchronous").values


def put(path, values, *, left=0, top=0, nodata=0):
    profile = {"driver": "GTiff", "dtype": values.dtype, "crs": CRS, "nodata": nodata, "count": values.shape[0]}
    place = ORIGIN @ Affine.translation(left, top)
    with rasterio.open(path, "w", height=values.shape[1], width=values.shape[2], transform=place, **profile) as file:
        file.write(values)
        return (
            str(path),
            list(file.transform)[:6],
            list(file.shape),
            rasterio.warp.transform_bounds(CRS, "EPSG:4326", *file.bounds),
        )


def item_of(
    folder, name, values, *, when=datetime(2020, 3, 1, tzinfo=UTC), left=0, top=0, code=True, about=True, nodata=0
):
    """An item with one asset a band: the keys are b1, b2 ..., the common names red, nir ..."""
    common = ("red", "nir", "swir16")
    made = []
    for number, band in enumerate(values, 1):
        made.append(put(folder / f"{name}_b{number}.tif", band[np.newaxis], left=left, top=top, nodata=nodata))
    west, south, east, north = made[0][3]
    item = pystac.Item(
        id=name,
        geometry=shapely.geometry.mapping(shapely.box(west, south, east, north)),
        bbox=[west, south, east, north],
        datetime=when,
        properties={"proj:code": CRS} if code else {"proj:epsg": 32723},
        collection="wpm",
    )
    for number, (href, place, shape, _) in enumerate(made, 1):
        fields = {"proj:transform": place, "proj:shape": shape, "eo:bands": [{"common_name": common[number - 1]}]}
        if about:
            fields["raster:bands"] = [{"data_type": str(values.dtype), "nodata": nodata}]
        asset = pystac.Asset(href, media_type=pystac.MediaType.COG, roles=["data"], extra_fields=fields)
        item.add_asset(f"b{number}", asset)
    return item


def pixels(seed, *shape, dtype="uint16", void=0.2):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 200, shape).astype(dtype)
    values[rng.random(shape) < void] = 0
    return values


@given(
    shift=st.tuples(st.floats(-15, 15), st.floats(-15, 15)),
    side=st.sampled_from([10.0, 7.3, 13.7, 20.0, 41.0]),
    chunks=st.sampled_from([8, 64]),
    code=st.booleans(),
)
def test_engines_agree_with_each_other_and_with_the_files(tmp_path_factory, shift, side, chunks, code):
    for start, count in zip(shift, (20, 15)):  # midway between two pixels neither is the nearest
        centres = (np.arange(count) + 0.5) * side / 10 + start
        assume(np.abs(centres - np.rint(centres)).min() > 1e-3)
    folder = tmp_path_factory.mktemp("items")
    item = item_of(folder, "a", pixels(1, 2, 16, 20), code=code)
    place = Affine(side, 0, 400_000.0 + 10 * shift[0], 0, -side, 7_400_000.0 + 10 * shift[1])
    grid = GeoBox((15, 20), place, CRS)
    odc, stackstac = (
        scenes.load([item], bands=["b1", "b2"], grid=grid, engine=engine, chunks=chunks) for engine in ENGINES
    )
    files = scenes.open({"b1": folder / "a_b1.tif", "b2": folder / "a_b2.tif"}, grid=grid, chunks=chunks)
    for cube in (odc, stackstac):
        assert (cube.dtype, schema.nodata(cube), schema.bands(cube)) == ("uint16", 0, ("b1", "b2"))
        assert schema.geobox(cube) == grid
        np.testing.assert_array_equal(read(cube), read(files))


@pytest.mark.parametrize("engine", ENGINES)
def test_items_of_one_step_are_laid_first_on_top(tmp_path, engine):
    early, late = datetime(2020, 3, 1, 13, tzinfo=UTC), datetime(2020, 3, 1, 14, tzinfo=UTC)
    one, two, three = (pixels(seed, 2, 8, 8, void=0.5) for seed in (1, 2, 3))
    items = [
        item_of(tmp_path, "c", three, when=early, left=4),
        item_of(tmp_path, "b", two, when=late),
        item_of(tmp_path, "a", one, when=early),
    ]
    options = {"bands": ["nir", "red"], "grid": GeoBox((8, 12), ORIGIN, CRS), "engine": engine, "chunks": 5}
    cube = scenes.load(items, **options)
    assert schema.bands(cube) == ("nir", "red")
    assert list(cube.time.values) == [np.datetime64(time.replace(tzinfo=None), "ns") for time in (early, late)]
    expected = np.zeros((2, 2, 8, 12), "uint16")
    expected[0, :, :, 4:] = three
    np.copyto(expected[0, :, :, :8], one, where=one != 0)
    expected[1, :, :, :8] = two
    np.testing.assert_array_equal(read(cube)[:, ::-1], expected)
    day = scenes.load(items, groupby="solar_day", **options)
    np.copyto(expected[0], expected[1], where=expected[0] == 0)
    assert day.sizes["time"] == 1
    np.testing.assert_array_equal(read(day)[0, ::-1], expected[0])
    assert scenes.load(items, groupby="id", **options).sizes["time"] == 3


def test_the_local_day_is_not_the_day_in_greenwich(tmp_path):
    night = datetime(2020, 3, 1, 23, 30, tzinfo=UTC)
    items = [
        item_of(tmp_path, "a", pixels(1, 1, 4, 4), when=night),
        item_of(tmp_path, "b", pixels(2, 1, 4, 4), when=night + timedelta(hours=1)),
    ]
    options = {"bands": ["b1"], "crs": CRS, "resolution": 10}
    assert scenes.load(items, groupby="solar_day", **options).sizes["time"] == 1
    assert scenes.load(items, groupby=lambda item: item.datetime.date(), **options).sizes["time"] == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_dtype_and_nodata_come_from_the_files_where_items_are_silent(tmp_path, engine):
    values = np.arange(1, 17, dtype="int16").reshape(1, 4, 4)
    values[0, 0, 0] = -99
    item = item_of(tmp_path, "a", values, about=False, nodata=-99)
    cube = scenes.load([item], bands=["b1"], grid=GeoBox((4, 4), ORIGIN, CRS), engine=engine)
    assert (cube.dtype, schema.nodata(cube)) == ("int16", -99)
    np.testing.assert_array_equal(read(cube)[0], values)


@pytest.mark.parametrize("engine", ENGINES)
def test_floats_are_nan_where_void(tmp_path, engine):
    values = np.arange(1, 17, dtype="float32").reshape(1, 4, 4)
    values[0, 1, 1] = -9999
    item = item_of(tmp_path, "a", values, nodata=-9999)
    grid = GeoBox((4, 6), ORIGIN, CRS)
    got = read(scenes.load([item], bands=["red"], grid=grid, engine=engine))
    expected = np.full((1, 1, 4, 6), np.nan, "float32")
    expected[0, 0, :, :4] = np.where(values[0] == -9999, np.nan, values[0])
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_floats_that_declare_nothing_are_void_where_the_nodata_given_says(tmp_path, engine):
    values = np.arange(1, 17, dtype="float32").reshape(1, 4, 4)
    values[0, 1, 1] = -9999
    item = item_of(tmp_path, "a", values, about=False, nodata=None)
    got = read(scenes.load([item], bands=["red"], grid=GeoBox((4, 4), ORIGIN, CRS), engine=engine, nodata=-9999))
    np.testing.assert_array_equal(got[0], np.where(values == -9999, np.nan, values))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_item_without_a_band_is_void_in_it(tmp_path, engine):
    whole = item_of(tmp_path, "a", pixels(1, 2, 4, 4))
    short = item_of(tmp_path, "b", pixels(2, 2, 4, 4), when=datetime(2021, 1, 1, tzinfo=UTC))
    del short.assets["b2"]
    grid = GeoBox((4, 4), ORIGIN, CRS)
    cube = read(scenes.load([short, whole], bands=["b1", "b2"], grid=grid, engine=engine))
    assert not cube[1, 1].any()
    assert cube[1, 0].any()
    assert cube[0].any(axis=(1, 2)).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_items_off_the_grid_are_void_steps(tmp_path, engine):
    values = [pixels(seed, 2, 4, 4, void=0) for seed in range(3)]
    items = [
        item_of(tmp_path, f"i{n}", values[n], left=left, when=WHEN + timedelta(days=n))
        for n, left in enumerate((900, 0, -900))
    ]
    cube = scenes.load(items, bands=["b2", "b1"], grid=GeoBox((4, 4), ORIGIN, CRS), engine=engine)
    np.testing.assert_array_equal(read(cube), [values[0] * 0, values[1][::-1], values[2] * 0])
    none = scenes.load(items[:1], bands=["b1"], grid=GeoBox((4, 4), ORIGIN, CRS), engine=engine)
    assert not read(none).any()


def test_many_items_open_lazily(tmp_path):
    first = item_of(tmp_path, "a", pixels(1, 1, 4, 4))
    items = []
    for number in range(100):
        copy = first.clone()
        copy.id, copy.datetime = f"{number}", first.datetime + timedelta(days=number)
        items.append(copy)
    cube = scenes.load(items, bands=["b1"], crs=CRS, resolution=10)
    assert cube.sizes["time"] == 100


# Bad input


def test_loading_says_what_is_wrong(tmp_path):
    item = item_of(tmp_path, "a", pixels(1, 2, 4, 4))
    place = {"crs": CRS, "resolution": 10}
    for wrong, rule in (
        ({"bands": ["blue"]}, "bands must name assets of the items: b1, b2. Got 'blue'"),
        ({"engine": "gdal"}, "engine must be one of odc, stackstac"),
        ({"resampling": "sharp"}, "resampling must be one of"),
        ({"groupby": "week"}, "groupby must be a callable or one of"),
        ({"nodata": -1}, "nodata must be a whole number from 0 to 65535"),
        ({"grid": GeoBox((2, 2), ORIGIN, CRS)}, "grid must come without crs and resolution"),
    ):
        with pytest.raises(BadInput, match=rule):
            scenes.load([item], **{"bands": ["b1"], **place, **wrong})
    with pytest.raises(BadInput, match="items must hold at least one item"):
        scenes.load([], bands=["b1"])
    item.assets["b1"].extra_fields.clear()
    item.assets["b1"].href = str(tmp_path / "gone.tif")
    with pytest.raises(Unreadable, match=r"gone.tif must be a raster, as its item does not say its dtype"):
        scenes.load([item], bands=["b1"], **place)


def test_stackstac_says_what_it_cannot_read(tmp_path):
    item = item_of(tmp_path, "a", pixels(1, 2, 4, 4))
    item.assets["b1"].extra_fields["eo:bands"] = [{"name": "x"}, {"name": "y"}]
    grid = GeoBox((4, 4), ORIGIN, CRS)
    with pytest.raises(BadInput, match=r"assets of one band .*2 bands in 'b1' of a. Use engine='odc'"):
        scenes.load([item], bands=["b1"], grid=grid, engine="stackstac")
    mars = GeoBox((4, 4), ORIGIN, "+proj=eqc +R=3396190 +units=m +type=crs")
    with pytest.raises(BadInput, match=r"grid must be in an EPSG CRS .*Use engine='odc'"):
        scenes.load([item], bands=["b2"], grid=mars, engine="stackstac")


# Items in files


def test_items_are_kept_and_read_again(tmp_path):
    items = [item_of(tmp_path, name, pixels(1, 2, 4, 4)) for name in ("a", "b")]
    scenes.save(items, tmp_path / "items.json")
    again = scenes.read(tmp_path / "items.json")
    assert [item.id for item in again] == ["a", "b"]
    options = {"bands": ["b2", "red"], "crs": CRS, "resolution": 10}
    np.testing.assert_array_equal(read(scenes.load(again, **options)), read(scenes.load(items, **options)))
    with pytest.raises(BadInput, match="items must hold at least one"):
        scenes.save([], tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()
    with pytest.raises(NotFound, match=r"path must name a file of STAC items.*none.json"):
        scenes.read(tmp_path / "none.json")
    for text in ("no json", "[]", '{"features": [{"type": "Feature"}]}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(Unreadable, match="path must name a file of STAC items"):
            scenes.read(tmp_path / "bad.json")


def test_relative_links_of_a_file_are_found_from_it(tmp_path):
    item = item_of(tmp_path, "a", pixels(1, 1, 4, 4))
    item.assets["b1"].href = "./a_b1.tif"
    (tmp_path / "item.json").write_text(json.dumps(item.to_dict(include_self_link=False)))
    items = scenes.read(tmp_path / "item.json")
    scenes.save(items, tmp_path / "saved.json")
    assert scenes.read(tmp_path / "saved.json")[0].assets["b1"].href == str(tmp_path / "a_b1.tif")
    assert read(scenes.load(items, bands=["b1"], crs=CRS, resolution=10)).any()


# Real items


@pytest.mark.realdata
def test_sentinel2_item_by_both_engines_equals_rasterio(data):
    folder = data / "sentinel2-29RKH"
    (item,) = scenes.read(folder / "S2A_29RKH_20200219_0_L2A.json")
    files = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11", "scl": "SCL"}
    for key, file in files.items():
        asset = item.assets[key]
        asset.href = str(folder / f"{file}.tif")
        with rasterio.open(asset.href) as raster:  # the pixels here are decimated, the item is as it was
            asset.extra_fields |= {"proj:shape": list(raster.shape), "proj:transform": list(raster.transform)[:6]}
    bands = ["blue", "green", "red", "nir"]
    odc, stackstac = (scenes.load([item], bands=bands, engine=engine) for engine in ENGINES)
    expected = np.stack([rasterio.open(folder / f"{files[band]}.tif").read(1) for band in bands])
    assert schema.geobox(odc).shape == (1098, 1098)
    np.testing.assert_array_equal(odc.values[0], expected)
    np.testing.assert_array_equal(stackstac.values[0], expected)
    coarse = GeoBox((500, 500), Affine(210, 0, 200_130, 0, -210, 2_799_000), "EPSG:32629")
    mixed = [scenes.load([item], bands=["red", "swir16"], grid=coarse, engine=engine).values for engine in ENGINES]
    np.testing.assert_array_equal(*mixed)
    scl = scenes.load([item], bands=["scl"], grid=odc, engine="odc")
    assert scl.dtype == "uint8"


@pytest.mark.realdata
def test_items_of_every_age_and_sensor_are_read(data):
    paths = sorted((data / "stac").glob("*/*.json"))
    items = [scenes.read(path)[0] for path in paths if "collection" not in path.name]
    assert len(items) == 18
    wpm = next(item for item in items if item.id.startswith("CBERS_4A_WPM"))
    wpm_grid = GeoBox((64, 64), Affine(8, 0, 300_000, 0, -8, 7_900_000), "EPSG:32722")
    cube = scenes.load([wpm], bands=["red", "B4"], grid=wpm_grid, dtype="uint16", nodata=0)
    assert (cube.shape, cube.dtype) == ((1, 2, 64, 64), "uint16")
