"""Which tiles are taken: by polygons, by what a score map gets wrong, by weight; and the papers' numbers."""

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import stats

from lsdask import evaluate, inventory, sampling, schema
from lsdask.errors import BadInput

GRID = GeoBox((60, 80), Affine(5, 0, 700_000, 0, -5, 7_500_000), "EPSG:32723")


def layer(values, grid=GRID, *, chunks=None, dims=schema.MASK):
    image = schema.wrap(np.asarray(values), grid, dims, name="layer")
    return image if chunks is None else image.chunk(dict(zip(("y", "x"), chunks)))


def blank(height, width):
    return xr.DataArray(np.broadcast_to(np.uint8(0), (height, width)), dims=("y", "x"))


# What the papers cut


@pytest.mark.parametrize(("size", "n"), [(32, 201), (64, 99), (128, 49)])
def test_even_tiles_are_as_many_as_the_regular_squares_of_soares(size, n):
    tiles = sampling.even(blank(5000, 5000), size)
    assert len(tiles) == n**2
    for axis in ("y", "x"):
        starts = np.unique(tiles[axis])
        assert (starts[0], starts[-1]) == (0, 5000 - size)
        assert np.ptp(np.diff(starts)) <= 1
        stride = {32: 124.2, 64: 251.9, 128: 507.6}[size] / 5  # metres in the paper
        assert np.diff(starts).mean() == pytest.approx(stride, abs=0.1)
    assert len(sampling.random(blank(5000, 5000), size, 5000, seed=0)) == 5000


def test_a_grid_has_the_tiles_of_garcia_with_the_last_shifted_inside_instead_of_padded():
    tiles = sampling.grid(blank(14_210, 14_592), 32)
    assert len(tiles) == 445 * 456 == 202_920
    assert tiles["y"].max() == 14_210 - 32


def test_a_grid_without_its_shifted_edges_has_the_candidates_of_prakash():
    tiles = sampling.grid(blank(round(1360 / 0.6), round(2336 / 0.6)), 224, overlap=0.5)  # 10 m resampled to 6 m
    on_step = tiles[(tiles["y"] % 112 == 0) & (tiles["x"] % 112 == 0)]
    assert len(on_step) == 33 * 19
    assert len(tiles) == 34 * 20


def test_prakash_keeps_tiles_of_which_half_is_valid():
    valid = np.zeros((448, 448), dtype=bool)
    valid[:, :112] = True
    tiles = sampling.describe(
        sampling.grid(blank(448, 448), 224, overlap=0.5), valid=xr.DataArray(valid, dims=("y", "x"))
    )
    assert sampling.select(tiles, min_valid=0.5)["x"].tolist() == [0, 0, 0]


@given(st.integers(2, 60), st.integers(2, 60), st.integers(2, 20), st.sampled_from([0.0, 0.2, 0.6]))
def test_even_tiles_go_from_edge_to_edge(height, width, size, overlap):
    size = min(size, height, width)
    tiles = sampling.even(blank(height, width), size, overlap=overlap)
    sampling.check_inside(tiles, (height, width))
    assert not tiles.duplicated().any()
    assert {0, height - size} <= set(tiles["y"])
    assert {0, width - size} <= set(tiles["x"])


# By location


def shapes_of(draw, n):
    corners = draw.integers(-5, 80, (n, 2)) / draw.choice([1, 3], (n, 1))
    sides = draw.integers(1, 12, (n, 2)) / draw.choice([1, 7], (n, 1))
    x, y = corners.T
    return shapely.box(x, y, x + sides[:, 0], y + sides[:, 1])


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.booleans())
def test_by_location_keeps_the_tiles_that_share_ground_with_a_polygon(seed, n, elsewhere):
    draw = np.random.default_rng(seed)
    shapes = shapes_of(draw, n)
    frame = gpd.GeoDataFrame(geometry=inventory.to_map(shapes, GRID), crs=GRID.crs)
    image = layer(np.zeros(GRID.shape, "uint8"))
    tiles = sampling.random(image, 7, 40, seed=seed)
    outlines = shapely.box(x := tiles["x"].to_numpy(), y := tiles["y"].to_numpy(), x + 7, y + 7)
    shared = shapely.area(shapely.intersection(outlines[:, None], shapes[None])).max(axis=1)
    if not (shared > 1e-6).any():
        return
    got = sampling.by_location(tiles, frame.to_crs("EPSG:4326") if elsewhere else frame, image)
    found = set(map(tuple, got.to_numpy().tolist()))
    sure = tiles[shared > (0.01 if elsewhere else 0)]  # a rectangle's edges bend a little in degrees
    maybe = tiles[shapely.dwithin(outlines[:, None], shapes[None], 0.01).any(axis=1)] if elsewhere else sure
    assert set(map(tuple, sure.to_numpy().tolist())) <= found <= set(map(tuple, maybe.to_numpy().tolist()))


