"""From a catalogue, a place and a season, or from files, to a mosaic."""

import datetime
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import typer

import lsdask as ls
from lsdask.cli.app import app, console, finish, floats, names, there
from lsdask.cli.running import Cluster, Scheduler, Workers, client_of
from lsdask.errors import BadInput, sentence

if TYPE_CHECKING:
    import pystac
    import xarray as xr

Method = Literal["first", "last", "mean", "median", "max", "min", "best", "medoid"]
Group = Literal["time", "solar_day", "id"]

CATALOGUE, GRID, MASKS, PIXELS, MORE = "From a catalogue", "Grid", "Masks", "Composite", "Besides"


@app.command()
def mosaic(
    out: Annotated[str, typer.Option(help="The new store: a path, s3://..., gs://..., https://... or icechunk:...")],
    scenes: Annotated[
        list[str] | None,
        typer.Argument(help="GeoTIFF files, folders or patterns; red=PATTERN nir=PATTERN for a file a band."),
    ] = None,
    dated: Annotated[bool, typer.Option(help="Files have a date in their names: 20180131, 2018-01-31.")] = False,
    stac: Annotated[str | None, typer.Option(help="Address of a STAC API.", rich_help_panel=CATALOGUE)] = None,
    items: Annotated[
        Path | None, typer.Option(help="Items saved before, instead of a search.", rich_help_panel=CATALOGUE)
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="What to look in; default the sensor's.", rich_help_panel=CATALOGUE)
    ] = None,
    aoi: Annotated[
        str | None,
        typer.Option(help="The place: west,south,east,north in degrees, or polygons.", rich_help_panel=CATALOGUE),
    ] = None,
    date: Annotated[
        str | None, typer.Option(help="The season: 2020-05, or 2020-05/2020-09.", rich_help_panel=CATALOGUE)
    ] = None,
    cloud: Annotated[
        float | None,
        typer.Option(help="Most cloud cover of a scene, in percent.", min=0, max=100, rich_help_panel=CATALOGUE),
    ] = None,
    sensor: Annotated[
        str | None, typer.Option(help="sentinel-2-l2a, cbers-4a-wpm ...", rich_help_panel=CATALOGUE)
    ] = None,
    save_items: Annotated[
        Path | None,
        typer.Option(help="Keep the items found, .geojson or .parquet, to run again.", rich_help_panel=CATALOGUE),
    ] = None,
    groupby: Annotated[
        Group, typer.Option(help="What makes scenes one date.", rich_help_panel=CATALOGUE)
    ] = "solar_day",
    bands: Annotated[str | None, typer.Option(help="Names of the bands, comma between.")] = None,
    nodata: Annotated[float | None, typer.Option(help="Value of void pixels, where nothing says it.")] = None,
    crs: Annotated[str | None, typer.Option(help="EPSG:32723 ...", rich_help_panel=GRID)] = None,
    resolution: Annotated[
        float | None, typer.Option(help="Side of a pixel, in units of the CRS.", rich_help_panel=GRID)
    ] = None,
    like: Annotated[str | None, typer.Option(help="A store whose grid to take.", rich_help_panel=GRID)] = None,
    resampling: Annotated[str, typer.Option(help="nearest, bilinear, cubic ...", rich_help_panel=GRID)] = "nearest",
    mask: Annotated[bool, typer.Option(help="Hide clouds by the sensor's quality band.", rich_help_panel=MASKS)] = True,
    quality: Annotated[
        str | None, typer.Option(help="Files of the quality band, where scenes are files.", rich_help_panel=MASKS)
    ] = None,
    hide: Annotated[
        str | None, typer.Option(help="What to hide, comma between; default clouds.", rich_help_panel=MASKS)
    ] = None,
    grow: Annotated[int, typer.Option(help="Hide also so many pixels round it.", min=0, rich_help_panel=MASKS)] = 0,
    inside: Annotated[Path | None, typer.Option(help="Keep only these polygons.", rich_help_panel=MASKS)] = None,
    outside: Annotated[
        Path | None, typer.Option(help="Leave out these polygons: sea, towns.", rich_help_panel=MASKS)
    ] = None,
    method: Annotated[
        Method, typer.Option(help="What a pixel seen several times becomes.", rich_help_panel=PIXELS)
    ] = "first",
    by: Annotated[str | None, typer.Option(help="Band whose highest value is best.", rich_help_panel=PIXELS)] = None,
    feather: Annotated[
        int, typer.Option(help="Pixels over which dates fade in; for mean.", min=0, rich_help_panel=PIXELS)
    ] = 0,
    event: Annotated[
        str | None, typer.Option(help="Day of an event: bands pre_* and post_*.", rich_help_panel=PIXELS)
    ] = None,
    reflectance: Annotated[
        bool, typer.Option(help="Write reflectance, float32, instead of numbers as stored.", rich_help_panel=PIXELS)
    ] = False,
    dem: Annotated[Path | None, typer.Option(help="Heights to add as bands.", rich_help_panel=MORE)] = None,
    terrain: Annotated[
        str, typer.Option(help="Which: elevation, slope, hillshade ...", rich_help_panel=MORE)
    ] = "elevation,slope",
    looks: Annotated[bool, typer.Option(help="Add the count of clear looks as a band.", rich_help_panel=MORE)] = False,
    overviews: Annotated[bool, typer.Option(help="Make overviews for viewers.", rich_help_panel=MORE)] = False,
    cog: Annotated[
        str | None,
        typer.Option(help="Also write a cloud-optimised GeoTIFF: a path, s3://... or gs://...", rich_help_panel=MORE),
    ] = None,
    workers: Workers = 0,
    cluster: Cluster = None,
    scheduler: Scheduler = None,
) -> None:
    """Put scenes on one grid, hide clouds, composite, and write one mosaic. Run again to go on where it stopped."""
    if sum(given is not None for given in (scenes or None, stac, items)) != 1:
        rule = "come from one place: files, or --stac, or --items"
        raise BadInput(sentence("scenes", rule, "none or several"))
    source: Source
    if scenes:
        source = Files(tuple(scenes), bands, nodata, resampling, dated or None, quality, sensor)
        if method != "first" and not dated:
            raise BadInput(sentence("method", "be first where files have no dates", method, "Pass --dated"))
    else:
        found = _clearest(_items(stac, items, _search(collection, sensor, aoi, date)), cloud)
        if save_items is not None:
            ls.scenes.save(found, save_items)
        source = Items(tuple(found), bands, nodata, resampling, groupby, sensor)
    grid = _grid(source, aoi, like, crs, resolution)
    cube = source.load(grid)
    hidden = _clear(source, cube, hide, grow) if mask else None
    cube = ls.scenes.reflectance(cube) if reflectance else _comparable(cube, sensor)
    hidden = _with_shapes(hidden, cube, inside, outside)
    image = _composite(cube, hidden, method=method, by=by, feather=feather, event=event, looks=looks)
    if dem is not None:
        image = _with_terrain(image, dem, names(terrain) or [])
    with client_of(workers, cluster, scheduler) as client:
        report = ls.mosaic.write(image.rename("mosaic"), out, client=client)
        if not report.failed and overviews:
            ls.mosaic.overviews(out, client=client)
    if not report.failed and cog is not None:
        ls.mosaic.to_cog(ls.store.open(out), cog, overwrite=True)
        console.print(f"Wrote {cog}", highlight=False)
    finish(report)


