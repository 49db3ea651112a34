"""Cloud-Optimized GeoTIFFs as rasterio, rioxarray and the TIFF specification see them."""

import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import s3
import xarray as xr
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from images import grid, random_mosaic
from images import mosaic as mosaic_of

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


def levels(path: str | Path) -> list[np.ndarray]:
    """The image and its overviews, as GDAL reads them."""
    with rasterio.open(path) as source:
        read = [source.read()]
        count = len(source.overviews(1))
    for level in range(count):
        with rasterio.open(path, overview_level=level) as source:
            read.append(source.read())
    return read


def fours(data: np.ndarray, nodata: float | None) -> tuple[np.ndarray, np.ndarray]:
    """The pixels below each of half the size, and which of them are known: (..., y / 2, x / 2, 4); odd ends pad."""
    odd = [(0, 0), *((0, size % 2) for size in data.shape[1:])]
    known = np.pad(~np.isnan(data) if nodata is None or np.isnan(nodata) else data != nodata, odd)
    parts = [
        part.reshape(len(part), part.shape[1] // 2, 2, -1, 2).swapaxes(2, 3) for part in (np.pad(data, odd), known)
    ]
    values, there = (part.reshape(*part.shape[:3], 4) for part in parts)
    return values, there


def check_means(path: str | Path) -> None:
    """Each overview holds the means of the known of the one before, to its last even row."""
    with rasterio.open(path) as source:
        nodata = source.nodata
    read = levels(path)
    assert len(read) > 1
    for before, after in pairwise(read):
        values, known = fours(before, nodata)
        total = np.where(known, values, 0).sum(axis=-1, dtype="float64")
        mean = total / np.maximum(known.sum(axis=-1), 1)
        whole = np.s_[:, : before.shape[1] // 2, : before.shape[2] // 2]
        mean, after, there = mean[whole], after[whole], known.any(axis=-1)[whole]
        room = {"rtol": 1e-6} if after.dtype.kind == "f" else {"rtol": 0, "atol": 0.5}  # some halves are rounded down
        np.testing.assert_allclose(after[there], mean[there], **room)
        assert (np.isnan(after) if nodata is None or np.isnan(nodata) else after == nodata)[~there].all()


def check_modes(path: str | Path) -> None:
    """Each overview holds one of the most frequent known values of the one before."""
    with rasterio.open(path) as source:
        nodata = source.nodata
    read = levels(path)
    assert len(read) > 1
    for before, after in pairwise(read):
        values, known = fours(before, nodata)
        votes = ((values[..., np.newaxis] == values[..., np.newaxis, :]) & known[..., np.newaxis, :]).sum(axis=-1)
        votes = np.where(known, votes, 0)
        mine = np.where(values == after[..., np.newaxis], votes, 0).max(axis=-1)
        there = known.any(axis=-1)
        np.testing.assert_array_equal(mine[there], votes.max(axis=-1)[there])
        assert (after == nodata)[~there].all()


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
    check_means(tmp_path / "a.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


@given(st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)), st.integers(1, 50), st.integers(1, 3))
def test_any_tile_gives_the_same_file(shape: tuple[int, int, int], tile: int, workers: int) -> None:
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


@pytest.mark.parametrize("dtype", ["int8", "uint32", "int32", "uint64", "int64"])
def test_every_type_comes_back(tmp_path: Path, dtype: str) -> None:
    image = mosaic_of(np.random.default_rng(0).integers(-99 if dtype[0] == "i" else 1, 99, (1, 530, 20)).astype(dtype))
    mosaic.to_cog(image, tmp_path / "a.tif")
    np.testing.assert_array_equal(levels(tmp_path / "a.tif")[0], image.values)
    check_means(tmp_path / "a.tif")


def test_a_full_disk(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
import numpy as np
from images import mosaic as mosaic_of
from lsdask import mosaic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))  # room for the plain file alone
mosaic.to_cog(mosaic_of(np.ones((1, 1200, 1200), "uint16")), sys.argv[1], compress="none")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.tif")]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert re.search(
        r"path must be where GDAL can write the image twice. Got path=.*Write error.* Make room", done.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_labels_scores_and_masks(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (700, 600)).astype("uint8")
    labels[100:230, 31:300] = 255
    mask = schema.wrap(labels, grid((700, 600)), schema.MASK, name="mask", nodata=255)
    mosaic.to_cog(mask, tmp_path / "mask.tif")
    with rasterio.open(tmp_path / "mask.tif") as source:
        assert (source.count, source.nodata) == (1, 255)
        assert source.descriptions == ("mask",)
    check_modes(tmp_path / "mask.tif")
    scores = schema.wrap(
        np.where(labels == 255, 255, labels * 50.0)[np.newaxis].astype("uint8"),
        grid((700, 600)),
        schema.SCORES,
        name="scores",
        coords={"class": ["landslide"]},
        attrs=schema.score_attrs("uint8"),
    )
    mosaic.to_cog(scores, tmp_path / "scores.tif")
    plain = rioxarray.open_rasterio(tmp_path / "scores.tif", mask_and_scale=True)
    np.testing.assert_allclose(plain.values[0], np.where(labels == 255, np.nan, labels / 5), rtol=1e-6)
    check_means(tmp_path / "scores.tif")
    with rasterio.open(tmp_path / "scores.tif") as source:
        assert source.descriptions == ("landslide",)


