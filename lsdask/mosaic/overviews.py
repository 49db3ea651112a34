"""Overviews: an image at half its size, a quarter and so on, so that a viewer shows a continent at once.

Each is a store below the image's (``PATH/overviews/1``, ``2``, ...), made of the one before. The image's group says
where they are, as the multiscales, spatial and proj conventions of Zarr ask.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from lsdask import ledger, schema, store, tasks, tiling
from lsdask.errors import BadInput, sentence

if TYPE_CHECKING:
    from distributed import Client

Method = Literal["average", "mode", "nearest"]
METHODS: tuple[str, ...] = ("average", "mode", "nearest")

_CONVENTIONS = [
    {
        "uuid": uuid,
        "name": name,
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
        "description": description,
    }
    for uuid, name, description in (
        ("d35379db-88df-4056-af3a-620245f8e347", "multiscales", "Multiscale layout of zarr datasets"),
        ("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "spatial", "Spatial coordinate information"),
        ("f17cb550-5864-4468-aeb7-f3180cfb622f", "proj", "Coordinate reference system information for geospatial data"),
    )
]
"""Source: the conventions named in ``schema_url``, each at its tag v0.1."""


def overviews(
    path: str | Path,
    *,
    method: Method | None = None,
    levels: int | None = None,
    client: "Client | None" = None,
    workers: int | None = None,
    retries: int = 2,
    progress: bool = True,
) -> list[tasks.Report]:
    """Make the overviews of a store, one shard a task, each level of the one before; killed, it goes on.

    ``store.open(path, level=n)`` opens one, and so does ``xarray.open_zarr(path, group=f"overviews/{n}")``, or
    ``xarray.open_groups`` all at once (``open_datatree`` does not: there a group has the dimensions of its parent).

    Parameters
    ----------
    path : str or Path
        A finished store, local or in an object store.
    method : {"average", "mode", "nearest"}, optional
        What a pixel holds of the two by two it spans: the mean of the known ones (integers rounded, halves to
        even), the most frequent known one (of several, the first by rows), or the upper left one. Default: average
        for bands and scores, mode for masks and labels.
    levels : int, optional
        How many; default until one stored chunk holds the whole image.
    client : distributed.Client, optional
        Where to run; default a pool of threads in this process.
    workers : int, optional
        Threads of that pool; default one a core.
    retries : int
        How often a shard is tried again after a failed read or write.
    progress : bool
        Show a bar once a level has taken two seconds.

    Returns
    -------
    list of tasks.Report
        One a level. A level with failed tiles is the last.

    Raises
    ------
    BadInput
        If ``path`` is a repository or holds a run that is not finished, or ``method`` is unknown.
    OtherPlan
        If its overviews are of another image or by another method.
    """
    image = store.open(path)
    method = method or ("average" if {"band", "class"} & set(image.dims) else "mode")
    _check(path, method)
    stored = store.array(path, name=str(image.name))
    chunk, shard = stored.chunks[-1], (stored.shards or stored.chunks)[-1]
    with store.told(path):
        store.group(path, write=True).require_group(store.OVERVIEWS)
    reports: list[tasks.Report] = []
    for level in range(1, 1 + (_levels(image.shape[-2:], chunk) if levels is None else levels)):
        source = store.open(path, level=level - 1)
        target = store.absolute(store.level_path(path, level))
        report = tasks.run(
            HalveTile(store.reader(source), target, str(image.name), method, schema.nodata(image), chunk),
            target=target,
            template=half(source),
            tile=shard,
            chunk=chunk,
            plan={"work": "mosaic.overviews", "source": store.fingerprint(source), "method": method},
            client=client,
            workers=workers,
            retries=retries,
            progress=progress,
            label=f"overview-{level}",
        )
        reports.append(report)
        if report.failed:
            return reports
    _announce(path, image, len(reports), method)
    return reports


def _check(path: str | Path, method: str) -> None:
    if method not in METHODS:
        raise BadInput(sentence("method", f"be one of {', '.join(METHODS)}", f"method={method!r}"))
    if store.is_repository(path):
        do = "Write the mosaic to a local, s3:// or gs:// store"
        raise BadInput(sentence("path", "be no Icechunk repository", f"path={path}", do))
    if ledger.NAME in store.group(path) and not (done := ledger.done(path)).all():
        got = f"path={path}, of which {np.count_nonzero(~done)} of {done.size} tiles are not done"
        raise BadInput(sentence("path", "hold a finished run", got, "Run what wrote it again"))


def _levels(shape: tuple[int, ...], chunk: int) -> int:
    """Count the halvings until an image fits into one chunk."""
    return max(int(np.ceil(np.log2(max(shape) / chunk))), 0)


def half(image: xr.DataArray) -> xr.DataArray:
    """Describe an image of half the size: the template of an overview, without pixels.

    Parameters
    ----------
    image : DataArray (..., y, x)

    Returns
    -------
    DataArray (..., ceil(y / 2), ceil(x / 2)) of the same dtype, name, bands and attributes
    """
    grid = schema.geobox(image)
    small = GeoBox((-(-grid.shape[0] // 2), -(-grid.shape[1] // 2)), grid.transform @ grid.transform.scale(2), grid.crs)
    shape = (*image.shape[:-2], *small.shape)
    coords = {str(dim): image[dim] for dim in image.dims[:-2] if dim in image.coords}
    attrs = {key: value for key, value in image.attrs.items() if key != "_FillValue"}
    empty = da.zeros(shape, chunks=-1, dtype=image.dtype)
    dims, name = [str(dim) for dim in image.dims], str(image.name)
    return schema.wrap(empty, small, dims, name=name, coords=coords, nodata=schema.nodata(image), attrs=attrs)


@dataclass(frozen=True)
class HalveTile:
    """The kernel of ``overviews``: halves a window of one level into one shard of the next, chunk by chunk."""

    source: store.Reader
    target: str
    name: str
    method: str
    nodata: float | int | None
    chunk: int

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        y, x = tile.write
        size = (y.stop - y.start, x.stop - x.start)
        parts = tiling.grid(size, self.chunk)
        out = np.empty((0, *size))
        for place in parts.places():
            rows, columns = parts[place].write
            window = self.source.read(_twice(rows, y.start), _twice(columns, x.start))
            half = halve_block(window, method=self.method, nodata=self.nodata)
            out = out if out.size else np.empty((*half.shape[:-2], *size), half.dtype)
            out[..., rows, columns] = half
        store.put(self.target, out, y, x, name=self.name)
        return {"pixels": float(size[0] * size[1])}


def _twice(part: slice, start: int) -> slice:
    """Give the pixels of the level before that pixels of a tile span; where it is odd, the last may not be there."""
    return slice(2 * (start + part.start), 2 * (start + part.stop))


def halve_block(data: np.ndarray, *, method: str, nodata: float | int | None) -> np.ndarray:
    """Make one pixel of every two by two.

    Parameters
    ----------
    data : (..., y, x) array
        An odd last row or column stands for itself.
    method : str
        One of ``METHODS``.
    nodata : float, int or None
        What stands for void, in ``data`` and in the result.

    Returns
    -------
    (..., ceil(y / 2), ceil(x / 2)) array of the dtype of ``data``
    """
    if method == "nearest":
        return data[..., ::2, ::2].copy()
    known = schema.known_block(data, nodata)
    odd = [(0, 0)] * (data.ndim - 2) + [(0, size % 2) for size in data.shape[-2:]]
    quarters = [(row, column) for row in (0, 1) for column in (0, 1)]
    values, there = np.pad(data, odd, mode="edge"), np.pad(known, odd)
    fours = np.stack([values[..., row::2, column::2] for row, column in quarters])
    knowns = np.stack([there[..., row::2, column::2] for row, column in quarters])
    out = _mean(fours, knowns) if method == "average" else _mode(fours, knowns)
    if nodata is not None:
        out[~knowns.any(axis=0)] = nodata
    return out


def _mean(fours: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Take the mean of the known of four: (4, ...) to (...)."""
    total = np.sum(fours, axis=0, where=known, dtype="float64")
    mean = total / np.maximum(known.sum(axis=0), 1)
    return (mean if fours.dtype.kind == "f" else np.rint(mean)).astype(fours.dtype)


