"""Items: which asset is which band; groups and versions; files of items; ten thousand of them; what files must be."""

import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from lsdask import mosaic, scenes, schema, store
from lsdask.errors import BadInput, Unreadable
from lsdask.scenes import headers, painting

CRS = "EPSG:32723"
PLACE = Affine(10.0, 0.0, 400_000.0, 0.0, -10.0, 7_400_000.0)
WHEN = datetime(2020, 3, 1, 13, tzinfo=UTC)
GRID = GeoBox((8, 8), PLACE, CRS)


def read(cube):
    return cube.compute(scheduler="synchronous").values


def numbers(seed, *shape, dtype="uint16"):
    return np.random.default_rng(seed).integers(1, 200, shape).astype(dtype)


def put(path, values, *, place=PLACE, **options):
    """Write (band, y, x) values."""
    profile = {"driver": "GTiff", "dtype": values.dtype, "crs": CRS, "transform": place, "count": len(values)}
    with rasterio.open(path, "w", height=values.shape[1], width=values.shape[2], **profile, **options) as file:
        file.write(values)
    return str(path)


def asset(path, shape=(8, 8), **fields):
    fields = {"proj:code": CRS, "proj:transform": list(PLACE)[:6], "proj:shape": list(shape), **fields}
    return pystac.Asset(path, roles=["data"], extra_fields=fields)


def item_of(name, when=WHEN, collection="c", **assets):
    item = pystac.Item(name, None, [-45, -23.5, -44.9, -23.4], when, {}, collection=collection)
    for key, made in assets.items():
        item.add_asset(key.replace("__", "."), made)
    return item


SAID = {"raster:bands": [{"data_type": "uint16", "nodata": 0}]}


# Which asset is which band


def test_bands_by_key_by_sensor_and_by_common_name_item_by_item(tmp_path):
    red, nir = numbers(1, 1, 8, 8), numbers(2, 1, 8, 8)
    paths = put(tmp_path / "red.tif", red), put(tmp_path / "nir.tif", nir)
    red_named, nir_named = ({"eo:bands": [{"common_name": name}], **SAID} for name in ("red", "nir"))
    items = [
        item_of("key", red=asset(paths[0], **SAID), nir=asset(paths[1], **SAID)),
        item_of("sensor", B04=asset(paths[0], **SAID), B08=asset(paths[1], **SAID)),
        item_of("common", b1=asset(paths[0], **red_named), b2=asset(paths[1], **nir_named)),
        item_of("newer", b1=asset(paths[0], bands=[{"eo:common_name": "red"}], **SAID), nir=asset(paths[1], **SAID)),
    ]
    cube = scenes.load(items, bands=["nir", "red"], grid=GRID, sensor="sentinel-2-l2a", groupby="id")
    np.testing.assert_array_equal(read(cube), [np.concatenate([nir, red])] * 4)
    without = scenes.load(items, bands=["nir", "red"], grid=GRID, groupby="id")
    ids = [group[0].id for group in scenes.groups(items, "id")]
    assert [name for name, step in zip(ids, read(without)) if not step.any()] == ["sensor"]
    keys = scenes.load(items[1:2], bands=["B04"], grid=GRID, sensor="sentinel-2-l2a")
    np.testing.assert_array_equal(read(keys)[0], red)
    with pytest.raises(BadInput, match=r"bands must name assets of the items: B04, B08, b1, .*red. Got 'swir16'"):
        scenes.load(items, bands=["swir16"], grid=GRID, sensor="sentinel-2-l2a")
    with pytest.raises(BadInput, match="sensor must be one of cbers-4a-wpm"):
        scenes.load(items, bands=["red"], grid=GRID, sensor="sentinel-2")


