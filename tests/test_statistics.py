"""Statistics against numpy and exact fractions, over any chunking, dtype and void."""

from fractions import Fraction

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from lsdask import statistics, store
from lsdask.errors import BadInput

DTYPES = ["uint8", "int16", "uint16", "int64", "uint32", "float32", "float64"]


def image_of(values, nodata=None, chunks=None):
    image = xr.DataArray(values, dims=("band", "y", "x"))
    image = image.assign_coords(band=[f"b{i}" for i in range(len(values))])
    if nodata is not None and image.dtype.kind in "iu":
        image.attrs["_FillValue"] = image.dtype.type(nodata)
    return image if chunks is None else image.chunk(chunks)


def draw_values(seed, dtype, shape):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        values = (rng.normal(5, 300, shape) * 10.0 ** rng.integers(-3, 4, (shape[0], 1, 1))).astype(dtype)
        values[rng.random(shape) < 0.1] = np.nan
        return values
    limits = np.iinfo(dtype)
    return rng.integers(max(limits.min, -(2**50)), min(limits.max, 2**50), shape, dtype=dtype, endpoint=True)


def valid_of(image):
    """Independent of schema: the columns of pixels that have data in every band."""
    flat = image.values.reshape(image.sizes["band"], -1)
    nodata = image.attrs.get("_FillValue")
    known = ~np.isnan(flat) if flat.dtype.kind == "f" else (flat != nodata if nodata is not None else flat == flat)
    return flat[:, known.all(axis=0)]


@given(
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    declared=st.booleans(),
)
def test_agrees_with_numpy(seed, dtype, shape, declared):
    values = draw_values(seed, dtype, shape)
    image = image_of(values, values.flat[0] if declared and values.dtype.kind != "f" else None)
    found = statistics.bands(image, percentiles=(0, 2, 33.3, 50, 98, 100))
    valid = valid_of(image)
    assert list(found["band"].values) == [f"b{i}" for i in range(shape[0])]
    assert (found["count"] == valid.shape[1]).all()
    if valid.shape[1] == 0:
        assert np.isnan(found["mean"]).all()
        assert np.isnan(found["p50"]).all()
        return
    wide = valid.astype("float64")
    np.testing.assert_array_equal(found["min"], wide.min(axis=1))
    np.testing.assert_array_equal(found["max"], wide.max(axis=1))
    exact = [float(sum(map(Fraction, band.tolist())) / len(band)) for band in wide]
    np.testing.assert_array_equal(found["mean"], exact)
    scale = np.abs(wide).max(axis=1)
    np.testing.assert_allclose(found["std"], wide.std(axis=1), rtol=1e-9, atol=1e-7 * scale.max())
    small = np.dtype(dtype).itemsize <= 2
    for name, percentile in (("p00", 0), ("p02", 2), ("p33_3", 33.3), ("p50", 50), ("p98", 98), ("p100", 100)):
        expected = np.percentile(wide, percentile, axis=1)
        lower = np.abs(np.percentile(wide, percentile, axis=1, method="lower"))
        upper = np.abs(np.percentile(wide, percentile, axis=1, method="higher"))
        error = 1e-9 * (1 + upper) if small else np.maximum(lower, upper) * 2.0**-11
        assert (np.abs(found[name] - expected) <= error).all(), name


@given(
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(DTYPES),
    chunks=st.tuples(st.integers(1, 3), st.integers(7, 50), st.integers(9, 50)),
)
def test_any_chunking_gives_the_same_bits(seed, dtype, chunks):
    values = draw_values(seed, dtype, (3, 30, 41))
    image = image_of(values, values[0, 0, 0])
    with dask.config.set(scheduler="synchronous"):
        chunked = statistics.bands(image.chunk(dict(zip(image.dims, chunks))))
    assert chunked.identical(statistics.bands(image))


def test_std_survives_a_large_mean():
    rng = np.random.default_rng(0)
    values = (1e4 + rng.normal(0, 0.01, (1, 60, 60))).astype("float32")
    found = statistics.bands(image_of(values))
    wide = values.astype("float64")
    assert float(found["std"][0]) == pytest.approx(float((wide - wide.mean()).std()), rel=1e-12)


def test_reads_each_chunk_once_and_holds_few():
    reads: list[tuple[int, ...]] = []

    def load(block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return np.ones((2, 10, 10), dtype="uint16")

    data = da.map_blocks(load, chunks=((2,), (10,) * 6, (10,) * 6), dtype="uint16", meta=np.empty((0, 0, 0), "uint16"))
    with dask.config.set(scheduler="synchronous"):
        found = statistics.bands(xr.DataArray(data, dims=("band", "y", "x")))
    assert len(reads) == len(set(reads)) == 36
    assert int(found["count"][0]) == 3600


def test_all_void_is_nan_not_zero():
    found = statistics.bands(image_of(np.full((2, 5, 5), 7, dtype="uint16"), 7))
    assert (found["count"] == 0).all()
    assert np.isnan(found[["min", "max", "mean", "std", "p02", "p50", "p98"]].to_array()).all()


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (np.array([[[np.inf, 1.0]]], dtype="float32"), "1 pixels that are infinite"),
        (np.array([[[-1.797e308, 1.0]]]), "1 pixels that are infinite"),
    ],
)
def test_infinite_values_are_named(values, word):
    with pytest.raises(BadInput, match=word):
        statistics.bands(image_of(values))


def test_bad_arguments():
    image = image_of(np.ones((1, 3, 3), dtype="uint8"))
    with pytest.raises(BadInput, match="transpose"):
        statistics.bands(image.transpose("y", "x", "band"))
    with pytest.raises(BadInput, match="percentiles must lie from 0 to 100"):
        statistics.bands(image, percentiles=(101,))


def test_a_stored_image(tmp_path):
    from odc.geo.geobox import GeoBox

    from lsdask import schema

    rng = np.random.default_rng(3)
    values = rng.integers(0, 1024, (4, 300, 200)).astype("uint16")
    grid = GeoBox.from_bbox((0, 0, 2000, 3000), "EPSG:32723", resolution=10)
    image = schema.wrap(values, grid, schema.MOSAIC, name="mosaic", coords={"band": list("bgrn")}, nodata=0)
    store.write(image, tmp_path / "m.zarr", chunk=64, shard=128)
    found = statistics.bands(store.open(tmp_path / "m.zarr", chunks=128))
    assert found.identical(statistics.bands(image))
    assert found.sel(band="n")["count"] < 60000


@pytest.mark.realdata
def test_on_a_real_dem(data):
    import rioxarray

    paths = sorted((data / "copernicus-dem").rglob("*.tif"))
    if not paths:
        pytest.skip("no Copernicus DEM")
    image = rioxarray.open_rasterio(paths[0], chunks={"y": 1024, "x": 1024}, masked=True)
    image = image.isel(y=slice(0, 1500), x=slice(0, 1500))
    found = statistics.bands(image)
    wide = image.values.astype("float64")
    assert float(found["mean"][0]) == pytest.approx(np.nanmean(wide), rel=1e-12)
    assert float(found["std"][0]) == pytest.approx(np.nanstd(wide), rel=1e-12)
    assert float(found["p98"][0]) == pytest.approx(np.nanpercentile(wide, 98), rel=2.0**-11)
