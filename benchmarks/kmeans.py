"""B5 and B6: k-means for six k over a mosaic, against reading it once and against what a user would write today.

Prints one JSON line for B5 (fit) and one for B6 (labels); every stage is a process of its own, so that its peak
memory is its own, and only ratios count. Quality is the mean squared distance over all valid pixels.

* B5 limit: the time to read and decode the mosaic once, with the same chunks and threads.
* B6 rival: the time to read it once and call scikit-learn's ``predict`` for each k, chunk by chunk.
* Rivals of quality, at ``--rival-size``: scikit-learn ``KMeans(n_init=3)`` and ``MiniBatchKMeans`` in memory, naive
  ``Incremental(MiniBatchKMeans)`` on the mosaic's chunks, ``dask_ml.cluster.KMeans``. That mosaic is sorted by
  brightness, row by row: the worst case for whatever follows the order of the chunks.
* Quality on real scenes, where ``--data`` is Valles Marineris: against ``KMeans(n_init=3)``, standardised, every k.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

KS = [2, 4, 6, 8, 10, 12]
RIVAL_K = 8
BASE = 2048


def image(size: int, *, base: int = BASE) -> Any:
    """A landscape repeated to any size, each repeat as bright as its place says; lazy, uint16, 0 is void."""
    import dask.array as da

    import lsdask as ls

    base = min(base, size)
    tile = ls.synthetic.scene((base, base), seed=1, chunks=min(base, 512)).compute()
    like = ls.synthetic.scene((size, size), seed=1, chunks=base)

    def repeat(block_info: Any = None) -> np.ndarray:
        _, row, column = block_info[None]["chunk-location"]
        height, width = block_info[None]["chunk-shape"][1:]
        gain = 1 + 0.3 * np.sin(1.7 * row + 0.9 * column)
        part = tile.values[:, :height, :width]
        return np.where(part == 0, 0, np.clip(part * gain, 1, 1023)).astype("uint16")

    data = da.map_blocks(repeat, chunks=((4,), *like.data.chunks[1:]), dtype="uint16", meta=np.empty((0, 0, 0), "u2"))
    return like.copy(data=data)


def prepare(folder: Path, size: int, rival_size: int) -> None:
    """Write the mosaic, and the small one sorted by brightness."""
    import lsdask as ls

    ls.store.write(image(size), folder / "mosaic.zarr", chunk=512, shard=2048)
    small = image(rival_size, base=max(rival_size // 4, 64)).compute()
    flat = small.values.reshape(4, -1)
    order = np.argsort(flat.sum(axis=0), kind="stable")
    small = small.copy(data=flat[:, order].reshape(small.shape))
    ls.store.write(small, folder / "sorted.zarr", chunk=max(rival_size // 8, 16), shard=max(rival_size // 8, 16))


def prepare_real(folder: Path, data: Path) -> None:
    """Write a folder of scenes as one mosaic."""
    import lsdask as ls

    image = ls.mosaic.composite(ls.scenes.open(data / "images"))
    ls.mosaic.write(image, folder / "valles.zarr", progress=False).check()


# Stages over the large mosaic


def stage_read(folder: Path) -> dict[str, float]:
    """Read and decode the mosaic once, Dask's threads."""
    import lsdask as ls

    mosaic = ls.store.open(folder / "mosaic.zarr")
    return timed(lambda: mosaic.data.map_blocks(lambda block: block[:, :1, :1].copy(), dtype="uint16").compute())


def stage_fit(folder: Path) -> dict[str, float]:
    """All k from one read."""
    import lsdask as ls

    mosaic = ls.store.open(folder / "mosaic.zarr")
    ls.kmeans.fit(mosaic[:, :64, :64], [2, 3], n_samples=1000)  # compiles
    fitted: list[Any] = []
    result = timed(lambda: fitted.append(ls.kmeans.fit(mosaic, KS)))
    ls.kmeans.save(fitted[0], folder / "centers.json")
    return result


