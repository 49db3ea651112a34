"""The networks by name, built from a spec alone and seeded, so that the same call gives the same weights."""

from collections.abc import Callable
from difflib import get_close_matches
from inspect import signature
from typing import Any

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.decoders.fpn.decoder import Conv3x3GNReLU
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lsdask.errors import BadInput, NotFound, sentence
from lsdask.models import prakash, soares
from lsdask.models.segmenter import Segmenter, TileClassifier
from lsdask.models.spec import Spec

CLASSIFIER = "classifier"
"""The network that gives a class a tile."""

SEEDS = 2**63
"""Seeds are below this, as torch holds them."""

Built = tuple[nn.Module, int]
"""A network and the stride that its input's sides must be divisible by."""


def assemble(spec: Spec, *, weights: str | None = None, seed: int = 0) -> Segmenter:
    """Build the model a spec describes.

    Parameters
    ----------
    spec : Spec
    weights : str, optional
        A name of encoder weights that segmentation_models_pytorch downloads.
    seed : int
        Of the random initial weights; the global random state is left as it was.

    Returns
    -------
    Segmenter in training mode

    Raises
    ------
    BadInput
        If the architecture or the encoder is unknown, an option does not fit them, or the seed is out of range.
    NotFound
        If ``weights`` cannot be downloaded.
    """
    if spec.name not in NAMES:
        raise BadInput(sentence("name", f"be one of {', '.join(NAMES)}", f"name={spec.name!r}"))
    if not 0 <= seed < SEEDS:
        raise BadInput(sentence("seed", "be at least 0 and below 2**63", f"seed={seed}"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, stride = NAMES[spec.name](spec, weights)
    made = TileClassifier if spec.name == CLASSIFIER else Segmenter
    return made(net, spec, stride)


class _Classifier(nn.Module):
    """An encoder, the mean of its last features, and a linear layer. Takes what the library's networks take."""

    def __init__(self, encoder_name: str, encoder_weights: Any, in_channels: int, classes: int) -> None:
        super().__init__()
        self.encoder = smp.encoders.get_encoder(encoder_name, in_channels=in_channels, weights=encoder_weights)
        self.last = nn.Linear(self.encoder.out_channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.encoder(x)[-1].mean((2, 3)))[..., None, None]


def _smp(make: Callable[..., nn.Module]) -> Callable[[Spec, str | None], Built]:
    """Give the builder of one of segmentation_models_pytorch's architectures."""
    # Its constructors swallow unknown keywords, so a misspelt one would do nothing.
    allowed = set(signature(make).parameters) - _OURS

    def build(spec: Spec, weights: str | None) -> Built:
        check_encoder(spec.encoder)
        _check_options(spec, allowed)
        named: Any = True if weights and spec.encoder.startswith("tu-") else weights
        try:
            net = make(
                spec.encoder,
                encoder_weights=named,
                in_channels=spec.channels,
                classes=spec.classes,
                **spec.options,
            )
        except OSError as why:
            do = "Pass weights=None, or weights= a local safetensors file of the encoder, or go online"
            rule = f"be reachable: the {weights} weights of {spec.encoder} are downloaded"
            raise NotFound(sentence("weights", rule, type(why).__name__, do)) from why
        except (KeyError, TypeError, ValueError, RuntimeError, NotImplementedError) as why:
            told = str(why.args[0] if why.args else why).split("\n")[0].rstrip(".")
            given = f"encoder={spec.encoder!r}, weights={weights!r}, options={spec.options}: {told}"
            raise BadInput(sentence(spec.name, "be given an encoder, weights and options that fit", given)) from why
        encoder: Any = net.encoder
        _normalise_by_batch(net)
        _enlarge_by_pixel(net)
        return net, int(encoder.output_stride)

    return build


def check_encoder(encoder: str) -> None:
    """Raise BadInput, with names that are close, unless the encoder exists."""
    names = smp.encoders.encoders
    if encoder in names or encoder.startswith(("tu-", "timm-")):
        return
    close = get_close_matches(encoder, names, n=3) or sorted(names)[:3]
    rule = "be an encoder of segmentation_models_pytorch, or tu- and the name of one of timm"
    raise BadInput(sentence("encoder", rule, f"encoder={encoder!r}", f"Close to it: {', '.join(close)}"))


def _normalise_by_batch(net: nn.Module) -> None:
    """Put batch normalisation where the library has group normalisation (its FPN), as the papers' FPN has it.

    A group's mean is taken over the whole input, so scores would depend on how an image is cut into tiles.
    """
    for layer in list(net.modules()):
        for name, child in layer.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(layer, name, nn.BatchNorm2d(child.num_channels))


def _enlarge_by_pixel(net: nn.Module) -> None:
    """Enlarge from pixel to pixel where the library (FPN, PSPNet, DeepLab) stretches from corner to corner.

    A stretch puts features elsewhere the larger a block is, up to pixels off, whatever its halo.
    """
    for layer in list(net.modules()):
        if isinstance(layer, nn.Upsample) and layer.align_corners:
            layer.align_corners = False
        for name, child in layer.named_children():
            if isinstance(child, Conv3x3GNReLU) and child.upsample:
                setattr(layer, name, _Enlarged(child.block))


class _Enlarged(nn.Module):
    """A step of FPN's decoder, twice as large."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(self.block(x), scale_factor=2.0, mode="bilinear", align_corners=False)


_OURS = {
    "encoder_name",
    "encoder_weights",
    "in_channels",
    "classes",
    "activation",
    "aux_params",
    "upsampling",
    "kwargs",
}


def _check_options(spec: Spec, allowed: set[str]) -> None:
    unknown = sorted(set(spec.options) - allowed)
    if unknown:
        raise BadInput(sentence("options", f"be of {', '.join(sorted(allowed))}", f"{', '.join(unknown)}"))


NAMES: dict[str, Callable[[Spec, str | None], Built]] = {
    "unet": _smp(smp.Unet),
    "fpn": _smp(smp.FPN),
    "linknet": _smp(smp.Linknet),
    "pspnet": _smp(smp.PSPNet),
    "deeplabv3plus": _smp(smp.DeepLabV3Plus),
    CLASSIFIER: _smp(_Classifier),
    "soares_unet": soares.build,
    "prakash_resunet": prakash.build,
}
"""Builders by architecture."""

OWN = ("soares_unet", "prakash_resunet")
"""Architectures that are whole by themselves, with no encoder to choose."""
