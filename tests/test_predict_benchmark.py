"""The rivals of the prediction benchmark do the whole work that they are timed for."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import zarr


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "benchmark_predict", Path(__file__).parents[1] / "benchmarks/predict.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_map_overlap_scores_the_whole_image(benchmark: ModuleType, tmp_path: Path) -> None:
    import lsdask as ls

    benchmark.prepare(tmp_path, 128, 64)
    benchmark.run_map_overlap(tmp_path, 128, 64, "float32")
    found = zarr.open_array(next(tmp_path.glob("overlap-*.zarr")), mode="r")[0]
    image = ls.store.open(tmp_path / "image.zarr").values.astype("float32")
    padded = np.pad(image, ((0, 0), (benchmark.HALO,) * 2, (benchmark.HALO,) * 2), mode="symmetric")
    model = ls.models.load(tmp_path / "model")
    for y, x in np.ndindex(2, 2):
        block = torch.from_numpy(padded[:, 64 * y : 64 * y + 192, 64 * x : 64 * x + 192])
        with torch.inference_mode():
            alone = torch.sigmoid(model(block[None]))[0, 0, 64:128, 64:128].numpy()
        np.testing.assert_allclose(found[64 * y : 64 * y + 64, 64 * x : 64 * x + 64], alone, atol=1e-5)


def test_scores_that_leave_some_out_are_refused(benchmark: ModuleType) -> None:
    benchmark.check_written(np.full((8, 8), 0.5), 8)
    for cut in (np.full((4, 8), 0.5), np.pad(np.full((4, 8), 0.5), ((0, 4), (0, 0)))):
        with pytest.raises(SystemExit, match="scores of shape"):
            benchmark.check_written(cut, 8)


def test_a_rival_that_fails_is_no_figure(benchmark: ModuleType) -> None:
    told = 'print(\'{"seconds": 2, "peak": 3e9}\')'
    assert benchmark.figures([sys.executable, "-c", told], 1000) == {"Mpx_s": 0.5, "peak_GB": 3.0}
    swallowed = "import sys; print('Error occured in RunModel', file=sys.stderr);" + told
    for code in ("raise ValueError('torn')", swallowed):
        with pytest.raises(SystemExit, match=r"torn|Error occured"):
            benchmark.figures([sys.executable, "-c", code], 1000)
