"""The nearest centre of every pixel, for every k at once: the kernels."""

import numpy as np

from lsdask.compiling import njit
from lsdask.kmeans.book import Book, missing_value

_LANES = 512  # pixels labelled side by side
_EPSILON = 2.0**-24  # rounding of a float32


def assign_block(data: np.ndarray, nodata: float | int | None, book: Book) -> np.ndarray:
    """Label the pixels of a block, for every k of a book.

    Scores are float32; where the two best are nearer to each other than rounding can be (a bound from the
    magnitudes at hand), the pixel is decided again in float64. So labels are those of float64 throughout.

    Parameters
    ----------
    data : (band, y, x) array
        As stored.
    nodata : float, int or None
    book : Book

    Returns
    -------
    (k, y, x) uint8 array, 255 where a band has no data or is not finite
    """
    labels = np.empty((len(book), *data.shape[1:]), dtype="uint8")
    flat = np.ascontiguousarray(data).reshape(len(data), -1)
    label_pixels(flat, nodata, book, labels.reshape(len(book), -1))
    return labels


def label_pixels(flat: np.ndarray, nodata: float | int | None, book: Book, labels: np.ndarray) -> None:
    missing, declared = missing_value(flat.dtype, nodata)
    reach = np.abs(book.weights).max(axis=0)
    slack = np.float32(2 * (flat.shape[0] + 4) * _EPSILON)
    floor = np.abs(book.bias).max()
    _nearest(
        flat, missing, declared, book.starts, book.centers, book.scale, book.origin,
        book.weights, book.bias, reach, floor, slack, labels,
    )  # fmt: skip


@njit(nogil=True, cache=True, fastmath={"contract"})
def _nearest(  # type: ignore[no-untyped-def]
    flat, missing, declared, starts, centers, scale, origin, weights, bias, reach, floor, slack, labels
):
    size = flat.shape[1]
    x = np.zeros((weights.shape[1], _LANES), dtype=np.float32)
    doubt = np.empty(_LANES, dtype=np.float32)
    score = np.empty(_LANES, dtype=np.float32)
    best = np.empty(_LANES, dtype=np.float32)
    second = np.empty(_LANES, dtype=np.float32)
    label = np.empty(_LANES, dtype=np.int32)
    known = np.empty(_LANES, dtype=np.bool_)
    for begin in range(0, size, _LANES):
        n = min(_LANES, size - begin)
        if not _load(flat, begin, n, missing, declared, origin, x, known):
            labels[:, begin : begin + n] = 255
            continue
        _bound(x, n, reach, floor, slack, doubt)
        for k in range(len(starts) - 1):
            best[:n] = -np.inf
            second[:n] = -np.inf
            first = starts[k]
            if x.shape[0] == 4:  # two centres at a time halve the traffic with best, second and label
                for centre in range(first, starts[k + 1] - 1, 2):
                    _keep_pair(x, n, weights, bias, centre, starts[k], best, second, label)
                first = starts[k + 1] - (starts[k + 1] - starts[k]) % 2
            for centre in range(first, starts[k + 1]):
                _score(x, n, weights[centre], bias[centre], score)
                _keep(score, n, centre - starts[k], best, second, label)
            if _settle(n, known, doubt, best, second, label, labels[k, begin : begin + n]):
                for i in range(n):
                    if known[i] and not best[i] - second[i] > doubt[i]:
                        labels[k, begin + i] = _decide(flat, begin + i, centers, scale, starts[k], starts[k + 1])


@njit(nogil=True, cache=True)
def _settle(n, known, doubt, best, second, label, labels):  # type: ignore[no-untyped-def]
    """Write the labels; say how many are in doubt (also those that an overflow made NaN)."""
    doubtful = np.int32(0)
    for i in range(n):
        sure = best[i] - second[i] > doubt[i]
        doubtful += np.int32(known[i] and not sure)
        labels[i] = np.uint8(label[i]) if known[i] else np.uint8(255)
    return doubtful


