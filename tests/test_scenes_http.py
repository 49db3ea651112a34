"""From a STAC API and a server of pixels, both real and on loopback, to a cube; and what goes wrong on the way."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import servers
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from lsdask import mosaic, scenes, schema
from lsdask.errors import BadInput, NotFound, Unreadable
from lsdask.scenes import catalogue, headers

CRS = "EPSG:32723"
ORIGIN = Affine(10.0, 0.0, 400_000.0, 0.0, -10.0, 7_400_000.0)


def read(cube):
    return cube.compute(scheduler="synchronous").values


def scene(folder, name, values, *, address=None, left=0, when=datetime(2020, 3, 1, tzinfo=UTC)):
    """A tiled GeoTIFF of (y, x) values, and its item with the address it is served at."""
    place = ORIGIN @ Affine.translation(left, 0)
    profile = {"driver": "GTiff", "dtype": values.dtype, "crs": CRS, "nodata": 0, "count": 1, "transform": place}
    profile |= {"height": values.shape[0], "width": values.shape[1], "tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
        file.write(values, 1)
        west, south, east, north = rasterio.warp.transform_bounds(CRS, "EPSG:4326", *file.bounds)
    box = shapely.box(west, south, east, north)
    item = pystac.Item(name, shapely.geometry.mapping(box), [west, south, east, north], when, {"proj:code": CRS})
    item.collection_id = "wpm"
    href = str(folder / f"{name}.tif") if address is None else f"{address}/{name}.tif"
    fields = {"proj:transform": list(place)[:6], "proj:shape": list(values.shape)}
    fields["raster:bands"] = [{"data_type": str(values.dtype), "nodata": 0}]
    item.add_asset("red", pystac.Asset(href, media_type=pystac.MediaType.COG, extra_fields=fields))
    return item


def numbers(seed, *shape):
    return np.random.default_rng(seed).integers(1, 4000, shape).astype("uint16")


@pytest.fixture(autouse=True)
def without_settings_of_others():
    """Forget what another test's stackstac has set in this thread for good: it would count as the user's own."""
    if rasterio.env.hasenv():
        rasterio.env.delenv()


@pytest.fixture
def impatient(monkeypatch):
    """Wait tenths of seconds where the library waits seconds."""
    short = {"GDAL_HTTP_RETRY_DELAY": "0.05", "GDAL_HTTP_LOW_SPEED_TIME": "1", "GDAL_HTTP_TIMEOUT": "1"}
    monkeypatch.setattr(headers, "REMOTE", headers.REMOTE | short)


@pytest.fixture
def row(tmp_path, pixels):
    """Three scenes side by side behind one server, their values, and the server."""
    values = [numbers(seed, 128, 128) for seed in range(3)]
    server = pixels(tmp_path)
    items = [scene(tmp_path, f"s{n}", values[n], address=server.address, left=128 * n) for n in range(3)]
    return items, values, server


# A catalogue


@pytest.fixture
def served(tmp_path, stac_api):
    """The address of a catalogue of twelve items, more than a page, one of them twice; and the items."""
    when = datetime(2020, 3, 1, tzinfo=UTC)
    days = [when + timedelta(days=11 - n) for n in range(12)]
    items = [scene(tmp_path, f"i{n}", numbers(n, 64, 64), left=200 * n, when=day) for n, day in enumerate(days)]
    return stac_api([*items, items[3]]), items


def test_a_search_goes_through_all_pages_and_gives_each_item_once_in_order_of_time(served):
    address, _ = served
    found = scenes.search(address, "wpm")
    assert [item.id for item in found] == [f"i{n}" for n in range(11, -1, -1)]
    assert [item.id for item in scenes.search(address, "wpm", datetime="2020-03-02/2020-03-04")] == ["i10", "i9", "i8"]
    assert len(scenes.search(address, ["wpm"], limit=2)) == 2
    assert read(scenes.load(found, bands=["red"])).any(axis=(1, 2, 3)).all()


def test_a_place_is_a_box_geojson_a_frame_or_a_file(served, tmp_path):
    address, items = served
    shape = shapely.geometry.shape(items[2].geometry).buffer(-1e-4)
    frame = gpd.GeoSeries([shape], crs="EPSG:4326").to_crs(CRS)
    frame.to_file(tmp_path / "aoi.gpkg")
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
    collection = {"type": "FeatureCollection", "features": [feature]}
    (tmp_path / "aoi.geojson").write_text(json.dumps(collection))
    places = (shape.bounds, feature["geometry"], feature, collection, frame, tmp_path / "aoi.gpkg")
    for aoi in (*places, str(tmp_path / "aoi.geojson")):
        assert [item.id for item in scenes.search(address, "wpm", aoi=aoi)] == ["i2"]


def test_a_search_that_finds_nothing_or_asks_wrongly_says_so(served):
    address, _ = served
    with pytest.raises(NotFound, match=r"search must find at least one item. Got none in wpm, at any time. Widen"):
        scenes.search(address, "wpm", aoi=(0, 0, 1, 1))
    with pytest.raises(BadInput, match=r"datetime must be a time.*'last spring'"):
        scenes.search(address, "wpm", datetime="last spring")
    with pytest.raises(BadInput, match="query must be asked of an API that has STAC's query extension"):
        scenes.search(address, "wpm", query={"eo:cloud_cover": {"lt": 5}})


@pytest.mark.parametrize(
    ("aoi", "rule"),
    [
        ((0, 0, 400_000, 1), "aoi must be .west, south, east, north. in degrees"),
        ("nowhere.gpkg", "aoi must be .*nowhere.gpkg"),
        ({"type": "Blob"}, "aoi must be"),
        (gpd.GeoSeries([shapely.box(0, 0, 1, 1)]), "aoi must have a CRS"),
        (gpd.GeoSeries([], crs="EPSG:4326"), "aoi must hold a place"),
    ],
)
def test_what_is_no_place(aoi, rule):
    with pytest.raises(BadInput, match=rule):
        catalogue.outline(aoi)


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_refused(tmp_path, pixels, status):
    server = pixels(tmp_path)
    server.fail("", status)
    with pytest.raises(Unreadable, match=f"headers must hold credentials .*{server.address}: status {status}"):
        scenes.search(server.address, "wpm", headers={"Authorization": "Bearer none"})
    assert len(server.asked) == 1


def test_an_api_that_is_broken_down_or_none(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(catalogue, "RETRIES", 2)
    server = pixels(tmp_path)
    server.fail("", 500)
    with pytest.raises(Unreadable, match=f"api must be a STAC API that answers. Got {server.address}: .*500"):
        scenes.search(server.address, "wpm")
    assert len(server.asked) == 3
    server.heal()
    (tmp_path / "index.html").write_text("no STAC here")
    with pytest.raises(Unreadable, match="api must be a STAC API that answers"):
        scenes.search(server.address, "wpm")
    with pytest.raises(Unreadable, match="api must be a STAC API that answers"):
        scenes.search(f"http://127.0.0.1:{servers.free_port()}", "wpm")


def test_an_api_that_is_busy_for_a_while_is_asked_again(tmp_path, pixels):
    server = pixels(tmp_path)
    (tmp_path / "index.html").write_text("no STAC here")
    server.fail("", 503, times=2)
    with pytest.raises(Unreadable):
        scenes.search(server.address, "wpm")
    assert len(server.asked) == 3


class _BusySearch(BaseHTTPRequestHandler):
    """An API whose landing page answers, and whose search is busy twice before it gives no item."""

    posted = 0

    def do_GET(self):
        address = f"http://{self.headers['Host']}"
        search = {"rel": "search", "href": f"{address}/search", "method": "POST", "type": "application/geo+json"}
        conforms = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
        about = {"type": "Catalog", "id": "a", "stac_version": "1.0.0", "description": "a", "conformsTo": conforms}
        self._answer(200, about | {"links": [{"rel": "self", "href": address}, search]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).posted += 1
        self._answer(503 if self.posted < 3 else 200, {"type": "FeatureCollection", "features": [], "links": []})

    def _answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


def test_a_search_that_is_busy_for_a_while_is_sent_again():
    with ThreadingHTTPServer(("127.0.0.1", 0), _BusySearch) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(NotFound, match="search must find at least one item"):
            scenes.search(f"http://127.0.0.1:{server.server_port}", "wpm")
        server.shutdown()
    assert _BusySearch.posted == 3


# Pixels over HTTP


def test_pixels_come_by_ranges_and_only_those_of_the_window(tmp_path, pixels):
    values = numbers(1, 512, 512)
    server = pixels(tmp_path)
    item = scene(tmp_path, "big", values, address=server.address)
    cube = scenes.load([item], bands=["red"], chunks=64)
    assert not server.asked
    np.testing.assert_array_equal(read(cube[0, 0, 320:384, 64:128]), values[320:384, 64:128])
    sizes = [[int(end) for end in part.split("=")[1].split("-")] for _, _, part in server.asked if part]
    assert sum(last - first + 1 for first, last in sizes) < (tmp_path / "big.tif").stat().st_size / 4


@pytest.mark.parametrize("engine", ["odc", "stackstac"])
def test_a_server_that_is_busy_twice_is_survived(row, impatient, engine):
    items, values, server = row
    server.fail("s1.tif", 503, times=2)
    np.testing.assert_array_equal(read(scenes.load(items, bands=["red"], engine=engine))[0, 0], np.hstack(values))
    assert not server.faults["s1.tif"].times


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_file_that_is_refused_is_named_with_its_status_and_read_once_it_is_there(row, impatient, status):
    items, values, server = row
    server.fail("s1.tif", status)
    cube = scenes.load(items, bands=["red"])
    with pytest.raises(Unreadable, match=rf"{server.address}/s1.tif must be a raster .*HTTP response code: {status}"):
        read(cube)
    server.heal()
    np.testing.assert_array_equal(read(cube)[0, 0], np.hstack(values))


def test_a_server_that_falls_silent_is_not_waited_for_for_ever(row, impatient, monkeypatch):
    monkeypatch.setattr(headers, "REMOTE", headers.REMOTE | {"GDAL_HTTP_MAX_RETRY": "1"})
    items, values, server = row
    server.stall("s1.tif", seconds=3)
    cube, begun = scenes.load(items, bands=["red"]), time.monotonic()
    with pytest.raises(Unreadable, match=r"s1.tif must be a raster that can be read.*(timed out|too slow)"):
        read(cube)
    assert time.monotonic() - begun < 20
    server.heal()
    np.testing.assert_array_equal(read(cube)[0, 0], np.hstack(values))


def test_a_server_that_is_gone(tmp_path):
    address = f"http://127.0.0.1:{servers.free_port()}"
    item = scene(tmp_path, "s", numbers(1, 64, 64), address=address)
    with pytest.raises(Unreadable, match=rf"{address}/s.tif must be a raster that can be read.*connect"):
        read(scenes.load([item], bands=["red"]))


def test_a_truncated_file_is_named(row, tmp_path):
    items, values, server = row
    server.cut(tmp_path / "s2.tif", "s2.tif", 0.6)
    cube = scenes.load(items, bands=["red"], chunks=128)
    np.testing.assert_array_equal(read(cube[..., :256])[0, 0], np.hstack(values[:2]))
    with pytest.raises(Unreadable, match=r"s2.tif must be a raster that can be read.* IReadBlock failed"):
        read(cube)


def test_settings_stay_inside_and_the_users_go_first(row, monkeypatch):
    items, _, _ = row
    seen = []
    monkeypatch.setattr(headers, "Pixels", lambda path: seen.append(rasterio.env.getenv()) or rasterio.open(path))
    cube = scenes.open([item.assets["red"].href for item in items[:1]])
    read(cube)
    with rasterio.Env(GDAL_HTTP_MAX_RETRY="7"):
        read(cube)
    assert [env["GDAL_HTTP_MAX_RETRY"] for env in seen] == ["3", "7"]
    assert not rasterio.env.hasenv() or "GDAL_HTTP_MAX_RETRY" not in rasterio.env.getenv()


@pytest.mark.parametrize("fault", ["404", "500", "truncated"])
def test_a_mosaic_goes_on_past_a_bad_file_names_it_and_is_completed_later(row, tmp_path, impatient, fault):
    items, values, server = row
    if fault == "truncated":
        server.cut(tmp_path / "s1.tif", "s1.tif", 0.5)
    else:
        server.fail("s1.tif", int(fault))
    options = {"chunk": 64, "shard": 128, "progress": False, "workers": 2, "retries": 1}
    image = mosaic.composite(scenes.load(items, bands=["red"], chunks=64))
    report = mosaic.write(image, tmp_path / "m.zarr", **options)
    assert (report.done, [failure.place for failure in report.failed]) == (2, [(0, 1)])
    assert server.url("s1.tif") in report.failed[0].why
    assert fault == "truncated" or fault in report.failed[0].why
    server.heal()
    again = mosaic.write(image, tmp_path / "m.zarr", **options)
    assert (again.done, again.skipped, again.failed) == (1, 2, ())
    mosaic.write(image, tmp_path / "undisturbed.zarr", **options).check()
    whole, undisturbed = (open_zarr(tmp_path / name) for name in ("m.zarr", "undisturbed.zarr"))
    np.testing.assert_array_equal(whole, undisturbed)
    np.testing.assert_array_equal(whole[0], np.hstack(values))


def open_zarr(path: Path) -> np.ndarray:
    import zarr

    return zarr.open_group(path, mode="r")["mosaic"][:]


# The real scene, from its catalogue


S2 = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11", "scl": "SCL"}


def real_items(data, address):
    """All items of the folder of catalogues; those of 29RKH with the addresses of the pixels that are here."""
    paths = [path for path in sorted((data / "stac").glob("*/*.json")) if "collection" not in path.name]
    items = [scenes.read(path)[0] for path in [*paths, data / "sentinel2-29RKH" / "S2A_29RKH_20200219_0_L2A.json"]]
    for key, file in S2.items():
        items[-1].assets[key].href = f"{address}/sentinel2-29RKH/{file}.tif"
    return items


@pytest.mark.realdata
def test_sentinel2_from_its_catalogue_over_http_equals_rasterio(data, pixels, stac_api):
    server = pixels(data)
    api = stac_api(real_items(data, server.address))
    (item,) = scenes.search(api, "sentinel-2-l2a", aoi=(-11.9, 24.4, -11.0, 25.2), datetime="2020-02")
    assert item.id == "S2A_29RKH_20200219_0_L2A"
    grid = GeoBox((1098, 1098), Affine(100, 0, 199_980, 0, -100, 2_800_020), "EPSG:32629")
    cube = scenes.load([item], bands=["red", "nir", "B03"], grid=grid, sensor="sentinel-2-l2a")
    quality = scenes.load([item], bands=["scl"], grid=grid)
    assert not [path for _, path, _ in server.asked if path.endswith(".tif")]
    rows, columns = slice(300, 700), slice(500, 1000)
    got, window = read(cube[..., rows, columns])[0], Window(500, 300, 500, 400)
    for band, file in zip(got, ("B04", "B08", "B03")):
        with rasterio.open(data / "sentinel2-29RKH" / f"{file}.tif") as raster:
            np.testing.assert_array_equal(band, raster.read(1, window=window))
    with rasterio.open(data / "sentinel2-29RKH" / "SCL.tif") as raster:  # coarser than the grid
        resolution = raster.res
        seen = raster.read(1)
    assert (quality.dtype, schema.nodata(quality)) == ("uint8", 0)
    factor = round(resolution[0] / 100)
    np.testing.assert_array_equal(read(quality)[0, 0], seen.repeat(factor, 0).repeat(factor, 1))
    (clouded,) = {str(value) for value in cube.time.values}
    assert clouded.startswith("2020-02-19T11:34:25")


@pytest.mark.realdata
def test_every_real_item_is_served_and_found_once(data, stac_api):
    items = real_items(data, "http://127.0.0.1:1")
    api = stac_api(items)
    collections = sorted({item.collection_id or "default-collection-id" for item in items})
    found = scenes.search(api, collections)
    assert {item.id for item in found} == {item.id for item in items}
    assert len(found) == len({item.id for item in items}) < len(items)
    assert [item.datetime for item in found if item.datetime] == sorted(i.datetime for i in found if i.datetime)