def test_bands_of_one_file_by_number_and_by_common_name_are_read_in_one_go(tmp_path, opened):
    values = numbers(3, 3, 8, 8)
    path = put(tmp_path / "visual.tif", values)
    names = [{"common_name": name} for name in ("red", "green", "blue")]
    item = item_of("a", visual=asset(path, **{"eo:bands": names, "raster:bands": SAID["raster:bands"] * 3}))
    for bands in (["visual.3", "visual.1"], ["blue", "red"], ["blue", "visual.1"]):
        opened.clear()
        np.testing.assert_array_equal(read(scenes.load([item], bands=bands, grid=GRID))[0], values[[2, 0]])
        assert opened == {"visual.tif": 1}
    item.add_asset("b4", asset(put(tmp_path / "red.tif", values[:1] + 1), **{"eo:bands": names[:1], **SAID}))
    np.testing.assert_array_equal(read(scenes.load([item], bands=["red"], grid=GRID))[0], values[:1] + 1)
    with pytest.raises(BadInput, match=r"bands must name one band each. Got 'visual', 3 bands of a. Pass 'visual.1', "):
        scenes.load([item], bands=["visual"], grid=GRID)
    with pytest.raises(BadInput, match=r"visual.tif must have a band 7, as asked. Got 3"):
        read(scenes.load([item], bands=["visual.7"], grid=GRID))
    for bands in (["visual"], ["visual.2"], ["green"]):
        with pytest.raises(BadInput, match=r"assets of one band .* bands in 'visual' of a. Use engine='odc'"):
            scenes.load([item], bands=bands, grid=GRID, engine="stackstac")


def test_planets_products_of_many_bands_are_known_by_the_order_of_their_bands(tmp_path):
    values = numbers(4, 8, 8, 8)
    product = put(tmp_path / "sr.tif", values, nodata=0)
    clear = np.zeros((8, 8, 8), "uint8")
    clear[0, :, :5], clear[5, :, 5:] = 1, 1  # the rest is cloud
    udm2, radiance = put(tmp_path / "udm2.tif", clear), put(tmp_path / "r.tif", values[:4] + 300)
    colours = [{"common_name": name} for name in ("blue", "green", "red", "nir")]
    item = item_of("a", ortho_analytic_8b_sr=asset(product), ortho_udm2=asset(udm2),
                   ortho_analytic_4b=asset(radiance, **{"eo:bands": colours}))  # fmt: skip
    cube = scenes.load([item], bands=["red", "coastal", "green_i"], grid=GRID, sensor="planetscope")
    np.testing.assert_array_equal(read(cube)[0], values[[5, 0, 2]])
    assert np.unique(cube.scale) == 1e-4
    quality = scenes.load([item], bands=["ortho_udm2.1"], grid=GRID, sensor="planetscope")
    assert (quality.dtype, "scale" in quality.coords) == ("uint8", False)
    np.testing.assert_array_equal(mosaic.mask(quality, "udm2").values[0], clear[0] == 1)
    eye = item_of("b", analytic=asset(put(tmp_path / "eye.tif", values[:5], nodata=0)))
    got = scenes.load([eye], bands=["nir", "rededge", "blue"], grid=GRID, sensor="rapideye")
    np.testing.assert_array_equal(read(got)[0], values[[4, 3, 0]])


def test_items_of_one_collection_that_are_built_differently_lie_each_in_its_place(tmp_path):
    one, two = numbers(1, 1, 8, 8), numbers(2, 1, 8, 8)
    beside = PLACE @ Affine.translation(8, 0)
    there, here = put(tmp_path / "there.tif", two, place=beside), put(tmp_path / "here.tif", one)
    silent = pystac.Asset(here, roles=["data"], extra_fields=SAID)
    items = [
        item_of("a", b1=asset(here, **SAID), b2=asset(here, **SAID)),
        item_of("b", b1=asset(here, **SAID), b2=asset(there, **SAID, **{"proj:transform": list(beside)[:6]})),
        item_of("c", b1=silent, b2=asset(here, **SAID)),
    ]
    items[2].bbox = list(rasterio.warp.transform_bounds(CRS, "EPSG:4326", *GRID.boundingbox))
    wide = GeoBox((8, 16), PLACE, CRS)
    void = np.zeros((8, 8), "uint16")
    first, moved = np.hstack([one[0], void]), np.hstack([void, two[0]])
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        cube = scenes.load([items[n] for n in order], bands=["b1", "b2"], grid=wide, groupby="id")
        np.testing.assert_array_equal(read(cube), [[first, first], [first, moved], [first, first]])
    whole = scenes.load(items[:2], bands=["b1", "b2"])
    assert schema.geobox(whole) == wide


