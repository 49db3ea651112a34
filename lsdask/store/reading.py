"""Stores are opened, whole and lazily, and say what they are."""

import hashlib
import json
import warnings
from typing import Any, Literal

import xarray as xr
import zarr
from zarr.errors import GroupNotFoundError

from lsdask import schema
from lsdask.errors import BadInput, LsdaskError, NotFound, Unreadable, sentence
from lsdask.store import places
from lsdask.store.places import Place

SOURCE = "lsdask_source"
"""Encoding key of an opened image: its path, variable and Dask name (which any operation changes)."""

OVERVIEWS = "overviews"
"""The group that holds the overviews of a store: 1, 2, ..., each a store itself."""


def open(path: Place, *, chunks: int = 2048, name: str | None = None, level: int = 0) -> xr.DataArray:
    """Open the image of a store, lazily and as stored.

    Parameters
    ----------
    path : str or Path
        A group written by lsdask, or any Zarr group with one variable on (..., y, x): a local path, a URL, or
        ``icechunk:PLACE@VERSION``.
    chunks : int
        Side of a Dask chunk, in pixels, rounded up to whole stored chunks.
    name : str, optional
        The variable, where the group has several images.
    level : int
        0 for the image itself, 1 and more for its overviews, each half the size of the one before.

    Returns
    -------
    DataArray (..., y, x), dtype as stored, ``_FillValue`` in its attributes

    Raises
    ------
    NotFound, Unreadable, BadInput
        If there is no group or no such overview, it cannot be read, or it holds no or several images.
    """
    path = level_path(path, level) if level else path
    dataset = _dataset(path)
    image = dataset[_image_name(dataset, path, name)]
    stored = image.encoding.get("chunks", (1,) * image.ndim)[-1]
    side = max(-(-chunks // stored), 1) * stored
    image = image.chunk({dim: side if dim in ("y", "x") else -1 for dim in image.dims})
    if "_FillValue" in image.attrs and image.dtype.kind in "iu":
        image.attrs["_FillValue"] = image.dtype.type(image.attrs["_FillValue"])
    image.encoding[SOURCE] = (places.absolute(path), str(image.name), image.data.name)
    return image


def level_path(path: Place, level: int) -> str:
    """Give the place of an overview of a store, a store itself.

    Examples
    --------
    >>> level_path("mosaic.zarr", 2)
    'mosaic.zarr/overviews/2'
    """
    return f"{places.text(path).rstrip('/')}/{OVERVIEWS}/{level}"


def _dataset(path: Place) -> xr.Dataset:
    """Open a group as plain xarray does, but as stored."""
    # Web servers do not list what they hold; elsewhere consolidated metadata may be older than the arrays.
    consolidated = None if places.is_web(path) else False
    try:
        with places.told(path), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Failed to open Zarr store with consolidated metadata.*")
            return xr.open_zarr(
                places.node(path),
                chunks=None,
                mask_and_scale=False,
                decode_coords="all",
                consolidated=consolidated,
            )
    except LsdaskError:
        raise
    except (FileNotFoundError, GroupNotFoundError) as error:
        raise NotFound(sentence("path", "name a Zarr group", f"path={path}, where there is none")) from error
    except (OSError, ValueError, KeyError) as error:
        raise Unreadable(sentence("path", "name a Zarr group that can be read", f"path={path}: {error}")) from error


def _image_name(dataset: xr.Dataset, path: Place, name: str | None) -> str:
    names = [str(key) for key, value in dataset.data_vars.items() if value.dims[-2:] == ("y", "x")]
    if name is not None and name in names:
        return name
    if name is None and len(names) == 1:
        return names[0]
    rule = "hold one variable on (..., y, x)" if name is None else f"hold a variable {name!r} on (..., y, x)"
    raise BadInput(sentence(str(path), rule, str(names or "none"), "Pass name=" if names else ""))


def array(path: Place, *, mode: Literal["r", "r+"] = "r", name: str | None = None) -> zarr.Array:
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

    Raises
    ------
    NotFound, Unreadable, BadInput
        If there is no group, it cannot be reached, or it holds no or several images.
    """
    with places.told(path):
        group = places.group(path, write=mode == "r+")
        return group[name or _image_name(_dataset(path), path, None)]  # type: ignore[return-value]


def source(image: xr.DataArray) -> str | None:
    """Give the path of the store that ``image`` was opened from, or None if it is anything else.

    An image that was opened and then changed in any way (a window, other bands, other values) is something else.
    """
    path, _, token = image.encoding.get(SOURCE, (None, None, None))
    return path if path is not None and getattr(image.data, "name", None) == token else None


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
    group = places.group(path)
    with places.told(path):
        parts: list[Any] = [
            group.attrs.get("lsdask_id"),
            group[str(image.name)].metadata.to_dict(),
            str(schema.geobox(image)),
        ]
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:16]