@njit(nogil=True, cache=True)
def _load(flat, begin, n, missing, declared, origin, x, known):  # type: ignore[no-untyped-def]
    """Take some pixels from the block, measured from the origin; say whether any has data."""
    known[:n] = True
    for band in range(flat.shape[0]):
        for i in range(n):
            value = np.float64(flat[band, begin + i])
            known[i] &= value - value == 0.0
            x[band, i] = np.float32(value - origin[band])
        if declared:
            for i in range(n):
                known[i] &= flat[band, begin + i] != missing
    return known[:n].any()


@njit(nogil=True, cache=True, fastmath={"contract"})
def _bound(x, n, reach, floor, slack, doubt):  # type: ignore[no-untyped-def]
    """Bound twice the rounding error of any score of each pixel."""
    doubt[:n] = floor
    for band in range(x.shape[0]):
        for i in range(n):
            doubt[i] += abs(x[band, i]) * reach[band]
    for i in range(n):
        doubt[i] *= slack


@njit(nogil=True, cache=True, fastmath={"contract"})
def _score(x, n, weight, bias, score):  # type: ignore[no-untyped-def]
    """Score some pixels for one centre, four bands at a time."""
    for i in range(n):
        score[i] = bias + x[0, i] * weight[0] + x[1, i] * weight[1] + x[2, i] * weight[2] + x[3, i] * weight[3]
    for band in range(4, x.shape[0], 4):
        for i in range(n):
            score[i] += (
                x[band, i] * weight[band]
                + x[band + 1, i] * weight[band + 1]
                + x[band + 2, i] * weight[band + 2]
                + x[band + 3, i] * weight[band + 3]
            )


@njit(nogil=True, cache=True)
def _keep(score, n, cluster, best, second, label):  # type: ignore[no-untyped-def]
    for i in range(n):
        better = score[i] > best[i]
        runner_up = best[i] if better else score[i]
        second[i] = runner_up if runner_up > second[i] else second[i]
        best[i] = score[i] if better else best[i]
        label[i] = np.int32(cluster) if better else label[i]


@njit(nogil=True, cache=True, fastmath={"contract"})
def _keep_pair(x, n, weights, bias, centre, start, best, second, label):  # type: ignore[no-untyped-def]
    """Do ``_score`` and ``_keep`` for two centres of four bands, in registers."""
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    a0, a1, a2, a3 = weights[centre, 0], weights[centre, 1], weights[centre, 2], weights[centre, 3]
    b0, b1, b2, b3 = weights[centre + 1, 0], weights[centre + 1, 1], weights[centre + 1, 2], weights[centre + 1, 3]
    a_bias, b_bias, cluster = bias[centre], bias[centre + 1], centre - start
    for i in range(n):
        a = a_bias + x0[i] * a0 + x1[i] * a1 + x2[i] * a2 + x3[i] * a3
        b = b_bias + x0[i] * b0 + x1[i] * b1 + x2[i] * b2 + x3[i] * b3
        top, next_, name = best[i], second[i], label[i]
        better = a > top
        runner_up = top if better else a
        next_ = runner_up if runner_up > next_ else next_
        name = np.int32(cluster) if better else name
        top = a if better else top
        better = b > top
        runner_up = top if better else b
        next_ = runner_up if runner_up > next_ else next_
        name = np.int32(cluster + 1) if better else name
        best[i] = b if better else top
        second[i] = next_
        label[i] = name


@njit(nogil=True, cache=True)
def _decide(flat, i, centers, scale, start, stop):  # type: ignore[no-untyped-def]
    """Give the nearest of some centres to one pixel in float64, the first of equals."""
    least, label = np.inf, 0
    for centre in range(start, stop):
        distance = 0.0
        for band in range(flat.shape[0]):
            difference = (np.float64(flat[band, i]) - centers[centre, band]) / scale[band]
            distance += difference * difference
        if distance < least:
            least, label = distance, centre - start
    return label
