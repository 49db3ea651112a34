"""Windows lie on the image and not on its tiles; blending, turning, averaging and batching of what goes through."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from images import random_mosaic

from lsdask import models, predict, schema
from lsdask.errors import BadInput
from lsdask.predict import composing, windows


@dataclass(frozen=True)
class Ramp:
    """Looks at everything in its block, so that its scores show how the image was cut."""

    def __call__(self, blocks: np.ndarray) -> np.ndarray:
        whole = blocks.astype("int64").sum(axis=1)
        rows, columns = (np.arange(size) + 1 for size in whole.shape[1:])
        total = whole * 3 + (whole * rows[:, None] * columns).sum(axis=(1, 2), keepdims=True) + rows[:, None] + columns
        return ((total % 1009) / 1008).astype("float32")[:, None]


@settings(max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    step=st.integers(3, 12),
    halo=st.integers(0, 15),
    many=st.integers(2, 5),
    blend=st.sampled_from(["none", "cosine"]),
    edge=st.sampled_from(["reflect", "nearest", "constant", "void"]),
    tta=st.sampled_from(["none", "d4"]),
    seed=st.integers(0, 3),
)
@example((10, 10), 8, 2, 2, "none", "reflect", "none", 0)  # of the last tile two pixels lie in the image
def test_windows_do_not_depend_on_the_tile(
    shape: tuple[int, int], step: int, halo: int, many: int, blend: str, edge: str, tta: str, seed: int
) -> None:
    image = random_mosaic((2, *shape), seed=seed)
    options = {"halo": halo, "window": step + 2 * halo, "blend": blend, "edge": edge, "tta": tta, "dtype": "float32"}
    small, large = (
        predict.apply(image, Ramp(), tile=tile, **options).compute(scheduler="synchronous").values
        for tile in (step, many * step)
    )
    np.testing.assert_array_equal(small, large)


@settings(max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    step=st.integers(2, 12),
    halo=st.integers(0, 15),
    blend=st.sampled_from(["none", "cosine"]),
)
def test_windows_are_put_together_as_by_hand(shape: tuple[int, int], step: int, halo: int, blend: str) -> None:
    image = random_mosaic((1, *shape), void=0)
    scores = predict.apply(
        image, Ramp(), tile=2 * step, halo=halo, window=step + 2 * halo, blend=blend, dtype="float32", edge="nearest"
    ).values[0]
    expected = by_hand(image.values, step, halo, blend)
    np.testing.assert_allclose(scores, expected, atol=2e-6)


def by_hand(data: np.ndarray, step: int, halo: int, blend: str) -> np.ndarray:
    """Every window that touches the image, one by one, added up in float64."""
    height, width = data.shape[1:]
    around = 4 * (step + halo)
    padded = np.pad(data, ((0, 0), (around, around), (around, around)), mode="edge")
    side = step + 2 * halo
    total, weight = np.zeros(padded.shape[1:]), np.zeros(padded.shape[1:])
    line = np.array([one_weight(i, side, halo, blend) for i in range(side)])
    weights = line[:, None] * line
    ring = -(-halo // step) + 1
    for row in range(-ring, -(-height // step) + ring):
        for column in range(-ring, -(-width // step) + ring):
            top, left = around + row * step - halo, around + column * step - halo
            part = np.s_[top : top + side, left : left + side]
            total[part] += weights * Ramp()(padded[None, :, part[0], part[1]])[0, 0]
            weight[part] += weights
    inside = np.s_[around : around + height, around : around + width]
    return total[inside] / weight[inside]


def one_weight(i: int, side: int, halo: int, blend: str) -> float:
    if blend == "none" or halo == 0:
        return float(halo <= i < side - halo)
    from_border = min(i, side - 1 - i) + 0.5
    return float(np.sin(np.pi / 2 * min(from_border / (2 * halo), 1)) ** 2)


@given(step=st.integers(1, 20), halo=st.integers(0, 30), blend=st.sampled_from(["none", "cosine"]))
def test_the_weights_of_a_pixel_add_to_one(step: int, halo: int, blend: str) -> None:
    weights = windows.weights_block(step, halo, blend)
    total = np.zeros(step)
    for i, weight in enumerate(weights):
        total[i % step] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    np.testing.assert_array_equal(weights, weights[::-1])


def test_a_paper_keeps_the_middle_of_its_windows() -> None:
    seen: list[tuple[int, ...]] = []

    def model(blocks: np.ndarray) -> np.ndarray:
        seen.append(blocks.shape)
        return np.zeros((len(blocks), 1, *blocks.shape[2:]), "float32")

    image = random_mosaic((1, 300, 230), void=0)
    predict.apply(image, model, tile=336, halo=56, window=224).compute(scheduler="synchronous")
    assert {shape[2:] for shape in seen} == {(224, 224)}
    assert sum(shape[0] for shape in seen) == 9  # 3 x 3 steps of 112 px cover 300 x 230
    with pytest.raises(
        BadInput, match=r"tile must be a multiple of window - 2 \* halo = 112. Got tile=300. Pass tile=224"
    ):
        predict.apply(image, model, tile=300, halo=56, window=224)
    with pytest.raises(BadInput, match="window must be larger than twice the halo, 56"):
        predict.apply(image, model, halo=56, window=112)


def test_windows_without_data_are_left_out() -> None:
    seen: list[int] = []

    def model(blocks: np.ndarray) -> np.ndarray:
        seen.append(len(blocks))
        return np.zeros((len(blocks), 1, *blocks.shape[2:]), "float32")

    image = random_mosaic((1, 64, 64), void=0)
    image[:, :32] = 0
    predict.apply(image, model, tile=64, halo=0, window=16).compute(scheduler="synchronous")
    assert sum(seen) == 8


@pytest.mark.parametrize(("step", "halo", "stride"), [(2048, 64, 32), (2048, 288, 32), (1024, 0, 16), (96, 32, 32)])
def test_a_block_is_cut_where_that_costs_little(step: int, halo: int, stride: int) -> None:
    found = windows.cut(windows.Lattice((step, step), halo), stride)
    rows, columns = found.step
    assert step % rows == step % columns == rows % stride == columns % stride == 0
    work = (step // rows) * (step // columns) * found.side[0] * found.side[1]
    assert work <= (1.25 if found.side[0] * found.side[1] <= 1 << 20 else 1.08) * (step + 2 * halo) ** 2
    assert found.step == {(2048, 64): (512, 1024), (2048, 288): (2048, 2048), (1024, 0): (512, 512)}.get(
        (step, halo), (step, step)
    )


@given(shape=st.tuples(st.integers(1, 6), st.integers(1, 6)), quarters=st.integers(0, 3), mirrored=st.booleans())
def test_turning_back_undoes_turning(shape: tuple[int, int], quarters: int, mirrored: bool) -> None:
    block = np.arange(2 * shape[0] * shape[1]).reshape(1, 2, *shape)
    turned = composing.turn_block(block, quarters, mirrored)
    np.testing.assert_array_equal(composing.turn_back_block(turned, quarters, mirrored), block)


def leaning(blocks: np.ndarray) -> np.ndarray:
    """Depends on which way the image lies."""
    right = np.roll(blocks[:, :1], 1, axis=3).astype("float32")
    return (right + 2 * np.roll(blocks[:, :1], 1, axis=2)) / 4000


@pytest.mark.parametrize(("tta", "sides"), [("flips", 4), ("d4", 8)])
def test_the_mean_over_all_sides(tta: str, sides: int) -> None:
    image = random_mosaic((1, 20, 28), void=0)
    scores = predict.apply(image, leaning, tile=8, halo=1, tta=tta, dtype="float32", edge="nearest").values[0]
    padded = np.pad(image.values[0].astype("float32"), 1, mode="edge")
    group = [padded, padded[::-1], padded[:, ::-1], padded[::-1, ::-1]]
    back = [lambda a: a, lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a[::-1, ::-1]]
    group += [one.T for one in group]
    back += [lambda a, undo=undo: undo(a.T) for undo in back]
    found = [undo(leaning(one[None, None])[0, 0]) for one, undo in zip(group, back)][:sides]
    np.testing.assert_allclose(scores, np.mean(found, axis=0)[1:-1, 1:-1], atol=1e-6)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two small networks, the second of which sees one band of two."""
    for name, bands in (("both", ["b0", "b1"]), ("one", ["b1"])):
        torch.manual_seed(len(bands))
        count = len(bands)
        model = models.build("soares_unet", bands=bands, mean=[500.0] * count, std=[290.0] * count, filters=4)
        models.save(model, tmp_path / name)
    return [tmp_path / "both", tmp_path / "one"]


