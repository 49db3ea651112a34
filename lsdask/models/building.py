"""New models, with random or given weights."""

from collections.abc import Mapping, Sequence
from os import sep
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from lsdask.errors import BadInput, sentence
from lsdask.models.architectures import OWN, assemble
from lsdask.models.folder import DESCRIPTION, WEIGHTS, read_spec, read_weights
from lsdask.models.segmenter import Segmenter
from lsdask.models.spec import Spec, band_names, check_bands, constants


def build(
    name: str,
    *,
    bands: int | Sequence[str],
    classes: int = 1,
    encoder: str = "resnet18",
    weights: str | Path | None = None,
    freeze_encoder: bool = False,
    mean: Sequence[float] | np.ndarray | None = None,
    std: Sequence[float] | np.ndarray | None = None,
    terrain: Sequence[str] = (),
    pixel_m: float | None = None,
    seed: int = 0,
    **options: Any,
) -> Segmenter:
    """Make a new model.

    Parameters
    ----------
    name : str
        ``unet``, ``fpn``, ``linknet``, ``pspnet`` or ``deeplabv3plus`` of segmentation_models_pytorch;
        ``soares_unet`` or ``prakash_resunet`` of the papers; ``classifier``, which gives a class a tile.
    bands : int or sequence of str
        The input's bands, in order.
    classes : int
        1 for landslide or not (sigmoid), or the number of exclusive classes (softmax).
    encoder : str
        Any encoder of segmentation_models_pytorch, or ``tu-`` and the name of one of timm; not looked at where an
        architecture has its own.
    weights : str or path, optional
        Where the encoder's weights come from. None: random, nothing is downloaded. A safetensors file of an
        encoder, or a model folder: read, band for band; an encoder of 3 bands is spread over any number.
        A name such as ``"imagenet"``: downloaded.
    freeze_encoder : bool
        Train the decoder alone.
    mean, std : sequence of float, optional
        Normalisation of each band in raw units, as ``statistics.bands`` measures them; 0 and 1 if not given.
    terrain : sequence of str
        What the network sees in the place of band ``dem``, heights in metres: ``elevation``, ``slope``,
        ``hillshade``, ``eastness``, ``northness``, derived in the model, after any augmentation.
    pixel_m : float, optional
        Side of a pixel on the ground, m, of all images; needed by terrain. Pixels must be square.
    seed : int
        Of the random weights.
    **options
        Further arguments of the architecture.

    Returns
    -------
    Segmenter in training mode

    Raises
    ------
    BadInput
        If an argument breaks its rule, or the weights are another encoder's or of other bands.
    NotFound, Unreadable
        If the weights are missing, damaged or cannot be downloaded.

    Examples
    --------
    >>> build("unet", bands=["blue", "green", "red", "nir"]).spec.encoder
    'resnet18'
    """
    bands = band_names(bands)
    spec = Spec(
        name=name,
        encoder="" if name in OWN else encoder,
        bands=bands,
        classes=classes,
        mean=constants(mean, 0.0, bands),
        std=constants(std, 1.0, bands),
        terrain=(terrain,) if isinstance(terrain, str) else tuple(terrain),
        pixel_m=pixel_m,
        options=options,
    )
    local = weights is not None and _is_path(weights)
    model = assemble(spec, weights=None if local or weights is None else str(weights), seed=seed)
    if local:
        fill_encoder(model, Path(str(weights)))
    if freeze_encoder:
        model.freeze_encoder()
    return model


def fill_encoder(model: Segmenter, source: Path) -> None:
    """Put an encoder's weights, from a safetensors file or a model folder, into a model.

    Raises
    ------
    BadInput
        If the encoder or the bands differ, naming both.
    """
    encoder = model.encoder
    if encoder is None:
        do = "Use lsdask.models.load to go on with a whole model"
        raise BadInput(sentence("weights", "be None where a network has no encoder", f"weights={source}", do))
    path = source if source.is_file() else source / WEIGHTS
    if path.name == WEIGHTS and path.with_name(DESCRIPTION).exists():
        _check_source(model.spec, read_spec(path.parent), source)
    found = {key.rpartition("encoder.")[2]: value for key, value in read_weights(path).items() if _of_encoder(key)}
    encoder.load_state_dict(_fitting(encoder, found, path))


def _is_path(weights: str | Path) -> bool:
    text = str(weights)
    return isinstance(weights, Path) or sep in text or text.endswith(".safetensors") or Path(text).exists()


def _of_encoder(key: str) -> bool:
    """Keep an encoder's keys: all of a bare encoder's, of a whole model's those below ``encoder``."""
    return "encoder." in key or not key.startswith(("net.", "decoder.", "segmentation_head.", "mean", "std"))


def _check_source(spec: Spec, source: Spec, path: Path) -> None:
    if source.encoder != spec.encoder:
        raise BadInput(sentence("weights", f"be of the encoder {spec.encoder!r}", f"{path} of {source.encoder!r}"))
    check_bands(source, spec.bands, name="the new model")
    if source.terrain != spec.terrain:
        raise BadInput(sentence("weights", f"be of the terrain {spec.terrain}", f"{path} of {source.terrain}"))


def _fitting(encoder: nn.Module, found: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Take what the encoder needs, its first convolution spread over the bands if it was of three."""
    fitting = {}
    for name, wanted in encoder.state_dict().items():
        value = found.get(name)
        if value is not None and value.ndim == 4 and value.shape[1] == 3 != wanted.shape[1]:
            value = _spread(value, wanted.shape[1])
        if value is None or value.shape != wanted.shape:
            got = "none" if value is None else str(tuple(value.shape))
            rule = f"hold the encoder's tensors, {name} of shape {tuple(wanted.shape)}"
            raise BadInput(sentence(str(path), rule, got, "Pass weights of this encoder and number of bands"))
        fitting[name] = value
    return fitting


def _spread(weight: Tensor, bands: int) -> Tensor:
    """Repeat the weights of three bands over more or fewer, keeping the sum over bands of a grey image."""
    return weight[:, [band % 3 for band in range(bands)]] * (3 / bands)
