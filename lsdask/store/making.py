"""Stores are made out of sight and appear under their names when they are whole."""

import asyncio
import os
import shutil
import uuid
import warnings
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import dask.array as da
import numpy as np
import xarray as xr
from zarr.abc.store import ByteRequest, Store
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import WrapperStore

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.store import places, reading, versions
from lsdask.store.places import Place

ID = "lsdask_id"
"""Group attribute: a random name given when a store is made, so that a store made again is another store."""

_METADATA = "zarr.json"


def write(
    image: xr.DataArray, path: str | Path, *, chunk: int = 512, shard: int = 4096, overwrite: bool = False
) -> None:
    """Write a lazy image to a sharded Zarr store, one shard at a time and a few at once.

    A store appears under its name only when it is whole. For what takes hours and must survive being killed, use
    ``mosaic.write``.

    Parameters
    ----------
    image : DataArray (..., y, x)
        Any dtype; Dask-backed or in memory.
    path : str or Path
        Local path or URL of the new group.
    chunk, shard : int
        Sides of a chunk and of a shard, in pixels; ``shard`` a multiple of ``chunk``.
    overwrite : bool
        Replace what is there.

    Raises
    ------
    BadInput
        If ``path`` exists and ``overwrite`` is false, ``shard`` is not a multiple of ``chunk``, or ``path`` cannot
        be written.
    Unreadable
        If an object store does not answer.
    """
    if places.exists(path) and not overwrite:
        raise BadInput(sentence("path", "name nothing yet", f"path={path}", "Pass another, or overwrite=True"))
    with making(path, overwrite=overwrite) as made:
        create(made, image, chunk=chunk, shard=shard)
        aligned = {dim: shard if dim in ("y", "x") else -1 for dim in image.dims}
        da.store(image.chunk(aligned).data, reading.array(made, mode="r+"), lock=False)  # type: ignore[arg-type]


@contextmanager
def making(path: str | Path, *, overwrite: bool = False) -> Iterator[Place]:
    """Make a store out of sight: what the block makes at the place it is given appears at ``path`` when it ends well.

    Locally that is a folder of another name, renamed. On an object store or a web server, where nothing can be
    renamed, metadata is written last, and that of the root, without which there is no store, at the very end. In a
    repository it is the run's transaction.

    Parameters
    ----------
    path : str or Path
        The name of the new store.
    overwrite : bool
        Remove first what is there.

    Yields
    ------
    str or zarr Store
        For ``create`` and ``array``.

    Raises
    ------
    BadInput
        If something appeared at ``path`` meanwhile, or ``path`` cannot be written.
    """
    if places.is_local(path):
        with _folder(Path(path), overwrite) as made:
            yield made
    elif versions.is_repository(path):
        yield places.node(path, write=True)
    else:
        hidden = _Hidden(places.node(path, write=True))  # type: ignore[arg-type]
        with places.told(path):
            yield hidden
            sync(hidden.appear())


