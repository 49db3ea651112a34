"""Grids of other CRSs, across the antimeridian and round the poles: against each pixel's centre projected by PROJ."""

from datetime import UTC, datetime

import numpy as np
import pyproj
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from lsdask import scenes, schema
from lsdask.errors import BadInput, Unreadable
from lsdask.scenes import catalogue, placing
from lsdask.scenes.placing import Outline

DEGREES, FIJI, POLE = "EPSG:4326", "EPSG:32760", "EPSG:3413"


def read(cube):
    return cube.compute(scheduler="synchronous").values


def values_of(seed, shape):
    return np.random.default_rng(seed).integers(1, 250, shape).astype("uint8")


def put(path, values, place, crs):
    profile = {"driver": "GTiff", "dtype": values.dtype, "crs": crs, "nodata": 0, "count": 1, "transform": place}
    with rasterio.open(path, "w", height=values.shape[0], width=values.shape[1], **profile) as file:
        file.write(values, 1)
    return str(path)


def item_of(path, name="a", *, placed=True, bbox=None):
    """An item of a file; ``placed``: whether it says where its pixels lie, or its bbox alone."""
    with rasterio.open(path) as file:
        west, south, east, north = bbox or rasterio.warp.transform_bounds(file.crs, DEGREES, *file.bounds)
        fields = {"raster:bands": [{"data_type": file.dtypes[0], "nodata": 0}]}
        if placed:
            fields |= {"proj:code": f"EPSG:{file.crs.to_epsg()}", "proj:shape": list(file.shape)}
            fields |= {"proj:transform": list(file.transform)[:6]}
    box = shapely.geometry.mapping(shapely.box(west, south, east, north)) if west < east else None
    item = pystac.Item(name, box, [west, south, east, north], datetime(2020, 1, 1, tzinfo=UTC), {})
    item.add_asset("b1", pystac.Asset(path, media_type=pystac.MediaType.COG, roles=["data"], extra_fields=fields))
    return item


def nearest(parts, grid):
    """What a grid shows of (values, place, crs), the first on top, and where rounding cannot change it: the oracle."""
    rows, columns = (np.indices(grid.shape) + 0.5).reshape(2, -1)
    expected, sure = np.zeros(rows.size, "uint8"), np.ones(rows.size, bool)
    for values, place, crs in parts[::-1]:
        xs, ys = grid.transform @ (columns, rows)
        if pyproj.CRS(crs).is_geographic and grid.crs.geographic:
            xs = (xs - place.c) % 360 + place.c
        xs, ys = pyproj.Transformer.from_crs(str(grid.crs), crs, always_xy=True).transform(xs, ys)
        across, down = ~place @ (xs, ys)
        with np.errstate(invalid="ignore"):
            inside = (across >= 0) & (across < values.shape[1]) & (down >= 0) & (down < values.shape[0])
            sure &= (np.abs(across - np.rint(across)) > 1e-4) & (np.abs(down - np.rint(down)) > 1e-4)
        found = np.zeros_like(expected)
        found[inside] = values[np.floor(down[inside]).astype(int), np.floor(across[inside]).astype(int)]
        expected = np.where(found > 0, found, expected)
    return expected.reshape(grid.shape), sure.reshape(grid.shape)


def check(cube, parts, least=1):
    expected, sure = nearest(parts, schema.geobox(cube))
    assert (expected > 0).sum() >= least
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(read(cube)[0, 0][sure], expected[sure])


ACROSS = Affine(100, 0, 812_000, 0, -100, 8_120_000)
FIJI_GRIDS = {
    "on": GeoBox((70, 260), Affine(0.001, 0, 179.87, 0, -0.001, -16.97), DEGREES),
    "on from the other side": GeoBox((70, 260), Affine(0.001, 0, -180.13, 0, -0.001, -16.97), DEGREES),
    "east": GeoBox((70, 120), Affine(0.001, 0, -180, 0, -0.001, -16.97), DEGREES),
    "west": GeoBox((70, 130), Affine(0.001, 0, 179.87, 0, -0.001, -16.97), DEGREES),
    "whole": GeoBox((8, 36_000), Affine(0.01, 0, -180, 0, -0.01, -16.97), DEGREES),
    "Mercator of the Pacific": GeoBox((90, 300), Affine(90, 0, 3_325_000, 0, -90, -1_905_000), "EPSG:3832"),
    "web Mercator": GeoBox((50, 150), Affine(100, 0, 20_022_000, 0, -100, -1_917_000), "EPSG:3857"),
}


