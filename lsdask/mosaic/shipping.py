"""A mosaic becomes a GeoTIFF in a bucket: the workers of a cluster compress and send its tiles, by odc-geo.

odc-geo computes the overviews, compresses, and joins tiles into the parts of an upload. The header alone is written
here: that of odc-geo (0.5.3) says that the image is larger than it is, by less than a pixel of the last overview, and
has neither scale nor offset.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import xarray as xr

from lsdask.errors import BadInput, LsdaskError, Unreadable, sentence

if TYPE_CHECKING:
    from distributed import Client

BLOCK = 512
"""Side of the GeoTIFF's tiles, in pixels."""

PARTS = 8000
"""How many parts an upload may have; S3 takes 10 000."""

LARGEST = BLOCK << 9
"""Side up to which odc-geo's larger image has no more tiles than the true one, in pixels."""

WIDTH, HEIGHT, OFFSETS, SIZES, METADATA = 256, 257, 324, 325, 42112
"""Tags of TIFF 6.0, and GDAL's."""

COMPRESSIONS = ("deflate", "lzw", "zstd")
"""What odc-geo compresses: without compression it fails, and its LERC comes back altered (0.5.3)."""

Place = tuple[int, int, int, int]
"""Of a tile: level (0 is the image), plane, row, column."""