@contextmanager
def _folder(path: Path, overwrite: bool) -> Iterator[str]:
    made = Path(f"{path}.part-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        yield str(made)
        if overwrite:
            shutil.rmtree(path, ignore_errors=True)
        rename(made, path)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def rename(made: Path, path: Path) -> None:
    """Give a store that was made under another name its own.

    Raises
    ------
    BadInput
        If something stands there; what was made is removed.
    """
    try:
        os.replace(made, path)
    except OSError as error:
        shutil.rmtree(made)
        raise BadInput(sentence("path", "name nothing yet", f"path={path}", "Pass another")) from error


class _Hidden(WrapperStore[Store]):
    """A store that keeps its metadata back until it is told to appear, so that what it holds so far is known here."""

    def __init__(self, store: Store, kept: dict[str, Buffer] | None = None) -> None:
        super().__init__(store)
        self._kept = {} if kept is None else kept

    def _with_store(self, store: Store) -> Self:
        """Wrap the same store opened otherwise (Zarr does, to read only): what is kept back is the same too."""
        return type(self)(store, self._kept)

    async def appear(self) -> None:
        """Write the metadata, the root's last."""
        for key in sorted(self._kept, key=lambda key: -key.count("/")):
            await self._store.set(key, self._kept[key])

    async def set(self, key: str, value: Buffer) -> None:
        if _is_metadata(key):
            self._kept[key] = value
        else:
            await self._store.set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        if not await self.exists(key):
            await self.set(key, value)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        await asyncio.gather(*(self.set(key, value) for key, value in values))

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        return self._kept.get(key) if _is_metadata(key) else await self._store.get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        return key in self._kept if _is_metadata(key) else await self._store.exists(key)

    @property
    def supports_listing(self) -> bool:
        return True

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Give the groups and arrays in a group, as far as they are kept here: web servers do not list."""
        below = f"{prefix}/".lstrip("/")
        for key in list(self._kept):
            name, _, rest = key.removeprefix(below).partition("/")
            if key.startswith(below) and rest == _METADATA:
                yield name

    @property
    def _supports_sync_io(self) -> bool:
        return False


def _is_metadata(key: str) -> bool:
    return key.rpartition("/")[2] == _METADATA


def create(path: Place, template: xr.DataArray, *, chunk: int = 512, shard: int = 4096) -> None:
    """Make a store that holds no pixels yet: what is not written later reads as no data.

    Parameters
    ----------
    path : str, Path or zarr Store
        The place of the new group.
    template : DataArray (..., y, x)
        Says name, dims, dtype, coordinates and attributes; its values are not looked at, so
        ``dask.array.zeros`` will do.
    chunk, shard : int
        Sides of a chunk and of a shard, in pixels; ``shard`` a multiple of ``chunk``.

    Raises
    ------
    BadInput
        If ``template`` has no grid or no name, ``shard`` is not a multiple of ``chunk``, or ``path`` cannot be
        written.
    """
    if chunk < 1 or shard % chunk:
        do = f"Pass shard={max(shard // max(chunk, 1), 1) * max(chunk, 1)}"
        raise BadInput(sentence("shard", f"be a multiple of chunk, {chunk}", f"shard={shard}", do))
    if template.dims[-2:] != ("y", "x"):
        raise BadInput(sentence("image", "have 'y' and 'x' as its last dims", str(template.dims)))
    schema.geobox(template)
    name = str(template.name or "image")
    lead = template.shape[:-2]
    empty = da.zeros(template.shape, chunks=-1, dtype=template.dtype)
    image = xr.DataArray(empty, dims=template.dims, coords=template.coords, attrs=template.attrs, name=name)
    encoding = {
        "chunks": (*lead, chunk, chunk),
        "shards": (*lead, shard, shard),
        "fill_value": _fill(template),
        "compressors": _compressor(template.dtype),
    }
    dataset = image.to_dataset().assign_attrs({ID: uuid.uuid4().hex})
    with warnings.catch_warnings(), places.told(path):
        # Zarr warns that strings (the band names) and consolidated metadata (without which plain xarray warns)
        # are not yet in the v3 specification.
        warnings.filterwarnings("ignore", message=".*Zarr (V3 specification|format 3 specification).*")
        dataset.to_zarr(
            places.node(path, write=True),
            mode="w",
            compute=False,
            consolidated=True,
            zarr_format=3,
            encoding={name: encoding},
        )


def _compressor(dtype: np.dtype) -> BloscCodec:
    """Give the codec of a dtype; ``benchmarks/compression.py`` says why.

    Higher levels take several times as long and save next to nothing. Labels and scores, one byte a value, are
    written as fast as they are computed only by LZ4, in up to half as much room again; mosaics, which are written once
    and read often, perhaps over a network, by Zstandard.
    """
    if dtype.itemsize == 1:
        return BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle")
    return BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")


def _fill(template: xr.DataArray) -> np.generic:
    nodata: Any = schema.nodata(template)
    return template.dtype.type(0 if nodata is None else nodata)
