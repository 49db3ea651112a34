"""What a model is, apart from its weights: everything needed to build it again and to use it rightly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from lsdask import telling
from lsdask.errors import BadInput, sentence
from lsdask.models.relief import DEM, DERIVED, ELEVATION
from lsdask.terrain.ground import ground_of, sizes_block

SAME_PIXEL = 0.01
"""How much a pixel may differ in size, as a share, from that of a model with terrain."""


@dataclass(frozen=True)
class Spec:
    """A model without its weights.

    Attributes
    ----------
    name : str
        The architecture, one of ``models.NAMES``.
    encoder : str
        The encoder's name, or "" where the architecture has its own.
    bands : tuple of str
        Names of the bands in the order of the input.
    classes : int
        Outputs; 1 is a sigmoid for "landslide", more are a softmax.
    mean, std : tuple of float
        Normalisation of each band, in raw units: ``(value - mean) / std``.
    tile : int or None
        Side of the tiles it was trained on, pixels.
    terrain : tuple of str
        What stands in the place of band ``dem`` in the network's input: ``elevation``, ``slope``, ``hillshade``,
        ``eastness``, ``northness``, derived of it in the model. None: the heights as they are.
    pixel_m : float or None
        Side of a pixel on the ground, m, where there is terrain.
    halo : int or None
        Context it needs on each side of a tile when predicting, pixels.
    threshold : float
        A pixel is a landslide where its score is at least this.
    options : dict
        Further arguments of the architecture, such as the filters of ``soares_unet``.
    record : dict
        How it was trained: losses by epoch, seconds, seed, version.
    """

    name: str
    encoder: str
    bands: tuple[str, ...]
    classes: int = 1
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    terrain: tuple[str, ...] = ()
    pixel_m: float | None = None
    tile: int | None = None
    halo: int | None = None
    threshold: float = 0.5
    options: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_constants("mean", self.mean, self.bands, positive=False)
        _check_constants("std", self.std, self.bands, positive=True)
        _check_whole("classes", self.classes, 1)
        if self.tile is not None:
            _check_whole("tile", self.tile, 1)
        if self.halo is not None:
            _check_whole("halo", self.halo, 0)
        if not 0.0 <= self.threshold <= 1.0:
            raise BadInput(sentence("threshold", "be from 0 to 1", f"threshold={self.threshold}"))
        _check_terrain(self)

    @property
    def channels(self) -> int:
        """How many channels the network sees: the bands, terrain in the place of the heights."""
        return len(self.bands) - bool(self.terrain) + len(self.terrain)

    def _repr_html_(self) -> str:
        constants = zip(self.bands, self.mean, self.std)
        pixels = {"tile": self.tile, "halo": self.halo}
        rows = [
            ("bands", ", ".join(f"{band} ({mean:.4g} ± {std:.3g})" for band, mean, std in constants)),
            ("terrain", ", ".join(self.terrain)),
            ("classes", "landslide" if self.classes == 1 else str(self.classes)),
            *((name, "" if side is None else f"{side} px") for name, side in pixels.items()),
            ("threshold", f"{self.threshold:g}"),
            ("trained", _trained(self.record)),
        ]
        title = " · ".join(filter(None, (self.name, self.encoder)))
        return telling.table(f"model: {title}", [(name, text) for name, text in rows if text])


def check_bands(spec: Spec, bands: Sequence[str], name: str = "image") -> None:
    """Raise BadInput unless ``bands`` are the bands of the model, in its order.

    Parameters
    ----------
    spec : Spec
        The model's.
    bands : sequence of str
        Band names of what is put into it.
    name : str
        What has these bands, as its user wrote it.
    """
    given = tuple(str(band) for band in bands)
    if given == spec.bands:
        return
    do = f"Use {name}.sel(band={list(spec.bands)})" if set(given) >= set(spec.bands) else ""
    raise BadInput(sentence(name, f"have the model's bands in its order, {spec.bands}", f"bands {given}", do))


def _trained(record: Mapping[str, Any]) -> str:
    """Say in one line how a model was trained, of what its record holds."""
    epochs = record.get("history") or []
    best: Mapping[str, Any] = next((one for one in epochs if one.get("epoch") == record.get("best_epoch")), {})
    told = [
        f"{len(epochs)} epochs" if epochs else "",
        f"loss {record['loss']}" if "loss" in record else "",
        f"best epoch {best['epoch'] + 1} with F1 {best['f1']:.3f}" if best.get("f1") is not None else "",
        telling.span(record["seconds"]) if "seconds" in record else "",
    ]
    return ", ".join(filter(None, told))


def check_pixel(spec: Spec, grid: GeoBox, name: str = "image") -> None:
    """Raise BadInput if terrain is derived in the model and ``grid`` has other pixels than it was built for.

    Parameters
    ----------
    spec : Spec
        The model's.
    grid : GeoBox
        Of what is put into it.
    name : str
        What has this grid, as its user wrote it.
    """
    if not spec.terrain or spec.pixel_m is None:
        return
    middle = grid.shape[0] // 2
    width, height = sizes_block(ground_of(grid), middle, middle + 1)[:, 0]
    if max(abs(width / spec.pixel_m - 1), abs(height / spec.pixel_m - 1)) > SAME_PIXEL:
        rule = f"have square pixels of {spec.pixel_m:g} m on the ground, for which the model derives terrain"
        raise BadInput(sentence(name, rule, f"{width:.4g} x {height:.4g} m", "Resample it to a grid in metres"))


def band_names(bands: int | Sequence[str]) -> tuple[str, ...]:
    """Give band names: those given, or ``band_1`` ... for a count.

    Raises
    ------
    BadInput
        If there is none, or a name is there twice.
    """
    if isinstance(bands, str) or (isinstance(bands, int) and bands < 1):
        raise BadInput(sentence("bands", "be a list of names or a positive count", f"bands={bands!r}"))
    names = tuple(f"band_{i + 1}" for i in range(bands)) if isinstance(bands, int) else tuple(map(str, bands))
    if not names or len(set(names)) < len(names):
        raise BadInput(sentence("bands", "be one or more names, each once", f"bands={names}"))
    return names


def constants(values: Sequence[float] | np.ndarray | None, default: float, bands: Sequence[str]) -> tuple[float, ...]:
    """Give one number a band: those given, or the default for each."""
    return tuple(float(value) for value in ([default] * len(bands) if values is None else values))


def _check_constants(name: str, values: Sequence[float], bands: Sequence[str], *, positive: bool) -> None:
    if len(values) != len(bands):
        raise BadInput(sentence(name, f"hold one number for each of {len(bands)} bands", f"{len(values)} numbers"))
    for band, value in zip(bands, values):
        if not isfinite(value) or (positive and value <= 0):
            rule = "hold positive numbers" if positive else "hold finite numbers"
            do = f"Leave out a band that does not vary, or give it {name}=1" if positive else ""
            raise BadInput(sentence(name, rule, f"{value} for band {band!r}", do))


def _check_terrain(spec: Spec) -> None:
    if not spec.terrain:
        return
    known = (ELEVATION, *DERIVED)
    if len(set(spec.terrain)) < len(spec.terrain) or not set(spec.terrain) <= set(known):
        raise BadInput(sentence("terrain", f"hold some of {', '.join(known)}, each once", f"terrain={spec.terrain}"))
    if DEM not in spec.bands:
        raise BadInput(sentence("bands", f"hold {DEM!r}, of which terrain is derived", f"bands={spec.bands}"))
    if spec.pixel_m is None or not 0 < spec.pixel_m < inf:
        got, do = f"pixel_m={spec.pixel_m}", "Pass the side of a pixel on the ground"
        raise BadInput(sentence("pixel_m", "be a positive number of metres where there is terrain", got, do))


def _check_whole(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BadInput(sentence(name, f"be a whole number, at least {least}", f"{name}={value!r}"))