class Source(Protocol):
    """Where a run's scenes are from: bands and quality are read alike."""

    @property
    def sensor(self) -> str | None:
        """The sensor's name, if it is said."""

    def load(self, grid: Any, **place: Any) -> "xr.DataArray":
        """Open the bands as a lazy cube, on a grid or one of their own."""

    def quality(self, grid: Any) -> "xr.DataArray | None":
        """Open what says where clouds are, if there is anything; never resampled but by the nearest."""


@dataclass(frozen=True)
class Files:
    """Scenes that are files."""

    paths: tuple[str, ...]
    bands: str | None
    nodata: float | None
    resampling: str
    dated: bool | None
    quality_paths: str | None
    sensor: str | None

    def load(self, grid: Any, **place: Any) -> "xr.DataArray":
        if any(value is not None for value in place.values()):
            raise BadInput(sentence("crs", "come with a catalogue; files take --like", "crs or resolution"))
        named = [path.partition("=") for path in self.paths]
        if all(sign and not Path(path).exists() for path, (_, sign, _) in zip(self.paths, named)):
            return self._open({band: pattern for band, _, pattern in named}, grid, bands=names(self.bands))
        paths = self.paths[0] if len(self.paths) == 1 else list(self.paths)
        return self._open(paths, grid, bands=names(self.bands))

    def quality(self, grid: Any) -> "xr.DataArray | None":
        if self.quality_paths is None:
            return None
        if self.sensor is None:
            raise BadInput(sentence("sensor", "be said, as it says how --quality is written", "none"))
        kind = ls.sensors.get(self.sensor).quality_kind
        if kind is None:
            raise BadInput(sentence("quality", f"be left out: {self.sensor} has no quality band", self.quality_paths))
        bands = [1] if kind == "udm2" else None  # of several bands the first says what is clear
        return self._open(self.quality_paths, grid, bands=bands, resampling="nearest", nodata=ls.mosaic.NO_DATA[kind])

    def _open(self, paths: Any, grid: Any, **options: Any) -> "xr.DataArray":
        options = {"resampling": self.resampling, "nodata": self.nodata, **options}
        return ls.scenes.open(paths, grid=grid, times=date_of if self.dated else None, **options)


