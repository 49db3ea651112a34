"""Losses: equal to their formulas and to the library's, and blind to unknown pixels."""

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdask import losses
from lsdask.errors import BadInput

EVERY = sorted(losses.NAMES)


def batch(seed: int, classes: int = 1, unknown: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (3, classes, 4, 5)).astype("float32"))
    mask = rng.integers(0, max(classes, 2), (3, 4, 5)).astype("uint8")
    mask[rng.random(mask.shape) < unknown] = 255
    return logits, torch.from_numpy(mask)


def slope(loss: losses.Loss, logits: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, mask)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=max(8, settings().max_examples // 4))
@given(seed=st.integers(0, 2**32 - 1), classes=st.sampled_from([1, 3]), other=st.sampled_from([7.0, np.inf, np.nan]))
def test_unknown_pixels_change_neither_value_nor_gradient(name, seed, classes, other):
    logits, mask = batch(seed, classes)
    unknown = (mask == 255).unsqueeze(1).expand_as(logits)
    value, gradient = slope(losses.find(name), logits, mask)
    changed, moved = slope(losses.find(name), torch.where(unknown, torch.tensor(other), logits), mask)
    assert torch.equal(value, changed)
    assert torch.equal(gradient, moved)
    assert not gradient[unknown].any()


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=max(8, settings().max_examples // 4))
@given(seed=st.integers(0, 2**32 - 1), classes=st.sampled_from([1, 3]))
def test_a_batch_without_its_unknown_pixels_has_the_same_loss(name, seed, classes):
    logits, mask = batch(seed, classes)
    known = mask != 255
    if not known.any():
        return
    flat = logits.movedim(1, -1)[known].T[None, :, None]
    torch.testing.assert_close(losses.find(name)(logits, mask), losses.find(name)(flat, mask[known][None, None]))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("classes", [1, 3])
def test_a_batch_that_knows_nothing_has_loss_0_and_a_finite_gradient(name, classes):
    logits, mask = batch(0, classes, unknown=1.0)
    value, gradient = slope(losses.find(name), logits, mask)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("name", EVERY)
def test_the_gradient_is_finite_where_all_is_right_or_wrong(name):
    mask = torch.ones(1, 4, 4, dtype=torch.uint8)
    for value in (60.0, -60.0):
        for truth in (mask, 0 * mask):
            got, gradient = slope(losses.find(name), torch.full((1, 1, 4, 4), value), truth)
            assert torch.isfinite(got)
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_without_a_landslide_still_teaches(name):
    _, gradient = slope(losses.find(name), torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8))
    assert (gradient > 0).all()


def formula(name: str, logits: torch.Tensor, mask: torch.Tensor) -> float:
    """The definitions, in float64, of known pixels."""
    z, truth = (part[mask.numpy() != 255] for part in (logits.double().movedim(1, -1).numpy(), mask.numpy()))
    if z.shape[1] == 1:
        z = np.concatenate([0 * z, z], axis=1)  # a sigmoid is a softmax beside 0
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    p, t, entropy = np.exp(log_p), np.eye(z.shape[1])[truth], -log_p[np.arange(len(z)), truth]
    if logits.shape[1] == 1:
        p, t = p[:, 1:], t[:, 1:]
    tp, fn, fp = (p * t).sum(0), ((1 - p) * t).sum(0), (p * (1 - t)).sum(0)
    bce = entropy.sum() / max(len(z), 1)
    dice, jaccard = 1 - (2 * tp + 2) / (2 * tp + fn + fp + 2), 1 - (tp + 1) / (tp + fn + fp + 1)
    tversky = 1 - (tp + 1) / (tp + 0.7 * fn + 0.3 * fp + 1)
    return {
        "bce": bce,
        "dice": dice.mean(),
        "jaccard": jaccard.mean(),
        "bce_dice": bce + dice.mean(),
        "bce_jaccard": bce + jaccard.mean(),
        "focal": ((-np.expm1(-entropy)) ** 2 * entropy).sum() / max(len(z), 1),
        "tversky": tversky.mean(),
        "focal_tversky": (tversky**0.75).mean(),
        "prakash": 0.2 * bce + 0.8 * (tversky**0.75).mean(),
    }[name]


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=max(12, settings().max_examples // 2))
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.sampled_from([1, 2, 4]),
    unknown=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    extreme=st.booleans(),
)
def test_a_loss_is_its_formula(name, seed, classes, unknown, extreme):
    logits, mask = batch(seed, classes, unknown)
    logits = 100 * logits.sign() if extreme else logits
    value, gradient = slope(losses.find(name), logits, mask)
    assert value.item() == pytest.approx(formula(name, logits, mask), rel=1e-4, abs=1e-5)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_loss_is_computed_in_float32_whatever_the_network_computes_in(name, classes, dtype):
    logits, mask = batch(5, classes)
    logits = (40 * logits).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        value, gradient = slope(losses.find(name), logits, mask)
    exact, slopes = slope(losses.find(name), logits.float(), mask)
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)
    torch.testing.assert_close(gradient, slopes.to(dtype))


@given(seed=st.integers(0, 2**32 - 1), classes=st.sampled_from([1, 3]))
def test_the_library_s_losses_agree_where_they_are_defined(seed, classes):
    logits, mask = batch(seed, classes, unknown=0.2)
    if not all((mask == each).any() for each in range(max(classes, 2))):
        return
    mode = "binary" if classes == 1 else "multiclass"
    for mine, peer in (
        (losses.dice, smp.losses.DiceLoss(mode, smooth=1.0, ignore_index=255)),
        (losses.jaccard, smp.losses.JaccardLoss(mode, smooth=1.0)),
        (losses.tversky, smp.losses.TverskyLoss(mode, smooth=1.0, alpha=0.3, beta=0.7, ignore_index=255)),
        (losses.focal, smp.losses.FocalLoss(mode, ignore_index=255)),
    ):
        if isinstance(peer, smp.losses.FocalLoss) and classes > 1:
            continue  # theirs is one-against-the-rest
        truth = mask.clone()
        if isinstance(peer, smp.losses.JaccardLoss):
            truth[truth == 255] = 0  # theirs cannot ignore
        torch.testing.assert_close(mine(logits, truth), peer(logits, truth.long()), rtol=1e-4, atol=1e-6)


def test_deep_supervision_weighs_the_outputs_5_1_1_1_1():
    logits, mask = batch(3)
    outputs = [logits + shift for shift in range(5)]
    expected = sum(w * losses.prakash(each, mask) for w, each in zip((5, 1, 1, 1, 1), outputs))
    torch.testing.assert_close(losses.supervise(losses.prakash, outputs, mask), expected)
    torch.testing.assert_close(losses.supervise(losses.bce, outputs[:1], mask), losses.bce(logits, mask))
    with pytest.raises(BadInput, match="one number for each of 6 outputs"):
        losses.supervise(losses.bce, [logits] * 6, mask)


def test_a_loss_is_found_by_name_or_is_a_callable():
    assert losses.find("bce") is losses.bce
    assert losses.find(losses.dice) is losses.dice
    with pytest.raises(BadInput, match=r"loss must be one of bce, .* or a callable\. Got loss='mse'"):
        losses.find("mse")
