"""Images on one grid become one image: bands beside bands."""

from collections.abc import Sequence

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import schema
from lsdask.errors import BadInput, sentence


def stack(images: Sequence[xr.DataArray], *, names: Sequence[str] | None = None) -> xr.DataArray:
    """Put images on one grid into one mosaic, such as optical bands, terrain and a count of looks.

    Parameters
    ----------
    images : sequence of DataArray (band, y, x) or (y, x)
        On one grid. A plane (y, x) is a band by the name of the DataArray.
    names : sequence of str, optional
        Names of all bands in their order, instead of their own.

    Returns
    -------
    DataArray (band, y, x), lazy if any image is
        In the dtype that numpy promotes theirs to. Floats hold NaN where an image declares void. Integers keep one
        ``_FillValue``, which all that declare one must share.

    Raises
    ------
    BadInput
        If there are no images, they lie on other grids, two bands share a name, or integers differ in nodata.
    """
    if not len(images):
        raise BadInput(sentence("images", "hold at least one image", "none"))
    planes = [_as_mosaic(image, f"images[{i}]") for i, image in enumerate(images)]
    for i, plane in enumerate(planes[1:], 1):
        schema.on_grid(plane, planes[0], f"images[{i}]", "images[0]")
    bands = _names([name for plane in planes for name in schema.bands(plane)], names)
    dtype = np.result_type(*(plane.dtype for plane in planes))
    nodata = float("nan") if dtype.kind == "f" else _shared([schema.nodata(plane) for plane in planes])
    lazy = next((plane for plane in planes if plane.chunks is not None), None)
    parts = [_promoted(plane, dtype) if lazy is None else _promoted(_chunked(plane, lazy), dtype) for plane in planes]
    arrays = [part.data for part in parts]
    return schema.wrap(
        np.concatenate(arrays) if lazy is None else da.concatenate(arrays).rechunk({0: -1}),
        schema.geobox(planes[0]),
        schema.MOSAIC,
        name="mosaic",
        coords={"band": bands},
        nodata=nodata,
    )


def _as_mosaic(image: xr.DataArray, name: str) -> xr.DataArray:
    if isinstance(image, xr.DataArray) and image.dims == schema.MASK:
        image = image.drop_vars("band", errors="ignore").expand_dims(band=[str(image.name or name)])
    schema.check(image, schema.MOSAIC, name)
    return image


def _names(own: list[str], given: Sequence[str] | None) -> list[str]:
    names = own if given is None else list(given)
    if len(names) != len(own) or len(set(names)) != len(names):
        rule = f"be {len(own)} names, one a band, each once"
        raise BadInput(sentence("names", rule, ", ".join(names), "Pass names="))
    return names


def _shared(values: list[float | int | None]) -> float | int | None:
    """Give the nodata value of integers, which one number must say for all."""
    declared = {value for value in values if value is not None}
    if len(declared) > 1:
        do = "Turn them to float32 first, with NaN: image.where(schema.valid(image))"
        raise BadInput(sentence("images", "share one nodata value where all are integers", str(sorted(declared)), do))
    return declared.pop() if declared else None


def _promoted(plane: xr.DataArray, dtype: np.dtype) -> xr.DataArray:
    """Give an image another dtype: NaN where it declares void, if that is a float."""
    nodata = schema.nodata(plane)
    if plane.dtype.kind == "f" or dtype.kind != "f" or nodata is None:
        return plane.astype(dtype)
    return plane.astype(dtype).where(plane.copy(data=schema.known_block(plane.data, nodata)))


def _chunked(plane: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    return plane.chunk({"band": -1, "y": like.chunksizes["y"], "x": like.chunksizes["x"]})