# Order, groups, versions


def test_groups_are_the_steps_of_a_cube(tmp_path):
    path = put(tmp_path / "a.tif", numbers(1, 1, 8, 8))
    times = [WHEN + timedelta(days=day, minutes=minute) for day, minute in ((1, 5), (0, 0), (1, 0), (0, 1))]
    items = [item_of(f"i{n}", when, b1=asset(path, **SAID)) for n, when in enumerate(times)]
    for groupby, ids in (
        ("solar_day", [["i1", "i3"], ["i2", "i0"]]),
        ("id", [["i1"], ["i3"], ["i2"], ["i0"]]),
        (lambda item: item.id in "i2", [["i1", "i3", "i0"], ["i2"]]),
    ):
        found = scenes.groups(items, groupby)
        assert [[item.id for item in group] for group in found] == ids
        cube = scenes.load(items, bands=["b1"], grid=GRID, groupby=groupby)
        assert list(cube.time.values) == [np.datetime64(group[0].datetime.replace(tzinfo=None)) for group in found]
    assert scenes.load([*items, items[0].clone()], bands=["b1"], grid=GRID, groupby="id").sizes["time"] == 4
    with pytest.raises(BadInput, match="groupby must be a callable or one of time, solar_day, id"):
        scenes.groups(items, "week")


@pytest.mark.parametrize(
    ("west", "east", "hours"),
    [(0, 1, 0), (178, 179, 12), (-179, -178, -12), (179, -178, -12), (177, -179, 12), (-61, -59, -4)],
)
def test_the_local_day_also_across_the_antimeridian(west, east, hours):
    midnight = datetime(2020, 3, 1, tzinfo=UTC) - timedelta(hours=hours)  # there, to half an hour
    items = []
    for minutes in (-90, -60, 60, 90):
        items.append(item_of(str(minutes), midnight + timedelta(minutes=minutes)))
        items[-1].bbox = [west, -18, east, -17]
    assert [[item.id for item in day] for day in scenes.groups(items)] == [["-90", "-60"], ["60", "90"]]


def test_the_latest_version_of_each_acquisition():
    def version(name, baseline, **properties):
        item = item_of(name, WHEN)
        item.properties |= {"s2:processing_baseline": baseline, "platform": "sentinel-2a", **properties}
        return item

    tile, other = {"grid:code": "MGRS-23KLP"}, {"grid:code": "MGRS-23KLQ"}
    items = [version("a1", "05.9", **tile), version("a0", "05.10", **tile), version("b", "02.14", **other)]
    later = version("a2", "02.00", **tile)
    later.datetime = WHEN + timedelta(seconds=14)  # the next part of the same pass
    assert [item.id for item in scenes.latest([*items, later])] == ["a0", "b", "a2"]
    assert [item.id for item in scenes.latest(items[::-1])] == ["a0", "b"]


# Files of items


@pytest.fixture
def opened(monkeypatch):
    """Count how often each file is opened, for its header or its pixels."""
    count = Counter()
    real = headers.opened

    def counted(path, reader, **options):
        count[path.rsplit("/", 1)[-1]] += 1
        return real(path, reader, **options)

    monkeypatch.setattr(headers, "opened", counted)
    return count