@pytest.mark.parametrize("name", FIJI_GRIDS)
@pytest.mark.parametrize("by", ["open", "load", "load by bbox"])
def test_a_file_across_the_antimeridian(tmp_path, name, by):
    values = values_of(1, (70, 200))
    path, grid = put(tmp_path / "fiji.tif", values, ACROSS, FIJI), FIJI_GRIDS[name]
    chunks = 1000 if name == "whole" else 64
    if by == "open":
        cube = scenes.open(path, grid=grid, chunks=chunks)
    else:
        bbox = None if by == "load" else (179.9, -17.1, -179.9, -16.8)
        cube = scenes.load([item_of(path, placed=by == "load", bbox=bbox)], bands=["b1"], grid=grid, chunks=chunks)
    check(cube, [(values, ACROSS, FIJI)], least=3 if name == "whole" else 500)


def test_files_in_degrees_on_both_sides_of_the_antimeridian(tmp_path):
    sides = {"west": Affine(0.01, 0, 179, 0, -0.01, -16), "east": Affine(0.01, 0, -180, 0, -0.01, -16)}
    parts = [(values_of(seed, (100, 100)), place, DEGREES) for seed, place in enumerate(sides.values())]
    paths = [put(tmp_path / f"{side}.tif", part[0], part[1], DEGREES) for side, part in zip(sides, parts)]
    on = GeoBox((100, 200), sides["west"], DEGREES)
    shifted = GeoBox((90, 150), Affine(0.01, 0, 179.2534, 0, -0.01, -16.0534), DEGREES)
    for grid in (on, shifted):
        for cube in (
            scenes.open(paths, grid=grid, chunks=64),
            scenes.load(
                [item_of(path, path) for path in paths], bands=["b1"], grid=grid, chunks=64, groupby=lambda _: 1
            ),
        ):
            check(cube, parts, least=13_000)
    np.testing.assert_array_equal(read(scenes.open(paths, grid=on))[0, 0], np.hstack([part[0] for part in parts]))


def test_a_polar_file_on_a_grid_in_degrees_and_the_other_way_round(tmp_path):
    place = Affine(10_000, 0, -397_300, 0, -10_000, 401_900)
    values = values_of(2, (80, 80))
    path = put(tmp_path / "pole.tif", values, place, POLE)
    strip = GeoBox((40, 720), Affine(0.5, 0, -180, 0, -0.1, 90), DEGREES)
    for cube in (
        scenes.open(path, grid=strip, chunks=100),
        scenes.load([item_of(path, bbox=(-180, 84, 180, 90))], bands=["b1"], grid=strip, chunks=100),
    ):
        check(cube, [(values, place, POLE)], least=20_000)
    wide, cap = Affine(1, 0, -180, 0, -0.25, 90), values_of(3, (32, 360))
    other = put(tmp_path / "cap.tif", cap, wide, DEGREES)
    grid = GeoBox((80, 80), Affine(20_000, 0, -803_100, 0, -20_000, 797_300), POLE)
    for cube in (
        scenes.open(other, grid=grid, chunks=17),
        scenes.load([item_of(other)], bands=["b1"], grid=grid, chunks=17),
    ):
        check(cube, [(cap, wide, DEGREES)], least=4_000)


def test_zones_meet_on_a_polar_grid(tmp_path):
    parts = []
    for zone, left in ((33, 480_000), (34, 420_000)):
        parts.append((values_of(zone, (60, 60)), Affine(500, 0, left, 0, -500, 8_700_000), f"EPSG:326{zone}"))
    paths = [put(tmp_path / f"{crs[5:]}.tif", values, place, crs) for values, place, crs in parts]
    grid = GeoBox((700, 900), Affine(400, 0, 920_000, 0, -400, -480_000), "EPSG:3413")
    inside = scenes.load([item_of(path, path) for path in paths], bands=["b1"], crs="EPSG:3413", resolution=700)
    check(inside.isel(time=[0]) if inside.sizes["time"] == 1 else inside, parts, least=3000)
    assert schema.geobox(inside).transform.c % 700 == 0
    check(scenes.open(paths, grid=grid, chunks=128), parts, least=0)


@pytest.mark.parametrize(
    ("source", "place", "grid"),
    [
        ("EPSG:32633", Affine(30, 0, 480_000, 0, -30, 5_200_000), ("EPSG:32634", 25.0, 23_700, 5_218_500)),
        ("EPSG:32633", Affine(30, 0, 480_000, 0, -30, 5_200_000), (DEGREES, 3e-4, 14.73, 46.96)),
        (DEGREES, Affine(3e-4, 0, 14.7, 0, -3e-4, 46.9), ("EPSG:32633", 31.0, 477_000, 5_194_500)),
        ("EPSG:32633", Affine(30, 0, 480_000, 0, -30, 5_200_000), ("EPSG:3857", 40.0, 1_639_000, 5_932_000)),
    ],
    ids=["other zone", "degrees", "from degrees", "web Mercator"],
)
def test_engines_agree_with_each_other_and_with_proj_across_crs_at_any_chunk(tmp_path, source, place, grid):
    crs, side, left, top = grid
    values = values_of(4, (150, 150))
    path = put(tmp_path / "a.tif", values, place, source)
    box = GeoBox((140, 160), Affine(side, 0, left, 0, -side, top), crs)
    cubes = [scenes.open(path, grid=box, chunks=50)]
    for engine in ("odc", "stackstac"):
        for chunks in (37, 512):
            cubes.append(scenes.load([item_of(path)], bands=["b1"], grid=box, engine=engine, chunks=chunks))
    for cube in cubes:
        check(cube, [(values, place, source)], least=3_000)


