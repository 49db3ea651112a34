"""K-means against scikit-learn and plain numpy: fair, the same for any chunks and workers, and read once."""

import importlib.util
import json
import os
import signal
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from sklearn.cluster import KMeans
from sklearn.metrics import davies_bouldin_score

from lsdask import kmeans, ledger, scenes, schema, store
from lsdask.errors import BadInput, NotFound, OtherPlan, Unreadable
from lsdask.mosaic import composite

KS = [2, 4, 7]


def landscape(shape=(120, 150), *, bands=4, classes=6, seed=0, dtype="uint16", void=0.2, ordered=False):
    """A mosaic of normal clusters with void; spatially sorted (the worst case for mini-batches) if ``ordered``."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, classes, shape)
    if ordered:
        kinds = np.sort(kinds.ravel()).reshape(shape)
    means, spread = rng.uniform(150, 850, (classes, bands)), rng.uniform(15, 60, classes)
    values = means[kinds].transpose(2, 0, 1) + rng.normal(0, 1, (bands, *shape)) * spread[kinds]
    values = np.clip(np.rint(values), 1, 1023) if np.dtype(dtype).kind in "iu" else values
    values[rng.integers(0, bands), rng.random(shape) < void] = 0 if np.dtype(dtype).kind in "iu" else np.nan
    return wrap(values.astype(dtype))


def wrap(values, nodata=0):
    grid = GeoBox.from_bbox((0, 0, values.shape[2] * 8, values.shape[1] * 8), "EPSG:32723", resolution=8)
    bands = [f"b{i}" for i in range(len(values))]
    return schema.wrap(values, grid, schema.MOSAIC, name="mosaic", coords={"band": bands}, nodata=nodata)


def valid_rows(mosaic):
    flat = mosaic.values.reshape(mosaic.sizes["band"], -1).T
    missing = np.isnan(flat) if flat.dtype.kind == "f" else flat == mosaic.attrs["_FillValue"]
    return flat[~missing.any(axis=1)]


def centers_of(blocks, bands, scale=None):
    ks = [len(block) for block in blocks]
    values = np.full((len(ks), max(ks), len(bands)), np.nan)
    for i, block in enumerate(blocks):
        values[i, : len(block)] = block
    coords = {"k": ks, "cluster": np.arange(max(ks)), "band": list(bands)}
    if scale is not None:
        coords["scale"] = ("band", scale)
    return xr.DataArray(values, dims=kmeans.CENTERS, coords=coords)


def counted(values):
    """The mosaic's array in 30-pixel chunks, and the list of chunks that were read."""
    reads = []

    def load(block, block_info=None):
        reads.append(block_info[0]["chunk-location"])
        return block

    data = da.from_array(values, chunks=(-1, 30, 30), name=False)
    return data.map_blocks(load, dtype=values.dtype, meta=np.empty((0, 0, 0), values.dtype)), reads


# Sampling


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 30_000),
    chunks=st.tuples(st.integers(1, 4), st.integers(13, 120), st.integers(17, 150)),
    dtype=st.sampled_from(["uint16", "float32"]),
)
def test_sample_is_the_same_for_any_chunks(seed, n, chunks, dtype):
    mosaic = landscape(seed=seed, dtype=dtype, void=0.5)
    whole = kmeans.sample(mosaic, n, seed).compute()
    with dask.config.set(scheduler="synchronous"):
        chunked = kmeans.sample(mosaic.chunk(dict(zip(mosaic.dims, chunks))), n, seed).compute()
    np.testing.assert_array_equal(whole, chunked)
    assert whole.dtype == mosaic.dtype
    valid = {row.tobytes() for row in valid_rows(mosaic)}
    assert len(whole) == min(n, len(valid_rows(mosaic)))
    assert all(row.tobytes() in valid for row in whole)


def numbered(shape, void):
    """A mosaic whose pixels hold their own row and column, from 1."""
    rows, columns = np.indices(shape, dtype="uint16") + 1
    return wrap(np.where(void, 0, np.stack([rows, columns])).astype("uint16"))


