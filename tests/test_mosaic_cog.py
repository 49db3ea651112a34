"""Cloud-Optimized GeoTIFFs as rasterio, rioxarray and the TIFF specification see them."""

import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from images import grid, random_mosaic
from rasterio.enums import Resampling

from lsdask import mosaic, schema, store
from lsdask.errors import BadInput, Unreadable


def check_layout(path: Path, levels: int) -> None:
    """A reader gets all headers first, then overviews, small before large, then the image."""
    with rasterio.open(path) as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.overviews(1) == [2**level for level in range(1, levels + 1)]
        assert all(shape == (512, 512) for shape in source.block_shapes)
    headers, starts = zip(*directories(path.read_bytes()))
    assert len(headers) == levels + 1
    assert max(headers) < min(starts)
    assert list(starts) == sorted(starts, reverse=True)


def directories(tiff: bytes) -> list[tuple[int, int]]:
    """Where each image of a little-endian TIFF has its header and the first of its tiles. Source: TIFF 6.0."""
    order, magic, at = struct.unpack_from("<2sHI", tiff)
    assert (order, magic) == (b"II", 42)
    found = []
    while at:
        (count,) = struct.unpack_from("<H", tiff, at)
        tags = [struct.unpack_from("<HHII", tiff, at + 2 + 12 * i) for i in range(count)]
        (tiles,) = [(number, value) for tag, kind, number, value in tags if tag == 324]
        offsets = struct.unpack_from(f"<{tiles[0]}I", tiff, tiles[1]) if tiles[0] > 1 else (tiles[1],)
        found.append((at, min(offset for offset in offsets if offset)))
        (at,) = struct.unpack_from("<I", tiff, at + 2 + 12 * count)
    return found


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_a_cog_holds_the_image(tmp_path: Path, dtype: str) -> None:
    image = random_mosaic((3, 1300, 1100), dtype="uint16" if dtype == "uint8" else dtype, chunks=256)
    image = (image % 251).astype(dtype).assign_attrs(image.attrs) if dtype == "uint8" else image
    mosaic.to_cog(image, tmp_path / "a.tif", tile=512, workers=2)
    check_layout(tmp_path / "a.tif", 2)
    with rasterio.open(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(source.read(), image.values)
        assert source.descriptions == ("b0", "b1", "b2")
        assert source.crs.to_epsg() == 32723
        assert source.transform == schema.geobox(image).transform
        assert source.dtypes == (dtype,) * 3
        assert source.nodata == 0 if image.dtype.kind != "f" else np.isnan(source.nodata)
        small = source.read(1, out_shape=(650, 550), resampling=Resampling.nearest)
    known = schema.known_block(image.values[0], schema.nodata(image))
    blocks = np.where(known, image.values[0], 0).astype("float64").reshape(650, 2, 550, 2).sum(axis=(1, 3))
    count = known.reshape(650, 2, 550, 2).sum(axis=(1, 3))
    expected = blocks[count > 0] / count[count > 0]
    np.testing.assert_allclose(small[count > 0], expected, atol=0.51 if image.dtype.kind != "f" else 1e-3)
    assert (np.isnan(small) if image.dtype.kind == "f" else small == 0)[count == 0].all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


@given(st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)), st.integers(1, 50), st.integers(1, 3))
def test_any_tile_gives_the_same_file(shape: tuple[int, int, int], tile: int, workers: int) -> None:
    import tempfile

    image = random_mosaic(shape, chunks=7)
    with tempfile.TemporaryDirectory() as folder:
        mosaic.to_cog(image, f"{folder}/a.tif", tile=tile, workers=workers)
        with rasterio.open(f"{folder}/a.tif") as source:
            np.testing.assert_array_equal(source.read(), image.values)


@pytest.mark.parametrize("compress", ["deflate", "lzw", "zstd", "lerc", "none"])
def test_every_compression_is_without_loss(tmp_path: Path, compress: str) -> None:
    image = random_mosaic((2, 600, 300), dtype="float32")
    mosaic.to_cog(image, tmp_path / "a.tif", compress=compress)
    with rasterio.open(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(source.read(), image.values)


def test_labels_scores_and_masks(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (700, 600)).astype("uint8")
    mask = schema.wrap(labels, grid((700, 600)), schema.MASK, name="mask", nodata=255)
    mosaic.to_cog(mask, tmp_path / "mask.tif")
    with rasterio.open(tmp_path / "mask.tif") as source:
        assert (source.count, source.nodata) == (1, 255)
        assert set(np.unique(source.read(out_shape=(1, 350, 300)))) <= {0, 1, 2}
    scores = schema.wrap(
        labels[np.newaxis] * np.uint8(50),
        grid((700, 600)),
        schema.SCORES,
        name="scores",
        coords={"class": ["landslide"]},
        attrs=schema.score_attrs("uint8"),
    )
    mosaic.to_cog(scores, tmp_path / "scores.tif")
    plain = rioxarray.open_rasterio(tmp_path / "scores.tif", mask_and_scale=True)
    np.testing.assert_allclose(plain.values[0], labels / 5, rtol=1e-6)
    with rasterio.open(tmp_path / "scores.tif") as source:
        assert source.descriptions == ("landslide",)


def test_a_window_that_cannot_be_computed_leaves_nothing(tmp_path: Path) -> None:
    def fail(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        if block_id[1:] == (2, 1):
            raise OSError("torn")
        return block

    image = random_mosaic((1, 90, 90), chunks=16)
    broken = image.copy(data=image.data.map_blocks(fail, dtype=image.dtype, name="fail"))
    with pytest.raises(Unreadable, match=r"rows 32 to 48, columns 16 to 32 of the image cannot be read: OSError: torn"):
        mosaic.to_cog(broken, tmp_path / "a.tif", tile=16)
    assert list(tmp_path.iterdir()) == []


def test_bad_input(tmp_path: Path) -> None:
    image = random_mosaic((1, 20, 20))
    mosaic.to_cog(image, tmp_path / "a.tif")
    with pytest.raises(BadInput, match=r"path must name nothing yet. Got .*a.tif. Pass another, or overwrite=True"):
        mosaic.to_cog(image, tmp_path / "a.tif")
    mosaic.to_cog(image + 1, tmp_path / "a.tif", overwrite=True)
    with pytest.raises(BadInput, match="path must be a local file"):
        mosaic.to_cog(image, "s3://bucket/a.tif")
    with pytest.raises(BadInput, match="path must lie in a folder that exists"):
        mosaic.to_cog(image, tmp_path / "nowhere" / "a.tif")
    with pytest.raises(BadInput, match="method must be one of average, mode, nearest"):
        mosaic.to_cog(image, tmp_path / "b.tif", method="mean")
    with pytest.raises(BadInput, match="image must be a DataArray on"):
        mosaic.to_cog(image.expand_dims("time"), tmp_path / "b.tif")
    with pytest.raises(BadInput, match="have a CRS"):
        mosaic.to_cog(xr.DataArray(np.zeros((1, 4, 4)), dims=schema.MOSAIC), tmp_path / "b.tif")
    with pytest.raises(BadInput, match=r"compress must be one of deflate, .* Got compress='zip'"):
        mosaic.to_cog(image, tmp_path / "b.tif", compress="zip")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_straight_from_a_store(tmp_path: Path) -> None:
    image = random_mosaic((2, 100, 90))
    store.write(image, tmp_path / "a.zarr", chunk=16, shard=32)
    mosaic.to_cog(store.open(tmp_path / "a.zarr"), tmp_path / "a.tif", tile=32)
    with rasterio.open(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(source.read(), image.values)
