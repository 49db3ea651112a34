"""lsdask where other programs hand out the machines: the same bits, and strange workers refused."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import schedulers

EXAMPLES = Path(__file__).parents[1] / "examples" / "clusters"


@contextmanager
def nothing() -> Iterator[schedulers.Environment]:
    yield {}


def example(name: str, out: Path, environment: schedulers.Environment, *arguments: str) -> dict[str, str]:
    """Run an example as its user would; give what it printed of each store."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--out", str(out), *arguments]
    quiet = {"DASK_DISTRIBUTED__DASHBOARD__LINK": "", "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, cwd=out.parent, env=os.environ | quiet, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.endswith(".zarr")]
    return {store: digest for digest, store in lines}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same work without a cluster."""
    code = (
        f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); from pathlib import Path; from work import work\n"
        "for store, digest in work(None, Path(sys.argv[1])).items(): print(digest, store)"
    )
    out = tmp_path_factory.mktemp("alone")
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True)
    return {line.split()[1]: line.split()[0] for line in done.stdout.splitlines() if line.endswith(".zarr")}


WHERE = {"local": nothing, "ssh": schedulers.sshd, "slurm": schedulers.slurm, "gateway": schedulers.gateway}


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("name", WHERE)
def test_an_example_gives_the_bits_of_one_process(name: str, expected: dict[str, str], tmp_path: Path) -> None:
    with WHERE[name]() as environment:
        assert example(name, tmp_path / "out", environment) == expected
    assert set(expected) == {"mosaic.zarr", "clusters.zarr", "scores.zarr"}
