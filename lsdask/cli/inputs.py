"""What several commands open: masks, labels, streams of tiles."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lsdask as ls
from lsdask.cli.app import there
from lsdask.errors import BadInput, sentence

if TYPE_CHECKING:
    import xarray as xr

POLYGONS = (".geojson", ".json", ".gpkg", ".parquet", ".shp", ".fgb")


def mask_of(path: Path, like: "xr.DataArray") -> "xr.DataArray":
    """Open a mask store, or burn polygons on the grid of an image."""
    if path.suffix.lower() in POLYGONS:
        return ls.inventory.rasterize(there(path, "mask"), like)
    return ls.store.open(str(path))


def labels_of(path: str, k: int | None) -> "xr.DataArray":
    """Open the cluster labels of one k, (y, x)."""
    labels = ls.store.open(path)
    if "k" not in labels.dims:
        raise BadInput(sentence("clusters", "be a store that `lsdask cluster` wrote", f"{path}, without a k"))
    held = [int(value) for value in labels["k"].values]
    if k is not None and k not in held:
        raise BadInput(sentence("k", f"be one of the store's, {', '.join(map(str, held))}", f"k={k}"))
    return labels.isel(k=-1 if k is None else held.index(k))


def streams_of(
    image: "xr.DataArray", mask: "xr.DataArray", tiles: Path, batch: int, seed: int, **options: Any
) -> tuple[Any, Any]:
    """Stream the train tiles of a table, shuffled, and its valid tiles."""
    train, valid = (
        ls.streaming.TileStream(
            image,
            ls.sampling.read(tiles, split=split, columns=("y", "x", "size")),
            mask=mask,
            batch_size=batch,
            shuffle=split == "train",
            seed=seed,
            **options,
        )
        for split in ("train", "valid")
    )
    return train, valid