@dataclass(frozen=True)
class Items:
    """Scenes of a catalogue."""

    items: "tuple[pystac.Item, ...]"
    bands: str | None
    nodata: float | None
    resampling: str
    groupby: Group
    sensor: str | None

    def load(self, grid: Any, **place: Any) -> "xr.DataArray":
        return ls.scenes.load(
            self.items,
            bands=_bands(self.bands, self.sensor),
            grid=grid,
            sensor=self.sensor,
            groupby=self.groupby,
            resampling=self.resampling,
            nodata=self.nodata,
            **place,
        )

    def quality(self, grid: Any) -> "xr.DataArray | None":
        if self.sensor is None:
            return None
        sensor = ls.sensors.get(self.sensor)
        if sensor.quality_kind is None:
            return None
        from lsdask.scenes.items import sources

        bands, void = sensor.quality[:1], ls.mosaic.NO_DATA[sensor.quality_kind]
        if not any(sources(item, bands, sensor)[0] for item in self.items):
            rule = f"have the quality band of {sensor.name}, {' or '.join(sensor.quality)}"
            raise BadInput(sentence("items", rule, "none", "Pass --no-mask"))
        options: Any = {"grid": grid, "sensor": self.sensor, "groupby": self.groupby, "nodata": void}
        return ls.scenes.load(self.items, bands=bands, **options)


def date_of(path: str) -> str:
    """Give the first date in a file's name.

    Examples
    --------
    >>> date_of("LC08_L1TP_013032_20180131_20180207_01_T1/LC08_L1TP_013032_20180131_B4.TIF")
    '2018-01-31'
    """
    for year, month, day in re.findall(r"(?<!\d)(\d{4})[-_]?(\d{2})[-_]?(\d{2})(?!\d)", Path(path).name):
        with suppress(ValueError):
            return str(datetime.date(int(year), int(month), int(day)))
    raise BadInput(sentence("scenes", "have a date in their names, such as 20180131", Path(path).name))


def _comparable(cube: "xr.DataArray", sensor: str | None) -> "xr.DataArray":
    """Shift the dates of sensors whose numbers changed over the years, so that they and other runs compare."""
    if sensor is None or ls.sensors.get(sensor).offset_since_0400 is None or "offset" not in cube.coords:
        return cube
    return ls.scenes.harmonize(cube, offset=0.0)


def _clear(source: Source, cube: "xr.DataArray", hide: str | None, grow: int) -> "xr.DataArray | None":
    """Make the mask of a quality band, if there is one."""
    quality = source.quality(cube)
    if quality is None:
        if hide is not None or grow:
            rule = "have a quality band, by --sensor or --quality, to hide anything"
            raise BadInput(sentence("scenes", rule, "none"))
        return None
    options = {} if hide is None else {"hide": names(hide)}
    clear = ls.mosaic.mask(quality, ls.sensors.get(str(source.sensor)).quality_kind, **options)
    return ls.mosaic.grow(clear, grow) if grow else clear


