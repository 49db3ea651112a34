"""What follows from counts: curves, intervals, areas, and landslides as objects."""

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from scipy import stats
from scipy.optimize import linear_sum_assignment
from sklearn import metrics

from lsdask import evaluate, schema
from lsdask.errors import BadInput
from lsdask.evaluate import Counts

seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(2, 40), st.integers(2, 40))


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


def grid(shape):
    return GeoBox(shape, Affine(10, 0, 500000, 0, -10, 7400000), "EPSG:32723")


def image(data, dims=schema.MASK):
    return schema.wrap(data, grid(data.shape[-2:]), dims, name="image")


def pair(rng, shape, *, lazy=True):
    """Scores and a mask that have to do with each other, and pixels unknown in either."""
    mask = (rng.random(shape) < 0.3).astype("uint8")
    p = np.clip(0.5 * mask + 0.6 * rng.random(shape), 0, 1)
    p[rng.random(shape) < 0.1] = np.nan
    mask[rng.random(shape) < 0.1] = 255
    scores = schema.encode_scores_block(p, "uint8")
    if lazy:
        sides = tuple(int(rng.integers(1, n + 1)) for n in shape)
        return image(da.from_array(scores, chunks=sides)), image(da.from_array(mask, chunks=sides[::-1]))
    return image(scores), image(mask)


def test_an_experiment_reads_its_mask_once_and_counts_each_map():
    read = []

    def block(data):
        read.append(data.shape)
        return data

    rng = np.random.default_rng(0)
    maps = {name: pair(rng, (30, 30), lazy=False)[0].chunk(10) for name in ("unet", "fpn", "linknet")}
    truth = da.from_array(pair(rng, (30, 30), lazy=False)[1].values, chunks=10)
    mask = image(da.map_blocks(block, truth, meta=np.empty((0, 0), "uint8")))
    own = {"unet": 0.5, "fpn": 0.3, "linknet": 0.62}
    table = evaluate.compare(maps, mask, threshold=own)
    assert len(read) == 9
    assert list(table.index) == list(maps)
    for name, row in table.iterrows():
        counts = evaluate.count(maps[name], mask, threshold=own[name])
        assert Counts(*row[["tp", "fp", "fn", "tn"]].astype(int)) == counts
        assert row[list(evaluate.score(counts))].to_dict() == evaluate.score(counts)
        assert row["threshold"] == own[name]
    assert (evaluate.compare(maps, mask)["threshold"] == 0.5).all()
    with pytest.raises(BadInput, match=r"threshold must be given for every map. Got none for \['linknet'\]"):
        evaluate.compare(maps, mask, threshold={"unet": 0.5, "fpn": 0.3})


# --- curves -----------------------------------------------------------------------------------------------------------


@given(shapes, seeds)
@settings(max_examples=15)
def test_areas_under_curves_equal_scikit_learn(shape, seed):
    scores, mask = pair(np.random.default_rng(seed), shape)
    table = evaluate.sweep(scores, mask, thresholds=251)
    known = (scores.values != 255) & (mask.values != 255)
    y, p = mask.values[known], scores.values[known]
    if len(set(y.tolist())) < 2:
        assert np.isnan(evaluate.roc_auc(table))
        return
    assert evaluate.average_precision(table) == pytest.approx(metrics.average_precision_score(y, p), abs=1e-12)
    assert evaluate.roc_auc(table) == pytest.approx(metrics.roc_auc_score(y, p), abs=1e-12)


def test_without_landslides_there_is_no_curve_and_no_best_threshold():
    table = evaluate.sweep(image(np.full((4, 4), 99, "uint8")), image(np.zeros((4, 4), "uint8")))
    assert np.isnan(evaluate.average_precision(table))
    assert np.isnan(evaluate.roc_auc(table))
    with pytest.raises(BadInput, match="table must be of a region with landslides"):
        evaluate.best(table)


@given(shapes, seeds, st.sampled_from(["f1", "mcc", "iou"]))
@settings(max_examples=12)
def test_no_threshold_beats_the_best(shape, seed, by):
    scores, mask = pair(np.random.default_rng(seed), shape)
    mask.data[0, 0] = 1
    scores.data[0, 0] = 200
    table = evaluate.sweep(scores, mask)
    threshold = evaluate.best(table, by=by)
    top = evaluate.score(evaluate.count(scores, mask, threshold=threshold))[by]
    assert top == pytest.approx(table[by].max())
    assert (table.loc[table["threshold"] < threshold, by] < top).all()


