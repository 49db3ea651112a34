"""Areas against the worked example of the paper, scores by region, whole experiments, agreement as a store."""

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from lsdask import evaluate, mosaic, schema, store
from lsdask.errors import BadInput
from lsdask.evaluate import Counts

FOUR = ["deforestation", "forest gain", "stable forest", "stable non-forest"]
OLOFSSON = pd.DataFrame([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]], index=FOUR, columns=FOUR)
"""Table 8 of Olofsson et al. 2014: what 640 pixels of a map of forest change were found to be."""
PIXELS = dict(zip(FOUR, [200_000, 150_000, 3_200_000, 6_450_000]))
COUNTS = ["tp", "fp", "fn", "tn"]


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


def grid(shape):
    return GeoBox(shape, Affine(10, 0, 500000, 0, -10, 7400000), "EPSG:32723")


def image(data, dims=schema.MASK):
    return schema.wrap(data, grid(data.shape[-2:]), dims, name="image")


def pair(rng, shape, chunks=None):
    """Scores and a mask that have to do with each other, and pixels unknown in either."""
    mask = (rng.random(shape) < 0.3).astype("uint8")
    p = np.clip(0.5 * mask + 0.6 * rng.random(shape), 0, 1)
    p[rng.random(shape) < 0.1] = np.nan
    mask[rng.random(shape) < 0.1] = 255
    scores = schema.encode_scores_block(p, "uint8")
    given = (scores, mask) if chunks is None else (da.from_array(scores, chunks), da.from_array(mask, chunks[::-1]))
    return image(given[0]), image(given[1])


# --- areas ------------------------------------------------------------------------------------------------------------


def test_the_worked_example_of_the_paper_comes_out():
    """Section 5 of Olofsson et al. 2014: pixels of 30 m, 95 % intervals, as printed there."""
    found = evaluate.areas(OLOFSSON, mapped=PIXELS, pixel_m2=900)
    table = found.classes
    hectares = table[["area_m2", "area_m2_low", "area_m2_high"]] / 1e4
    assert hectares["area_m2"].round().tolist() == [21_158, 11_686, 285_770, 581_386]
    half = (hectares["area_m2_high"] - hectares["area_m2"]).to_numpy()
    np.testing.assert_allclose(half, [6_158, 3_756, 15_510, 16_282], rtol=2e-4)
    np.testing.assert_allclose((hectares["area_m2"] - hectares["area_m2_low"]).to_numpy(), half)
    assert table["precision"].round(2).tolist() == [0.88, 0.73, 0.93, 0.96]
    assert (table["precision_high"] - table["precision"]).round(2).tolist() == [0.07, 0.10, 0.04, 0.02]
    assert table["recall"].round(2).tolist() == [0.75, 0.85, 0.93, 0.96]
    assert (table["recall"] - table["recall_low"]).round(2)[["deforestation", "stable forest"]].tolist() == [0.21, 0.03]
    accuracy, low, high = found.accuracy
    assert (round(accuracy, 2), round(high - accuracy, 2), round(accuracy - low, 2)) == (0.95, 0.02, 0.02)
    assert table["mapped_m2"].tolist() == [900 * n for n in PIXELS.values()]


def test_intervals_are_as_wide_as_samples_differ():
    """Draw the sample of the paper again and again: the spread of what is estimated is the standard error."""
    rng = np.random.default_rng(0)
    share = OLOFSSON.to_numpy() / OLOFSSON.sum(axis=1).to_numpy()[:, None]
    drawn = []
    for _ in range(400):
        rows = [rng.multinomial(n, p) for n, p in zip(OLOFSSON.sum(axis=1), share)]
        drawn.append(evaluate.areas(pd.DataFrame(rows, index=FOUR, columns=FOUR), mapped=PIXELS).classes)
    found = evaluate.areas(OLOFSSON, mapped=PIXELS).classes
    for name in ("area_m2", "precision"):
        spread = np.std([one[name] for one in drawn], axis=0)
        np.testing.assert_allclose((found[name] - found[f"{name}_low"]) / 1.96, spread, rtol=0.12)
    spread = np.std([one["recall"] for one in drawn], axis=0)[[0, 2, 3]]  # of gain one missed pixel decides
    np.testing.assert_allclose(((found["recall"] - found["recall_low"]) / 1.96).iloc[[0, 2, 3]], spread, rtol=0.2)


