"""Images in Zarr, read back by lsdask and by plain xarray."""

import pickle
import warnings
from pathlib import Path

import dask
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from images import grid, mosaic, random_mosaic

from lsdask import schema, store
from lsdask.errors import BadInput, NotFound, Unreadable


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_plain_xarray_sees_crs_bands_and_nodata(tmp_path: Path, dtype: str) -> None:
    image = random_mosaic((3, 70, 50), dtype=dtype if dtype != "uint8" else "uint16", chunks=16)
    store.write(image, tmp_path / "a.zarr", chunk=16, shard=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = xr.open_zarr(tmp_path / "a.zarr")["mosaic"]
    assert plain.rio.crs.to_epsg() == 32723
    assert list(plain.band.values) == ["b0", "b1", "b2"]
    known = schema.valid(image).values
    assert (np.isnan(plain.values[0]) == ~known).all()
    assert (plain.values[:, known] == image.values[:, known]).all()
    assert zarr.open_array(tmp_path / "a.zarr" / "mosaic").shards == (3, 32, 32)


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70)),
    st.integers(1, 16),
    st.integers(1, 4),
    st.integers(1, 80),
)
def test_what_is_written_is_read(shape: tuple[int, int, int], chunk: int, times: int, dask_chunk: int) -> None:
    import tempfile

    image = random_mosaic(shape, chunks=dask_chunk)
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="threads"):
        store.write(image, f"{folder}/a.zarr", chunk=chunk, shard=chunk * times)
        back = store.open(f"{folder}/a.zarr", chunks=dask_chunk)
        assert back.dtype == image.dtype
        assert (back.values == image.values).all()
        assert schema.geobox(back) == schema.geobox(image)
        assert schema.nodata(back) == 0
        assert schema.bands(back) == schema.bands(image)


def test_only_an_unchanged_image_is_its_store(tmp_path: Path) -> None:
    store.write(random_mosaic((2, 40, 40)), tmp_path / "a.zarr", chunk=8, shard=16)
    image = store.open(tmp_path / "a.zarr", chunks=16)
    assert store.source(image) == str(tmp_path / "a.zarr")
    for other in (
        image[:, 1:],
        image + 0,
        image.sel(band=["b1", "b0"]),
        image.astype("float32"),
        image.copy(data=image.data * 2),
    ):
        assert store.source(other) is None
        window = store.reader(other).read(slice(3, 9), slice(0, 5))
        assert (window == other.values[:, 3:9, 0:5]).all()


def test_a_reader_travels_and_reads_windows(tmp_path: Path) -> None:
    image = random_mosaic((2, 40, 40))
    store.write(image, tmp_path / "a.zarr", chunk=8, shard=16)
    reader = store.reader(store.open(tmp_path / "a.zarr"))
    reader.read(slice(0, 1), slice(0, 1))
    again = pickle.loads(pickle.dumps(reader))
    assert (again.read(slice(5, 20), slice(7, 9)) == image.values[:, 5:20, 7:9]).all()
    assert len(pickle.dumps(reader)) < 500


def test_a_torn_shard_is_an_error_not_zeros(tmp_path: Path) -> None:
    store.write(random_mosaic((2, 64, 64), void=0), tmp_path / "a.zarr", chunk=32, shard=32)
    shard = tmp_path / "a.zarr" / "mosaic" / "c" / "0" / "1" / "0"
    shard.write_bytes(shard.read_bytes()[:100])
    reader = store.reader(store.open(tmp_path / "a.zarr"))
    assert reader.read(slice(0, 32), slice(0, 32)).any()
    with pytest.raises(Unreadable, match=r"rows 30 to 40, columns 0 to 10 of .* cannot be read"):
        reader.read(slice(30, 40), slice(0, 10))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise OSError("the disk is gone")

    image = random_mosaic((1, 20, 20), chunks=10)
    broken = image.copy(data=image.data.map_blocks(fail, dtype=image.dtype, meta=np.empty((0, 0, 0), image.dtype)))
    with pytest.raises(OSError, match="the disk is gone"):
        store.write(broken, tmp_path / "a.zarr", chunk=10, shard=10)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_kept_unless_told(tmp_path: Path) -> None:
    store.write(random_mosaic((1, 20, 20)), tmp_path / "a.zarr")
    first = store.fingerprint(store.open(tmp_path / "a.zarr"))
    with pytest.raises(BadInput, match=r"path must name nothing yet. Got path=.*a.zarr. Pass another"):
        store.write(random_mosaic((1, 20, 20)), tmp_path / "a.zarr")
    store.write(random_mosaic((1, 20, 20)), tmp_path / "a.zarr", overwrite=True)
    assert store.fingerprint(store.open(tmp_path / "a.zarr")) != first


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"shard must be a multiple of chunk, 512. Got shard=1000. Pass shard=512"):
        store.write(random_mosaic((1, 20, 20)), tmp_path / "a.zarr", shard=1000)
    with pytest.raises(BadInput, match="'y' and 'x' as its last dims"):
        store.write(mosaic(np.zeros((1, 4, 4))).transpose("y", "x", "band"), tmp_path / "a.zarr")
    with pytest.raises(BadInput, match="have a CRS"):
        store.write(xr.DataArray(np.zeros((1, 4, 4)), dims=schema.MOSAIC), tmp_path / "a.zarr")
    with pytest.raises(NotFound, match="path must name a Zarr group"):
        store.open(tmp_path / "a.zarr")
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(NotFound):
        store.open(tmp_path / "b.zarr")
    two = {name: schema.wrap(np.zeros((4, 4), "uint8"), grid((4, 4)), schema.MASK, name=name) for name in ("p", "q")}
    xr.Dataset(two).to_zarr(tmp_path / "c.zarr", consolidated=False)
    with pytest.raises(BadInput, match="hold one variable"):
        store.open(tmp_path / "c.zarr")
    assert store.open(tmp_path / "c.zarr", name="q").name == "q"