def stage_refine(folder: Path) -> dict[str, float]:
    """One exact Lloyd pass over every pixel, all k."""
    import lsdask as ls

    mosaic, centers = ls.store.open(folder / "mosaic.zarr"), ls.kmeans.open(folder / "centers.json")
    blocks = [centers.values[i, :k] for i, k in enumerate(KS)]
    ls.kmeans.lloyd.fold_totals(mosaic[:, :64, :64], blocks, centers["scale"].values)
    return timed(lambda: ls.kmeans.lloyd.fold_totals(mosaic, blocks, centers["scale"].values))


def stage_write(folder: Path) -> dict[str, float]:
    """Labels of all k, store to store."""
    import lsdask as ls

    mosaic, centers = ls.store.open(folder / "mosaic.zarr"), ls.kmeans.open(folder / "centers.json")
    ls.kmeans.assign(mosaic[:, :64, :64], centers).compute()
    target = folder / f"labels-{time.time_ns()}.zarr"
    return timed(lambda: ls.kmeans.write(mosaic, centers, target, progress=False).check())


def stage_assign(folder: Path) -> dict[str, float]:
    """Labels of all k, read and computed but not stored: what the rival does."""
    import lsdask as ls

    mosaic, centers = ls.store.open(folder / "mosaic.zarr"), ls.kmeans.open(folder / "centers.json")
    ls.kmeans.assign(mosaic[:, :64, :64], centers).compute()
    labels = ls.kmeans.assign(mosaic, centers)
    return timed(lambda: labels.data.map_blocks(lambda block: block[:, :1, :1].copy(), dtype="uint8").compute())


