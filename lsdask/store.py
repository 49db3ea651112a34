"""Images in Zarr: created, written, opened and read by windows.

A store is a Zarr v3 group that plain ``xarray.open_zarr`` opens: one image variable, its coordinates, the CRS in
``spatial_ref``. All leading axes (bands, classes, several k) lie in one chunk; chunks lie in shards, the stored
objects, and a shard is always written whole by one writer.
"""

import hashlib
import json
import os
import shutil
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec
from zarr.errors import GroupNotFoundError

from lsdask import schema
from lsdask.errors import BadInput, NotFound, Unreadable, sentence

ID = "lsdask_id"
"""Group attribute: a random name given when a store is made, so that a store made again is another store."""

SOURCE = "lsdask_source"
"""Encoding key of an opened image: its path, variable and Dask name (which any operation changes)."""


def write(
    image: xr.DataArray, path: str | Path, *, chunk: int = 512, shard: int = 4096, overwrite: bool = False
) -> None:
    """Write a lazy image to a sharded Zarr store, one shard at a time and a few at once.

    A local store appears under its name only when it is whole. For what takes hours and must survive being
    killed, use ``mosaic.write``.

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
        If ``path`` exists and ``overwrite`` is false, or ``shard`` is not a multiple of ``chunk``.
    """
    if exists(path) and not overwrite:
        raise BadInput(sentence("path", "name nothing yet", f"path={path}", "Pass another, or overwrite=True"))
    target = Path(f"{path}.part-{os.getpid()}") if is_local(path) else path
    try:
        create(target, image, chunk=chunk, shard=shard)
        aligned = {dim: shard if dim in ("y", "x") else -1 for dim in image.dims}
        da.store(image.chunk(aligned).data, array(target, mode="r+"), lock=False)  # type: ignore[arg-type]
        if is_local(path):
            shutil.rmtree(path, ignore_errors=True)
            rename(Path(target), Path(path))
    finally:
        if is_local(path):
            shutil.rmtree(target, ignore_errors=True)


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


