"""What it costs to compress what lsdask stores: a scene (uint16), cluster labels and scores (uint8), by codec.

Prints one JSON line: for each kind and codec the share of the bytes that is left, and the seconds to encode and to
decode relative to those of what ``store.create`` uses.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from numcodecs import Blosc
from scipy import ndimage

import lsdask as ls

SHUFFLES = {"bytes": Blosc.SHUFFLE, "bits": Blosc.BITSHUFFLE}
CODECS = [(name, level, shuffle) for name in ("zstd", "lz4") for level in (1, 3, 5) for shuffle in SHUFFLES]
USED = {"scene": ("zstd", 1, "bytes"), "labels": ("lz4", 1, "bits"), "scores": ("lz4", 1, "bits")}


def images(size: int) -> dict[str, np.ndarray]:
    """Make one chunk of each kind."""
    scene = ls.synthetic.scene((size, size), seed=2).compute()
    labels = ls.kmeans.assign(scene, ls.kmeans.fit(scene, [2, 4, 6, 8, 10, 12], n_samples=20_000))
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(1, size, size)), (0, 6, 6))
    scores = ls.schema.encode_scores_block(1 / (1 + np.exp(-60 * smooth)), "uint8")
    return {"scene": scene.values, "labels": labels.values, "scores": scores}


def seconds(work: Callable[[], object], repeats: int = 9) -> float:
    """Time the median of a few runs."""
    took = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return float(np.median(took))


def measure(data: np.ndarray, codec: tuple[str, int, str]) -> tuple[float, float, float]:
    """Give the share of bytes left, and seconds to encode and decode."""
    blosc = Blosc(codec[0], codec[1], SHUFFLES[codec[2]])
    encoded = blosc.encode(data)
    return len(encoded) / data.nbytes, seconds(lambda: blosc.encode(data)), seconds(lambda: blosc.decode(encoded))


def measure_all(size: int) -> dict[str, dict[str, dict[str, float]]]:
    """Measure every codec on every kind."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind, data in images(size).items():
        _, encode, decode = measure(data, USED[kind])
        found[kind] = {}
        for codec in CODECS:
            left, slow, back = measure(data, codec)
            found[kind]["{} {} {}".format(*codec)] = {
                "left": round(left, 3),
                "encode": round(slow / encode, 2),
                "decode": round(back / decode, 2),
            }
    return found


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="side of the chunk, pixels")
    options = parser.parse_args()
    used = {kind: "{} {} {}".format(*codec) for kind, codec in USED.items()}
    print(json.dumps({"benchmark": "compression", "used": used, **measure_all(options.size)}))


if __name__ == "__main__":
    main()