def torn() -> xr.DataArray:
    """A lazy mosaic of which one block cannot be computed."""

    def fail(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        if block_id[1:] == (2, 1):
            raise OSError("torn")
        return block

    image = random_mosaic((1, 90, 90), chunks=16)
    return image.copy(data=image.data.map_blocks(fail, dtype=image.dtype, name="fail"))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two workers in this process."""
    place = {"processes": False, "dashboard_address": None, "set_as_default": False}
    with Client(n_workers=2, threads_per_worker=1, **place) as found:
        yield found


def test_a_window_that_cannot_be_computed_leaves_nothing(tmp_path: Path, client: Client) -> None:
    pools: list[dict[str, Any]] = [{"workers": 2}, {"client": client}]
    for pool in pools:
        with pytest.raises(Unreadable, match=r"rows 32 to 48, columns 16 to 32 .* cannot be read: OSError: torn"):
            mosaic.to_cog(torn(), tmp_path / "a.tif", tile=16, **pool)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("chunks", [None, 128])
def test_workers_compute_a_local_file(tmp_path: Path, client: Client, chunks: int | None) -> None:
    image = random_mosaic((2, 700, 600), chunks=chunks)
    mosaic.to_cog(image, tmp_path / "here.tif", tile=256)
    mosaic.to_cog(image, tmp_path / "there.tif", tile=256, client=client)
    assert (tmp_path / "there.tif").read_bytes() == (tmp_path / "here.tif").read_bytes()


def test_a_file_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    image = random_mosaic((2, 1300, 1100), chunks=256)
    with s3.serving(monkeypatch) as server, vsis3(server):
        mosaic.to_cog(image, "s3://scenes/maps/a.tif", tile=512)
        np.testing.assert_array_equal(levels("/vsis3/scenes/maps/a.tif")[0], image.values)
        check_means("/vsis3/scenes/maps/a.tif")
        with pytest.raises(BadInput, match=r"path must name nothing yet. Got path=s3://scenes/maps/a.tif"):
            mosaic.to_cog(image, Path("s3://scenes/maps/a.tif"))
        with pytest.raises(BadInput, match=r"path must name a bucket that exists. Got path=s3://nowhere/a.tif"):
            mosaic.to_cog(image[:, :20, :20], "s3://nowhere/a.tif", overwrite=True)
        with pytest.raises(Unreadable, match="torn"):
            mosaic.to_cog(torn(), "s3://scenes/torn.tif", tile=16)
        assert server.ask("GET", "scenes").count(b"<Key>") == 1
        mosaic.to_cog(image[:1, :20, :30], "s3://scenes/maps/a.tif", overwrite=True)
        np.testing.assert_array_equal(levels("/vsis3/scenes/maps/a.tif")[0], image.values[:1, :20, :30])
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_many_parts_in_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 60000, (1, 3000, 4000), dtype="uint16")
    with s3.serving(monkeypatch) as server, vsis3(server):
        mosaic.to_cog(mosaic_of(data), "s3://scenes/a.tif", compress="none")
        np.testing.assert_array_equal(levels("/vsis3/scenes/a.tif")[0], data)
        assert b'-5"' in server.ask("GET", "scenes").replace(b"&quot;", b'"')  # the tag of what came in five parts


def vsis3(server: s3.Server) -> rasterio.Env:
    """GDAL, told where the bucket is."""
    place = {"AWS_S3_ENDPOINT": server.url.removeprefix("http://"), "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
    return rasterio.Env(**place, CPL_VSIL_CURL_NON_CACHED="/vsis3/scenes")


def test_bad_input(tmp_path: Path) -> None:
    image = random_mosaic((1, 20, 20))
    mosaic.to_cog(image, tmp_path / "a.tif")
    with pytest.raises(BadInput, match=r"path must name nothing yet. Got .*a.tif. Pass another, or overwrite=True"):
        mosaic.to_cog(image, tmp_path / "a.tif")
    mosaic.to_cog(image + 1, tmp_path / "a.tif", overwrite=True)
    with pytest.raises(
        BadInput, match=r"path must be a local file or in a bucket \(s3://, gs://, az://\). Got path=http"
    ):
        mosaic.to_cog(image, "https://example.org/a.tif")
    with pytest.raises(BadInput, match=r"path must name a file in a bucket. Got path=s3://bucket"):
        mosaic.to_cog(image, "s3://bucket")
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
    with pytest.raises(BadInput, match=r"image must be of a type that GDAL writes: uint8, .* Got float16 and"):
        mosaic.to_cog(image.astype("float16"), tmp_path / "b.tif")
    with pytest.raises(BadInput, match=r"image must be of a type that GDAL writes: .* Got int64 and compress='lerc'"):
        mosaic.to_cog(image.astype("int64"), tmp_path / "b.tif", compress="lerc")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_straight_from_a_store(tmp_path: Path) -> None:
    image = random_mosaic((2, 100, 90))
    store.write(image, tmp_path / "a.zarr", chunk=16, shard=32)
    mosaic.to_cog(store.open(tmp_path / "a.zarr"), tmp_path / "a.tif", tile=32)
    with rasterio.open(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(source.read(), image.values)
