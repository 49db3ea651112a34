"""Stores against the image in memory."""

import numpy as np
import pytest
import xarray as xr
from cubes import open_tiles
from distributed import Client, LocalCluster

from lsdask import mosaic, schema, store
from lsdask.errors import BadInput, OtherPlan, Unreadable


@pytest.mark.parametrize(("chunk", "shards"), [(8, 1), (8, 3), (5, 4), (64, 1)])
def test_a_store_holds_the_image_at_any_chunk_and_shard(tmp_path, chunk, shards):
    image = mosaic.composite(open_tiles(tmp_path, 3))
    report = mosaic.write(image, tmp_path / "m.zarr", chunk=chunk, shard=chunk * shards, workers=2, progress=False)
    assert (report.failed, report.skipped) == ((), 0)
    opened = store.open(tmp_path / "m.zarr")
    xr.testing.assert_identical(opened.compute().drop_attrs(), image.compute(scheduler="synchronous").drop_attrs())
    assert schema.geobox(opened) == schema.geobox(image)
    assert schema.nodata(opened) == schema.nodata(image) == 0


def test_a_broken_file_fails_its_shards_only_and_the_next_run_does_these(tmp_path):
    image = mosaic.composite(open_tiles(tmp_path, 3))
    expected = image.compute(scheduler="synchronous").values
    whole = (tmp_path / "1_1.tif").read_bytes()
    (tmp_path / "1_1.tif").write_bytes(b"cut short")
    options = {"chunk": 8, "shard": 16, "workers": 2, "retries": 0, "progress": False}
    first = mosaic.write(image, tmp_path / "m.zarr", **options)
    assert [failure.place for failure in first.failed] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all("1_1.tif must be a raster that can be read" in failure.why for failure in first.failed)
    (tmp_path / "1_1.tif").write_bytes(whole)
    second = mosaic.write(image, tmp_path / "m.zarr", **options).check()
    assert (second.done, second.skipped) == (4, first.done)
    np.testing.assert_array_equal(store.open(tmp_path / "m.zarr").values, expected)


def test_another_image_is_another_plan(tmp_path):
    cube = open_tiles(tmp_path, 2)
    options = {"chunk": 8, "shard": 16, "progress": False}
    mosaic.write(mosaic.composite(cube), tmp_path / "m.zarr", **options)
    assert mosaic.write(mosaic.composite(cube), tmp_path / "m.zarr", **options).done == 0
    with pytest.raises(OtherPlan, match="source"):
        mosaic.write(mosaic.composite(cube, method="last"), tmp_path / "m.zarr", **options)
    with pytest.raises(BadInput, match="image must"):
        mosaic.write(cube.values, tmp_path / "n.zarr")


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_writes_the_same(tmp_path):
    image = mosaic.composite(open_tiles(tmp_path, 3))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        mosaic.write(image, tmp_path / "m.zarr", chunk=8, shard=16, client=client, progress=False).check()
    np.testing.assert_array_equal(store.open(tmp_path / "m.zarr").values, image.compute().values)


def test_reading_says_which_file_is_broken(tmp_path):
    image = mosaic.composite(open_tiles(tmp_path, 1))
    (tmp_path / "0_0.tif").write_bytes(b"")
    with pytest.raises(Unreadable, match=r"0_0.tif"):
        image.compute(scheduler="synchronous")