def test_a_class_of_no_pixels_has_no_precision_and_nothing_has_no_recall():
    names = ["slide", "scree", "rest"]
    sample = pd.DataFrame([[8, 0, 2], [0, 0, 0], [1, 0, 9]], index=names, columns=names)
    found = evaluate.areas(sample, mapped={"slide": 100, "scree": 0, "rest": 900}).classes
    assert found.loc["slide", "area_m2"] == pytest.approx(100 * 0.8 + 900 * 0.1)
    assert np.isnan(found.loc["scree", ["precision", "recall"]]).all()
    assert found.loc["scree", "area_m2"] == 0


def test_what_makes_no_estimate_is_refused():
    with pytest.raises(BadInput, match="sample must have one row and one column for each class"):
        evaluate.areas(OLOFSSON, mapped={"deforestation": 5})
    with pytest.raises(BadInput, match="sample must have one row and one column for each class"):
        evaluate.areas(OLOFSSON.iloc[:, :3], mapped=PIXELS)
    few = OLOFSSON.copy()
    few.loc["forest gain"] = [0, 1, 0, 0]
    with pytest.raises(BadInput, match=r"sample must hold two or more pixels of each class .*Got \[75, 1, 165, 325\]"):
        evaluate.areas(few, mapped=PIXELS)
    with pytest.raises(BadInput, match="level must be between 0 and 1"):
        evaluate.areas(OLOFSSON, mapped=PIXELS, level=1)


# --- regions ----------------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    chunks=st.tuples(st.integers(3, 40), st.integers(3, 40)),
    size=st.integers(1, 25),
    n=st.integers(0, 5),
)
@settings(max_examples=20)
def test_regions_count_what_count_counts_in_them(seed, shape, chunks, size, n):
    rng = np.random.default_rng(seed)
    scores, mask = pair(rng, shape, chunks)
    x, y = 500_000.3 + 10 * rng.integers(-5, 40, n), 7_400_000.3 - 10 * rng.integers(-5, 40, n)
    boxes = shapely.box(x, y, x + 10 * rng.integers(3, 30, n), y - 10 * rng.integers(3, 30, n))
    names = [f"basin {i}" for i in range(n)]
    frame = gpd.GeoDataFrame(geometry=np.asarray(boxes, dtype=object).reshape(-1), index=names, crs=32723)
    ids = np.zeros(shape, int)
    if n:
        ids = rasterize(zip(frame.geometry, range(1, n + 1)), shape, transform=grid(shape).transform, dtype="int32")
    table = evaluate.regions(scores, mask, frame, size=size, threshold=0.4)
    known = (scores.values != 255) & (mask.values != 255)
    positive, truth = scores.values >= 100, mask.values == 1
    kinds = [positive & truth, positive & ~truth, ~positive & truth, ~positive & ~truth]
    for row in table.itertuples():
        inside = (ids == names.index(row.region) + 1) & known
        window = (slice(row.y, row.y + size), slice(row.x, row.x + size))
        assert [row.tp, row.fp, row.fn, row.tn] == [(inside & kind)[window].sum() for kind in kinds]
        assert row.y % size == row.x % size == 0
    assert table[COUNTS].to_numpy().sum() == ((ids > 0) & known).sum()
    assert set(table["region"]) <= set(names)
    assert (table[COUNTS].sum(axis=1) > 0).all()
    assert not table.duplicated(["region", "y", "x"]).any()


def test_regions_cross_the_chunks_that_are_counted_at_once():
    scores = image(da.full((64, 4200), 250, dtype="uint8", chunks=512))
    mask = image(da.ones((64, 4200), dtype="uint8", chunks=700))
    everywhere = gpd.GeoDataFrame(geometry=[shapely.box(5e5, 7.3e6, 6e5, 7.4e6)], crs=32723)
    table = evaluate.regions(scores, mask, everywhere, size=100)
    assert table["tp"].sum() == 64 * 4200
    assert table["x"].tolist() == list(range(0, 4200, 100))