def test_odc_stac_itself_gives_the_same_values_on_a_grid_of_the_files_crs(tmp_path):
    import odc.stac

    place = Affine(30, 0, 480_000, 0, -30, 5_200_000)
    path = put(tmp_path / "a.tif", values_of(5, (120, 150)), place, "EPSG:32633")
    item = item_of(path)
    item.stac_extensions = ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"]
    for side, shift in ((30.0, 0.0), (30.0, 7.0), (41.0, 13.3), (19.0, 4.7)):
        box = GeoBox((100, 140), Affine(side, 0, 480_300 + shift, 0, -side, 5_199_900 - shift), "EPSG:32633")
        expected = odc.stac.load([item], bands=["b1"], geobox=box, resampling="nearest", use_overviews=False)
        got = scenes.load([item], bands=["b1"], grid=box, chunks=64)
        np.testing.assert_array_equal(read(got)[0, 0], expected["b1"].values[0])


# Grids that nobody gave


def test_items_in_two_zones_and_two_resolutions_lie_on_the_pixels_of_the_finest_in_the_crs_of_most(tmp_path):
    fine, coarse = Affine(30, 0, 480_000, 0, -30, 5_200_000), Affine(60, 0, 481_500, 0, -60, 5_200_000)
    west = Affine(30, 0, 20_000, 0, -30, 5_204_000)
    parts = [(values_of(6, (40, 40)), fine, "EPSG:32633"), (values_of(7, (20, 20)), coarse, "EPSG:32633")]
    parts += [(values_of(8, (40, 40)), west, "EPSG:32634")]
    paths = [put(tmp_path / f"{n}.tif", *part) for n, part in enumerate(parts)]
    items = [item_of(path, path) for path in paths]
    cube = scenes.load(items, bands=["b1"], groupby=lambda _: 1)
    grid = schema.geobox(cube)
    assert (grid.crs.epsg, grid.resolution.x) == (32633, 30.0)
    assert ((grid.transform.c - 480_000) % 30, (grid.transform.f - 5_200_000) % 30) == (0, 0)
    check(cube, parts, least=4000)
    halved = scenes.load(items, bands=["b1"], resolution=50, groupby=lambda _: 1)
    assert (schema.geobox(halved).crs.epsg, schema.geobox(halved).transform.c % 50) == (32633, 0)
    check(halved, parts, least=1000)


def test_a_grid_that_items_do_not_say(tmp_path):
    path = put(tmp_path / "a.tif", values_of(1, (20, 20)), Affine(30, 0, 480_000, 0, -30, 5_200_000), "EPSG:32633")
    with pytest.raises(BadInput, match=r"grid must be said, as the items do not say theirs"):
        scenes.load([item_of(path, placed=False)], bands=["b1"])
    with pytest.raises(BadInput, match=r"crs must be said"):
        scenes.load([item_of(path, placed=False)], bands=["b1"], resolution=30)
    with pytest.raises(BadInput, match=r"crs must be a CRS, such as .*'mars'"):
        scenes.load([item_of(path)], bands=["b1"], crs="mars", resolution=30)
    cube = scenes.load([item_of(path, placed=False)], bands=["b1"], crs="EPSG:32633", resolution=30)
    values = read(cube)[0, 0]
    with rasterio.open(path) as file:
        assert sorted(values[values > 0]) == sorted(file.read(1).ravel())


def test_a_raster_that_the_crs_of_the_grid_cannot_show_is_nowhere_and_one_shown_in_part_everywhere():
    zone = Outline(pyproj.CRS("EPSG:32633").to_wkt(), Affine(10, 0, 5e5, 0, -10, 5e6), (100, 100))
    square = pyproj.CRS("+proj=gnom +lat_0=90 +lon_0=0").to_wkt()
    south = Outline(pyproj.CRS(DEGREES).to_wkt(), Affine(1, 0, 0, 0, -1, -40), (10, 10))
    both = Outline(pyproj.CRS(DEGREES).to_wkt(), Affine(1, 0, 0, 0, -1, 10), (40, 10))
    polar = Outline(square, Affine(1000, 0, -5e6, 0, -1000, 5e6), (10_000, 10_000))
    boxes = placing.boxes([south, both, zone], polar)
    assert not boxes[0].any()
    assert (boxes[1, :2] < -1e11).all()
    assert (boxes[1, 2:] > 1e11).all()
    assert (boxes[2, :2] < boxes[2, 2:]).all()
    assert (boxes[2, 2:] - boxes[2, :2] < 10).all()
    with pytest.raises(BadInput, match="south must lie within the CRS of the grid"):
        placing.spanned([south], ["south"], polar)