def ship(
    image: xr.DataArray,
    path: str,
    *,
    names: Sequence[str],
    scale: tuple[float, float],
    nodata: float | int,
    compress: str,
    method: str,
    client: "Client",
) -> None:
    """Write an image as a Cloud-Optimized GeoTIFF into a bucket of S3, from the workers of a cluster.

    The object appears once it is whole; what was sent of one that fails is removed.

    Parameters
    ----------
    image : DataArray (y, x), or of one dim before (y, x)
        Lazy or in memory.
    path : str
        ``s3://bucket/key``.
    names : sequence of str
        Of the bands.
    scale : (float, float)
        Scale and offset of all bands.
    nodata : float or int
        What stands for void; overviews leave it out.
    compress : str
        One of ``COMPRESSIONS``.
    method : {"average", "mode", "nearest"}
        How overviews are made.
    client : distributed.Client
        Its workers have the extra ``cog``, and in their environment what boto3 asks for.

    Raises
    ------
    BadInput
        If ``compress`` is another, a side is longer than ``LARGEST``, a package is missing, or the bucket refuses.
    Unreadable
        If a tile could not be compressed, or the bucket does not answer.
    """
    if compress not in COMPRESSIONS:
        rule = f"be one of {', '.join(COMPRESSIONS)} where workers write"
        raise BadInput(sentence("compress", rule, f"compress={compress!r}", "Leave client out"))
    if max(image.shape[-2:]) > LARGEST:
        rule = f"have at most {LARGEST} pixels a side where workers write"
        raise BadInput(sentence("image", rule, f"{image.shape[-2:]}", "Leave client out"))
    save, upload = _odc(path)
    tiles = -(-image.shape[-2] // BLOCK) * -(-image.shape[-1] // BLOCK) * 4 // 3
    parts = save(
        _bands_last(image, names, nodata),
        "",
        compression=compress,
        predictor=True,
        blocksize=BLOCK,
        overview_resampling=method,
        tile_batching=max(4, -(-tiles // PARTS)),
        stats=False,  # made of an overview, and readers would take them for the image's
        photometric="minisblack",  # else four bands were red, green, blue and opacity
    )
    about = band_metadata(names, *scale)
    header = partial(header_block, empty=parts["hdr0"], shape=(image.sizes["y"], image.sizes["x"]), about=about)
    with _told(path), _begun(upload):
        job = client.compute(upload.upload(parts["tiles"][::-1], mk_header=header))
        try:
            job.result()
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, LsdaskError):
                raise
            raise Unreadable(f"the image cannot be computed: {type(error).__name__}: {error}") from error
        finally:
            job.cancel()  # else workers go on where nobody waits


def _odc(path: str) -> tuple[Any, Any]:
    """Give odc-geo's writer, and its upload of an object that is to be."""
    try:
        import imagecodecs  # noqa: F401
        from odc.geo.cog import save_cog_with_dask
        from odc.geo.cog._s3 import S3MultiPartUpload  # the public way neither begins an upload nor gives it up

        upload = S3MultiPartUpload(*path.removeprefix("s3://").split("/", 1))
        upload.s3_client()
    except ImportError as error:
        do = "Install it: pip install 'lsdask[cog]', or leave client out"
        raise BadInput(sentence("client", "have what odc-geo writes with", str(error), do)) from error
    return save_cog_with_dask, upload


@contextmanager
def _begun(upload: Any) -> Iterator[None]:
    """Begin an upload, whose number then travels to the workers; give it up if the block fails."""
    upload.initiate()
    try:
        yield
    except BaseException:
        upload.cancel()
        raise


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn what boto3 raises into one sentence."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        do = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, here and on the workers"
        raise BadInput(sentence("path", "be open to the credentials of the environment", "none", do)) from error
    except ClientError as error:
        refused = 400 <= error.response["ResponseMetadata"]["HTTPStatusCode"] < 500
        got = f"path={path}: {error}"
        raise (BadInput if refused else Unreadable)(sentence("path", "be in a bucket that takes it", got)) from error
    except BotoCoreError as error:
        raise Unreadable(sentence("path", "be on a server that answers", f"path={path}: {error}")) from error


def _bands_last(image: xr.DataArray, names: Sequence[str], nodata: float | int) -> xr.DataArray:
    """Put bands last, so that a tile has them all and is one task; odc-geo looks for their names and nodata here."""
    bands = image if image.ndim == 3 else image.expand_dims("band")
    lead = str(bands.dims[0])
    named = bands.drop_vars(lead, errors="ignore").rename({lead: "band"}).assign_coords(band=list(names))
    named.attrs = {"nodata": nodata}
    return named.chunk({"band": -1}).transpose("y", "x", "band")


def band_metadata(names: Sequence[str], scale: float, offset: float) -> str:
    """Say what the bands are as GDAL does in its TIFF tag 42112.

    Parameters
    ----------
    names : sequence of str
    scale, offset : float
        Of all bands.

    Returns
    -------
    str
        XML of ASCII.
    """
    items = [
        f'<Item name="{role.upper()}" sample="{band}" role="{role}">{escape(escape(value))}</Item>'  # GDAL: twice
        for band, name in enumerate(names)
        for role, value in (("description", name), ("scale", repr(scale)), ("offset", repr(offset)))
    ]
    return "".join(("<GDALMetadata>", *items, "</GDALMetadata>")).encode("ascii", "xmlcharrefreplace").decode()


def header_block(tiles: Sequence[tuple[int, Place]], *, empty: bytes, shape: tuple[int, int], about: str) -> bytes:
    """Fill the header of a TIFF whose tiles follow it.

    Parameters
    ----------
    tiles : sequence of (bytes, (level, plane, row, column))
        In the order in which they follow; level 0 is the image.
    empty : bytes
        The header without the tiles' places.
    shape : (int, int)
        The image, in pixels (y, x); each level has half of the one before, rounded up.
    about : str
        Text of the tag 42112.

    Returns
    -------
    bytes

    Raises
    ------
    Unreadable
        If a tile is empty: odc-geo's answer to a compression that fails.
    """
    from tifffile import TiffFile

    lost = [place for size, place in tiles if not size]
    if lost:
        raise Unreadable(f"{len(lost)} tiles cannot be compressed; the first: level, plane, row, column {lost[0]}")
    file = BytesIO(empty)
    with TiffFile(file, mode="r+", name="header") as tiff:
        tiff.pages.first.tags[METADATA].overwrite(about)
        at = len(file.getbuffer())
        places: list[dict[tuple[int, int], tuple[int, int]]] = [{} for _ in tiff.pages]
        for size, (level, _, row, column) in tiles:
            places[level][row, column] = (at, size)
            at += size
        for level, page in enumerate(page.aspage() for page in tiff.pages):
            offsets, sizes = zip(*(places[level][place] for place in sorted(places[level])))
            height, width = (-(-side // 2**level) for side in shape)
            for tag, value in ((HEIGHT, height), (WIDTH, width), (OFFSETS, offsets), (SIZES, sizes)):
                page.tags[tag].overwrite(value)
    return file.getvalue()