def test_a_region_has_the_scores_and_intervals_of_its_blocks():
    rng = np.random.default_rng(0)
    counts = pd.DataFrame(rng.integers(1, 90, (30, 4)), columns=COUNTS)
    table = counts.assign(region=["north"] * 12 + ["south"] * 17 + ["islet"])
    found = evaluate.by_region(table, n=500, seed=3)
    assert found["blocks"].to_dict() == {"north": 12, "south": 17, "islet": 1}
    for region in ("north", "south"):
        part = table[table["region"] == region]
        expected = evaluate.bootstrap(part, n=500, seed=3)
        assert found.loc[region, ["f1", "f1_low", "f1_high"]].tolist() == expected.loc["f1"].tolist()
        assert found.loc[region, COUNTS].tolist() == part[COUNTS].sum().tolist()
    assert found.loc["islet", "f1"] == evaluate.score(Counts(*counts.iloc[-1].tolist()))["f1"]
    assert found.loc["islet", ["f1_low", "mcc_high"]].isna().all()


def test_regions_need_a_crs_and_blocks_a_size():
    scores, mask = pair(np.random.default_rng(0), (9, 9))
    box = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)])
    with pytest.raises(BadInput, match="polygons must have a CRS"):
        evaluate.regions(scores, mask, box, size=3)
    with pytest.raises(BadInput, match="size must be a positive whole number"):
        evaluate.regions(scores, mask, box.set_crs(32723), size=0)


# --- experiments ------------------------------------------------------------------------------------------------------


def test_an_experiment_is_its_maps_one_by_one_also_where_thresholds_are_chosen():
    read = []
    rng = np.random.default_rng(0)
    maps = {name: pair(rng, (30, 30), (10, 10))[0] for name in ("unet", "fpn", "linknet")}
    truth = da.from_array(pair(rng, (30, 30))[1].values, chunks=10)
    mask = image(da.map_blocks(lambda part: read.append(1) or part, truth, meta=np.empty((0, 0), "uint8")))
    east = image(np.arange(30)[None] >= np.full((30, 1), 18))
    table = evaluate.compare(maps, mask, choose=~east, valid=east, by="mcc")
    assert len(read) == 9
    for name, row in table.iterrows():
        chosen = evaluate.best(evaluate.sweep(maps[name], mask, thresholds=251, valid=~east), by="mcc")
        sweep = evaluate.sweep(maps[name], mask, thresholds=251, valid=east)
        counts = evaluate.count(maps[name], mask, threshold=chosen, valid=east)
        assert row["threshold"] == chosen
        assert Counts(*row[COUNTS].astype(int)) == counts
        assert row["mcc"] == evaluate.score(counts)["mcc"]
        assert row["average_precision"] == evaluate.average_precision(sweep)
        assert row["roc_auc"] == evaluate.roc_auc(sweep)
    assert table["threshold"].nunique() > 1
    odd = evaluate.compare(maps, mask, threshold=0.1234)
    assert Counts(*odd.loc["fpn", COUNTS].astype(int)) == evaluate.count(maps["fpn"], mask, threshold=0.1234)
    with pytest.raises(BadInput, match="table must be of a region with landslides"):
        evaluate.compare(maps, mask, choose=image(np.zeros((30, 30), bool)))


# --- agreement as a store ---------------------------------------------------------------------------------------------


def test_agreement_becomes_a_store_that_says_what_its_codes_mean(tmp_path):
    scores, mask = pair(np.random.default_rng(1), (70, 90), (32, 32))
    lazy = evaluate.agreement(scores, mask, threshold=0.4)
    report = mosaic.write(lazy, tmp_path / "agreement.zarr", chunk=32, shard=32, progress=False)
    assert (report.done, report.failed) == (9, ())
    stored = store.open(tmp_path / "agreement.zarr")
    np.testing.assert_array_equal(stored.values, lazy.values)
    assert stored.attrs["flag_meanings"].split()[evaluate.TP] == "true_positive"
    assert stored.attrs["_FillValue"] == 255
    assert mosaic.write(lazy, tmp_path / "agreement.zarr", chunk=32, shard=32, progress=False).skipped == 9