@pytest.mark.parametrize("name", ["items.json", "items.geojson", "items.parquet"])
def test_items_are_kept_and_read_again_the_same(tmp_path, name):
    red, pan = put(tmp_path / "r.tif", numbers(1, 1, 8, 8)), put(tmp_path / "p.tif", numbers(2, 1, 8, 8))
    items = [
        item_of("a", red=asset(red, **SAID, alternate={"s3": {"href": "s3://b/r.tif"}}), pan=asset(pan, **SAID, gsd=2)),
        item_of("b", WHEN + timedelta(days=1), red=asset(red, **SAID)),  # lacks what the other has
    ]
    items[0].properties |= {"eo:cloud_cover": 3.5, "instruments": ["WPM"]}
    for item in items:
        item.geometry = {"type": "Point", "coordinates": [-45.0, -23.5]}
    scenes.save(items, tmp_path / name)
    again = scenes.read(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir() if name in path.name] == [name]
    for item, found in zip(items, again):
        assert (found.id, found.datetime, found.collection_id) == (item.id, item.datetime, item.collection_id)
        assert list(found.bbox) == item.bbox
        assert {k: v for k, v in found.properties.items() if k != "datetime"} == {
            k: v for k, v in item.properties.items() if k != "datetime"
        }
        assert found.assets.keys() == item.assets.keys()
        for key, made in item.assets.items():
            assert found.assets[key].href == made.href
            assert found.assets[key].extra_fields == made.extra_fields
    options = {"bands": ["red", "pan"], "grid": GRID}
    np.testing.assert_array_equal(read(scenes.load(again, **options)), read(scenes.load(items, **options)))


def test_stac_geoparquet_asks_for_its_package_and_for_items(tmp_path, monkeypatch):
    (tmp_path / "bad.parquet").write_text("no table")
    with pytest.raises(Unreadable, match=r"path must name a file of STAC items. Got .*bad.parquet"):
        scenes.read(tmp_path / "bad.parquet")
    monkeypatch.setitem(sys.modules, "rustac", None)
    with pytest.raises(BadInput, match=r"Install it, pip install lsdask\[geoparquet\]"):
        scenes.save([item_of("a")], tmp_path / "items.parquet")
    with pytest.raises(BadInput, match=r"Install it, pip install lsdask\[geoparquet\]"):
        scenes.read(tmp_path / "bad.parquet")


@pytest.mark.realdata
@pytest.mark.parametrize("catalogue", ["cbers", "sentinel-landsat"])
def test_real_items_survive_both_formats(data, tmp_path, catalogue):
    paths = [path for path in sorted((data / "stac" / catalogue).glob("*.json")) if "collection" not in path.name]
    items = [scenes.read(path)[0] for path in paths]
    if catalogue == "sentinel-landsat":
        with pytest.raises(BadInput, match=r"items must have each field in one type.*landsat:wrs_path.*Keep them in"):
            scenes.save(items, tmp_path / "mixed.parquet")
        assert not list(tmp_path.iterdir())
        items = [item for item in items if item.id.startswith(("S2", "LC08_L2SP", "LE07"))]
    for name in ("items.json", "items.parquet"):
        scenes.save(items, tmp_path / name)
        for item, found in zip(items, scenes.read(tmp_path / name)):
            assert (item.id, item.assets.keys()) == (found.id, found.assets.keys())
            for key, made in item.assets.items():
                for field in ("proj:transform", "proj:shape", "raster:bands", "eo:bands"):
                    assert found.assets[key].extra_fields.get(field) == made.extra_fields.get(field)


# Many


def many(count, days, folder="/nowhere"):
    """Items of tiles of 109.8 km in a square, seen on some days; no file is there."""
    side = int(np.ceil(np.sqrt(count / days)))
    about = {"eo:bands": [{"common_name": "red"}], **SAID, "proj:shape": [10980, 10980]}
    items = []
    for number in range(count):
        day, place = divmod(number, side * side)
        row, column = divmod(place, side)
        spot = PLACE @ Affine.translation(10_000 * column, 10_000 * row)
        about |= {"proj:transform": list(spot)[:6], "proj:code": CRS}
        made = {
            key: pystac.Asset(f"{folder}/{number}/{key}.tif", extra_fields=dict(about)) for key in ("B02", "B03", "B04")
        }
        items.append(item_of(f"{number:06d}", WHEN + timedelta(days=day), **made))
    return items


def test_ten_thousand_items_open_without_opening_a_file_in_seconds(opened):
    items = many(10_000, 30)
    begun = time.perf_counter()
    cube = scenes.load(items, bands=["B02", "B03", "B04"], groupby="solar_day")
    seconds = time.perf_counter() - begun
    assert not opened
    assert cube.shape[:2] == (len(scenes.groups(items)), 3)
    assert cube.shape[2] > 180_000
    assert seconds < 40  # 4 to 7 s on two quiet cores
    begun = time.perf_counter()
    window = cube[..., 70_000:72_048, 90_000:92_048]
    graph = window.__dask_optimize__(window.__dask_graph__(), window.__dask_keys__())
    assert len(graph) <= 2 * cube.sizes["time"] * 5 * 5
    assert time.perf_counter() - begun < 15