def stage_predict(folder: Path) -> dict[str, float]:
    """Read each chunk once and call scikit-learn's predict for each k: a sixteenth of the mosaic, times the rest."""
    import lsdask as ls

    mosaic, centers = ls.store.open(folder / "mosaic.zarr"), ls.kmeans.open(folder / "centers.json")
    part = max(mosaic.sizes["y"] // 4, 1) if mosaic.sizes["y"] > 4096 else mosaic.sizes["y"]
    models = [fitted_sklearn(centers.values[i, :k]) for i, k in enumerate(KS)]

    def predict() -> None:
        for block in mosaic[:, :part, :part].data.to_delayed().ravel():
            rows = block.compute().reshape(4, -1).T.astype("float64")
            for model in models:  # on all cores, as scikit-learn does by itself
                model.predict(rows)

    result = timed(predict)
    whole = mosaic.sizes["y"] * mosaic.sizes["x"] / part**2
    return {name: value * whole for name, value in result.items()}


def fitted_sklearn(centers: np.ndarray) -> Any:
    """A scikit-learn KMeans with these centres."""
    from sklearn.cluster import KMeans

    model = KMeans(len(centers), init=centers, n_init=1, max_iter=1)
    model.fit(np.repeat(centers, 2, axis=0))
    model.cluster_centers_ = np.ascontiguousarray(centers)
    return model


# Stages over the small, sorted one: time and quality, k = 8


def rows_of(folder: Path, name: str = "sorted.zarr") -> tuple[Any, np.ndarray]:
    """A mosaic and its valid pixels (n, band)."""
    import lsdask as ls

    mosaic = ls.store.open(folder / name, chunks=1)
    return mosaic, mosaic.values[:, ls.schema.valid(mosaic).values].T.astype("float64")


def quality(rows: np.ndarray, centers: np.ndarray) -> float:
    """Mean squared distance of all rows to their nearest centre."""
    total = 0.0
    for begin in range(0, len(rows), 100_000):
        part = rows[begin : begin + 100_000]
        total += ((part[:, None] - centers[None]) ** 2).sum(axis=2).min(axis=1).sum()
    return total / len(rows)


def stage_small_lsdask(folder: Path) -> dict[str, Any]:
    """What is measured, all k."""
    import lsdask as ls

    mosaic, rows = rows_of(folder)
    ls.kmeans.fit(mosaic[:, -16:], [2], n_samples=100)
    found: list[Any] = []
    result = timed(lambda: found.append(ls.kmeans.fit(mosaic, KS)))
    return {**result, "msd": {str(k): quality(rows, found[0].values[i, :k]) for i, k in enumerate(KS)}}


def stage_small_sklearn(folder: Path) -> dict[str, Any]:
    """KMeans(n_init=3) on all valid pixels in memory, all k."""
    from sklearn.cluster import KMeans

    _, rows = rows_of(folder)
    found: dict[str, float] = {}

    def fit() -> None:
        for k in KS:
            found[str(k)] = KMeans(k, n_init=3, random_state=0).fit(rows).inertia_ / len(rows)

    return {**timed(fit), "msd": found}


def stage_small_minibatch(folder: Path) -> dict[str, Any]:
    """MiniBatchKMeans in memory, one k."""
    from sklearn.cluster import MiniBatchKMeans

    _, rows = rows_of(folder)
    model = MiniBatchKMeans(RIVAL_K, n_init=3, random_state=0)
    return {**timed(lambda: model.fit(rows)), "msd": {str(RIVAL_K): quality(rows, model.cluster_centers_)}}


def stage_small_incremental(folder: Path) -> dict[str, Any]:
    """Incremental(MiniBatchKMeans) on the chunks as they lie, one k."""
    from dask_ml.wrappers import Incremental
    from sklearn.cluster import MiniBatchKMeans

    mosaic, rows = rows_of(folder)
    valid = chunked_rows(mosaic)
    model = Incremental(MiniBatchKMeans(RIVAL_K, random_state=0), shuffle_blocks=False)
    result = timed(lambda: model.fit(valid))
    return {**result, "msd": {str(RIVAL_K): quality(rows, model.estimator_.cluster_centers_)}}


def stage_small_dask_ml(folder: Path) -> dict[str, Any]:
    """dask_ml.cluster.KMeans on the chunks, one k."""
    from dask_ml.cluster import KMeans

    mosaic, rows = rows_of(folder)
    valid = chunked_rows(mosaic)
    model = KMeans(RIVAL_K, random_state=0)
    result = timed(lambda: model.fit(valid))
    return {**result, "msd": {str(RIVAL_K): quality(rows, model.cluster_centers_)}}


def stage_valles_lsdask(folder: Path) -> dict[str, Any]:
    """What is measured, all k, on real scenes with bands of different units."""
    import lsdask as ls

    mosaic, rows = rows_of(folder, "valles.zarr")
    found: list[Any] = []
    result = timed(lambda: found.append(ls.kmeans.fit(mosaic, KS, standardise=True)))
    scale = rows.std(axis=0)
    return {**result, "msd": {str(k): quality(rows / scale, found[0].values[i, :k] / scale) for i, k in enumerate(KS)}}


def stage_valles_sklearn(folder: Path) -> dict[str, Any]:
    """KMeans(n_init=3) on all valid pixels of the same, standardised."""
    from sklearn.cluster import KMeans

    _, rows = rows_of(folder, "valles.zarr")
    rows = rows / rows.std(axis=0)
    found: dict[str, float] = {}

    def fit() -> None:
        for k in KS:
            found[str(k)] = KMeans(k, n_init=3, random_state=0).fit(rows).inertia_ / len(rows)

    return {**timed(fit), "msd": found}


def chunked_rows(mosaic: Any) -> Any:
    """The valid pixels as a Dask array (n, band), one block a chunk of the mosaic."""
    import dask
    import dask.array as da

    def valid(block: np.ndarray) -> np.ndarray:
        flat = block.reshape(4, -1).T
        return flat[(flat != 0).all(axis=1)].astype("float64")

    blocks = [dask.delayed(valid)(block) for block in mosaic.data.to_delayed().ravel()]
    lengths = dask.compute([dask.delayed(len)(block) for block in blocks])[0]
    known = [(block, length) for block, length in zip(blocks, lengths) if length]  # neither takes empty blocks
    return da.concatenate([da.from_delayed(block, (length, 4), dtype="float64") for block, length in known])


# Running stages


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Wall seconds, and CPU seconds of all threads, which a busy machine changes less."""
    begun, spent = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work()
    return {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - spent}


def measure(name: str, folder: Path, limit: float, *, isolated: bool) -> dict[str, Any]:
    """Run one stage, in a process of its own if ``isolated``; say so if it does not end in ``limit`` seconds."""
    if not isolated:
        return {**globals()[f"stage_{name}"](folder), "peak_GB": None}
    command = [sys.executable, __file__, "--child", name, str(folder)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"ended": f"not in {limit:.0f} s"}
    except subprocess.CalledProcessError as error:
        return {"ended": f"failed with {error.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def child(name: str, folder: Path) -> None:
    """One stage, and the peak of its anonymous memory (files mapped by libraries are not counted)."""
    peak = [0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], anonymous_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    result = globals()[f"stage_{name}"](folder)
    stop.set()
    peak[0] = peak[0] or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**result, "peak_GB": round(peak[0] / 1e9, 2)}))


def anonymous_bytes() -> int:
    """This process's resident memory that is its own; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure_all(
    folder: Path,
    size: int,
    rival_size: int,
    *,
    data: Path | None = None,
    rivals: bool = True,
    limit: float = 600.0,
    isolated: bool = True,
) -> list[dict[str, Any]]:
    """Prepare, run every stage, and give the two results."""
    prepare(folder, size, rival_size)
    if data is not None:
        prepare_real(folder, data)

    def run(name: str) -> dict[str, Any]:
        result = rounded(measure(name, folder, limit, isolated=isolated))
        print(name, json.dumps(result), file=sys.stderr, flush=True)
        return result

    read, fit, refine = run("read"), run("fit"), run("refine")
    labels, write, predict = run("assign"), run("write"), run("predict")
    head = {"machine": machine(), "size": size, "ks": KS, "read": read}
    fits: dict[str, Any] = {"benchmark": "B5 k-means fit", **head, "fit": fit, "refine_pass": refine}
    fits["fit_of_read"], fits["fit_of_read_cpu"] = ratios(fit, read)
    fits["refine_pass_of_read"], fits["refine_pass_of_read_cpu"] = ratios(refine, read)
    if rivals:
        fits["sorted"] = {"size": rival_size, **rival_results(run)}
    if data is not None:
        full, ours = run("valles_sklearn"), run("valles_lsdask")
        fits["valles"] = {"sklearn_full": full, "lsdask": {**ours, "msd_of_full": of_full(ours, full)}}
    marks = {"benchmark": "B6 labels", **head, "assign": labels, "write": write, "read_and_predict": predict}
    marks["times_predict"], marks["times_predict_cpu"] = ratios(predict, labels)
    marks["times_predict_stored"], marks["times_predict_stored_cpu"] = ratios(predict, write)
    return [fits, marks]


