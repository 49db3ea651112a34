"""Cloud-Optimized GeoTIFFs that workers put into a bucket, as GDAL reads them there."""

import re
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import s3
import xarray as xr
from distributed import Client, Future
from images import grid, random_mosaic
from images import mosaic as mosaic_of
from rasterio.enums import ColorInterp, Interleaving
from test_mosaic_cog import check_means, check_modes, levels, torn, vsis3

from lsdask import mosaic, schema
from lsdask.errors import BadInput, Unreadable
from lsdask.mosaic.shipping import LARGEST, band_metadata, header_block, ship

pytest.importorskip("imagecodecs", reason="needs the extra cog")
tifffile = pytest.importorskip("tifffile", reason="needs the extra cog")


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Server]:
    """An empty bucket, which the environment leads to."""
    with pytest.MonkeyPatch.context() as patch, s3.serving(patch) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: s3.Server) -> Iterator[Client]:
    """Two workers, each a process."""
    place = {"dashboard_address": None, "set_as_default": False}
    with Client(n_workers=2, threads_per_worker=1, **place) as found:
        yield found


def unfinished(server: s3.Server) -> int:
    """Count the uploads that have begun, and neither ended nor been given up."""
    return server.ask("GET", "scenes?uploads").count(b"<Upload>")


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("uint8", (2, 530, 1050)), ("uint16", (4, 1301, 1099)), ("float32", (3, 1030, 529)), ("float64", (2, 600, 600))],
)
def test_an_object_holds_the_image(server: s3.Server, client: Client, dtype: str, shape: tuple[int, int, int]) -> None:
    image = random_mosaic(shape, dtype="uint16" if dtype == "uint8" else dtype, chunks=300)
    image = (image % 251).astype(dtype).assign_attrs(image.attrs) if dtype == "uint8" else image
    mosaic.to_cog(image, "s3://scenes/maps/a.tif", client=client, overwrite=True)
    with vsis3(server), rasterio.open("/vsis3/scenes/maps/a.tif") as source:
        np.testing.assert_array_equal(source.read(), image.values)
        assert source.descriptions == tuple(f"b{i}" for i in range(shape[0]))
        assert source.crs.to_epsg() == 32723
        assert source.transform == schema.geobox(image).transform
        assert source.nodata == 0 if image.dtype.kind != "f" else np.isnan(source.nodata)
        assert source.interleaving == Interleaving.pixel
        assert ColorInterp.alpha not in source.colorinterp
        assert "STATISTICS_MEAN" not in source.tags(1)
    with vsis3(server):
        check_means("/vsis3/scenes/maps/a.tif")
        half = levels("/vsis3/scenes/maps/a.tif")[1]
    assert half.shape == (shape[0], -(-shape[1] // 2), -(-shape[2] // 2))


@pytest.mark.parametrize("compress", ["lzw", "zstd"])
def test_headers_come_first_then_overviews(server: s3.Server, client: Client, compress: str) -> None:
    image = random_mosaic((2, 1100, 1100), chunks=512)
    mosaic.to_cog(image, "s3://scenes/a.tif", client=client, compress=compress, overwrite=True)
    with tifffile.TiffFile(BytesIO(server.ask("GET", "scenes/a.tif"))) as tiff:
        offsets = [page.dataoffsets for page in tiff.pages]
        assert max(page.offset for page in tiff.pages) < min(map(min, offsets))
        assert tiff.pages.first.tags[42112].valueoffset < min(map(min, offsets))
        assert [min(places) for places in offsets] == sorted((min(places) for places in offsets), reverse=True)
        np.testing.assert_array_equal(np.moveaxis(tiff.pages.first.asarray(), -1, 0), image.values)
        assert [page.shape[:2] for page in tiff.pages] == [(1100, 1100), (550, 550), (275, 275)]


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint64", "int64"])
def test_every_type_comes_back(server: s3.Server, client: Client, dtype: str) -> None:
    values = np.random.default_rng(0).integers(-99 if dtype[0] == "i" else 1, 99, (1, 530, 20)).astype(dtype)
    mosaic.to_cog(mosaic_of(values, nodata=100), "s3://scenes/type.tif", client=client, overwrite=True)
    with vsis3(server):
        np.testing.assert_array_equal(levels("/vsis3/scenes/type.tif")[0], values)
        check_means("/vsis3/scenes/type.tif")


def test_zero_is_a_number_where_no_nodata_is_declared(server: s3.Server, client: Client) -> None:
    values = np.random.default_rng(0).integers(0, 2, (1024, 20)).astype("uint8")
    mask = schema.wrap(values, grid(values.shape), schema.MASK, name="mask")
    mosaic.to_cog(mask, "s3://scenes/whole.tif", client=client)
    with vsis3(server):
        np.testing.assert_array_equal(levels("/vsis3/scenes/whole.tif")[0][0], values)
        check_modes("/vsis3/scenes/whole.tif")


def test_labels_and_scores(server: s3.Server, client: Client) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (1030, 600)).astype("uint8")
    labels[100:230, 31:300] = 255
    mask = schema.wrap(labels, grid(labels.shape), schema.MASK, name="mask", nodata=255)
    mosaic.to_cog(mask, "s3://scenes/mask.tif", client=client)
    scores = schema.wrap(
        np.stack([labels, labels.T.reshape(labels.shape)]),
        grid(labels.shape),
        schema.SCORES,
        name="scores",
        coords={"class": ["landslide", "büsch & <scrub>"]},
        attrs=schema.score_attrs("uint8"),
    )
    mosaic.to_cog(scores, "s3://scenes/scores.tif", client=client)
    with vsis3(server):
        check_modes("/vsis3/scenes/mask.tif")
        check_means("/vsis3/scenes/scores.tif")
        with rasterio.open("/vsis3/scenes/mask.tif") as source:
            assert (source.count, source.nodata, source.descriptions) == (1, 255, ("mask",))
            np.testing.assert_array_equal(source.read(1), labels)
        with rasterio.open("/vsis3/scenes/scores.tif") as source:
            assert source.descriptions == ("landslide", "büsch & <scrub>")
            assert (source.scales, source.offsets, source.nodata) == ((1 / 250,) * 2, (0.0,) * 2, 255)
            np.testing.assert_array_equal(source.read(), scores.values)


def test_another_image_at_the_same_place(server: s3.Server, client: Client) -> None:
    image = random_mosaic((1, 600, 600), chunks=512)
    mosaic.to_cog(image, "s3://scenes/again.tif", client=client)
    with pytest.raises(BadInput, match=r"path must name nothing yet. Got path=s3://scenes/again.tif"):
        mosaic.to_cog(image, "s3://scenes/again.tif", client=client)
    other = (image + 1).assign_attrs(image.attrs)
    mosaic.to_cog(other, "s3://scenes/again.tif", client=client, overwrite=True)
    with vsis3(server):
        np.testing.assert_array_equal(levels("/vsis3/scenes/again.tif")[0], other.values)


def test_what_cannot_be_computed_leaves_nothing(server: s3.Server, client: Client) -> None:
    with pytest.raises(Unreadable, match=r"the image cannot be computed: OSError: torn"):
        mosaic.to_cog(torn(), "s3://scenes/torn.tif", client=client)
    assert b"torn.tif" not in server.ask("GET", "scenes")
    assert unfinished(server) == 0


def test_one_who_loses_patience_leaves_nothing(
    server: s3.Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(future: Future) -> None:
        assert unfinished(server) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mosaic.to_cog(random_mosaic((1, 600, 600), chunks=512), "s3://scenes/stopped.tif", client=client)
    assert unfinished(server) == 0
    assert b"stopped.tif" not in server.ask("GET", "scenes")


def test_a_bucket_that_refuses_or_does_not_answer(
    server: s3.Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = random_mosaic((1, 20, 20), chunks=20)
    about: dict[str, Any] = {"names": ["a"], "scale": (1.0, 0.0), "nodata": 0, "compress": "lzw", "method": "average"}
    with pytest.raises(BadInput, match=r"path must be in a bucket that takes it. Got path=s3://nowhere/.*NoSuchBucket"):
        ship(image, "s3://nowhere/a.tif", **about, client=client)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        with pytest.raises(
            Unreadable, match=r"path must be on a server that answers. Got path=s3://scenes/a.tif: Could"
        ):
            ship(image, "s3://scenes/a.tif", **about, client=client)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(BadInput, match=r"path must be open to the credentials of the environment. Got none. Set AWS"):
        ship(image, "s3://scenes/a.tif", **about, client=client)


def test_bad_input(server: s3.Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_mosaic((1, 20, 20))
    with pytest.raises(BadInput, match=r"compress must be one of deflate, lzw, zstd where workers write. Got .*'lerc'"):
        mosaic.to_cog(image, "s3://scenes/b.tif", client=client, compress="lerc")
    with pytest.raises(BadInput, match=r"path must name a bucket that exists. Got path=s3://nowhere/b.tif"):
        mosaic.to_cog(image, "s3://nowhere/b.tif", client=client)
    wide = xr.DataArray(np.broadcast_to(np.uint8(1), (1, 1, LARGEST + 1)), dims=schema.MOSAIC, attrs={"_FillValue": 0})
    wide = wide.assign_coords(schema.wrap(wide.data, grid((1, LARGEST + 1)), schema.MOSAIC, name="wide").coords)
    with pytest.raises(BadInput, match=rf"image must have at most {LARGEST} pixels a side where workers write"):
        mosaic.to_cog(wide, "s3://scenes/b.tif", client=client)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(BadInput, match=r"client must have what odc-geo writes with. .* pip install 'lsdask\[cog\]'"):
        mosaic.to_cog(image, "s3://scenes/b.tif", client=client)
    assert b"b.tif" not in server.ask("GET", "scenes")


# The header


def test_band_metadata_is_what_gdal_writes(tmp_path: Path) -> None:
    names = ["red", 'a <b> & "ü"']
    image = mosaic_of(np.ones((2, 20, 30), "uint8"), bands=names).assign_attrs(scale_factor=0.1, add_offset=-7.5)
    mosaic.to_cog(image, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        theirs = ElementTree.fromstring(tiff.pages.first.tags[42112].value)
    ours = ElementTree.fromstring(band_metadata(names, 0.1, -7.5))

    def items(root: ElementTree.Element) -> set[tuple[Any, ...]]:
        return {(item.get("sample"), item.get("role"), _plain(item.text)) for item in root if item.get("role")}

    assert items(ours) == items(theirs)


def _plain(text: str | None) -> str | float:
    """GDAL escapes names, also quotes; its numbers have 17 digits."""
    return float(text) if re.fullmatch(r"-?[\d.]+", text or "") else str(text).replace("&quot;", '"')


def test_a_tile_that_was_not_compressed_is_no_header() -> None:
    with pytest.raises(Unreadable, match=r"1 tiles cannot be compressed; the first: level, plane, row, column \(0, 0,"):
        header_block([(7, (1, 0, 0, 0)), (0, (0, 0, 1, 2))], empty=b"", shape=(1, 1), about="")
