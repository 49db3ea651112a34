"""Shim: stackstac, for those who ask for it, made to answer what the other engine does.

stackstac has not followed STAC since 2024. It is handed items in the form of that year (``proj:epsg`` besides
``proj:code``), the grid to the pixel, the stored dtype and nodata, and a reader that warps exactly and names the file
in what goes wrong.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from lsdask import schema
from lsdask.errors import BadInput, Unreadable, sentence
from lsdask.scenes import items as lists
from lsdask.scenes.headers import REMOTE
from lsdask.scenes.items import Source
from lsdask.scenes.painting import EXACT, Target

if TYPE_CHECKING:
    import pystac

    from lsdask.scenes.stac import Request


def read(request: "Request") -> da.Array:
    """Read a request with stackstac: a Dask array (time, band, y, x).

    Raises
    ------
    BadInput
        If stackstac is not installed, or cannot read such items or such a grid.
    """
    stackstac = _stackstac()
    grid, target = request.target.grid, request.target
    box, fill = grid.boundingbox, np.dtype(target.dtype).type(target.fill)
    names = [f"band_{number}" for number in range(target.bands)]
    stack = stackstac.stack(
        [_item(number, item, row) for number, (item, row) in enumerate(zip(request.items, request.sources))],
        assets=names,
        epsg=_epsg(grid),
        resolution=(abs(grid.resolution.x), abs(grid.resolution.y)),
        bounds=(box.left, box.bottom, box.right, box.top),
        snap_bounds=False,
        resampling=Resampling[target.resampling],
        chunksize=request.chunks,
        dtype=np.dtype(target.dtype),
        fill_value=fill,
        rescale=False,
        sortby_date=False,
        xy_coords="center",
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
        gdal_env=stackstac.DEFAULT_GDAL_ENV.updated(always=REMOTE),
        reader=_reader(),
    )
    if stack.shape[2:] != tuple(grid.shape):
        rule = f"have whole pixels of one size in both directions, {tuple(grid.shape)} for engine='stackstac'"
        raise BadInput(sentence("grid", rule, f"{stack.shape[2:]} pixels", "Use engine='odc'"))
    whole = _with_dropped_bands(stack, names, target, request.chunks)
    if request.nodata is not None and whole.dtype.kind == "f":  # which files that declare nothing hold instead of NaN
        whole = da.where(whole == request.nodata, fill, whole)
    # stackstac drops items that lie outside the grid, so each is named by its place in the request
    present = np.asarray(request.steps)[stack.id.values.astype(int)]
    edges = np.searchsorted(present, np.arange(request.steps[-1] + 2))
    if (np.diff(edges) == 1).all():
        return whole
    return da.stack([_first(whole[start:stop], target.fill) for start, stop in pairwise(edges)])


def _stackstac() -> Any:
    try:
        import stackstac
    except ImportError as error:
        do = "Install it, pip install lsdask[stackstac], or use engine='odc'"
        raise BadInput(sentence("engine", "be installed", "engine='stackstac'", do)) from error
    return stackstac


def _reader() -> type:
    """Give stackstac's reader, but exact: by default it moves pixels by up to an eighth, which depends on the chunk."""
    from dataclasses import fields

    from stackstac.raster_spec import RasterSpec
    from stackstac.rio_reader import AutoParallelRioReader

    class ExactSpec(RasterSpec):
        @property
        def vrt_params(self) -> dict[str, Any]:
            return {**super().vrt_params, "tolerance": EXACT}

    class ExactReader(AutoParallelRioReader):
        def __init__(self, *, spec: Any, **options: Any) -> None:
            exact = ExactSpec(**{part.name: getattr(spec, part.name) for part in fields(spec)})
            super().__init__(spec=exact, **options)

        def read(self, window: Any, **options: Any) -> np.ndarray:
            try:
                return np.asarray(super().read(window, **options))
            except RuntimeError as error:
                raise Unreadable(sentence(self.url, "be a raster that can be read", str(error))) from error

    return ExactReader


def _with_dropped_bands(stack: xr.DataArray, names: Sequence[str], target: Target, chunks: int) -> da.Array:
    """Give the asked bands in their order, in one chunk; a band of no item on the grid, which is dropped, is void."""
    found = list(stack.band.values)
    void = da.full((len(stack), *target.shape), target.fill, dtype=stack.dtype, chunks=(1, chunks, chunks))
    bands = [stack.data[:, found.index(name)] if name in found else void for name in names]
    return da.stack(bands, axis=1).rechunk({1: -1})


def _first(stack: da.Array, nodata: float | int) -> da.Array:
    """Lay the items of one time step on each other, the first on top; none at all are void."""
    if len(stack) == 0:
        return da.full(stack.shape[1:], nodata, dtype=stack.dtype, chunks=stack.chunks[1:])
    if len(stack) == 1:
        return stack[0]
    return da.map_blocks(lay_block, stack.rechunk({0: -1}), nodata=nodata, drop_axis=0, dtype=stack.dtype)


def lay_block(block: np.ndarray, nodata: float | int) -> np.ndarray:
    """Take, value by value, the first along axis 0 that is data."""
    first = schema.known_block(block, nodata).argmax(axis=0)
    return np.take_along_axis(block, first[np.newaxis], axis=0)[0]


def _epsg(grid: GeoBox) -> int:
    epsg = grid.crs.to_epsg() if grid.crs is not None else None
    if epsg is None:
        raise BadInput(sentence("grid", "be in an EPSG CRS for engine='stackstac'", f"{grid.crs}", "Use engine='odc'"))
    return epsg


# Items in the form of 2024: ``proj:epsg``, absolute links, one asset a band


def _item(number: int, item: "pystac.Item", row: Sequence[Source | None]) -> dict[str, Any]:
    _check_single(item, row)
    assets = {f"band_{slot}": _asset(item.assets[source.key]) for slot, source in enumerate(row) if source is not None}
    return {
        "type": "Feature",
        "id": str(number),
        "bbox": item.bbox,
        "geometry": item.geometry,
        "properties": _with_epsg(item.properties) | {"datetime": lists.time(item).isoformat() + "Z"},
        "assets": assets,
    }


def _check_single(item: "pystac.Item", row: Sequence[Source | None]) -> None:
    for source in row:
        count = 1 if source is None else max(len(lists.about(item.assets[source.key])), source.number)
        if source is not None and count > 1:
            got = f"{count} bands in {source.key!r} of {item.id}"
            raise BadInput(sentence("bands", "name assets of one band for engine='stackstac'", got, "Use engine='odc'"))


def _asset(asset: "pystac.Asset") -> dict[str, Any]:
    return {
        **_with_epsg(asset.extra_fields),
        "href": lists.href(asset),
        "type": asset.media_type,
        "roles": asset.roles or [],
    }


def _with_epsg(fields: Mapping[str, Any]) -> dict[str, Any]:
    code = str(fields.get("proj:code") or "")
    return {**fields, "proj:epsg": int(code[5:])} if code.startswith("EPSG:") else dict(fields)
