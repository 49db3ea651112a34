"""Published Keras weights, against the network built in Keras itself."""

import os

import numpy as np
import pytest
import torch

from lsdask import models
from lsdask.errors import BadInput, NotFound, Unreadable
from lsdask.models.keras import BANDS, load_prakash

h5py = pytest.importorskip("h5py", reason="no h5py: install lsdask[keras]")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="no keras to hold the network against: install lsdask[dev]")

SIDE = 64


def network():
    """The network of supplementary figure 2, as Keras code; output: the scores and the four heads before resizing."""
    layers = keras.layers

    def conv_norm(x, width, stride, name):
        conv, norm = f"res{name}", f"bn{name}"
        x = layers.Conv2D(width, 3, strides=stride, padding="same", name=conv)(x)
        return layers.BatchNormalization(name=norm)(x)

    def block(x, width, stride, name, first):
        y = layers.ReLU()(conv_norm(x, width, stride, f"{name}_branch2a"))
        y = conv_norm(y, width, 1, f"{name}_branch2c")
        short = conv_norm(x, width, stride, f"{name}_branch1") if first else x
        return layers.ReLU()(layers.Add()([y, short]))

    def stage(x, width, count, stride, name):
        for i, letter in enumerate("abcdef"[:count]):
            x = block(x, width, stride if i == 0 else 1, f"{name}{letter}", i == 0)
        return x

    inputs = [layers.Input((SIDE, SIDE, bands)) for bands in (3, 3, 2)]
    stems = []
    for x, letter, width in zip(inputs, "ABC", (24, 24, 16)):
        x = layers.Conv2D(width, 7, strides=2, name=f"conv1_{letter}")(layers.ZeroPadding2D(3)(x))
        stems.append(layers.ReLU()(layers.BatchNormalization(name=f"bn_conv1_{letter}")(x)))
    s112 = layers.Concatenate()(stems)
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(s112))
    s56 = stage(x, 64, 3, 1, "2")
    s28 = stage(s56, 128, 4, 2, "3")
    s14 = stage(s28, 256, 6, 2, "4")
    x = stage(s14, 256, 3, 2, "5")
    names = ("pre", "post", "topo")
    skips = [stage(x, width, 3, 1, f"1conv_{name}Image_Skip_") for x, name, width in zip(inputs, names, (24, 24, 16))]
    s224 = layers.Concatenate()(skips)
    heads = []
    for number, (skip, width) in enumerate(zip([s14, s28, s56, s112, s224], [256, 128, 64, 64, 64]), 6):
        x = stage(layers.Concatenate()([layers.UpSampling2D(2)(x), skip]), width, 3, 1, f"{number}")
        if number < 10:
            heads.append(layers.Conv2D(1, 1, activation="sigmoid", name=f"conv_out_{11 - number}")(x))
    scores = layers.Conv2D(1, 1, activation="sigmoid", name="prediction")(x)
    return keras.Model(inputs, [scores, *heads])


def randomise(model, seed=0):
    """Give every weight a value of its own, also running means and variances, at a scale that keeps values alive."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        values = []
        for weight, old in zip(layer.weights, layer.get_weights()):
            if weight.name == "kernel":
                values.append(rng.normal(0, np.sqrt(2 / np.prod(old.shape[:-1])), old.shape))
            elif weight.name in ("gamma", "moving_variance"):
                values.append(rng.uniform(0.5, 1.5, old.shape))
            else:
                values.append(rng.normal(0, 0.1, old.shape))
        layer.set_weights(values)


def save(model, path, *, whole=True):
    """Write HDF5 as Keras 2 did: model_weights/LAYER/LAYER/WEIGHT:0, beside the state of an optimiser."""
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole else file
        for layer in model.layers:
            for weight, values in zip(layer.weights, layer.get_weights()):
                group.create_dataset(f"{layer.name}/{layer.name}/{weight.name}:0", data=values)
        if whole:
            file.create_dataset("optimizer_weights/Adam/iterations:0", data=7)


@pytest.fixture(scope="module")
def published():
    model = network()
    randomise(model)
    return model


@pytest.mark.parametrize("whole", [True, False])
def test_published_weights_give_the_scores_that_keras_gives(published, tmp_path, whole):
    assert published.count_params() == 20_775_893
    save(published, tmp_path / "weights.hdf5", whole=whole)
    model = load_prakash(tmp_path / "weights.hdf5")
    assert model.spec.bands == BANDS
    rng = np.random.default_rng(1)
    raw = rng.uniform(0, 255, (2, 8, SIDE, SIDE)).astype("float32")
    raw[:, 7] *= 90 / 255
    scaled = raw / np.array([127.5] * 7 + [45], "float32")[:, None, None] - 1
    parts = [np.moveaxis(scaled[:, part], 1, -1) for part in (slice(0, 3), slice(3, 6), slice(6, 8))]
    expected = keras.ops.convert_to_numpy(published(parts, training=False)[0])[..., 0]
    with torch.inference_mode():
        got = torch.sigmoid(model(torch.from_numpy(raw))).numpy()[:, 0]
    assert expected.std() > 0.05
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_heads_are_placed_too(published, tmp_path):
    save(published, tmp_path / "weights.hdf5")
    model = load_prakash(tmp_path / "weights.hdf5")
    network = next(part for part in model.modules() if hasattr(part, "heads"))
    for head, name in zip(network.heads, ("conv_out_5", "conv_out_4", "conv_out_3", "conv_out_2")):
        kernel, bias = published.get_layer(name).get_weights()
        np.testing.assert_array_equal(head.weight.detach().numpy()[:, :, 0, 0], kernel[0, 0].T)
        np.testing.assert_array_equal(head.bias.detach().numpy(), bias)


def test_an_imported_model_is_saved_as_any_other(published, tmp_path):
    save(published, tmp_path / "weights.hdf5")
    model = load_prakash(tmp_path / "weights.hdf5")
    models.save(model, tmp_path / "model")
    again = models.load(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.__delitem__("res4c_branch2a/res4c_branch2a/bias:0"), "Got no res4c_branch2a/bias"),
        (lambda file: file.create_dataset("extra/extra/kernel:0", data=[1.0]), "also extra/kernel"),
        (
            lambda file: (
                file.__delitem__("prediction/prediction/kernel:0"),
                file.create_dataset("prediction/prediction/kernel:0", data=np.zeros((3, 3, 64, 1))),
            ),
            r"hold prediction/kernel of shape \(1, 64, 1, 1\), channels first. Got \(1, 64, 3, 3\)",
        ),
    ],
)
def test_weights_that_are_not_the_networks_are_refused(published, tmp_path, change, message):
    save(published, tmp_path / "weights.hdf5", whole=False)
    with h5py.File(tmp_path / "weights.hdf5", "a") as file:
        change(file)
    with pytest.raises(BadInput, match=message):
        load_prakash(tmp_path / "weights.hdf5")


def test_a_file_that_is_not_hdf5(tmp_path):
    with pytest.raises(NotFound, match="path must name a file"):
        load_prakash(tmp_path / "none.hdf5")
    pointer = tmp_path / "pointer.hdf5"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(Unreadable, match="cannot be read as HDF5"):
        load_prakash(pointer)