def test_by_location_finds_every_tile_with_a_pixel_of_the_mask(tmp_path):
    frame = gpd.GeoDataFrame(
        geometry=inventory.to_map(shapes_of(np.random.default_rng(2), 9), GRID), crs=GRID.crs
    ).to_crs("EPSG:4326")
    frame.to_file(tmp_path / "slides.gpkg")
    image = layer(np.zeros(GRID.shape, "uint8"))
    tiles = sampling.grid(image, 6, overlap=0.4)
    mask = inventory.rasterize(tmp_path / "slides.gpkg", image)
    positive = sampling.select(sampling.describe(tiles, mask=mask), min_positive=1e-9)[["y", "x"]]
    located = sampling.by_location(tiles, tmp_path / "slides.gpkg", image)[["y", "x"]]
    assert set(map(tuple, positive.to_numpy())) <= set(map(tuple, located.to_numpy()))
    assert len(located) < len(tiles) / 2


@pytest.mark.realdata
def test_the_inventory_of_garcia_has_about_as_many_positive_tiles_as_in_the_paper(data):
    """365 tiles of 32 px of 8 m; some more here, as the paper cut its test area out and tells no origin."""
    path = data / "serra-do-mar" / "relict_landslides_epsg32723.geojson"
    for shift in (0, 100):
        grid = GeoBox((3552, 3648), Affine(8, 0, 437_000 + shift, 0, -8, 7_396_000), "EPSG:32723")
        image = layer(np.broadcast_to(np.uint8(0), grid.shape), grid)
        tiles = sampling.describe(sampling.grid(image, 32), mask=inventory.rasterize(path, image))
        positive = sampling.select(tiles, min_positive=1e-9)
        assert 365 <= len(positive) < 430
        located = sampling.by_location(tiles, path, image)
        assert len(pd.merge(located, positive, on=["y", "x"])) == len(positive) <= len(located) < 450


def test_tiles_beside_a_traced_polygon_are_not_positive():
    frame = gpd.GeoDataFrame(geometry=inventory.to_map(shapely.box([20], [20], [30], [30]), GRID), crs=GRID.crs)
    tiles = sampling.grid(layer(np.zeros(GRID.shape, "uint8")), 10)
    got = sampling.by_location(tiles, frame, layer(np.zeros(GRID.shape, "uint8")))
    assert got[["y", "x"]].to_numpy().tolist() == [[20, 20]]


def test_by_location_says_that_no_tile_is_positive():
    far = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32723")
    image = layer(np.zeros(GRID.shape, "uint8"))
    with pytest.raises(BadInput, match=r"polygons must share ground with a tile. Got none in 12 tiles"):
        sampling.by_location(sampling.grid(image, 20), far, image)


# Where a score map is wrong


@given(st.integers(0, 2**32 - 1), st.sampled_from(["uint8", "float32"]), st.tuples(*[st.integers(15, 90)] * 2))
def test_false_alarms_and_misses_are_counted_as_numpy_does(seed, dtype, chunks):
    draw = np.random.default_rng(seed)
    probability = np.where(draw.random(GRID.shape) < 0.1, np.nan, draw.random(GRID.shape))
    scores = schema.encode_scores_block(probability, dtype)
    mask = draw.choice([0, 1, 255], GRID.shape, p=[0.6, 0.3, 0.1]).astype("uint8")
    wrapped = layer(scores[None], dims=schema.SCORES).chunk({"y": chunks[0], "x": chunks[1]})
    agreement = evaluate.agreement(wrapped, layer(mask), threshold=0.3)
    tiles = sampling.random(agreement, 9, 12, seed=seed)
    with dask.config.set(scheduler="synchronous"):
        got = sampling.describe(tiles, agreement=agreement, mask=layer(mask, chunks=(17, 90)))
    known = schema.decode_scores_block(scores)
    for row in got.itertuples():
        window = np.s_[row.y : row.y + 9, row.x : row.x + 9]
        there = ~np.isnan(known[window]) & (mask[window] != 255)
        hit = known[window] >= np.float32(0.3)
        assert row.false_alarm == pytest.approx((hit & (mask[window] == 0) & there).sum() / there.sum())
        assert row.missed == pytest.approx((~hit & (mask[window] == 1) & there).sum() / there.sum())


def test_an_agreement_of_other_numbers_is_refused():
    tiles = sampling.table([0], [0], 8)
    with pytest.raises(BadInput, match=r"agreement must hold 0 to 3 and 255 .* Got 4. Make it with evaluate.agreement"):
        sampling.describe(tiles, agreement=blank(8, 8) + np.uint8(4))


def described(n=200, seed=0):
    draw = np.random.default_rng(seed)
    positive = np.where(np.arange(n) % 10 == 1, 0.2, 0.0)
    return sampling.table(np.arange(n), np.zeros(n), 8).assign(
        positive=positive, false_alarm=np.where(np.arange(n) % 4 == 1, draw.random(n), 0)
    )


def test_hard_negatives_go_with_all_positives():
    tiles = described()
    got = sampling.hard_negatives(tiles, ratio=1.5, seed=1)
    assert (got["positive"] > 0).sum() == 20
    negatives = got[got["positive"] == 0]
    assert (len(negatives), (negatives["false_alarm"] > 0).all()) == (30, True)
    assert got["y"].is_monotonic_increasing
    assert got["y"].is_unique
    pd.testing.assert_frame_equal(got, sampling.hard_negatives(tiles, ratio=1.5, seed=1))
    assert not got.equals(sampling.hard_negatives(tiles, ratio=1.5, seed=2))
    assert (
        len(sampling.hard_negatives(tiles, ratio=1000)) == ((tiles["positive"] > 0) | (tiles["false_alarm"] > 0)).sum()
    )
    assert list(got.columns) == list(tiles.columns)


