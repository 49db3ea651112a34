"""Tables too long for memory: surveyed, written, split and read in parts, with the rows of the whole."""

import re
from itertools import pairwise

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from lsdask import sampling, schema
from lsdask.errors import BadInput, NotFound
from lsdask.sampling import files, surveying

SIDES = st.integers(10, 70)


@pytest.fixture
def small_strips(monkeypatch):
    """Strips and row groups of so few rows that small tables are cut."""
    monkeypatch.setattr(surveying, "LEAST", 16)
    monkeypatch.setattr(files, "ROWS", 50)


def layer(values, chunks):
    return xr.DataArray(da.from_array(values, chunks=chunks), dims=("y", "x"))


def layers_of(draw, shape, chunks, other):
    mask = draw.choice([0, 1, 255], shape, p=[0.5, 0.2, 0.3]).astype("uint8")
    return {
        "mask": layer(mask, chunks),
        "valid": layer(draw.random(shape) < 0.5, chunks),
        "labels": layer(draw.choice([0, 3, 9, 255], shape).astype("uint8"), other),
        "agreement": layer(draw.choice([0, 1, 2, 3, 255], shape).astype("uint8"), other),
    }


@pytest.mark.usefixtures("small_strips")
@given(SIDES, SIDES, st.integers(1, 30), st.sampled_from([0.0, 0.4, 0.8]), st.integers(0, 2**32 - 1))
def test_a_survey_gives_the_described_grid_in_bands(height, width, size, overlap, seed):
    draw = np.random.default_rng(seed)
    size = max(min(size, height, width), min(height, width) // 8)
    chunks, other = draw.integers(6, 60, (2, 2)).tolist()
    given_layers = layers_of(draw, (height, width), chunks, other)
    image = given_layers["mask"]
    with dask.config.set(scheduler="synchronous"):
        parts = list(sampling.survey(image, size, overlap=overlap, **given_layers))
        whole = sampling.describe(sampling.grid(image, size, overlap=overlap), **given_layers)
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    assert all(len(part) for part in parts)


@pytest.mark.usefixtures("small_strips")
def test_a_survey_reads_each_chunk_once_and_holds_a_band():
    read = []

    def load(block_info=None):
        read.append(tuple(block_info[None]["chunk-location"]))
        return np.ones(block_info[None]["chunk-shape"], dtype="uint8")

    data = da.map_blocks(load, chunks=((16,) * 6, (16,) * 3), dtype="uint8", meta=np.ones((0, 0), "uint8"))
    mask = xr.DataArray(data, dims=("y", "x"))
    with dask.config.set(scheduler="synchronous"):
        survey = sampling.survey(mask, 12, overlap=0.5, mask=mask)
        assert read == []
        first = next(survey)
        assert sorted(read) == [(0, 0), (0, 1), (0, 2)]
        assert (first["y"] + 12).max() <= 16
        rest = list(survey)
    assert sorted(read) == [(i, j) for i in range(6) for j in range(3)]
    assert len(rest) == 5


def test_a_survey_refuses_as_a_grid_does():
    image = layer(np.zeros((20, 30), "uint8"), 10)
    with pytest.raises(BadInput, match="size must not exceed the image"):
        sampling.survey(image, 21, mask=image)
    with pytest.raises(BadInput, match="at least one of valid, mask, labels, agreement"):
        sampling.survey(image, 5)
    with pytest.raises(BadInput, match=r"have the image's shape \(20, 30\). Got \(20, 29\)"):
        sampling.survey(image, 5, mask=image[:, 1:])
    with pytest.raises(BadInput, match="mask must hold 1"):
        list(sampling.survey(image, 5, mask=image + np.uint8(7)))


# Files


def tiles_of(n=400, seed=0):
    tiles = sampling.random(xr.DataArray(np.zeros((300, 300)), dims=("y", "x")), 10, n, seed=seed)
    positive = np.where(np.random.default_rng(seed).random(n) < 0.2, 0.1, 0.0)
    return tiles.assign(positive=positive)


@pytest.mark.usefixtures("small_strips")
def test_what_is_written_in_parts_is_read_as_one(tmp_path):
    tiles = tiles_of()
    cuts = [0, 3, 3, 120, 400]
    n = sampling.write((tiles[a:b] for a, b in pairwise(cuts)), tmp_path / "t.parquet")
    assert n == 400
    pd.testing.assert_frame_equal(sampling.read(tmp_path / "t.parquet"), tiles)
    groups = pq.ParquetFile(tmp_path / "t.parquet").metadata
    sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    assert max(sizes) == 50
    parts = list(sampling.parts(tmp_path / "t.parquet", ["x", "y"]))
    assert [len(part) for part in parts] == sizes
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), tiles[["x", "y"]])
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_stream_reads_the_columns_and_the_split_it_needs(tmp_path):
    tiles = sampling.split(tiles_of(), block=50, seed=1)
    sampling.write(tiles, tmp_path / "t.parquet")
    got = sampling.read(tmp_path / "t.parquet", split="train", columns=("y", "x", "size"))
    expected = tiles[tiles["split"] == "train"][["y", "x", "size"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(got, expected)
    assert pd.read_parquet(tmp_path / "t.parquet").equals(tiles)


@pytest.mark.usefixtures("small_strips")
def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "t.parquet"
    sampling.write(tiles_of(), path)
    before = path.read_bytes()

    def breaking():
        yield tiles_of(200)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        sampling.write(breaking(), path)
    with pytest.raises(BadInput, match="hold at least one tile"):
        sampling.write((), path)
    with pytest.raises(BadInput, match="far enough apart, for every side"):
        sampling.split_file(path, path, block=1000)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["t.parquet"]


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(NotFound, match=r"tiles must name a parquet file. Got .*, which is not there"):
        sampling.read(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_text("y,x,size")
    with pytest.raises(BadInput, match="tiles must name a parquet file"):
        sampling.parts(tmp_path / "bad.parquet")
    sampling.write(tiles_of(), tmp_path / "t.parquet")
    with pytest.raises(BadInput, match="tiles must have the column 'split'"):
        sampling.read(tmp_path / "t.parquet", split="train")
    with pytest.raises(BadInput, match="tiles must have the column 'fold'"):
        sampling.parts(tmp_path / "t.parquet", ["y", "fold"])


@pytest.mark.usefixtures("small_strips")
@pytest.mark.parametrize("test", [None, "east", "west", "north", "south", (40, 40, 130, 160)])
def test_a_file_is_split_as_its_table_is(tmp_path, test):
    path, out = tmp_path / "t.parquet", tmp_path / "split.parquet"
    sampling.write(tiles_of(), path)
    options = {"fractions": (0.5, 0.25, 0.25), "block": 40, "buffer": 3, "test": test, "seed": 5}
    assert sampling.split_file(path, out, **options) == 400
    pd.testing.assert_frame_equal(sampling.read(out), sampling.split(tiles_of(), **options))
    assert "split" not in pq.ParquetFile(path).schema_arrow.names
    sampling.check_split(out, buffer=3)


@pytest.mark.usefixtures("small_strips")
def test_a_file_is_checked_row_group_by_row_group(tmp_path):
    y, x = (place.ravel() * 30 for place in np.mgrid[:20, :20])
    tiles = sampling.table(y, x, 10)
    tiles["split"] = np.where(x < 300, "train", "test")
    sampling.write(tiles, tmp_path / "t.parquet")
    sampling.check_split(tmp_path / "t.parquet", buffer=10)
    named = r"Got train tile (\d+) \(y=(\d+), x=270, size=10\) and test tile (\d+) \(y=(\d+), x=300, size=10\)"
    with pytest.raises(BadInput, match=named) as caught:
        sampling.check_split(tmp_path / "t.parquet", buffer=11)
    a, ya, b, yb = map(int, re.search(named, str(caught.value)).groups())
    assert tiles.loc[[a, b], ["y", "x"]].to_numpy().tolist() == [[ya, 270], [yb, 300]]
    tiles.loc[399, ["y", "x", "split"]] = [4, 3, "test"]  # the last row group against the first
    sampling.write(tiles, tmp_path / "t.parquet")
    with pytest.raises(BadInput, match=r"Got train tile 0 .* and test tile 399 \(y=4, x=3, size=10\)"):
        sampling.check_split(tmp_path / "t.parquet")


@pytest.mark.usefixtures("small_strips")
def test_a_file_of_scenes_is_divided_as_its_table_is(tmp_path):
    grids = {name: GeoBox((300, 300), Affine(10, 0, x, 0, -10, 0), "EPSG:32723") for name, x in (("a", 0), ("b", 905))}
    scenes = {
        name: schema.wrap(np.broadcast_to(np.uint8(0), (300, 300)), grid, schema.MASK, name="image")
        for name, grid in grids.items()
    }
    tiles = pd.concat([tiles_of(seed=i).assign(scene=name) for i, name in enumerate(scenes)], ignore_index=True)
    path = tmp_path / "t.parquet"
    sampling.write(tiles, path)
    assert sampling.split_file(path, path, scenes=scenes, seed=2) == 800
    pd.testing.assert_frame_equal(sampling.read(path), sampling.split(tiles, scenes=scenes, seed=2))
    sampling.write(tiles, path)
    assert sampling.folds_file(path, path, 3, scenes=scenes, block=60) == 800
    pd.testing.assert_frame_equal(sampling.read(path), sampling.folds(tiles, 3, scenes=scenes, block=60))
    with pytest.raises(BadInput, match="scenes must give the images of a, b"):
        sampling.split_file(path, path)


def test_a_split_of_a_file_takes_no_other_options(tmp_path):
    sampling.write(tiles_of(), tmp_path / "t.parquet")
    with pytest.raises(TypeError, match="buffr"):
        sampling.split_file(tmp_path / "t.parquet", tmp_path / "t.parquet", buffr=3)
