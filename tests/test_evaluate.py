"""Counts and scores against scikit-learn, in any chunking."""

import json
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from sklearn import metrics

from lsdask import evaluate, schema
from lsdask.errors import BadInput
from lsdask.evaluate import Counts

SCORES = ("precision", "recall", "f1", "iou", "mcc", "accuracy")


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


def grid(shape, left=500000.0):
    return GeoBox(shape, Affine(10, 0, left, 0, -10, 7400000), "EPSG:32723")


def image(data, dims=schema.MASK, **kw):
    return schema.wrap(data, grid(data.shape[-2:]), dims, name="image", **kw)


def truth(rng, shape, unknown=0.2):
    mask = (rng.random(shape) < 0.3).astype("uint8")
    mask[rng.random(shape) < unknown] = 255
    return mask


def probabilities(rng, shape, dtype, unknown=0.2):
    """Scores that often lie on thresholds, and some that are unknown."""
    p = np.where(rng.random(shape) < 0.5, rng.integers(0, 101, shape) / 100, rng.random(shape))
    p[rng.random(shape) < unknown] = np.nan
    return schema.encode_scores_block(p, dtype)


def chunked(rng, data):
    """The same array in Dask chunks cut at random places, or as it is."""
    if rng.random() < 0.2:
        return data
    cuts = [np.flatnonzero(rng.random(n - 1) < 0.2) + 1 for n in data.shape]
    return da.from_array(data, chunks=tuple(tuple(np.diff([0, *cut, n]).tolist()) for cut, n in zip(cuts, data.shape)))


def known_pair(scores, mask, threshold):
    """What scikit-learn is given: truth and prediction of the known pixels."""
    if scores.dtype == np.uint8:
        known, positive = scores != 255, scores / 250 >= threshold
    else:
        known, positive = ~np.isnan(scores), scores >= scores.dtype.type(threshold)
    known &= mask != 255
    return mask[known], positive[known].astype("uint8")


def oracle(y, p):
    """Counts and scores by scikit-learn."""
    tn, fp, fn, tp = metrics.confusion_matrix(y, p, labels=[0, 1]).ravel().tolist()
    scores = (
        metrics.precision_score(y, p, zero_division=0),
        metrics.recall_score(y, p, zero_division=0),
        metrics.f1_score(y, p, zero_division=0),
        metrics.jaccard_score(y, p, zero_division=0),
        metrics.matthews_corrcoef(y, p) if len(set(y) | set(p)) == 2 else 0.0,
        metrics.accuracy_score(y, p),
    )
    return Counts(tp, fp, fn, tn), dict(zip(SCORES, scores))


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(["uint8", "float16", "float32", "float64"])


@given(shapes, seeds, dtypes, st.one_of(st.integers(0, 100).map(lambda i: i / 100), st.floats(0, 1)))
def test_count_and_score_equal_scikit_learn(shape, seed, dtype, threshold):
    rng = np.random.default_rng(seed)
    mask, scores = truth(rng, shape), probabilities(rng, shape, dtype)
    y, p = known_pair(scores, mask, threshold)
    counts = evaluate.count(image(chunked(rng, scores)), image(chunked(rng, mask)), threshold=threshold)
    assert counts.total == len(y)
    if len(y) == 0:
        assert counts == Counts()
        return
    expected, scored = oracle(y, p)
    assert counts == expected
    assert all(type(n) is int for n in (counts.tp, counts.fp, counts.fn, counts.tn))
    assert evaluate.score(counts) == pytest.approx(scored, abs=1e-12)


@given(shapes, seeds, dtypes)
def test_sweep_equals_scikit_learn_at_every_threshold(shape, seed, dtype):
    rng = np.random.default_rng(seed)
    mask, scores = truth(rng, shape), probabilities(rng, shape, dtype)
    table = evaluate.sweep(image(chunked(rng, scores)), image(chunked(rng, mask)))
    assert table["threshold"].tolist() == [i / 100 for i in range(101)]
    for row in table.itertuples():
        y, p = known_pair(scores, mask, row.threshold)
        tp, fp = int((p & (y == 1)).sum()), int((p & (y == 0)).sum())
        expected = Counts(tp, fp, int((y == 1).sum()) - tp, int((y == 0).sum()) - fp)
        assert Counts(row.tp, row.fp, row.fn, row.tn) == expected
    i = int(rng.integers(101))
    y, p = known_pair(scores, mask, i / 100)
    if len(y):
        assert table.loc[i, list(SCORES)].to_dict() == pytest.approx(oracle(y, p)[1], abs=1e-12)