def test_a_window_of_ten_thousand_items_reads_only_the_files_that_touch_it(monkeypatch):
    seen = Counter()

    def read_one(layer, window, target):
        seen[layer.path] += 1
        box = painting.placing.common(layer.box, window)
        shape = (len(layer.bands), box[2] - box[0], box[3] - box[1])
        return box, np.full(shape, int(layer.path.split("/")[2]) + 1, "uint16"), np.ones(shape, bool)

    monkeypatch.setattr(painting, "_read", read_one)
    items = many(10_000, 30)
    cube = scenes.load(items, bands=["B04"], groupby="solar_day", chunks=1024)
    begun = time.perf_counter()
    got = store.reader(mosaic.composite(cube, method="first")).read(slice(30_720, 31_744), slice(40_960, 41_984))
    assert time.perf_counter() - begun < 20  # well under 1 s on two quiet cores
    side = int(np.ceil(np.sqrt(10_000 / 30)))
    day_size = side * side
    assert {int(path.split("/")[2]) % day_size for path in seen} <= {
        row * side + column for row in (2, 3) for column in (3, 4)
    }
    assert set(seen.values()) == {1}
    firsts = np.arange(10_000, dtype="int64").reshape(-1, 1, 1)[:day_size].reshape(side, side) + 1
    rows, columns = (np.arange(start, start + 1024) // 10_000 for start in (30_720, 40_960))
    np.testing.assert_array_equal(got[0, 300:, 300:], firsts[np.ix_(rows, columns)][300:, 300:])


# What files must be


def test_the_files_dtype_must_fit_the_items(tmp_path):
    high = numbers(1, 1, 8, 8, dtype="float32") * 1000
    item = item_of("a", b1=asset(put(tmp_path / "f.tif", high), **SAID))
    with pytest.raises(BadInput, match=r"f.tif must hold values that fit uint16. Got float32 from .*dtype='float32'"):
        read(scenes.load([item], bands=["b1"], grid=GRID))
    got = scenes.load([item], bands=["b1"], grid=GRID, dtype="float32", nodata=0)
    np.testing.assert_array_equal(read(got)[0], high)
    signed = numbers(2, 1, 8, 8, dtype="int16")
    item = item_of("a", b1=asset(put(tmp_path / "s.tif", signed, nodata=-9), **SAID))
    np.testing.assert_array_equal(read(scenes.load([item], bands=["b1"], grid=GRID))[0], signed)
    signed[0, 3, 3], signed[0, 4, 4] = -9, -5
    put(tmp_path / "s.tif", signed, nodata=-9)
    with pytest.raises(BadInput, match=r"s.tif must hold values that fit uint16. Got int16 from -5 to"):
        read(scenes.load([item], bands=["b1"], grid=GRID))


def test_each_file_keeps_its_own_nodata(tmp_path):
    one, two = numbers(1, 1, 8, 8), numbers(2, 1, 8, 8)
    one[0, :4], two[0, 2:6] = 9, 0
    items = [
        item_of("a", b1=asset(put(tmp_path / "a.tif", one, nodata=9), **SAID)),
        item_of("b", b1=asset(put(tmp_path / "b.tif", two), **SAID)),  # declares nothing: its item's 0 stands
    ]
    got = read(scenes.load(items, bands=["b1"], grid=GRID))[0, 0]
    np.testing.assert_array_equal(got[4:], one[0, 4:])
    np.testing.assert_array_equal(got[:2], two[0, :2])
    assert not got[2:4].any()


@pytest.mark.parametrize("sensor", [None, "landsat-8-c1-l1"])
def test_what_silent_items_do_not_say_is_the_sensors_or_else_the_files(tmp_path, opened, sensor):
    values = numbers(1, 1, 8, 8)
    item = item_of("a", B4=asset(put(tmp_path / "a.tif", values, nodata=None if sensor else 7)))
    cube = scenes.load([item], bands=["B4"], grid=GRID, sensor=sensor)
    assert (cube.dtype, schema.nodata(cube)) == ("uint16", 0 if sensor else 7)
    assert opened == ({} if sensor else {"a.tif": 1})


def test_overviews_are_read_where_values_are_averaged_and_never_for_nearest(tmp_path):
    values = numbers(1, 1, 512, 512)
    path = put(tmp_path / "o.tif", values, tiled=True, blockxsize=64, blockysize=64, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
        file.build_overviews([2, 4], Resampling.average)
    with rasterio.open(path, overview_level=1) as file:
        small = file.read()
    item = item_of("a", b1=asset(path, (512, 512), **SAID))
    whole = GeoBox((128, 128), PLACE @ Affine.scale(4), CRS)
    for chunks in (512, 37):
        got = {
            how: read(scenes.load([item], bands=["b1"], grid=whole, resampling=how, chunks=chunks))[0]
            for how in ("average", "nearest")
        }
        np.testing.assert_array_equal(got["average"], small)
        assert np.isin(got["nearest"][0, 5, 7], values[0, 20:24, 28:32])
    third = GeoBox((100, 100), PLACE @ Affine.scale(3), CRS)
    with rasterio.open(path, overview_level=0) as file:
        half, place = file.read(), file.transform
    expected = np.zeros((100, 100), "uint16")
    options = {"src_crs": CRS, "dst_crs": CRS, "src_nodata": 0, "dst_nodata": 0, "resampling": Resampling.bilinear}
    rasterio.warp.reproject(half[0], expected, src_transform=place, dst_transform=third.transform, **options)
    got = read(scenes.load([item], bands=["b1"], grid=third, resampling="bilinear", chunks=41))[0, 0]
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_a_chunk_opens_each_file_once(tmp_path, opened):
    path = put(tmp_path / "a.tif", numbers(1, 1, 8, 8))
    hidden = put(tmp_path / "hidden.tif", numbers(2, 1, 8, 8))
    items = [item_of("a", b1=asset(path, **SAID)), item_of("b", b1=asset(hidden, **SAID))]
    cube = scenes.load(items, bands=["b1"], grid=GRID, chunks=4)
    assert not opened
    read(cube)
    assert opened == {"a.tif": 4}


@pytest.mark.realdata
def test_the_bands_of_cbers4a_by_an_item_equal_rasterio(data):
    folder = data / "cbers4a-wpm"
    (item,) = scenes.read(data / "stac" / "cbers" / "ref_CBERS_4A_WPM_20200730_209_139_L4.json")
    with rasterio.open(folder / "BAND1.tif") as file:
        grid = GeoBox(file.shape, file.transform, file.crs.to_wkt())
        bounds = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    for number in (0, 1, 2, 3):  # the item of another scene of the sensor, with the pixels that are here
        item.assets[f"B{number}"].href = str(folder / f"BAND{number}.tif")
    item.bbox, item.geometry = list(bounds), None
    bands = ["blue", "green", "red"]
    cube = scenes.load([item], bands=bands, grid=grid, sensor="cbers-4a-wpm", chunks=200)
    assert (cube.dtype, schema.nodata(cube), schema.bands(cube)) == ("int16", 0, tuple(bands))
    expected = np.stack([rasterio.open(folder / f"BAND{number}.tif").read(1) for number in (1, 2, 3)])
    np.testing.assert_array_equal(read(cube)[0], expected)
    opened = scenes.open({name: folder / f"BAND{n}.tif" for n, name in enumerate(bands, 1)}, chunks=200)
    np.testing.assert_array_equal(read(opened)[0], expected)


def test_json_of_many_items_is_written_whole_or_not_at_all(tmp_path):
    item = item_of("a")
    item.properties["bad"] = {1, 2}  # no JSON
    (tmp_path / "items.json").write_text(json.dumps({"features": []}))
    with pytest.raises(TypeError):
        scenes.save([item], tmp_path / "items.json")
    assert json.loads((tmp_path / "items.json").read_text()) == {"features": []}
    assert [path.name for path in tmp_path.iterdir()] == ["items.json"]