def create(path: str | Path, template: xr.DataArray, *, chunk: int = 512, shard: int = 4096) -> None:
    """Make a store that holds no pixels yet: what is not written later reads as no data.

    Parameters
    ----------
    path : str or Path
        Local path or URL of the new group.
    template : DataArray (..., y, x)
        Says name, dims, dtype, coordinates and attributes; its values are not looked at, so
        ``dask.array.zeros`` will do.
    chunk, shard : int
        Sides of a chunk and of a shard, in pixels; ``shard`` a multiple of ``chunk``.

    Raises
    ------
    BadInput
        If ``template`` has no grid or no name, or ``shard`` is not a multiple of ``chunk``.
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
        "compressors": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
    }
    dataset = image.to_dataset().assign_attrs({ID: uuid.uuid4().hex})
    with warnings.catch_warnings():
        # Zarr warns that strings (the band names) and consolidated metadata (without which plain xarray warns)
        # are not yet in the v3 specification.
        warnings.filterwarnings("ignore", message=".*Zarr (V3 specification|format 3 specification).*")
        dataset.to_zarr(str(path), mode="w", compute=False, consolidated=True, zarr_format=3, encoding={name: encoding})


def _fill(template: xr.DataArray) -> Any:
    nodata = schema.nodata(template)
    return template.dtype.type(0 if nodata is None else nodata)


def open(path: str | Path, *, chunks: int = 2048, name: str | None = None) -> xr.DataArray:
    """Open the image of a store, lazily and as stored.

    Parameters
    ----------
    path : str or Path
        A group written by lsdask, or any Zarr group with one variable on (..., y, x).
    chunks : int
        Side of a Dask chunk, in pixels, rounded up to whole stored chunks.
    name : str, optional
        The variable, where the group has several images.

    Returns
    -------
    DataArray (..., y, x), dtype as stored, ``_FillValue`` in its attributes

    Raises
    ------
    NotFound, Unreadable, BadInput
        If there is no group, it cannot be read, or it holds no or several images.
    """
    dataset = _dataset(path)
    image = dataset[_image_name(dataset, path, name)]
    stored = image.encoding.get("chunks", (1,) * image.ndim)[-1]
    side = max(-(-chunks // stored), 1) * stored
    image = image.chunk({dim: side if dim in ("y", "x") else -1 for dim in image.dims})
    if "_FillValue" in image.attrs and image.dtype.kind in "iu":
        image.attrs["_FillValue"] = image.dtype.type(image.attrs["_FillValue"])
    image.encoding[SOURCE] = (str(path), str(image.name), image.data.name)
    return image


def _dataset(path: str | Path) -> xr.Dataset:
    try:
        return xr.open_zarr(str(path), chunks=None, mask_and_scale=False, decode_coords="all", consolidated=False)
    except (FileNotFoundError, GroupNotFoundError) as error:
        raise NotFound(sentence("path", "name a Zarr group", f"path={path}, where there is none")) from error
    except (OSError, ValueError, KeyError) as error:
        raise Unreadable(sentence("path", "name a Zarr group that can be read", f"path={path}: {error}")) from error


def _image_name(dataset: xr.Dataset, path: str | Path, name: str | None) -> str:
    names = [str(key) for key, value in dataset.data_vars.items() if value.dims[-2:] == ("y", "x")]
    if name is not None and name in names:
        return name
    if name is None and len(names) == 1:
        return names[0]
    rule = "hold one variable on (..., y, x)" if name is None else f"hold a variable {name!r} on (..., y, x)"
    raise BadInput(sentence(str(path), rule, str(names or "none"), "Pass name=" if names else ""))


def array(path: str | Path, *, mode: Literal["r", "r+"] = "r", name: str | None = None) -> zarr.Array:
    """Open the image of a store as a Zarr array, to read or write windows without xarray or Dask.

    Parameters
    ----------
    path : str or Path
        The group.
    mode : {"r", "r+"}
        To read, or to read and write.
    name : str, optional
        The variable, where the group has several images.

    Returns
    -------
    zarr.Array (..., y, x)
    """
    group = zarr.open_group(str(path), mode=mode, use_consolidated=False)
    return group[name or _image_name(_dataset(path), path, None)]  # type: ignore[return-value]


def exists(path: str | Path) -> bool:
    """Say whether there is anything at ``path``: any file locally, a Zarr node elsewhere."""
    if is_local(path):
        return os.path.lexists(path)
    try:
        zarr.open_group(str(path), mode="r")
    except (FileNotFoundError, GroupNotFoundError):
        return False
    return True


def is_local(path: str | Path) -> bool:
    """Say whether ``path`` is a path of this machine rather than a URL."""
    return "://" not in str(path)


def source(image: xr.DataArray) -> str | None:
    """Give the path of the store that ``image`` was opened from, or None if it is anything else.

    An image that was opened and then changed in any way (a window, other bands, other values) is something else.
    """
    path, _, token = image.encoding.get(SOURCE, (None, None, None))
    return path if path is not None and getattr(image.data, "name", None) == token else None


@dataclass(frozen=True)
class Reader:
    """Reads windows of an image; small enough to travel to a worker.

    Attributes
    ----------
    path : str or None
        The store, if the image is one; each window is then read from it directly.
    name : str or None
        Its variable.
    image : DataArray or None
        Any other image, which travels with the reader.
    """

    path: str | None = None
    name: str | None = None
    image: xr.DataArray | None = None

    def read(self, y: slice, x: slice) -> np.ndarray:
        """Read a window, all leading axes with it.

        Returns
        -------
        (..., y, x) array, as stored

        Raises
        ------
        Unreadable
            If a chunk is missing from its shard, torn or altered, or the store does not answer.
        """
        try:
            if self.path is None:
                return np.asarray(self.image[..., y, x].compute(scheduler="synchronous").values)  # type: ignore[index]
            return np.asarray(self._array()[..., y, x])
        except (OSError, ValueError, RuntimeError) as error:
            where = f"rows {y.start} to {y.stop}, columns {x.start} to {x.stop} of {self.path or 'the image'}"
            raise Unreadable(f"{where} cannot be read: {type(error).__name__}: {error}") from error

    def _array(self) -> zarr.Array:
        held = self.__dict__.get("_held")
        if held is None:
            held = array(str(self.path), name=self.name)
            object.__setattr__(self, "_held", held)
        return held

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_held"}


def reader(image: xr.DataArray) -> Reader:
    """Make a Reader: straight from the store if ``image`` is an opened one, else through the image itself."""
    path = source(image)
    return Reader(image=image) if path is None else Reader(path=path, name=str(image.name))


def fingerprint(image: xr.DataArray) -> str:
    """Give a short name of what an image is, for a run's plan.

    A store is known by its identity and metadata (not by its pixels), anything else by its Dask graph or values.

    Returns
    -------
    str of 16 hexadecimal digits
    """
    path = source(image)
    if path is None:
        from dask.base import tokenize

        return hashlib.sha256(tokenize(image).encode()).hexdigest()[:16]
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    metadata = group[str(image.name)].metadata.to_dict()
    text = json.dumps([group.attrs.get(ID), metadata, str(schema.geobox(image))], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
