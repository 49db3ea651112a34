"""Published Keras weights of Prakash et al. 2021, read into the same network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lsdask.errors import BadInput, NotFound, Unreadable, sentence
from lsdask.models.building import build
from lsdask.models.prakash import PrakashResUnet
from lsdask.models.segmenter import Segmenter

COLORS = ("red", "green", "blue")

BANDS = (*(f"pre_{color}" for color in COLORS), *(f"post_{color}" for color in COLORS), "hillshade", "slope")
"""The bands in the order of the network's three inputs."""

SCALE = (127.5,) * 7 + (45.0,)
"""Images and hillshade of 0 to 255 and slopes of 0 to 90 degrees become -1 to 1: x / SCALE - 1."""


def load_prakash(path: str | Path) -> Segmenter:
    """Read the weights that the authors publish (``M_ALL_006.hdf5``), or any that Keras saved of that network.

    Parameters
    ----------
    path : path
        HDF5 as Keras 2 writes it: a whole model, whose optimiser is passed over, or weights alone.

    Returns
    -------
    Segmenter
        With ``BANDS``: the images before and after as red, green, blue of 0 to 255, hillshade of 0 to 255, slope in
        degrees. The authors put -1 in the place of void, this model 0, the middle of the range.

    Raises
    ------
    NotFound, Unreadable
        If there is no file, or it is not HDF5.
    BadInput
        If h5py is not installed, or the file's weights are not those of the network: one is missing, of another
        shape, or left over.

    Notes
    -----
    Source: N. Prakash, A. Manconi and S. Loew, A new strategy to map landslides with a generalized convolutional
    neural network, Scientific Reports 11, 2021, supplementary figure 2.
    """
    held = _read(Path(path))
    model = build("prakash_resunet", bands=BANDS, mean=SCALE, std=SCALE)
    network = next(part for part in model.modules() if isinstance(part, PrakashResUnet))
    with torch.no_grad():
        for target, name in _places(network):
            _put(target, held, name)
    if held:
        names = ", ".join(sorted(held)[:5])
        raise BadInput(sentence("path", "hold the weights of prakash_resunet and no others", f"{path}, also {names}"))
    return model.eval()


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read all weights, by "layer/weight"."""
    try:
        import h5py
    except ImportError as error:
        do = "Install it: pip install 'lsdask[keras]'"
        raise BadInput(sentence("path", "be read with h5py", "no h5py", do)) from error
    if not path.exists():
        raise NotFound(sentence("path", "name a file", f"path={path}, where there is none"))
    held: dict[str, np.ndarray] = {}

    def keep(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset):
            layer, weight = name.split("/")[-2:]
            held[f"{layer}/{weight.removesuffix(':0')}"] = np.asarray(found)

    try:
        with h5py.File(path) as file:
            file.get("model_weights", file).visititems(keep)
    except OSError as error:
        raise Unreadable(f"{path} cannot be read as HDF5: {error}") from error
    return held


def _put(target: Tensor, held: dict[str, np.ndarray], name: str) -> None:
    """Put a weight in its place, and take it from those at hand; Keras has channels last."""
    if name not in held:
        raise BadInput(sentence("path", "hold all weights of prakash_resunet", f"no {name}"))
    values = held.pop(name)
    values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values
    if values.shape != tuple(target.shape):
        rule = f"hold {name} of shape {tuple(target.shape)}, channels first"
        raise BadInput(sentence("path", rule, str(values.shape)))
    target.copy_(torch.from_numpy(np.ascontiguousarray(values, "float32")))


def _places(network: PrakashResUnet) -> Iterator[tuple[Tensor, str]]:
    """Pair each tensor of the network with the weight of the published one that is it."""
    for layer, name in _layers(network):
        if isinstance(layer, nn.BatchNorm2d):
            pairs: dict[str, Any] = {
                "gamma": layer.weight,
                "beta": layer.bias,
                "moving_mean": layer.running_mean,
                "moving_variance": layer.running_var,
            }
        else:
            pairs = {"kernel": layer.weight, "bias": layer.bias}
        yield from ((tensor, f"{name}/{weight}") for weight, tensor in pairs.items())


def _layers(network: PrakashResUnet) -> Iterator[tuple[nn.Module, str]]:
    """Give all layers with weights and what the published network calls them."""
    for stem, letter in zip(network.begin, "ABC"):
        yield stem[0], f"conv1_{letter}"  # type: ignore[index]
        yield stem[1], f"bn_conv1_{letter}"  # type: ignore[index]
    for stage, what in zip(network.skip, ("pre", "post", "topo")):
        yield from _stage(stage, f"1conv_{what}Image_Skip_")
    for number, stage in enumerate([*network.down, *network.up], 2):
        yield from _stage(stage, f"{number}")
    for head, number in zip(network.heads, (5, 4, 3, 2)):
        yield head, f"conv_out_{number}"
    yield network.last, "prediction"


def _stage(stage: Any, name: str) -> Iterator[tuple[nn.Module, str]]:
    """Give the layers of a stage: blocks a, b ..., each with branches 2a and 2c, the first with branch 1 too."""
    for block, letter in zip(stage, "abcdef"):
        branches = {"2a": block.first, "2c": block.second}
        if isinstance(block.shortcut, nn.Sequential):
            branches["1"] = block.shortcut
        for branch, layers in branches.items():
            yield layers[0], f"res{name}{letter}_branch{branch}"
            yield layers[1], f"bn{name}{letter}_branch{branch}"
