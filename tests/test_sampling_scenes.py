"""Scenes that overlap on the ground: no pixel of it is seen by two splits, whatever grids they are on."""

from functools import partial

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from lsdask import sampling, schema
from lsdask.errors import BadInput
from lsdask.sampling.ground import placed

UTM23 = "EPSG:32723"


def scene(shape, corner, *, pixel=10.0, crs=UTM23):
    """An image of nothing but a grid; corner is x and y of its upper left."""
    grid = GeoBox(shape, Affine(pixel, 0, corner[0], 0, -pixel, corner[1]), crs)
    return schema.wrap(np.broadcast_to(np.uint8(0), shape), grid, schema.MASK, name="image")


def together(scenes, size, *, overlap=0.5):
    parts = [sampling.grid(image, size, overlap=overlap).assign(scene=name) for name, image in scenes.items()]
    return pd.concat(parts, ignore_index=True)


def outlines(tiles, scenes, buffer, crs):
    """What each tile sees on the ground, followed pixel by pixel round its edge; shapely polygons in one CRS."""
    made = np.empty(len(tiles), dtype=object)
    for name, rows in tiles.groupby("scene").indices.items():
        grid = schema.geobox(scenes[name])
        y, x, size = tiles.iloc[rows][["y", "x", "size"]].to_numpy().T
        x0, y0 = np.maximum(x - buffer, 0), np.maximum(y - buffer, 0)
        x1, y1 = np.minimum(x + size + buffer, grid.shape[1]), np.minimum(y + size + buffer, grid.shape[0])
        rings = shapely.segmentize(shapely.box(x0, y0, x1, y1), 1)
        made[rows] = shapely.transform(rings, partial(onto, grid, crs))
    return made


def onto(grid, crs, xy):
    x, y = grid.transform @ (xy[:, 0], xy[:, 1])
    return np.stack(Transformer.from_crs(grid.crs, crs, always_xy=True).transform(x, y), axis=1)


def shared(tiles, scenes, buffer, crs=UTM23):
    """The largest area, in pixels of 10 m, that tiles of two splits both see."""
    seen = outlines(tiles, scenes, buffer, crs)
    side = tiles["split"].to_numpy()
    used = np.flatnonzero(side != "none")
    a, b = shapely.STRtree(seen[used]).query(seen[used])
    a, b = used[a], used[b]
    a, b = a[side[a] != side[b]], b[side[a] != side[b]]
    return shapely.area(shapely.intersection(seen[a], seen[b])).max(initial=0) / 100


OFFSETS = st.tuples(*[st.floats(-300, 300)] * 2)


@given(
    OFFSETS,
    st.sampled_from([5.0, 10.0, 12.5]),
    st.integers(0, 4),
    st.sampled_from([None, "east", "north", (10, 10, 30, 32)]),
    st.integers(0, 99),
)
def test_no_ground_is_seen_by_two_splits_of_overlapping_scenes(offset, pixel, buffer, test, seed):
    x, y = 500_000 + offset[0], 7_500_000 + offset[1]
    scenes = {"a": scene((44, 50), (500_000, 7_500_000)), "b": scene((40, 40), (x, y), pixel=pixel)}
    tiles = together(scenes, 6)
    options = {"block": 12, "buffer": buffer, "test": test, "scenes": scenes, "seed": seed}
    try:
        got = sampling.split(tiles, fractions=(0.5, 0.2, 0.3), **options)
    except BadInput as error:
        assert "far enough apart, for every side. Got no tile for" in str(error)  # noqa: PT017
        return
    assert shared(got, scenes, buffer) < 1e-3
    sampling.check_split(got, buffer=buffer, scenes=scenes)
    pd.testing.assert_frame_equal(got.drop(columns="split"), tiles)


@given(OFFSETS, st.sampled_from(["EPSG:32722", "EPSG:4326", UTM23]), st.integers(0, 3), st.integers(0, 99))
def test_no_ground_is_seen_by_two_splits_of_scenes_in_two_crs(offset, crs, buffer, seed):
    x, y = Transformer.from_crs(UTM23, crs, always_xy=True).transform(300_000 + offset[0], 7_500_000 + offset[1])
    pixel = 9e-5 if crs == "EPSG:4326" else 10.0
    scenes = {"a": scene((44, 50), (300_000, 7_500_000)), "b": scene((40, 40), (x, y), crs=crs, pixel=pixel)}
    tiles = together(scenes, 6)
    try:
        got = sampling.split(tiles, block=14, buffer=buffer, scenes=scenes, seed=seed)
    except BadInput as error:
        assert "far enough apart" in str(error)  # noqa: PT017
        return
    assert shared(got, scenes, buffer) < 1e-3
    sampling.check_split(got, buffer=buffer, scenes=scenes)


