"""The papers' networks, layer by layer and parameter by parameter."""

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from lsdask import models

LAYERS = Path(__file__).with_name("prakash2021_layers.csv")
"""Supplementary Fig. 2 of Prakash et al. 2021: the layers that have parameters, as Keras lists them."""


def name_of(path: str, layer: nn.Module) -> str:
    """What the paper calls a layer of ``PrakashResUnet``."""
    room, *parts = path.split(".")
    if room == "last":
        return "prediction"
    if room == "heads":
        return f"conv_out_{5 - int(parts[0])}"
    norm = isinstance(layer, nn.BatchNorm2d)
    if room == "begin":
        return f"{'bn_' * norm}conv1_{'ABC'[int(parts[0])]}"
    branch = {"first": "2a", "second": "2c", "shortcut": "1"}[parts[2]]
    block = "abcdef"[int(parts[1])]
    if room == "skip":
        stem = ("preImage", "postImage", "topoImage")[int(parts[0])]
        return f"{'bn' if norm else 'res'}1conv_{stem}_Skip_{block}_branch{branch}"
    stage = int(parts[0]) + {"down": 2, "up": 6}[room]
    return f"{'bn' if norm else 'res'}{stage}{block}_branch{branch}"


def test_every_layer_of_prakash_s_network_is_the_paper_s():
    made = models.build("prakash_resunet", bands=8).net
    found = {}

    def note(path: str, layer: nn.Module, result: torch.Tensor) -> None:
        counted = [*layer.parameters(), *(value for name, value in layer.named_buffers() if "running" in name)]
        conv = isinstance(layer, nn.Conv2d)
        found[name_of(path, layer)] = {
            "output": "x".join(map(str, (*result.shape[2:], result.shape[1]))),
            "kernel": "x".join(map(str, layer.kernel_size)) if conv else "",
            "stride": str(layer.stride[0]) if conv else "",
            "params": str(sum(value.numel() for value in counted)),
        }

    for path, layer in made.named_modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            layer.register_forward_hook(lambda layer, _, result, path=path: note(path, layer, result))
    with torch.no_grad():
        made(torch.zeros(1, 8, 224, 224))
    with LAYERS.open() as file:
        expected = {row.pop("name"): row for row in csv.DictReader(file)}
    assert found == expected
    assert sum(int(row["params"]) for row in found.values()) == 20_775_893


SIZES = {
    ("unet", "densenet121", 4): (13_610_769, 12_062_481),
    ("fpn", "densenet121", 4): (9_302_849, 9_828_929),
    ("linknet", "densenet121", 4): (10_431_153, 8_270_257),
    ("unet", "resnet50", 3): (32_521_105, 32_513_556),
    ("fpn", "resnet50", 3): (26_116_033, 26_863_940),
    ("linknet", "resnet50", 3): (31_177_777, 28_730_164),
}
"""Trained parameters: of segmentation_models_pytorch, and of the Keras library that the papers used.

Garcia et al. 2022 (4 bands) and Oak et al. 2024 (3). They differ as the definitions do: torch's DenseNet hands on
blocks before their transition, twice as wide as Keras' transition convolutions; Keras' ResNet50 normalises its input
and adds before it activates; its FPN goes down to half size, torch's to a quarter; its Linknet enlarges by nearest
pixels and torch's by transposed convolutions.
"""


@pytest.mark.parametrize(("name", "encoder", "bands"), SIZES)
def test_the_library_s_networks_have_the_size_that_is_said(name, encoder, bands):
    made = models.build(name, encoder=encoder, bands=bands)
    ours, theirs = SIZES[name, encoder, bands]
    assert sum(each.numel() for each in made.parameters()) == ours
    assert abs(ours / theirs - 1) < 0.27


def test_a_densenet_is_the_paper_s_to_the_parameter():
    encoder = models.build("unet", encoder="densenet121", bands=4).net.encoder
    assert sum(each.numel() for each in encoder.parameters()) == 6_956_992


@pytest.mark.parametrize(("filters", "bands", "count"), [(32, 6, 7_761_509), (64, 6, 31_034_565)])
def test_the_unet_of_soares_with_heights_has_the_paper_s_parameters(filters, bands, count):
    made = models.build("soares_unet", bands=bands, filters=filters)
    assert sum(each.numel() for each in made.parameters()) == count


@pytest.mark.parametrize("name", ["unet", "fpn", "linknet"])
def test_scores_do_not_depend_on_how_large_a_block_is(name):
    made = models.build(name, bands=2, encoder="resnet18").eval()
    far = -(-models.reach(made) // 32) * 32
    strip = torch.randn(1, 2, 32, 4 * far + 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, part = made(strip), made(strip[..., far : 3 * far + 64])
    torch.testing.assert_close(part[..., far : far + 64], whole[..., 2 * far : 2 * far + 64], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "encoder"), [("unet", "resnet18"), ("soares_unet", ""), ("prakash_resunet", "")])
def test_a_model_names_an_encoder_only_if_it_has_one(name, encoder):
    made = models.build(name, bands=8)
    assert made.spec.encoder == encoder
    assert (made.encoder is not None) == bool(encoder)