def _search(collection: list[str] | None, sensor: str | None, aoi: str | None, date: str | None) -> dict[str, Any]:
    """Give what a catalogue is asked for."""
    known = [] if sensor is None else list(ls.sensors.get(sensor).collections)
    return {"collections": collection or known, "aoi": _place(aoi), "datetime": date}


def _items(stac: str | None, items: Path | None, asked: dict[str, Any]) -> "list[pystac.Item]":
    if stac is None:
        return ls.scenes.read(there(Path(str(items)), "items"))
    if not asked["collections"]:
        raise BadInput(sentence("collection", "be said, as no sensor is", "none", "Pass --collection or --sensor"))
    found = ls.scenes.latest(ls.scenes.search(stac, **asked))
    console.print(f"Found {len(found):,} scenes.", highlight=False)
    return found


def _clearest(items: "list[pystac.Item]", cloud: float | None) -> "list[pystac.Item]":
    """Keep items with little cloud, here, as not every API can choose by it; those that do not say are kept."""
    if cloud is None:
        return items
    kept = [item for item in items if float(item.properties.get("eo:cloud_cover") or 0) <= cloud]
    if not kept:
        least = min(float(item.properties["eo:cloud_cover"]) for item in items)
        raise BadInput(sentence("cloud", f"leave a scene; the clearest has {least:g} %", f"cloud={cloud:g}"))
    console.print(f"{len(kept):,} of them have at most {cloud:g} % cloud.", highlight=False)
    return kept


def _place(aoi: str | None) -> Any:
    """Read west,south,east,north, or leave the name of a file."""
    return aoi if aoi is None or Path(aoi).exists() else floats("aoi", aoi, 4)


def _bands(bands: str | None, sensor: str | None) -> list[str]:
    chosen = names(bands)
    if chosen is None and sensor is None:
        raise BadInput(sentence("bands", "be said, as no sensor is", "none", "Pass --bands or --sensor"))
    return chosen or [band.name for band in ls.sensors.get(str(sensor)).bands]


def _grid(source: Source, aoi: str | None, like: str | None, crs: str | None, resolution: float | None) -> Any:
    """Give the grid: that of a store, or the scenes' own or the one asked for, cut to the place."""
    if like is not None:
        return ls.store.open(like)
    whole = ls.schema.geobox(source.load(None, crs=crs, resolution=resolution))
    return whole if aoi is None else ls.scenes.around(_place(aoi), whole)


def _with_shapes(mask: Any, cube: "xr.DataArray", inside: Path | None, outside: Path | None) -> Any:
    for path, keep in ((inside, True), (outside, False)):
        if path is not None:
            shown = ls.mosaic.mask_vector(there(path, "inside" if keep else "outside"), cube, inside=keep)
            mask = shown if mask is None else mask & shown
    return mask


def _composite(
    cube: "xr.DataArray", mask: Any, *, method: str, by: str | None, feather: int, event: str | None, looks: bool
) -> "xr.DataArray":
    if event is not None:
        if looks or by is not None or feather:
            raise BadInput(sentence("event", "come without --looks, --by and --feather", f"event={event}"))
        return ls.mosaic.pair(cube, event, mask=mask, method=method)
    parts = ls.mosaic.composite_parts(cube, method=method, mask=mask, by=by, feather=feather)
    return ls.mosaic.stack([parts.image, parts.looks]) if looks else parts.image


def _with_terrain(image: "xr.DataArray", dem: Path, bands: list[str]) -> "xr.DataArray":
    """Add what heights say, put on the grid of the image first; beyond its border they go on straight."""
    heights = ls.scenes.open(there(dem, "dem"), grid=image, resampling="cubic_spline")
    heights = heights.isel(time=0, band=0, drop=True)
    return ls.mosaic.stack([image, ls.terrain.bands(heights, bands, edge="extrapolate")])