@given(st.integers(0, 2**32 - 1), st.integers(-30, 30), st.integers(0, 2))
def test_check_split_finds_what_two_scenes_share(seed, offset, buffer):
    draw = np.random.default_rng(seed)
    scenes = {"a": scene((40, 40), (500_000, 7_500_000)), "b": scene((40, 40), (500_000 + 10 * offset, 7_500_000))}
    tiles = sampling.table(draw.integers(0, 35, 6), draw.integers(0, 35, 6), 5)
    tiles["scene"] = draw.choice(["a", "b"], 6)
    tiles["split"] = draw.choice(["train", "valid", "test", "none"], 6)
    if shared(tiles, scenes, buffer) == 0:
        sampling.check_split(tiles, buffer=buffer, scenes=scenes)
        return
    with pytest.raises(
        BadInput, match=r"seen by two splits. Got (train|valid) tile \d \(.*scene='[ab]'\) and .*scene="
    ):
        sampling.check_split(tiles, buffer=buffer, scenes=scenes)


def test_check_split_names_the_tiles_and_scenes_that_meet():
    scenes = {"west": scene((40, 40), (0, 0)), "east": scene((40, 40), (300, 0))}
    tiles = sampling.table([0, 0], [32, 0], 8).assign(scene=["west", "east"], split=["train", "test"])
    named = r"Got train tile 0 \(y=0, x=32, size=8, scene='west'\) and test tile 1 \(y=0, x=0, size=8, scene='east'\)"
    with pytest.raises(BadInput, match=named):
        sampling.check_split(tiles, scenes=scenes)
    sampling.check_split(tiles.assign(x=[22, 0]), scenes=scenes)
    with pytest.raises(BadInput, match="seen by two splits"):
        sampling.check_split(tiles.assign(x=[22, 0]), buffer=1, scenes=scenes)


def test_folds_of_overlapping_scenes_share_no_ground():
    scenes = {"a": scene((60, 60), (0, 0)), "b": scene((60, 60), (295, -150))}
    got = sampling.folds(together(scenes, 6), 4, block=18, buffer=1, scenes=scenes, seed=2)
    assert set(got["fold"]) == {-1, 0, 1, 2, 3}
    for fold in range(4):
        assert shared(sampling.as_split(got, fold), scenes, 1) < 1e-3


def test_scenes_without_an_overlap_are_split_as_one_image_that_they_are_cut_from():
    whole = scene((60, 120), (0, 0))
    halves = {"west": scene((60, 60), (0, 0)), "east": scene((60, 60), (600, 0))}
    tiles = together(halves, 10, overlap=0)
    got = sampling.split(tiles, block=20, scenes=halves, seed=4)
    moved = tiles.assign(x=tiles["x"] + 60 * (tiles["scene"] == "east")).drop(columns="scene")
    assert got["split"].tolist() == sampling.split(moved, block=20, scenes=whole, seed=4)["split"].tolist()


@given(OFFSETS, st.sampled_from(["EPSG:32722", "EPSG:4326", "EPSG:3857"]), st.floats(0, 90))
def test_a_box_on_the_ground_holds_every_pixel_of_its_window(offset, crs, turn):
    grid = schema.geobox(scene((40, 40), (250_000 + offset[0], 7_400_000 + offset[1])))
    grid = GeoBox(grid.shape, grid.transform @ Affine.rotation(turn), grid.crs)
    x, y = Transformer.from_crs(UTM23, crs, always_xy=True).transform(250_000, 7_400_000)
    pixel = 1e-4 if crs == "EPSG:4326" else 11.0
    frame = GeoBox((50, 50), Affine(pixel, 0, x, 0, -pixel, y), crs)
    window = np.array([[3, 5, 37, 33]])
    y0, x0, y1, x1 = placed(window, grid, frame)[0]
    rows, columns = np.mgrid[3:38, 5:34]
    found = onto(grid, crs, np.stack([columns.ravel(), rows.ravel()], axis=1).astype(float))
    px, py = ~frame.transform @ (found[:, 0], found[:, 1])
    assert (x0 <= px.min(), px.max() <= x1, y0 <= py.min(), py.max() <= y1) == (True,) * 4
    assert max(px.min() - x0, x1 - px.max(), py.min() - y0, y1 - py.max()) < 0.6


