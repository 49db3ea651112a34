"""The benchmark of mosaics runs, small, and its contenders agree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "mosaic.py"


def run(*options: str) -> dict:
    printed = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=True).stdout
    return json.loads(printed.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["first", "median"])
def test_contenders_write_the_same_pixels(method: str) -> None:
    found = run("--count", "6", "--size", "256", "--method", method)
    assert found["agrees"]
    assert {"seconds", "MB", "MB_of_imports"} == set(found["lsdask"])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image() -> None:
    sizes = run("--sizes", "4096", "16384")["sizes"]
    assert sizes["16384"]["MB"] < 1.3 * sizes["4096"]["MB"]


@pytest.mark.slow
def test_memory_does_not_grow_with_a_geotiff() -> None:
    sizes = run("--cog", "4096", "16384")["sizes"]
    assert sizes["16384"]["cog"]["MB"] < 1.3 * sizes["4096"]["cog"]["MB"]