def ratios(one: dict[str, Any], other: dict[str, Any]) -> tuple[float | None, float | None]:
    """Wall and CPU time of one stage over those of another; None where one did not end."""
    if "ended" in one or "ended" in other:
        return None, None
    wall, cpu = (one[name] / max(other[name], 1e-9) for name in ("seconds", "cpu_seconds"))
    return round(wall, 2), round(cpu, 2)


def rival_results(run: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Time and quality on the sorted mosaic; ``msd_of_full`` is against scikit-learn on all valid pixels."""
    full = run("small_sklearn")
    names = ("small_lsdask", "small_minibatch", "small_incremental", "small_dask_ml")
    found = {name.removeprefix("small_"): run(name) for name in names}
    for result in found.values():
        result["msd_of_full"] = of_full(result, full)
    return {"sklearn_full": full, **found}


def of_full(result: dict[str, Any], full: dict[str, Any]) -> dict[str, float]:
    """Mean squared distances over those of full k-means."""
    msd = result.pop("msd", {}) if "msd" in full else {}
    return {k: round(value / full["msd"][k], 4) for k, value in msd.items()}


def rounded(result: dict[str, Any]) -> dict[str, Any]:
    """Three digits of every time."""
    return {key: round(value, 3) if key.endswith("seconds") else value for key, value in result.items()}


def machine() -> str:
    """What this was measured on."""
    import os

    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def main() -> None:
    """Measure and print two JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--rival-size", type=int, default=2048)
    parser.add_argument("--data", type=Path, help="the folder valles-marineris of the real scenes")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds a stage may take")
    parser.add_argument("--folder", type=Path, help="where the temporary stores go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        results = measure_all(
            Path(temporary),
            options.size,
            options.rival_size,
            data=options.data,
            rivals=not options.no_rivals,
            limit=options.limit,
        )
    for result in results:
        print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        child(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