def test_sample_is_fair_over_valid_pixels_and_without_replacement():
    void = np.zeros((400, 300), dtype=bool)
    void[:200, :150] = np.random.default_rng(1).random((200, 150)) < 0.9
    mosaic = numbered(void.shape, void).chunk(y=100, x=60)
    rows = kmeans.sample(mosaic, 20_000, 3).compute().astype(int) - 1
    assert len(np.unique(rows, axis=0)) == 20_000
    share = 20_000 / (~void).sum()
    for y, x in np.ndindex(4, 3):
        part = (rows[:, 0] // 100 == y) & (rows[:, 1] // 100 == x)
        expected = share * (~void[y * 100 : y * 100 + 100, x * 100 : x * 100 + 100]).sum()
        assert abs(part.sum() - expected) < 5 * np.sqrt(expected)
    # Any part of the order is fair too: the rows are shuffled.
    half = rows[:10_000]
    assert abs((half[:, 0] < 200).mean() - (rows[:, 0] < 200).mean()) < 0.02
    assert abs(np.corrcoef(np.arange(20_000), rows[:, 0])[0, 1]) < 0.04
    other = kmeans.sample(mosaic, 20_000, 4).compute().astype(int) - 1
    both = len(np.unique(np.concatenate([rows, other]), axis=0))
    assert abs(both - 20_000 * (2 - share)) < 500


def test_sample_reads_once_and_twice_only_in_a_nearly_void_mosaic(monkeypatch):
    mosaic = landscape()
    data, reads = counted(mosaic.values)
    rows = kmeans.sample(mosaic.copy(data=data), 500, 0)
    assert len(reads) == len(set(reads)) == 20
    assert rows.numblocks == (1, 1)
    expected = rows.compute()
    reads.clear()
    monkeypatch.setattr(kmeans.drawing, "_EXPECTED_VOID", 0.1)
    np.testing.assert_array_equal(kmeans.sample(mosaic.copy(data=data), 500, 0), expected)
    assert len(reads) == 40


def test_sample_comes_in_blocks():
    mosaic = landscape((500, 400), void=0)
    assert kmeans.sample(mosaic, 150_000, 0).chunks[0] == (65_536, 65_536, 18_928)


def test_a_sample_larger_than_the_mosaic_takes_all_and_says_so():
    mosaic = landscape()
    rows = kmeans.sample(mosaic, 10**6, 0).compute()
    expected = valid_rows(mosaic)
    np.testing.assert_array_equal(
        np.sort(rows.view("u2,u2,u2,u2").ravel()), np.sort(expected.copy().view("u2,u2,u2,u2").ravel())
    )
    centers = kmeans.fit(mosaic, 3)
    assert centers.attrs["n_samples"] == centers.attrs["n_valid"] == len(expected)
    assert centers.attrs["counted"] == "all valid pixels"
    assert int(centers["size"].sum()) == len(expected)


# Labels


@given(
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(["uint16", "float32", "float64"]),
    bands=st.integers(1, 6),
    ks=st.lists(st.integers(1, 20), min_size=1, max_size=3, unique=True),
    chunks=st.tuples(st.integers(9, 40), st.integers(7, 50)),
    scaled=st.booleans(),
)
def test_labels_are_the_nearest_centres(seed, dtype, bands, ks, chunks, scaled):
    rng = np.random.default_rng(seed)
    mosaic = landscape((40, 50), bands=bands, seed=seed, dtype=dtype, void=0.1)
    scale = rng.uniform(0.5, 40, bands) if scaled else np.ones(bands)
    blocks = [rng.uniform(100, 900, (k, bands)) for k in ks]
    centers = centers_of(blocks, schema.bands(mosaic), scale)
    labels = kmeans.assign(mosaic.chunk(y=chunks[0], x=chunks[1]), centers)
    assert labels.dims == ("k", "y", "x")
    assert labels.dtype == np.uint8
    valid = schema.valid(mosaic).values
    rows = np.moveaxis(mosaic.values, 0, -1)[valid].astype("float64")
    found = labels.compute(scheduler="synchronous")
    assert (found.values[:, ~valid] == 255).all()
    for i, block in enumerate(blocks):
        distance = (((rows[:, None] - block[None]) / scale) ** 2).sum(axis=2)
        np.testing.assert_array_equal(found.values[i][valid], distance.argmin(axis=1))


def test_labels_agree_with_sklearn():
    mosaic = landscape((200, 200), void=0)
    rows = valid_rows(mosaic).astype("float64")
    model = KMeans(8, n_init=1, random_state=0).fit(rows)
    labels = kmeans.assign(mosaic, centers_of([model.cluster_centers_], schema.bands(mosaic)))
    np.testing.assert_array_equal(labels.values[0].ravel(), model.predict(rows))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_ties_go_to_the_lowest_cluster(dtype):
    values = np.array([[[3, 5, 4, 60000]], [[7, 7, 7, 7]]], dtype=dtype)
    centers = centers_of([np.array([[5, 7.0], [3, 7], [5, 7]])], ["b0", "b1"])
    assert kmeans.assign(wrap(values), centers).values.tolist() == [[[1, 0, 0, 0]]]


def test_near_ties_far_from_the_origin_are_decided_in_float64():
    rng = np.random.default_rng(5)
    values = rng.integers(64000, 65536, (4, 50, 60)).astype("uint16")
    blocks = [np.concatenate([[[0.0, 0, 0, 0]], rng.uniform(64765, 64770, (5, 4))])]  # the first moves the origin
    labels = kmeans.assign(wrap(values), centers_of(blocks, ["b0", "b1", "b2", "b3"]))
    rows = values.reshape(4, -1).T.astype("float64")
    distance = ((rows[:, None] - blocks[0]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(labels.values.ravel(), distance.argmin(axis=1))


def test_infinite_and_huge_pixels_do_not_break_labels():
    values = np.array([[[1.0, np.inf, -np.inf, np.nan, 1e30, -3e38]]], dtype="float32")
    centers = centers_of([np.array([[0.0], [5.0]])], ["b0"])
    assert kmeans.assign(wrap(values), centers).values.tolist() == [[[0, 255, 255, 255, 1, 0]]]


def test_labelling_reads_once_for_all_k():
    mosaic = landscape()
    data, reads = counted(mosaic.values)
    centers = kmeans.fit(mosaic, KS)
    labels = kmeans.assign(mosaic.copy(data=data), centers)
    assert not reads
    labels.compute(scheduler="synchronous")
    assert len(reads) == len(set(reads)) == 20


# Centres


@pytest.mark.parametrize("ordered", [False, True])
def test_fit_is_as_good_as_full_kmeans(ordered):
    mosaic = landscape((300, 300), classes=9, ordered=ordered)
    centers = kmeans.fit(mosaic.chunk(y=64, x=64), KS, n_samples=30_000)
    labels = kmeans.assign(mosaic, centers).values
    rows = valid_rows(mosaic).astype("float64")
    for i, k in enumerate(KS):
        known = labels[i][labels[i] != 255]
        mine = ((rows - centers.values[i][known]) ** 2).sum()
        best = KMeans(k, n_init=3, random_state=0).fit(rows).inertia_
        assert mine <= 1.01 * best, k
        assert np.isnan(centers.values[i, k:]).all()
        assert np.isfinite(centers.values[i, :k]).all()


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("standardise", [False, True])
def test_refine_is_full_kmeans_from_the_same_start(dtype, standardise):
    mosaic = landscape((150, 160), dtype=dtype)
    mosaic = mosaic.copy(data=(mosaic.values * np.array([1, 1, 3, 1])[:, None, None]).astype(dtype))
    start = kmeans.fit(mosaic, KS, n_samples=300, standardise=standardise)
    centers = kmeans.fit(mosaic.chunk(y=50, x=70), KS, n_samples=300, standardise=standardise, refine=3)
    scale = start["scale"].values
    rows = valid_rows(mosaic).astype("float64") / scale
    for i, k in enumerate(KS):
        first = start.values[i, :k] / scale
        model = KMeans(k, init=first, n_init=1, max_iter=3, tol=0).fit(rows)
        expected = model.cluster_centers_[np.argsort(model.cluster_centers_.mean(axis=1))] * scale
        np.testing.assert_allclose(centers.values[i, :k], expected, rtol=1e-6)
        labels = ((rows[:, None] - centers.values[i, :k] / scale) ** 2).sum(axis=2)
        assert float(centers["inertia"][i]) == pytest.approx(labels.min(axis=1).sum(), rel=1e-10)
        np.testing.assert_array_equal(centers["size"].values[i, :k], np.bincount(labels.argmin(axis=1), minlength=k))
    assert centers.attrs["counted"] == "all valid pixels"


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_same_bits_for_any_chunks_and_workers(dtype):
    mosaic = landscape(dtype=dtype)
    whole = kmeans.fit(mosaic, KS, n_samples=5000, refine=2)
    for chunks, workers in (((40, 150), 1), ((120, 33), 2), ((51, 47), 4)):
        with dask.config.set(scheduler="threads", num_workers=workers):
            image = mosaic.chunk(y=chunks[0], x=chunks[1], band=2)
            centers = kmeans.fit(image, KS, n_samples=5000, refine=2)
            labels = kmeans.assign(image, centers).compute()
        assert centers.identical(whole)
        np.testing.assert_array_equal(labels, kmeans.assign(mosaic, whole))


def test_fit_reads_once_and_refine_once_a_step():
    mosaic = landscape()
    data, reads = counted(mosaic.values)
    kmeans.fit(mosaic.copy(data=data), KS)
    assert len(reads) == 20
    reads.clear()
    kmeans.fit(mosaic.copy(data=data), KS, refine=2)
    assert len(reads) == 20 * (1 + 2 + 1)


def test_clusters_are_ordered_from_dark_to_bright():
    centers = kmeans.fit(landscape(), KS)
    for i, k in enumerate(KS):
        assert (np.diff(centers.values[i, :k].mean(axis=1)) > 0).all()


def test_a_cluster_without_pixels_moves_far_away_and_not_to_the_origin():
    values = np.full((2, 20, 20), 500, dtype="uint16")
    values[:, 0, 0], values[:, 0, 1], values[:, 0, 2] = 1000, 520, 900
    sampled = kmeans.lloyd.Sampled(values.reshape(2, -1), np.ones(2))
    start = [np.array([[500.0, 500], [10_000, 10_000], [20_000, 20_000]])]
    moved = kmeans.lloyd.move(sampled.totals(start), start, sampled)[0]
    assert moved[1:].tolist() == [[1000, 1000], [900, 900]]
    centers = kmeans.fit(wrap(values), 4).values[0]
    assert centers.tolist() == [[500, 500], [520, 520], [900, 900], [1000, 1000]]


def test_standardised_bands_count_alike():
    rng = np.random.default_rng(2)
    kinds = rng.integers(0, 2, (60, 60))
    values = np.stack([rng.normal(0, 3000, (60, 60)), kinds + rng.normal(0, 0.05, (60, 60))]).astype("float32")
    mosaic = wrap(values)
    labels = kmeans.assign(mosaic, kmeans.fit(mosaic, 2)).values[0]
    assert 0.3 < (labels == kinds).mean() < 0.7
    centers = kmeans.fit(mosaic, 2, standardise=True)
    assert centers.attrs["standardised"] is True
    np.testing.assert_allclose(centers["scale"], values.reshape(2, -1).astype("f8").std(axis=1), rtol=1e-12)
    labels = kmeans.assign(mosaic, centers).values[0]
    assert max((labels == kinds).mean(), (labels != kinds).mean()) > 0.95


# Choosing k


def test_describe_agrees_with_sklearn_and_the_plain_formula():
    mosaic = landscape((60, 70))
    rows = valid_rows(mosaic).astype("float64")
    centers = kmeans.fit(mosaic, [1, 3, 6], refine=60)
    table = kmeans.describe(mosaic, centers)
    assert table.index.tolist() == [1, 3, 6]
    assert table.loc[1, ["silhouette", "davies_bouldin"]].isna().all()
    for i, k in ((1, 3), (2, 6)):
        distance = np.sqrt(((rows[:, None] - centers.values[i, :k]) ** 2).sum(axis=2))
        labels = distance.argmin(axis=1)
        nearest = np.sort(distance, axis=1)
        silhouette = ((nearest[:, 1] - nearest[:, 0]) / nearest[:, 1]).mean()
        assert table.loc[k, "silhouette"] == pytest.approx(silhouette, rel=1e-12)
        assert table.loc[k, "davies_bouldin"] == pytest.approx(davies_bouldin_score(rows, labels), rel=1e-3)
        assert table.loc[k, "distance2"] == pytest.approx(float(centers["inertia"][i]) / len(rows), rel=1e-9)
        assert table.loc[k, "smallest"] == centers["size"].values[i, :k].min() / len(rows)
    part = kmeans.describe(kmeans.sample(mosaic, 1000, 1), centers)
    pd.testing.assert_frame_equal(part, kmeans.describe(mosaic, centers, n_samples=1000, seed=1))
    with pytest.raises(BadInput, match="pixels must have shape"):
        kmeans.describe(rows[:, :3], centers)
    with pytest.raises(BadInput, match="centers must have the bands of mosaic"):
        kmeans.describe(mosaic.isel(band=[0, 1]), centers)


def test_describe_finds_the_number_of_well_separated_clusters():
    kinds = np.random.default_rng(0).integers(0, 4, (50, 60))
    values = (np.array([[100, 100], [100, 900], [900, 100], [900, 900]])[kinds]).transpose(2, 0, 1)
    mosaic = wrap((values + np.random.default_rng(1).normal(0, 20, values.shape)).astype("uint16"))
    table = kmeans.describe(mosaic, kmeans.fit(mosaic, [2, 3, 4, 5, 6]))
    assert table["silhouette"].idxmax() == 4
    assert table["davies_bouldin"].idxmin() == 4


# Bad input


def test_bad_input_is_named():
    mosaic = landscape()
    with pytest.raises(BadInput, match="mosaic must have pixels with data in every band"):
        kmeans.fit(mosaic.copy(data=np.zeros_like(mosaic.values)), 3)
    few = mosaic.copy(data=np.where(mosaic.values > 500, 5, 9).astype("uint16"))
    few.values[1:] = 3
    with pytest.raises(BadInput, match="n_clusters must be at most the distinct pixels of the sample, 2"):
        kmeans.fit(few, [2, 3])
    with pytest.raises(BadInput, match="n_clusters must lie from 1 to 254"):
        kmeans.fit(mosaic, [2, 255])
    with pytest.raises(BadInput, match="different numbers"):
        kmeans.fit(mosaic, [2, 2])
    with pytest.raises(BadInput, match="refine must be 0"):
        kmeans.fit(mosaic, 2, refine=-1)
    with pytest.raises(BadInput, match="n_samples must be at least 1"):
        kmeans.fit(mosaic, 2, n_samples=0)
    with pytest.raises(BadInput, match="transpose"):
        kmeans.fit(mosaic.transpose("y", "x", "band"), 2)


def test_nan_is_void_and_infinity_is_an_error():
    mosaic = landscape(dtype="float32")
    kmeans.fit(mosaic, 2)
    broken = mosaic.copy(deep=True)
    place = np.argwhere(schema.valid(mosaic).values)[0]
    broken.values[1, *place] = np.inf
    with pytest.raises(BadInput, match=r"hold finite values. Got 1 infinite pixels. Make them NaN"):
        kmeans.fit(broken, 2)


def test_centres_of_other_bands_are_refused():
    mosaic = landscape()
    centers = kmeans.fit(mosaic, 3)
    with pytest.raises(BadInput, match="centers must have the bands of mosaic"):
        kmeans.assign(mosaic.isel(band=[1, 0, 2, 3]), centers)
    with pytest.raises(BadInput, match=r"'b0', 'b1', 'b2'\)"):
        kmeans.write(mosaic.isel(band=slice(0, 3)), centers, "nowhere.zarr")
    with pytest.raises(BadInput, match="hold 3 finite centres"):
        kmeans.assign(mosaic, centers * np.nan)


# Files


def test_centres_survive_a_file(tmp_path):
    mosaic = landscape()
    centers = kmeans.fit(mosaic, KS, standardise=True, refine=1)
    kmeans.save(centers, tmp_path / "centers.json")
    assert kmeans.open(tmp_path / "centers.json").identical(centers)
    with pytest.raises(NotFound):
        kmeans.open(tmp_path / "none.json")
    (tmp_path / "torn.json").write_text((tmp_path / "centers.json").read_text()[:200])
    with pytest.raises(Unreadable):
        kmeans.open(tmp_path / "torn.json")
    record = json.loads((tmp_path / "centers.json").read_text())
    record["k"]["4"]["centers"].pop()
    (tmp_path / "short.json").write_text(json.dumps(record))
    with pytest.raises(Unreadable):
        kmeans.open(tmp_path / "short.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(Unreadable):
        kmeans.open(tmp_path / "other.json")


def test_write_is_assign_and_goes_on(tmp_path):
    mosaic = landscape((200, 150))
    store.write(mosaic, tmp_path / "m.zarr", chunk=32, shard=64)
    opened = store.open(tmp_path / "m.zarr", chunks=64)
    centers = kmeans.fit(opened, KS)
    assert centers.attrs["mosaic"] == str(tmp_path / "m.zarr")
    assert centers.attrs["fingerprint"] == store.fingerprint(opened)
    report = kmeans.write(opened, centers, tmp_path / "l.zarr", shard=64, workers=2)
    assert report.done == 12
    assert report.metrics["valid"] == int(schema.valid(mosaic).sum())
    labels = store.open(tmp_path / "l.zarr")
    np.testing.assert_array_equal(labels, kmeans.assign(mosaic, centers))
    assert labels["k"].values.tolist() == KS
    assert labels.attrs["_FillValue"] == 255
    again = kmeans.write(opened, centers, tmp_path / "l.zarr", shard=64)
    assert (again.done, again.skipped) == (0, 12)
    with pytest.raises(OtherPlan):
        kmeans.write(opened, kmeans.fit(opened, KS, seed=1, n_samples=100), tmp_path / "l.zarr", shard=64)


def test_write_after_a_torn_run_does_only_what_is_left(tmp_path, monkeypatch):
    mosaic = landscape((200, 150))
    store.write(mosaic, tmp_path / "m.zarr", chunk=32, shard=64)
    opened = store.open(tmp_path / "m.zarr", chunks=64)
    centers = kmeans.fit(opened, 3)
    read = store.Reader.read

    def broken(self, y, x):
        if y.start == 64:
            raise Unreadable("rows 64 cannot be read")
        return read(self, y, x)

    with monkeypatch.context() as patch:
        patch.setattr(store.Reader, "read", broken)
        report = kmeans.write(opened, centers, tmp_path / "l.zarr", shard=64, workers=2)
    assert (report.done, len(report.failed)) == (9, 3)
    report = kmeans.write(opened, centers, tmp_path / "l.zarr", shard=64, workers=1)
    assert (report.done, report.skipped) == (3, 9)
    np.testing.assert_array_equal(store.open(tmp_path / "l.zarr"), kmeans.assign(mosaic, centers))


@pytest.mark.parametrize("shape", [(200, 150), (128, 64), (70, 30)])
def test_votes_counted_while_labelling_are_those_of_the_labels(tmp_path, shape):
    mosaic = landscape(shape, void=0.5)
    store.write(mosaic, tmp_path / "m.zarr", chunk=32, shard=64)
    opened = store.open(tmp_path / "m.zarr")
    centers = kmeans.fit(opened, KS)
    kmeans.write(opened, centers, tmp_path / "l.zarr", shard=64, tile=16, workers=2)
    votes = kmeans.read_majority(tmp_path / "l.zarr")
    expected = kmeans.majority(kmeans.assign(mosaic, centers), 16).compute()
    assert votes.identical(expected)
    assert (votes == 255).any()
    with pytest.raises(OtherPlan, match="majority: 16 -> nothing"):
        kmeans.write(opened, centers, tmp_path / "l.zarr", shard=64)
    with pytest.raises(BadInput, match=r"tile must divide shard, 64. Got tile=24."):
        kmeans.write(opened, centers, tmp_path / "n.zarr", shard=64, tile=24)
    with pytest.raises(BadInput, match="hold the votes of tiles"):
        kmeans.read_majority(tmp_path / "m.zarr")


# Majority


@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70)),
    tile=st.integers(1, 33),
    chunk=st.integers(5, 70),
)
def test_majority_is_the_vote_of_each_tile(seed, shape, tile, chunk):
    rng = np.random.default_rng(seed)
    values = rng.choice([0, 1, 2, 9, 254, 255], shape, p=[0.2, 0.2, 0.1, 0.05, 0.05, 0.4]).astype("uint8")
    labels = xr.DataArray(values, dims=kmeans.LABELS, coords={"k": np.arange(shape[0]) + 2}).chunk(y=chunk, x=chunk)
    found = kmeans.majority(labels, tile).compute(scheduler="synchronous")
    assert found.shape == (shape[0], -(-shape[1] // tile), -(-shape[2] // tile))
    for k, row, column in np.ndindex(found.shape):
        part = values[k, row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
        known = part[part != 255]
        expected = np.bincount(known).argmax() if known.size * 2 >= tile * tile else 255
        assert found.values[k, row, column] == expected
    assert found["tile_x"].values.tolist() == [tile * i for i in range(found.sizes["tile_x"])]


def test_majority_at_the_border_counts_against_the_whole_tile():
    values = np.full((1, 32, 32 + 15), 4, dtype="uint8")
    labels = xr.DataArray(values, dims=kmeans.LABELS)
    assert kmeans.majority(labels).values.tolist() == [[[4, 255]]]
    wider = xr.DataArray(np.full((1, 32, 48), 4, dtype="uint8"), dims=kmeans.LABELS)
    assert kmeans.majority(wider).values.tolist() == [[[4, 4]]]
    with pytest.raises(BadInput, match="tile must be at least 1"):
        kmeans.majority(labels, 0)
    with pytest.raises(BadInput, match="labels must be uint8"):
        kmeans.majority(labels.astype("int64"))


def test_the_benchmark_runs(tmp_path):
    spec = importlib.util.spec_from_file_location("bench", Path(__file__).parents[1] / "benchmarks" / "kmeans.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    fits, labels = bench.measure_all(tmp_path, 256, 64, isolated=False)
    assert fits["fit_of_read"] > 0
    assert labels["times_predict"] > 0
    assert max(fits["sorted"]["lsdask"]["msd_of_full"].values()) <= 1.01


@pytest.mark.cluster
@pytest.mark.slow
def test_the_same_bits_on_a_cluster(tmp_path):
    mosaic = landscape((200, 150))
    store.write(mosaic, tmp_path / "m.zarr", chunk=32, shard=64)
    opened = store.open(tmp_path / "m.zarr", chunks=64)
    expected = kmeans.fit(opened, KS, n_samples=5000, refine=1)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        assert kmeans.fit(opened, KS, n_samples=5000, refine=1).identical(expected)
        report = kmeans.write(opened, expected, tmp_path / "l.zarr", shard=64, client=client, progress=False)
    assert (report.done, report.failed) == (12, ())
    np.testing.assert_array_equal(store.open(tmp_path / "l.zarr"), kmeans.assign(mosaic, expected))


@pytest.mark.cluster
def test_a_worker_killed_in_the_middle_loses_no_label(tmp_path):
    mosaic = landscape((640, 640))
    store.write(mosaic, tmp_path / "m.zarr", chunk=32, shard=64)
    opened = store.open(tmp_path / "m.zarr")
    centers = kmeans.fit(opened, KS, n_samples=5000)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        victim = next(iter(cluster.workers.values()))

        def kill():
            while not (tmp_path / "l.zarr").exists() or ledger.read(tmp_path / "l.zarr").done.sum() < 20:
                time.sleep(0.01)
            os.kill(victim.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        report = kmeans.write(opened, centers, tmp_path / "l.zarr", shard=32, client=client, progress=False)
        killer.join()
    assert (report.done, report.failed) == (400, ())
    np.testing.assert_array_equal(store.open(tmp_path / "l.zarr"), kmeans.assign(mosaic, centers))


@pytest.mark.slow
@pytest.mark.realdata
def test_real_scenes_cluster_as_well_as_by_full_k_means(data):
    mosaic = composite(scenes.open(data / "valles-marineris" / "images"))
    rows = valid_rows(mosaic.compute()).astype("float64")
    rows /= rows.std(axis=0)
    ks = [2, 4, 6, 8, 10, 12]
    centers = kmeans.fit(mosaic, ks, standardise=True)
    for i, k in enumerate(ks):
        whole = KMeans(k, n_init=3, random_state=0).fit(rows)
        found = KMeans(k, init=centers.values[i, :k] / centers["scale"].values, n_init=1, max_iter=1)
        found.fit(rows[:k])
        found.cluster_centers_ = centers.values[i, :k] / centers["scale"].values
        assert -found.score(rows) <= 1.01 * whole.inertia_, k