@given(seeds, dtypes, st.lists(st.floats(0, 1), min_size=1, max_size=9, unique=True).map(sorted))
def test_sweep_takes_any_thresholds(seed, dtype, thresholds):
    rng = np.random.default_rng(seed)
    scores, mask = image(probabilities(rng, (9, 9), dtype)), image(truth(rng, (9, 9)))
    for row in evaluate.sweep(scores, mask, thresholds=thresholds).itertuples():
        counts = evaluate.count(scores, mask, threshold=row.threshold)
        assert Counts(row.tp, row.fp, row.fn, row.tn) == counts


@given(shapes, seeds, dtypes, st.integers(0, 100).map(lambda i: i / 100))
def test_agreement_holds_what_count_counts(shape, seed, dtype, threshold):
    rng = np.random.default_rng(seed)
    mask, scores = truth(rng, shape), probabilities(rng, shape, dtype)
    valid = rng.random(shape) < 0.7
    images = image(chunked(rng, scores)), image(chunked(rng, mask))
    inside = image(chunked(rng, valid))
    values = evaluate.agreement(*images, threshold=threshold, valid=inside).values
    counts = evaluate.count(*images, threshold=threshold, valid=inside)
    found = {code: int((values == code).sum()) for code in range(4)}
    assert counts == Counts(found[1], found[2], found[3], found[0])
    assert set(np.unique(values)) <= {0, 1, 2, 3, 255}
    y, p = known_pair(scores, np.where(valid, mask, 255).astype("uint8"), threshold)
    codes = values[values != 255]
    assert np.array_equal(np.isin(codes, (1, 2)), p == 1)
    assert np.array_equal(np.isin(codes, (1, 3)), y == 1)


def test_agreement_is_lazy_georeferenced_and_explains_itself():
    scores = image(da.full((1, 30, 20), 200, dtype="uint8", chunks=(1, 7, 9)), schema.SCORES)
    mask = image(da.zeros((30, 20), dtype="uint8", chunks=11))
    result = evaluate.agreement(scores, mask)
    assert dask.is_dask_collection(result)
    assert result.dtype == np.uint8
    assert result.attrs["flag_meanings"].split()[evaluate.FP] == "false_positive"
    assert result.attrs["_FillValue"] == 255
    assert schema.geobox(result) == grid((30, 20))
    assert (result.compute() == evaluate.FP).all()
    assert isinstance(evaluate.agreement(scores.compute(), mask.compute()).data, np.ndarray)


def test_a_step_is_positive_at_its_own_decimal_threshold():
    mask = image(np.ones((1, 2), "uint8"))
    for step in range(251):
        scores = image(np.array([[step - 1 if step else 255, step]], dtype="uint8"))
        assert evaluate.count(scores, mask, threshold=float(Fraction(step, 250))).tp == 1


def test_counts_add_up_over_any_cut():
    rng = np.random.default_rng(0)
    scores, mask = image(probabilities(rng, (40, 30), "uint8")), image(truth(rng, (40, 30)))
    parts = [evaluate.count(scores[a:b], mask[a:b]) for a, b in ((0, 1), (1, 17), (17, 40))]
    assert sum(parts, Counts()) == evaluate.count(scores, mask)


def test_scores_of_a_continent_do_not_overflow():
    counts = Counts(tp=3 * 10**12, fp=10**12, fn=10**12, tn=10**14)
    small = Counts(tp=3, fp=1, fn=1, tn=100)
    assert evaluate.score(counts) == pytest.approx(evaluate.score(small), rel=1e-12)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (Counts(tn=5), dict.fromkeys(SCORES, 0.0) | {"accuracy": 1.0}),
        (Counts(fn=2, tn=2), dict.fromkeys(SCORES, 0.0) | {"accuracy": 0.5}),
        (Counts(fp=2, tn=2), dict.fromkeys(SCORES, 0.0) | {"accuracy": 0.5}),
        (Counts(tp=2), dict.fromkeys(SCORES, 1.0) | {"mcc": 0.0}),
    ],
)
def test_nothing_over_nothing_is_nothing(counts, expected):
    assert evaluate.score(counts) == expected


def test_scores_of_no_pixels_are_unknown():
    assert all(math.isnan(value) for value in evaluate.score(Counts()).values())


def test_bool_masks_count_as_uint8_ones():
    rng = np.random.default_rng(1)
    scores, mask = image(probabilities(rng, (20, 20), "float32")), truth(rng, (20, 20), unknown=0)
    assert evaluate.count(scores, image(mask.astype(bool))) == evaluate.count(scores, image(mask))
    assert evaluate.agreement(scores, image(mask == 1)).identical(evaluate.agreement(scores, image(mask)))


def test_a_class_is_chosen_by_its_label_or_place():
    scores = np.stack([np.zeros((4, 4)), np.ones((4, 4))]).astype("float32")
    mask = image(np.ones((4, 4), "uint8"))
    named = image(scores, schema.SCORES, coords={"class": ["forest", "landslide"]})
    assert evaluate.count(named, mask, class_="landslide").tp == 16
    assert evaluate.count(named, mask, class_="forest").fn == 16
    assert evaluate.count(image(scores, schema.SCORES), mask, class_=1).tp == 16
    with pytest.raises(BadInput, match=r"class_ must be one of \['forest', 'landslide'\]. Got class_=None"):
        evaluate.count(named, mask)