def test_hard_negatives_are_the_worse_the_likelier():
    tiles = described(2000)
    often = sum(sampling.hard_negatives(tiles, ratio=0.5, seed=seed)["false_alarm"].sum() for seed in range(20))
    fairly = 20 * 100 * tiles["false_alarm"][tiles["false_alarm"] > 0].mean()
    assert often > 1.2 * fairly


def test_without_positives_or_hard_negatives_there_is_nothing_to_choose():
    rule = "hold tiles with landslides, and tiles without that have false alarms. Got "
    with pytest.raises(BadInput, match=rule + "0 and 50"):
        sampling.hard_negatives(described().assign(positive=0.0))
    with pytest.raises(BadInput, match=rule + "20 and 0"):
        sampling.hard_negatives(described().assign(false_alarm=0.0))
    with pytest.raises(BadInput, match=r"column 'false_alarm'.*sampling.describe\(tiles, agreement="):
        sampling.hard_negatives(described().drop(columns="false_alarm"))
    with pytest.raises(BadInput, match=r"two or more groups by 'positive'. Got 1. Pass tiles with landslides and"):
        sampling.balance(described().assign(positive=0.0))


# Weights


def test_drawn_tiles_come_as_often_as_their_weights_say():
    tiles = sampling.table(np.arange(5), np.zeros(5), 8).assign(weight=[0.0, 1, 2, 7, np.nan])
    got = sampling.draw(tiles, 20_000, seed=3)
    counts = got["y"].value_counts().reindex(range(5), fill_value=0).to_numpy()
    assert counts[[0, 4]].tolist() == [0, 0]
    assert stats.chisquare(counts[1:4], np.array([0.1, 0.2, 0.7]) * 20_000).pvalue > 1e-3
    pd.testing.assert_frame_equal(got, sampling.draw(tiles, 20_000, seed=3))
    assert sampling.draw(tiles, 3, replace=False)["y"].tolist() == [1, 2, 3]


def test_a_weight_that_is_none_is_refused():
    tiles = sampling.table(np.arange(3), np.zeros(3), 8).assign(weight=[0.0, 1, 2])
    with pytest.raises(BadInput, match=r"n must be from 1 to the 2 tiles of weight above 0. Got n=3"):
        sampling.draw(tiles, 3, replace=False)
    with pytest.raises(BadInput, match="n must be from 1"):
        sampling.draw(tiles, 0)
    with pytest.raises(BadInput, match="n must be from 1 to the 0 tiles"):
        sampling.draw(tiles.assign(weight=0.0), 1)
    for bad in (-1.0, np.inf):
        with pytest.raises(BadInput, match=f"weight must be finite and at least 0. Got {bad}"):
            sampling.draw(tiles.assign(weight=[1.0, bad, 1.0]), 1)
    with pytest.raises(BadInput, match=r"have the column 'weight'.*Make it with sampling.weigh"):
        sampling.draw(tiles.drop(columns="weight"), 1)


@given(st.lists(st.sampled_from([0, 0.05, 0.1, 0.3, np.nan]), min_size=3, max_size=60))
def test_weights_make_groups_weigh_alike(shares):
    tiles = sampling.table(np.arange(len(shares)), np.zeros(len(shares)), 8).assign(
        positive=np.array(shares, "float64")
    )
    group = np.select([tiles["positive"] == 0, tiles["positive"] <= 0.1, tiles["positive"] > 0.1], [0, 1, 2], -1)
    found = np.unique(group[group >= 0])
    if len(found) < 2:
        with pytest.raises(BadInput, match="two or more groups"):
            sampling.weigh(tiles, shares=(0, 0.1))
        return
    weight = sampling.weigh(tiles, shares=(0, 0.1))["weight"].to_numpy()
    assert (weight[group < 0] == 0).all()
    assert weight[group >= 0].mean() == pytest.approx(1)
    totals = [weight[group == each].sum() for each in found]
    assert np.allclose(totals, totals[0])
    kept = sampling.balance(tiles, shares=(0, 0.1))["positive"]
    kept = np.select([kept == 0, kept <= 0.1], [0, 1], 2)
    assert np.unique(kept, return_counts=True)[1].tolist() == [np.bincount(group[group >= 0])[found].min()] * len(found)


def test_weights_by_cluster_leave_out_the_unknown():
    tiles = sampling.table(np.arange(4), np.zeros(4), 8).assign(cluster=np.array([3, 3, 7, 255], "uint8"))
    assert sampling.weigh(tiles, by="cluster")["weight"].tolist() == [0.75, 0.75, 1.5, 0]


def test_select_keeps_tiles_with_false_alarms():
    assert sampling.select(described(), min_false_alarm=0.5, max_positive=0)["false_alarm"].min() >= 0.5
