"""Overviews against numpy, GDAL and plain xarray."""

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
import s3
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from images import grid, mosaic, random_mosaic
from rasterio.enums import Resampling

from lsdask import mosaic as rooms
from lsdask import schema, store
from lsdask.errors import BadInput, NotFound, OtherPlan
from lsdask.mosaic.overviews import METHODS

OPTIONS = {"workers": 2, "progress": False}


def slow_half(data: np.ndarray, method: str, nodata: int) -> np.ndarray:
    """One pixel of every two by two, pixel by pixel."""
    out = np.empty((-(-data.shape[0] // 2), -(-data.shape[1] // 2)), data.dtype)
    for row, column in np.ndindex(out.shape):
        four = data[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].ravel().tolist()
        known = [value for value in four if value != nodata]
        if method == "nearest":
            out[row, column] = four[0]
        elif not known:
            out[row, column] = nodata
        elif method == "average":
            out[row, column] = round(sum(known) / len(known))
        else:
            out[row, column] = Counter(known).most_common(1)[0][0]
    return out


@given(
    arrays.arrays("uint8", st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 3)),
    st.sampled_from(METHODS),
    st.sampled_from([0, 3, 255]),
)
def test_half_is_what_counting_pixel_by_pixel_gives(data: np.ndarray, method: str, nodata: int) -> None:
    np.testing.assert_array_equal(
        rooms.halve_block(data, method=method, nodata=nodata), slow_half(data, method, nodata)
    )
    both = rooms.halve_block(np.stack([data, data[::-1]]), method=method, nodata=nodata)
    np.testing.assert_array_equal(both[0], slow_half(data, method, nodata))


def test_floats_know_no_data_by_nan() -> None:
    data = np.array([[1, np.nan, np.nan], [2, 6, np.nan]], "float32")
    half = rooms.halve_block(data, method="average", nodata=float("nan"))
    np.testing.assert_array_equal(half, np.array([[3, np.nan]], "float32"))
    assert half.dtype == "float32"
    assert rooms.halve_block(np.full((2, 2), 65535, "uint16"), method="average", nodata=0) == 65535


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_average_is_gdal_s(tmp_path: Path, dtype: str) -> None:
    image = random_mosaic((2, 128, 96), dtype=dtype, void=0.3)
    profile = {"driver": "GTiff", "dtype": dtype, "count": 2, "height": 128, "width": 96, "crs": "EPSG:32723"}
    profile["transform"] = schema.geobox(image).transform
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", **profile, nodata=float(schema.nodata(image)), tiled=True) as out:
        out.write(image.values)
    with rasterio.open(path, "r+") as out:
        out.build_overviews([2], Resampling.average)
    with rasterio.open(path, overview_level=0) as small:
        expected = small.read()
    half = rooms.halve_block(image.values, method="average", nodata=schema.nodata(image))
    # GDAL rounds halves up, we to even; and it counts in float32.
    tolerance = {"atol": 1} if dtype == "uint16" else {"rtol": 1e-6}
    np.testing.assert_allclose(half.astype("float64"), expected, **tolerance)
    if dtype == "uint16":
        assert (half == expected).mean() > 0.7


@pytest.mark.parametrize(("shape", "chunk", "shard"), [((3, 100, 71), 8, 16), ((1, 65, 64), 16, 48)])
def test_levels_are_halves_of_halves(tmp_path: Path, shape: tuple[int, int, int], chunk: int, shard: int) -> None:
    path = tmp_path / "a.zarr"
    image = random_mosaic(shape, void=0.4)
    rooms.write(image, path, chunk=chunk, shard=shard, progress=False).check()
    reports = rooms.overviews(path, **OPTIONS)
    expected = image.values
    sides = []
    for level, report in enumerate(reports, 1):
        report.check()
        expected = rooms.halve_block(expected, method="average", nodata=0)
        small = store.open(path, level=level)
        np.testing.assert_array_equal(small.values, expected)
        assert (small.dtype, schema.bands(small), schema.nodata(small)) == (image.dtype, schema.bands(image), 0)
        assert store.array(store.level_path(path, level)).shards == (shape[0], shard, shard)
        box = schema.geobox(small)
        assert box.transform == schema.geobox(image).transform @ box.transform.scale(2**level)
        sides.append(max(small.shape))
    assert sides[-1] <= chunk < sides[-2]
    np.testing.assert_array_equal(store.open(path).values, image.values)
    with pytest.raises(NotFound, match="name a Zarr group"):
        store.open(path, level=len(reports) + 1)


def test_plain_xarray_and_viewers_find_them(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    image = random_mosaic((2, 64, 48))
    rooms.write(image, path, chunk=16, shard=16, progress=False).check()
    rooms.overviews(path, **OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = xr.open_zarr(path)
        small = xr.open_zarr(path, group="overviews/1")
        groups = xr.open_groups(path, engine="zarr")
    assert list(whole.data_vars) == list(small.data_vars) == ["mosaic"]
    assert small["mosaic"].shape == (2, 32, 24)
    assert small.spatial_ref.attrs["crs_wkt"] == whole.spatial_ref.attrs["crs_wkt"]
    assert set(groups) == {"/", "/overviews", "/overviews/1", "/overviews/2"}
    assert whole.x.values[:2].mean() == small.x.values[0]
    root = json.loads((path / "zarr.json").read_text())
    layout = root["attributes"]["multiscales"]["layout"]
    assert [one["asset"] for one in layout] == ["mosaic", "overviews/1/mosaic", "overviews/2/mosaic"]
    assert [one.get("derived_from") for one in layout] == [None, "mosaic", "overviews/1/mosaic"]
    assert layout[2]["spatial:transform"] == [40.0, 0.0, 440000.0, 0.0, -40.0, 7400000.0]
    assert layout[2]["spatial:shape"] == [16, 12]
    assert layout[2]["transform"] == {"scale": [1.0, 2.0, 2.0], "translation": [0.0, 0.0, 0.0]}  # a value a dim: GDAL
    assert root["attributes"]["proj:code"] == "EPSG:32723"
    held = root["consolidated_metadata"]["metadata"]
    assert {one["asset"] for one in layout} <= set(held)
    for name, node in held.items():
        stored = json.loads((path / name / "zarr.json").read_text())
        stored.pop("consolidated_metadata", None)
        assert {key: value for key, value in node.items() if key != "consolidated_metadata"} == stored
    assert rooms.write(image, path, chunk=16, shard=16, progress=False).done == 0  # still the same run


def test_labels_are_counted_not_averaged(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 4, (40, 40)).astype("uint8")
    data[data == 3] = 255
    labels = schema.wrap(data, grid((40, 40)), schema.MASK, name="labels", nodata=255)
    store.write(labels, tmp_path / "a.zarr", chunk=8, shard=16)
    rooms.overviews(tmp_path / "a.zarr", levels=1, **OPTIONS)
    np.testing.assert_array_equal(store.open(tmp_path / "a.zarr", level=1).values, slow_half(data, "mode", 255))


def test_they_go_on_where_they_failed_and_hold_one_image(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    image = random_mosaic((1, 64, 64), void=0)
    store.write(image, path, chunk=8, shard=16)
    shard = path / "mosaic" / "c" / "0" / "1" / "0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:50])
    reports = rooms.overviews(path, retries=0, **OPTIONS)
    assert [failure.place for report in reports for failure in report.failed] == [(0, 0)]
    assert "multiscales" not in json.loads((path / "zarr.json").read_text())["attributes"]
    shard.write_bytes(whole)
    reports = rooms.overviews(path, **OPTIONS)
    assert [(report.done, report.skipped) for report in reports] == [(1, 3), (1, 0), (1, 0)]
    expected = rooms.halve_block(image.values, method="average", nodata=0)
    np.testing.assert_array_equal(store.open(path, level=1).values, expected)
    with pytest.raises(OtherPlan, match="method: average -> nearest"):
        rooms.overviews(path, method="nearest", **OPTIONS)


def test_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    store.write(random_mosaic((1, 20, 20)), path, chunk=8, shard=16)
    with pytest.raises(BadInput, match=r"method must be one of average, mode, nearest. Got method='mean'"):
        rooms.overviews(path, method="mean")  # type: ignore[arg-type]
    rooms.write(random_mosaic((1, 20, 20)), f"icechunk:{tmp_path}/b", chunk=8, shard=8, progress=False)
    with pytest.raises(BadInput, match="path must be no Icechunk repository"):
        rooms.overviews(f"icechunk:{tmp_path}/b")
    image = mosaic(np.ones((1, 20, 20), "uint16")).chunk(8)
    torn = image.copy(data=image.data.map_blocks(lambda b: b[:, :3], dtype="uint16", chunks=image.chunks, meta=b""))
    rooms.write(torn, tmp_path / "c.zarr", chunk=8, shard=8, retries=0, progress=False)
    with pytest.raises(BadInput, match=r"path must hold a finished run. Got .* of 9 tiles are not done. Run what"):
        rooms.overviews(tmp_path / "c.zarr")


def test_in_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_mosaic((2, 50, 40))
    with s3.serving(monkeypatch):
        path = f"s3://{s3.BUCKET}/a.zarr"
        store.write(image, path, chunk=8, shard=16)
        assert [report.done for report in rooms.overviews(path, **OPTIONS)] == [4, 1, 1]
        assert [report.done for report in rooms.overviews(path, **OPTIONS)] == [0, 0, 0]
        expected = rooms.halve_block(image.values, method="average", nodata=0)
        np.testing.assert_array_equal(store.open(path, level=1).values, expected)
        assert len(store.group(path).attrs["multiscales"]["layout"]) == 4