def _mode(fours: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Take the most frequent of the known of four, of several the first: (4, ...) to (...)."""
    votes = np.stack([np.sum((fours == one) & known, axis=0, dtype="uint8") for one in fours])
    return np.take_along_axis(fours, votes.argmax(axis=0)[np.newaxis], axis=0)[0]


# What viewers look for


def _announce(path: str | Path, image: xr.DataArray, levels: int, method: str) -> None:
    """Write into the group of a store, in one object, which overviews it has."""
    group = store.group(path, write=True)
    with store.told(path):
        root = _read(group, "zarr.json")
        root["attributes"] |= multiscales(image, levels, method)
        consolidated = root.setdefault("consolidated_metadata", {"kind": "inline", "must_understand": False})
        nodes = consolidated.setdefault("metadata", {})
        nodes[store.OVERVIEWS] = _read(group, f"{store.OVERVIEWS}/zarr.json")
        for level in range(1, levels + 1):
            below = f"{store.OVERVIEWS}/{level}"
            held = _read(group, f"{below}/zarr.json")
            inner = held.pop("consolidated_metadata", {}).get("metadata", {})
            nodes |= {below: held, **{f"{below}/{name}": node for name, node in inner.items()}}
        text = json.dumps(root, indent=2).encode()
        sync(group.store.set("zarr.json", default_buffer_prototype().buffer.from_bytes(text)))


def _read(group: zarr.Group, key: str) -> dict[str, Any]:
    """Read a metadata document of a store."""
    held = sync(group.store.get(key, default_buffer_prototype()))
    if held is None:
        raise BadInput(sentence("path", "be a Zarr store of version 3", f"no {key}"))
    return dict(json.loads(held.to_bytes()))


def multiscales(image: xr.DataArray, levels: int, method: str) -> dict[str, Any]:
    """Describe an image and its overviews as the multiscales, spatial and proj conventions of Zarr ask.

    Parameters
    ----------
    image : DataArray (..., y, x)
        The image at its full size.
    levels : int
        How many overviews it has.
    method : str
        How each was made of the one before.

    Returns
    -------
    dict
        Attributes of the group; ``asset`` is the path of an array below it.
    """
    grid = schema.geobox(image)
    assets = [f"{store.OVERVIEWS}/{level}/{image.name}" if level else str(image.name) for level in range(levels + 1)]
    layout: list[dict[str, Any]] = []
    lead = [1.0] * (image.ndim - 2)  # GDAL 3.13 leaves out levels whose scale has not one value a dim
    for level, asset in enumerate(assets):
        transform = grid.transform @ grid.transform.scale(2**level)
        by = 2.0 if level else 1.0
        scale = {"scale": [*lead, by, by], "translation": [0.0] * image.ndim}
        derived = {"derived_from": assets[level - 1], "resampling_method": method} if level else {}
        shape = [-(-side // 2**level) for side in grid.shape]
        place = {"spatial:transform": list(transform)[:6], "spatial:shape": shape}
        layout.append({"asset": asset, **derived, "transform": scale, **place})
    crs: Any = grid.crs
    named = {"proj:code": f"EPSG:{crs.epsg}"} if crs.epsg else {"proj:wkt2": crs.to_wkt(version="WKT2_2019")}
    return {
        "zarr_conventions": _CONVENTIONS,
        "multiscales": {"layout": layout, "resampling_method": method},
        "spatial:dimensions": ["y", "x"],
        "spatial:transform": list(grid.transform)[:6],
        "spatial:shape": list(grid.shape),
        "spatial:registration": "pixel",
        "spatial:bbox": list(grid.extent.boundingbox.bbox),
        **named,
    }