def test_a_box_holds_the_bent_edges_of_a_wide_window():
    grid = GeoBox((2000, 2000), Affine(30, 0, 470_000, 0, -30, 7_400_000), "EPSG:32633")
    x, y = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(470_000, 7_400_000)
    frame = GeoBox((50, 50), Affine(3e-4, 0, x, 0, -3e-4, y), "EPSG:4326")
    y0, x0, y1, x1 = placed(np.array([[0, 0, 2000, 2000]]), grid, frame)[0]
    edge = shapely.get_coordinates(shapely.segmentize(shapely.box(0, 0, 2000, 2000), 1))
    found = onto(grid, frame.crs, edge)
    px, py = ~frame.transform @ (found[:, 0], found[:, 1])
    assert (x0 <= px.min(), px.max() <= x1, y0 <= py.min(), py.max() <= y1) == (True,) * 4


@pytest.mark.parametrize("named", [False, True])
def test_what_lies_outside_the_image_is_not_seen(named):
    image = scene((128, 128), (0, 0))
    tiles = sampling.grid(image, 8).assign(**({"scene": "a"} if named else {}))
    corner = tiles["y"].isin([0, 120]) & tiles["x"].isin([0, 120])
    for seed in range(8):
        scenes = {"a": image} if named else None
        got = sampling.split(tiles, fractions=(0.5, 0.5, 0), block=32, buffer=4, scenes=scenes, seed=seed)
        assert (got["split"][corner] != "none").all()


def test_a_region_of_polygons_is_held_out():
    image = scene((100, 100), (0, 0))
    areas = gpd.GeoDataFrame(geometry=[shapely.box(200, -400, 600, -200), shapely.box(800, -900, 900, -700)], crs=UTM23)
    tiles = sampling.grid(image, 5)
    got = sampling.split(tiles, test=areas, scenes=image, fractions=(0.6, 0.2, 0.2), block=10, seed=1)
    held = (got["y"] >= 20) & (got["y"] < 40) & (got["x"] >= 20) & (got["x"] < 60)
    held |= (got["y"] >= 70) & (got["y"] < 90) & (got["x"] >= 80) & (got["x"] < 90)
    assert (got["split"] == "test").equals(held)
    assert not (got["split"] == "none").any()
    shifted = sampling.split(tiles.assign(y=tiles["y"] - tiles["y"] % 3), test=areas, scenes=image, seed=1)
    whole = shapely.union_all(areas.geometry.to_numpy())
    for tile in shifted.itertuples():
        outline = shapely.box(tile.x * 10, -10 * (tile.y + 5), 10 * (tile.x + 5), -10 * tile.y)
        area = shapely.intersection(outline, whole).area / outline.area
        assert (tile.split == "test") == (area == 1)
        assert (tile.split == "none") or area in (0, 1)


def test_what_is_missing_is_said():
    scenes = {"a": scene((40, 40), (0, 0)), "b": scene((40, 40), (0, 0))}
    tiles = together(scenes, 8)
    with pytest.raises(BadInput, match=r"scenes must give the images of a, b. Got one or none"):
        sampling.split(tiles)
    with pytest.raises(BadInput, match="scenes must hold the scene 'b' of the tiles"):
        sampling.split(tiles, scenes={"a": scenes["a"]})
    with pytest.raises(BadInput, match="tiles must have the column 'scene', as scenes are named"):
        sampling.split(tiles.drop(columns="scene"), scenes=scenes)
    with pytest.raises(BadInput, match=r"tiles must all name their scene. Got 1 that do not"):
        sampling.split(tiles.assign(scene=[None, *tiles["scene"][1:]]), scenes=scenes)
    with pytest.raises(BadInput, match=r"tiles must lie inside their image of 40 x 40 px. Got up to y=41, x=40"):
        sampling.split(tiles.assign(y=tiles["y"] + 1), scenes=scenes)
    with pytest.raises(BadInput, match="scenes must be given where test is polygons"):
        sampling.split(sampling.grid(scenes["a"], 8), test="areas.gpkg")
    with pytest.raises(BadInput, match=r"test must be one of .* or a window"):
        sampling.split(sampling.grid(scenes["a"], 8), test=(20, 0, 10, 40))
    with pytest.raises(BadInput, match="block must be at least 1 pixel"):
        sampling.split(sampling.grid(scenes["a"], 8), block=0)
    with pytest.raises(BadInput, match=r"buffer must be at least 0 pixels"):
        sampling.split(sampling.grid(scenes["a"], 8), buffer=-1)
    with pytest.raises(BadInput, match=r"far enough apart, for every side. Got no tile for valid, test"):
        sampling.split(tiles, block=200, scenes=scenes)
    far = {"a": scenes["a"], "b": scene((40, 40), (0, 95), crs="EPSG:4326", pixel=0.1)}
    with pytest.raises(BadInput, match="scenes must all lie where the first one's CRS holds"):
        sampling.split(together(far, 8), scenes=far)
