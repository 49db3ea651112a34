"""What several commands open: masks, labels, streams of tiles."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lsdask as ls
from lsdask.cli.app import there
from lsdask.errors import BadInput, sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import xarray as xr

POLYGONS = (".geojson", ".json", ".gpkg", ".parquet", ".shp", ".fgb")


def mosaics_of(path: str, also: "Sequence[str] | None") -> "dict[str, xr.DataArray]":
    """Open mosaics, by their paths."""
    images = {each: ls.store.open(each) for each in dict.fromkeys([path, *(also or [])])}
    for image in images.values():
        ls.schema.check(image, ls.schema.MOSAIC, "mosaic")
    return images


def mask_of(path: Path, like: "xr.DataArray") -> "xr.DataArray":
    """Open a mask store, or burn polygons on the grid of an image."""
    if path.suffix.lower() in POLYGONS:
        return ls.inventory.rasterize(there(path, "mask"), like)
    return ls.store.open(str(path))


def masks_of(paths: "Sequence[Path]", images: "Sequence[xr.DataArray]") -> "list[xr.DataArray]":
    """Open a mask for each image, or burn the polygons of one file, of which there are some, on the grid of each."""
    if len(paths) == 1 and paths[0].suffix.lower() in POLYGONS:
        polygons = ls.inventory.load(there(paths[0], "mask"))
        if polygons.empty:
            raise BadInput(sentence("mask", "hold polygons", f"none in {paths[0]}"))
        return [ls.inventory.rasterize(polygons, image) for image in images]
    if len(paths) != len(images):
        raise BadInput(sentence("mask", f"be one for each of the {len(images)} mosaics", f"{len(paths)}"))
    return [mask_of(path, image) for path, image in zip(paths, images)]


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
    images: "Mapping[str, xr.DataArray]",
    masks: "Sequence[xr.DataArray]",
    tiles: Path,
    batch: int,
    seed: int,
    **options: Any,
) -> tuple[Any, Any]:
    """Stream the train tiles of a table, shuffled, and its valid tiles; images by the paths that name its scenes."""
    named = _scenes_of(tiles)
    if named and named != set(images):
        do = "Pass the paths that `lsdask tiles` was given, further ones by --also"
        raise BadInput(sentence("mosaic", f"be of the table's scenes, {_listed(named)}", _listed(images), do))
    if not named and len(images) > 1:
        do = "Make it with `lsdask tiles --also`"
        raise BadInput(sentence("tiles", f"name the scenes {_listed(images)}", "a table of one mosaic", do))
    scenes = list(zip(images if named else [None], images.values(), masks))
    train, valid = (_stream(scenes, tiles, split, batch, seed, **options) for split in ("train", "valid"))
    return train, valid


def _stream(scenes: list[tuple[Any, Any, Any]], tiles: Path, split: str, batch: int, seed: int, **options: Any) -> Any:
    """Stream the tiles of one split: of one scene, or a mix of several."""
    streams = []
    for name, image, mask in scenes:
        rows = ls.sampling.read(tiles, split=split, scene=name, columns=("y", "x", "size"))
        if len(rows):
            every = {"mask": mask, "batch_size": batch, "shuffle": split == "train", "seed": seed, **options}
            streams.append(ls.streaming.TileStream(image, rows, **every))
    if not streams:
        raise BadInput(sentence("tiles", f"hold tiles of the split {split!r}", "none", "Divide them anew"))
    return streams[0] if len(streams) == 1 else ls.streaming.MixedStream(streams, seed=seed)


def _scenes_of(tiles: Path) -> set[str]:
    """Name the scenes of a table; none where it is of one mosaic."""
    return {str(name) for part in ls.sampling.parts(tiles) if "scene" in part for name in part["scene"].unique()}


def _listed(names: "Iterable[str]") -> str:
    return ", ".join(sorted(names))