def test_a_count_holds_one_chunk_at_a_time():
    """One task a chunk reads a pair; what is merged are tables of a few numbers."""
    seen = []

    def block(data):
        seen.append(data.shape)
        return data

    scores = da.map_blocks(block, da.zeros((64, 64), dtype="uint8", chunks=16), meta=np.empty((0, 0), "uint8"))
    evaluate.count(image(scores), image(np.zeros((64, 64), "uint8")))
    assert seen == [(16, 16)] * 16


def test_slight_rounding_is_a_probability_and_a_logit_is_not():
    mask = image(np.ones((1, 2), "uint8"))
    assert evaluate.count(image(np.array([[1.0000001, -1e-7]], "float32")), mask, threshold=0).tp == 1
    for strange in (-3.0, 7.0, np.inf):
        with pytest.raises(BadInput, match=r"scores must lie in 0..1. Got 1 pixels outside it. .*sigmoid"):
            evaluate.count(image(np.array([[strange, 0.5]], "float32")), mask)


def test_bad_input_is_named():
    scores, mask = image(np.zeros((1, 4, 5), "uint8"), schema.SCORES), image(np.zeros((4, 5), "uint8"))
    moved = schema.wrap(mask.values, grid((4, 5), left=500005.0), schema.MASK, name="mask")
    for wrong, message in [
        (moved, "mask must lie on the grid of scores"),
        (mask.isel(y=slice(3)), "mask must lie on the grid of scores"),
        (mask.drop_vars("spatial_ref"), "mask must have a CRS"),
        (mask.values, "mask must be an xarray.DataArray"),
        (mask.transpose("x", "y"), r"mask must have dims \('y', 'x'\)"),
        (mask.astype("float32"), "mask must be uint8 .* Got float32"),
        (mask + np.uint8(2), r"mask must hold 1 landslide, 0 not, 255 unknown. Got also \[2\]"),
        (mask.assign_attrs(_FillValue=np.uint8(0)), "mask must hold 255 where it is unknown. Got _FillValue=0"),
    ]:
        for do in (evaluate.count, evaluate.sweep, lambda s, m: evaluate.agreement(s, m).compute()):
            with pytest.raises(BadInput, match=message):
                do(scores, wrong)
    for wrong, message in [
        (scores.astype("int16"), "scores must be uint8"),
        (scores.isel({"class": 0}).T, r"scores must have dims \('y', 'x'\)"),
        (scores.transpose("y", "x", "class"), r"scores must have dims \('class', 'y', 'x'\)"),
        (scores.values, "scores must be an xarray.DataArray"),
    ]:
        with pytest.raises(BadInput, match=message):
            evaluate.count(wrong, mask)
    for threshold in (-0.1, 1.1, math.nan):
        with pytest.raises(BadInput, match=r"threshold must lie in 0..1"):
            evaluate.count(scores, mask, threshold=threshold)
    for thresholds in ([0.5, 0.4], [0.2, 0.2], [], [0.5, 2]):
        with pytest.raises(BadInput, match=r"threshold must lie in 0..1, and several must rise"):
            evaluate.sweep(scores, mask, thresholds=thresholds)
    with pytest.raises(BadInput, match="thresholds must be 2 or more"):
        evaluate.sweep(scores, mask, thresholds=1)
    with pytest.raises(BadInput, match="valid must be bool"):
        evaluate.count(scores, mask, valid=mask)
    with pytest.raises(BadInput, match="valid must lie on the grid of scores"):
        evaluate.count(scores, mask, valid=moved == 0)


@given(shapes, seeds)
def test_within_covers_the_tiles_and_nothing_else(shape, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 6))
    tiles = pd.DataFrame({"y": rng.integers(0, 40, n), "x": rng.integers(0, 40, n), "size": rng.integers(1, 30, n)})
    expected = np.zeros((80, 80), dtype=bool)
    for y, x, size in tiles.to_numpy():
        expected[y : y + size, x : x + size] = True
    inside = evaluate.within(tiles, image(chunked(rng, np.zeros(shape, dtype="uint8"))))
    assert dask.is_dask_collection(inside)
    assert np.array_equal(inside.values, expected[: shape[0], : shape[1]])
    assert schema.geobox(inside) == grid(shape)


def test_the_benchmark_runs():
    script = Path(__file__).parents[1] / "benchmarks" / "evaluate.py"
    out = subprocess.run([sys.executable, script, "--size", "256"], capture_output=True, text=True, check=True)
    line = json.loads(out.stdout)
    assert line["agrees"] is True
    assert line["sweep_over_histogram"] > 0