def test_a_file_elsewhere_than_its_item_says_is_refused(tmp_path):
    place = Affine(30, 0, 480_000, 0, -30, 5_200_000)
    path = put(tmp_path / "a.tif", values_of(1, (40, 40)), place, "EPSG:32633")
    item = item_of(path)
    item.assets["b1"].extra_fields["proj:shape"] = [20, 20]
    grid = GeoBox((40, 40), place, "EPSG:32633")
    cube = scenes.load([item], bands=["b1"], grid=grid)
    with pytest.raises(Unreadable, match=r"a.tif must lie where its item says. Got a file that reaches 20 pixels"):
        read(cube)


# Places to search


def area(aoi):
    found = catalogue.outline(aoi)
    assert found.is_valid
    assert shapely.box(-180, -90, 180, 90).contains(found.buffer(-1e-9))
    return found


def test_places_across_the_antimeridian_are_cut_there():
    across = area((179, -18, -179, -16))
    assert across.bounds == (-180, -18, 180, -16)
    assert across.area == pytest.approx(4)
    assert len(across.geoms) == 2
    on = {"type": "Polygon", "coordinates": [[[179, -18], [181, -18], [181, -16], [179, -16], [179, -18]]]}
    assert area(on).equals(across)
    import geopandas as gpd

    frame = gpd.GeoSeries([shapely.box(3_300_000, -1_950_000, 3_400_000, -1_850_000)], crs="EPSG:3832")
    turned = area(frame)
    assert turned.bounds[0] == -180
    assert turned.bounds[2] == 180
    assert turned.area < 1.2


def test_places_round_a_pole_hold_it():
    import geopandas as gpd

    for crs, sign in (("EPSG:3413", 1), ("EPSG:3031", -1)):
        cap = area(gpd.GeoSeries([shapely.Point(0, 0).buffer(1e6)], crs=crs))
        assert cap.contains(shapely.Point(12, sign * 89.9))
        assert cap.contains(shapely.Point(-170, sign * 82))
        assert not cap.intersects(shapely.Point(12, sign * 79))
    beside = area(gpd.GeoSeries([shapely.Point(8e5, 0).buffer(1e5)], crs="EPSG:3413"))
    assert beside.area < 60
    assert not beside.contains(shapely.Point(12, 89.9))


@pytest.mark.parametrize(
    ("west", "east", "left", "width"),
    [(10, 20, 10, 10), (179, -178, 179, 3), (80, -90, 80, 190), (-180, 180, -180, 360)],
)
@pytest.mark.parametrize("by", ["bbox", "geometry"])
def test_the_box_round_an_item_runs_on_across_the_antimeridian(west, east, left, width, by):
    from lsdask.scenes.stac import _around

    item = pystac.Item("a", None, [west, -18, east, -17], datetime(2020, 1, 1, tzinfo=UTC), {})
    if by == "geometry":
        whole = catalogue.wrapped(shapely.box(west, -18, east if east > west else east + 360, -17))
        item.geometry = shapely.geometry.mapping(whole)
    place = _around(item).transform
    assert (place.c, place.a) == (left, width)


def test_a_raster_round_the_whole_earth(tmp_path):
    place, values = Affine(1, 0, -180, 0, -1, 90), values_of(9, (180, 360))
    path = put(tmp_path / "earth.tif", values, place, DEGREES)
    part = GeoBox((20, 30), Affine(0.7, 0, -12.3, 0, -0.7, 40.2), DEGREES)
    utm = GeoBox((40, 40), Affine(20_000, 0, 103_000, 0, -20_000, 5_800_100), "EPSG:32633")
    for grid in (part, utm, GeoBox((180, 360), place, DEGREES)):
        for placed in (True, False):
            item = item_of(path, placed=placed, bbox=(-180, -90, 180, 90))
            check(scenes.load([item], bands=["b1"], grid=grid), [(values, place, DEGREES)], least=500)
    np.testing.assert_array_equal(read(scenes.open(path))[0, 0], values)
    across = GeoBox((20, 30), Affine(0.7, 0, 170.3, 0, -0.7, 40.2), DEGREES)
    with pytest.raises(BadInput, match="grid must lie on one side of the edge of a file"):
        read(scenes.open(path, grid=across))