def test_models_are_averaged_each_on_its_bands(folders: list[Path]) -> None:
    image = random_mosaic((2, 70, 70))
    options = {"tile": 64, "halo": 16, "dtype": "float32", "precision": "float32"}
    both = predict.apply(image, folders[0], **options).values
    one = predict.apply(image.sel(band=["b1"]), folders[1], **options).values
    mean = predict.apply(image, folders, **options).values
    np.testing.assert_allclose(mean, (both + one) / 2, atol=1e-6)
    with pytest.raises(BadInput, match=r"have the bands of every model, \('b0', 'b1'\). Got no \['b0'\]"):
        predict.apply(image.sel(band=["b1"]), folders, **options)
    with pytest.raises(BadInput, match="be a list of model folders and networks only"):
        predict.apply(image, [folders[0], leaning], **options)
    with pytest.raises(BadInput, match="an empty list"):
        predict.apply(image, [], **options)


def two_outputs(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scar = (blocks[:, :1] / 1000).astype("float32")
    return scar, np.concatenate([scar / 2, scar / 4], axis=1)


def test_a_callable_may_give_several_outputs() -> None:
    image = random_mosaic((1, 20, 20), void=0)
    scores = predict.apply(image, two_outputs, halo=0, classes=["scar", "deep", "wet"], dtype="float32")
    scar = image.values[0].astype("float32") / 1000
    np.testing.assert_array_equal(scores.sel({"class": "scar"}), scar)
    np.testing.assert_array_equal(scores.sel({"class": "wet"}), scar / 4)


class Narrow:
    """A model whose memory holds three windows."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, blocks: np.ndarray) -> np.ndarray:
        self.sizes.append(len(blocks))
        if len(blocks) > 3:
            raise MemoryError("full")
        return blocks[:, :1] / np.float32(1000)


def test_the_default_halo_makes_a_network_seamless(folders: list[Path]) -> None:
    far = models.reach(folders[0])
    assert far is not None
    image = random_mosaic((2, 150, 140), void=0.1)
    options = {"dtype": "float32", "precision": "float32"}
    whole, cut, halved = (
        predict.apply(image, folders[0], tile=tile, **options).compute(scheduler="synchronous").values
        for tile in (192, 64, 32)
    )
    known = schema.valid(image).values
    assert np.isnan(whole[0][~known]).all()
    # Blocks of other shapes are computed in another order: float32, about a thousand additions.
    np.testing.assert_allclose(cut[0][known], whole[0][known], atol=2e-5)
    np.testing.assert_allclose(halved[0][known], whole[0][known], atol=2e-5)
    less = predict.apply(image, folders[0], tile=32, halo=0, **options).values
    assert np.abs(less[0][known] - whole[0][known]).max() > 1e-3


def test_a_network_is_cut_on_its_stride(folders: list[Path]) -> None:
    with pytest.raises(BadInput, match=r"tile must be a multiple of the network's stride, 16.* Pass tile=112"):
        predict.apply(random_mosaic((2, 150, 140)), folders[0], tile=100)


def test_a_function_says_how_far_it_looks() -> None:
    image = random_mosaic((1, 20, 20), void=0)
    with pytest.raises(BadInput, match=r"halo must be given for a function.*Pass halo=0"):
        predict.apply(image, Ramp())
    with pytest.raises(BadInput, match="halo must be 'auto' or a whole number"):
        predict.apply(image, Ramp(), halo=1.5)

    class Told(Narrow):
        reach = 3

    model = Told()
    predict.apply(image, model, tile=32).compute(scheduler="synchronous")
    assert model.sizes == [1]
    np.testing.assert_array_equal(
        predict.apply(image, model, tile=4).values, predict.apply(image, model, tile=4, halo=3).values
    )


@pytest.mark.parametrize(("edge", "value"), [("constant", 77), ("void", 0)])
def test_what_stands_outside(edge: str, value: int) -> None:
    image = random_mosaic((1, 20, 20), void=0)
    padded = np.pad(image.values, ((0, 0), (2, 2), (2, 2)), constant_values=value)
    fill = {"fill": 77.0} if edge == "constant" else {}
    expected = leaning(padded[None])[0, :, 2:-2, 2:-2]
    scores = predict.apply(image, leaning, tile=8, halo=2, edge=edge, dtype="float32", **fill)
    np.testing.assert_array_equal(scores.values, expected)


def test_void_outside_is_the_mean_to_a_network(folders: list[Path]) -> None:
    image = random_mosaic((2, 40, 40), void=0)
    wide = random_mosaic((2, 40 + 224, 40 + 224), void=1).copy()
    wide[:, 112:-112, 112:-112] = image.values
    options = {"tile": 64, "halo": 112, "dtype": "float32", "precision": "float32"}
    expected = predict.apply(wide, folders[0], **{**options, "tile": 272}).values[:, 112:-112, 112:-112]
    scores = predict.apply(image, folders[0], edge="void", **options).values
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    image.attrs.pop("_FillValue")
    with pytest.raises(BadInput, match="other than 'void' where the image declares no nodata"):
        predict.apply(image, folders[0], edge="void")


def test_unknown_words() -> None:
    image = random_mosaic((1, 20, 20))
    for name in ("edge", "blend", "tta"):
        with pytest.raises(BadInput, match=f"{name} must be one of"):
            predict.apply(image, leaning, halo=0, **{name: "wild"})
    with pytest.raises(TypeError, match="tiles"):
        predict.apply(image, leaning, halo=0, tiles=64)  # type: ignore[call-arg]