def test_best_by_what_is_no_score_is_refused():
    table = evaluate.sweep(*pair(np.random.default_rng(0), (9, 9)))
    with pytest.raises(
        BadInput, match=r"by must be a score of the sweep, \['precision', .*'accuracy'\]. Got by='kappa'"
    ):
        evaluate.best(table, by="kappa")


@given(st.tuples(st.integers(20, 40), st.integers(20, 40)), seeds, st.sampled_from([1, 4, 10, 100]))
@settings(max_examples=15)
def test_reliability_is_the_share_of_landslides_among_pixels_of_a_score(shape, seed, bins):
    scores, mask = pair(np.random.default_rng(seed), shape)
    table = evaluate.reliability(evaluate.sweep(scores, mask, thresholds=251), bins=bins)
    known = (scores.values != 255) & (mask.values != 255)
    y, p = mask.values[known], scores.values[known] / 250
    which = np.minimum(scores.values[known].astype(int) * bins // 250, bins - 1)  # in integers, so that no edge slips
    assert table["pixels"].tolist() == np.bincount(which, minlength=bins).tolist()
    for i, row in table.iterrows():
        inside = which == i
        if not inside.any():
            assert np.isnan([row["score"], row["observed"]]).all()
            continue
        assert row["score"] == pytest.approx(p[inside].mean())
        assert row["observed"] == pytest.approx(y[inside].mean())


def test_reliability_needs_all_scores_and_bins():
    scores, mask = pair(np.random.default_rng(0), (9, 9))
    with pytest.raises(BadInput, match=r"table must be a sweep from threshold 0\. Got one from 0\.2"):
        evaluate.reliability(evaluate.sweep(scores, mask, thresholds=[0.2, 0.5]))
    with pytest.raises(BadInput, match="bins must be a positive whole number"):
        evaluate.reliability(evaluate.sweep(scores, mask), bins=0)


# --- trust ------------------------------------------------------------------------------------------------------------


@given(shapes, seeds, st.integers(1, 50))
@settings(max_examples=10)
def test_blocks_count_what_count_counts(shape, seed, size):
    rng = np.random.default_rng(seed)
    scores, mask = pair(rng, shape)
    valid = image(rng.random(shape) < 0.8)
    table = evaluate.blocks(scores, mask, size=size, valid=valid, threshold=0.3)
    for row in table.itertuples():
        window = (slice(row.y, row.y + size), slice(row.x, row.x + size))
        expected = evaluate.count(scores[window].compute(), mask[window].compute(), valid=valid[window], threshold=0.3)
        assert Counts(row.tp, row.fp, row.fn, row.tn) == expected
        assert row.y % size == row.x % size == 0
    whole = evaluate.count(scores, mask, valid=valid, threshold=0.3)
    assert Counts(*table[["tp", "fp", "fn", "tn"]].sum().tolist()) == whole
    assert (table[["tp", "fp", "fn", "tn"]].sum(axis=1) > 0).all()


def some_blocks(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(rng.integers(0, 90, (n, 4)), columns=["tp", "fp", "fn", "tn"])


def test_bootstrap_values_are_the_scores_and_lie_in_their_intervals():
    table = some_blocks()
    found = evaluate.bootstrap(table)
    scores = evaluate.score(Counts(*table.sum().tolist()))
    assert found["value"].to_dict() == pytest.approx(scores)
    assert list(found.index) == list(scores)
    assert ((found["low"] < found["value"]) & (found["value"] < found["high"])).all()
    assert found.equals(evaluate.bootstrap(table))
    assert not found.equals(evaluate.bootstrap(table, seed=1))
    narrow = evaluate.bootstrap(table, level=0.5)
    assert ((narrow["high"] - narrow["low"]) < 0.6 * (found["high"] - found["low"])).all()


def test_bootstrap_agrees_with_scipys():
    table = some_blocks(60, 3)

    def f1(*counts):
        tp, fp, fn, _ = (np.sum(c, axis=-1) for c in counts)
        return 2 * tp / (2 * tp + fp + fn)

    columns = [table[name].to_numpy() for name in ("tp", "fp", "fn", "tn")]
    theirs = stats.bootstrap(
        columns, f1, paired=True, method="percentile", n_resamples=4000, rng=np.random.default_rng(0)
    )
    ours = evaluate.bootstrap(table, n=4000).loc["f1"]
    assert (ours["low"], ours["high"]) == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)


def test_blocks_with_nothing_in_them_score_0_and_do_not_divide_by_it():
    empty = pd.DataFrame([[0, 0, 0, 5], [0, 0, 0, 7]], columns=["tp", "fp", "fn", "tn"])
    found = evaluate.bootstrap(empty)
    assert found.loc["f1"].tolist() == [0, 0, 0]
    assert found.loc["accuracy"].tolist() == [1, 1, 1]


def test_what_makes_no_interval_is_refused():
    with pytest.raises(BadInput, match=r"table must hold two or more blocks\. Got 1"):
        evaluate.bootstrap(some_blocks(1))
    for wrong in ({"n": 0}, {"level": 0}, {"level": 1}):
        with pytest.raises(BadInput, match="n and level must"):
            evaluate.bootstrap(some_blocks(), **wrong)
    with pytest.raises(BadInput, match="size must be a positive whole number"):
        evaluate.blocks(*pair(np.random.default_rng(0), (9, 9)), size=0)


def test_an_area_by_hand():
    found = evaluate.area(Counts(tp=90, fp=10, fn=5, tn=95), mapped=1000, total=10000, pixel_m2=2.0)
    share = 0.1 * 0.9 + 0.9 * 0.05
    error = np.sqrt(0.1**2 * 0.9 * 0.1 / 99 + 0.9**2 * 0.05 * 0.95 / 99)
    assert found["area_m2"] == pytest.approx(20000 * share)
    assert found["area_m2_high"] == pytest.approx(20000 * (share + 1.959964 * error))
    assert found["area_m2_low"] == pytest.approx(20000 * (share - 1.959964 * error))
    assert found["mapped_m2"] == 2000
    assert found["precision"] == pytest.approx(0.9)
    assert found["recall"] == pytest.approx(0.09 / 0.135)
    assert found["accuracy"] == pytest.approx(0.1 * 0.9 + 0.9 * 0.95)


def test_the_areas_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    mapped, total, precision, missed = 20_000, 200_000, 0.8, 0.03
    truth = mapped * precision + (total - mapped) * missed
    covered = 0
    for _ in range(600):
        tp, fn = rng.binomial(200, precision), rng.binomial(400, missed)
        found = evaluate.area(Counts(tp=tp, fp=200 - tp, fn=fn, tn=400 - fn), mapped=mapped, total=total)
        covered += found["area_m2_low"] <= truth <= found["area_m2_high"]
    assert 0.91 <= covered / 600 <= 0.98


def test_areas_of_maps_that_are_all_one_thing():
    none = evaluate.area(Counts(fn=1, tn=9), mapped=0, total=100)
    assert none["area_m2"] == pytest.approx(10)
    assert np.isnan(none["precision"])
    assert none["recall"] == 0
    assert evaluate.area(Counts(tp=9, fp=1), mapped=100, total=100)["area_m2"] == pytest.approx(90)
    assert evaluate.area(Counts(tp=2, tn=2), mapped=0, total=9)["area_m2_low"] == 0
    with pytest.raises(BadInput, match="sample must hold two or more pixels of each class"):
        evaluate.area(Counts(tp=9, tn=1), mapped=10, total=100)
    with pytest.raises(BadInput, match="mapped must be from 0 to total"):
        evaluate.area(Counts(tp=9, tn=9), mapped=101, total=100)


# --- landslides -------------------------------------------------------------------------------------------------------


def outlines(rng, n, span=400, largest=80):
    """Disjoint squares on a lattice, in metres from the image's upper left corner."""
    cells = rng.permutation((span // 100) ** 2)[:n]
    y, x = 100 * np.stack(np.divmod(cells, span // 100)) + rng.integers(1, 20, (2, len(cells)))
    size = rng.integers(15, largest, len(cells))
    x, y = x + 0.3, y + 0.3  # no edge runs through the centre of a pixel, where a digit decides
    boxes = shapely.box(500000 + x, 7400000 - y - size, 500000 + x + size, 7400000 - y)
    return gpd.GeoDataFrame({"name": [f"slide {i}" for i in range(len(boxes))]}, geometry=boxes, crs=32723)


@given(seeds, st.integers(0, 16))
@settings(max_examples=15)
def test_landslides_found_equal_a_loop_over_polygons(seed, n):
    rng = np.random.default_rng(seed)
    scores, _ = pair(rng, (40, 37))
    truth = outlines(rng, n)
    found = evaluate.landslides(scores, truth.to_crs(32723), threshold=0.4)
    values = scores.values
    for (_, row), outline in zip(found.iterrows(), truth.geometry):
        inside = rasterize([outline], (40, 37), transform=grid((40, 37)).transform).astype(bool) & (values != 255)
        assert row["pixels"] == inside.sum()
        if inside.any():
            assert row["found"] == pytest.approx((values[inside] >= 100).mean())
        else:
            assert np.isnan(row["found"])
        assert row["area_m2"] == pytest.approx(outline.area)
    assert list(found["name"]) == list(truth["name"])


def test_of_pixels_in_two_outlines_the_later_one_has_them():
    rng = np.random.default_rng(4)
    x, y, side = rng.integers(1, 200, 60) + 0.3, rng.integers(1, 200, 60) + 0.3, rng.integers(30, 150, 60)
    boxes = shapely.box(500000 + x, 7400000 - y - side, 500000 + x + side, 7400000 - y)
    truth = gpd.GeoDataFrame(geometry=boxes, crs=32723)
    found = evaluate.landslides(image(da.full((40, 40), 250, dtype="uint8", chunks=13)), truth)
    ids = rasterize(zip(boxes, range(1, 61)), (40, 40), transform=grid((40, 40)).transform)
    assert found["pixels"].tolist() == np.bincount(ids.ravel(), minlength=61)[1:].tolist()


def test_areas_are_square_metres_on_grids_in_degrees_too():
    degrees = GeoBox((40, 37), Affine(1e-4, 0, -46, 0, -1e-4, -23), "EPSG:4326")
    scores = schema.wrap(np.full((40, 37), 250, "uint8"), degrees, schema.MASK, name="scores", nodata=255)
    outline = shapely.box(-45.999, -23.003, -45.998, -23.001)
    found = evaluate.landslides(scores, gpd.GeoDataFrame(geometry=[outline], crs=4326))
    exact, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(outline.segmentize(1e-5))
    assert found["area_m2"].tolist() == pytest.approx([abs(exact)], rel=1e-6)


def test_landslides_are_found_in_valid_ground_only_and_elsewhere_nothing_is_read():
    read = []

    def block(data):
        read.append(data.shape)
        return data

    scores = image(
        da.map_blocks(block, da.full((40, 40), 250, dtype="uint8", chunks=10), meta=np.empty((0, 0), "uint8"))
    )
    truth = gpd.GeoDataFrame(geometry=[shapely.box(500020, 7399920, 500060, 7399980)], crs=32723)
    assert evaluate.landslides(scores, truth)["found"].tolist() == [1.0]
    assert read == [(10, 10)]
    west = image(np.arange(40)[None] < np.full((40, 1), 4))
    assert evaluate.landslides(scores, truth, valid=west)["pixels"].tolist() == [12]


def test_size_classes():
    found = pd.DataFrame(
        {
            "area_m2": [10.0, 999.0, 1000.0, 5000.0, 2e5, 50.0],
            "pixels": [1, 99, 100, 300, 1000, 0],
            "found": [1.0, 0.5, 0.49, 1.0, 0.0, np.nan],
        }
    )
    table = evaluate.by_size(found)
    assert table["landslides"].tolist() == [2, 2, 0, 1]
    assert table["detected"].tolist()[:2] == [1.0, 0.5]
    assert np.isnan(table["detected"].iloc[2])
    assert table["detected"].iloc[3] == 0
    assert table["recall"].tolist()[:2] == pytest.approx([50.5 / 100, 349 / 400])
    assert table["to_m2"].iloc[-1] == np.inf
    assert evaluate.by_size(found, edges_m2=[100], least=0.6)["detected"].tolist() == [1.0, 0.25]
    with pytest.raises(BadInput, match="edges_m2 must rise from above 0"):
        evaluate.by_size(found, edges_m2=[10, 10])


@given(seeds, st.integers(0, 12), st.integers(0, 12))
def test_matches_above_one_half_are_the_best_assignment(seed, n, m):
    """Above 0.5 a pair is unique, so greed and an optimal assignment agree."""
    rng = np.random.default_rng(seed)
    truth, mapped = outlines(rng, n), outlines(rng, m)
    moved = truth.sample(frac=0.6, random_state=seed % 1000)
    shifted = moved.geometry.translate(*rng.integers(-9, 10, 2)).tolist()
    mapped = gpd.GeoDataFrame(geometry=shifted if rng.random() < 0.7 else mapped.geometry.tolist(), crs=32723)
    result = evaluate.match(mapped, truth)
    iou = np.array([[a.intersection(b).area / a.union(b).area for b in truth.geometry] for a in mapped.geometry])
    iou = iou.reshape(len(mapped), len(truth))
    good = np.where(iou >= 0.5, iou, 0)
    rows, columns = linear_sum_assignment(-good)
    best = {(r, c) for r, c in zip(rows.tolist(), columns.tolist()) if good[r, c] > 0}
    assert set(zip(result.pairs["mapped"], result.pairs["truth"])) == best
    assert result.counts == Counts(tp=len(best), fp=len(mapped) - len(best), fn=len(truth) - len(best))
    assert result.pairs["iou"].tolist() == pytest.approx(
        [iou[r, c] for r, c in result.pairs[["mapped", "truth"]].to_numpy()]
    )
    assert result.pairs["iou"].is_monotonic_decreasing


def test_one_landslide_matches_once_and_the_best():
    def boxes(*sides):
        return gpd.GeoDataFrame(geometry=[shapely.box(x, 0, x + w, 10) for x, w in sides], crs=32723)

    truth, mapped = boxes((0, 10)), boxes((4, 10), (1, 10), (50, 5))
    result = evaluate.match(mapped, truth, min_iou=0.1)
    assert result.pairs[["mapped", "truth"]].to_numpy().tolist() == [[1, 0]]
    assert result.counts == Counts(tp=1, fp=2)
    degrees = evaluate.match(mapped.to_crs(4326), truth, min_iou=0.1)
    assert degrees.pairs["iou"].tolist() == pytest.approx(result.pairs["iou"].tolist(), abs=1e-3)
    assert evaluate.match(mapped, truth, min_iou=0.9).counts == Counts(fp=3, fn=1)
    assert evaluate.match(boxes((0, 5)), truth).pairs["iou"].tolist() == [0.5]  # the least that matches, included
    with pytest.raises(BadInput, match="min_iou must be above 0"):
        evaluate.match(mapped, truth, min_iou=0)
    with pytest.raises(BadInput, match="truth must have a CRS"):
        evaluate.match(mapped, truth.set_crs(None, allow_override=True))


@given(shapes, seeds, st.sampled_from([0, 1, 1.5, 2, 5]))
def test_near_scores_equal_distances_by_hand(shape, seed, pixels):
    rng = np.random.default_rng(seed)
    scores, mask = pair(rng, shape)
    mask = image(np.where(rng.random(shape) < 0.7, 0, mask.values).astype("uint8"))
    known = (scores.values != 255) & (mask.values != 255)
    mapped, true = known & (scores.values >= 175), known & (mask.values == 1)

    def share(some, others):
        a, b = np.argwhere(some), np.argwhere(others)
        if not len(a):
            return 0.0
        if not len(b):
            return 0.0
        return (np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1)).min(axis=1) <= pixels).mean()

    found = evaluate.near(scores, mask, pixels=pixels, threshold=0.7)
    p, r = share(mapped, true), share(true, mapped)
    assert found["precision"] == pytest.approx(p)
    assert found["recall"] == pytest.approx(r)
    assert found["f1"] == pytest.approx(2 * p * r / (p + r) if p + r else 0.0)


def test_near_scores_are_the_plain_ones_at_0_and_cross_tiles():
    rng = np.random.default_rng(5)
    scores, mask = pair(rng, (40, 40))
    plain = evaluate.score(evaluate.count(scores, mask))
    near = evaluate.near(scores, mask, pixels=0)
    assert near == pytest.approx({name: plain[name] for name in near})
    wide = np.zeros((4, 4100), "uint8")
    truth = wide.copy()
    wide[1, 2049], truth[1, 2046] = 250, 1
    assert evaluate.near(image(wide), image(truth), pixels=3)["f1"] == 1
    assert evaluate.near(image(wide), image(truth), pixels=2.9)["f1"] == 0
    with pytest.raises(BadInput, match="pixels must be 0 or more"):
        evaluate.near(scores, mask, pixels=-1)
