"""Notebooks: each runs in a real kernel; a script and its notebook say the same; a stopped run goes on."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import nbformat
import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel

import lsdask as ls

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
SCRIPTS = sorted(FOLDER.glob("0*.py"))
QUICK = "03_clusters_of_serra_do_mar"
"""The one that runs with the fast tests."""

SECONDS = 600
"""How long a cell may take: a notebook takes less than a minute on one quiet core, and tests share theirs."""


def notebooks() -> list[Any]:
    slow = pytest.mark.slow
    return [pytest.param(one, id=one.stem, marks=[] if one.stem == QUICK else slow) for one in SCRIPTS]


def executed(script: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook in a kernel of its own, beside what it imports; a cell that raises raises here."""
    for part in FOLDER.glob("*.py"):
        shutil.copy(part, folder)
    made = jupytext.read(script)
    place = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(made, timeout=SECONDS, kernel_name="python3", resources=place).execute()
    return made


def shown(made: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """What cells show, by kind."""
    return [output.get("data", {}) for cell in made.cells for output in cell.get("outputs", [])]


def said(made: nbformat.NotebookNode) -> str:
    """What cells print and give as text."""
    return "\n".join(output.get("text", output.get("data", {}).get("text/plain", ""))
                     for cell in made.cells for output in cell.get("outputs", []))  # fmt: skip


# The notebooks


def test_there_are_seven() -> None:
    assert [one.name[:2] for one in SCRIPTS] == ["01", "02", "03", "04", "05", "06", "07"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda one: one.stem)
def test_a_script_and_its_notebook_say_the_same(script: Path) -> None:
    """``make notebooks`` writes the second from the first."""
    text, made = jupytext.read(script), nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    cells = [[(cell.cell_type, cell.source) for cell in one.cells] for one in (text, made)]
    assert cells[0] == cells[1]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in made.cells)
    assert made.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda one: one.stem)
def test_each_says_what_is_lazy_what_a_task_is_and_what_it_costs(script: Path) -> None:
    text = script.read_text()
    for part in ("**What is lazy", "**What a task is", "client.dashboard_link", "## What it cost", "costs.table("):
        assert part in text
    links = re.findall(r"\]\((\w+\.ipynb)\)", text)
    assert links
    assert all((FOLDER / link).is_file() for link in links)


@pytest.mark.parametrize("script", notebooks())
def test_each_runs_in_a_kernel(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LSDASK_DATA", raising=False)
    monkeypatch.delenv("STAC_API", raising=False)
    made = executed(script, tmp_path)
    outputs, text = shown(made), said(made)
    assert sum("image/png" in one for one in outputs) >= 2
    assert re.search(r"http://127\.0\.0\.1:\d+/status", text)
    assert "time, since the first cell" in outputs[-1]["text/html"]
    assert 'install "ipywidgets"' not in text  # as rich says at every bar
    assert "\x1b[" not in text  # a terminal's codes, which a notebook shows as they are
    CHECKS.get(script.stem[:2], lambda *_: None)(tmp_path / "out", text)


def check_first_map(out: Path, text: str) -> None:
    assert float(re.search(r"'f1': ([\d.]+)", text)[1]) > 0.3
    assert (out / "first-map" / "landslides.gpkg").stat().st_size > 0


def check_mosaic(out: Path, text: str) -> None:
    assert text.count("% cloud") == 6
    image = ls.store.open(out / "mosaic" / "mosaic.zarr")
    truth = ls.synthetic.landscape((512, 512), seed=3, resolution=10.0).scene.values.astype("float64")
    pixels = image.values.astype("float64")
    seen = (pixels > 0).all(0) & (truth > 0).all(0)
    assert seen.sum() > 0.95 * (truth > 0).all(0).sum()
    assert (pixels[:, seen] / truth[:, seen]).min() > 0.85  # a shadow is at 0.45,
    assert (pixels[:, seen] / truth[:, seen]).max() < 1.2  # and a cloud at 2600


def check_training(out: Path, text: str) -> None:
    assert (out / "training" / "model" / "model.safetensors").is_file()
    assert "'threshold'" in text


def check_continent(out: Path, text: str) -> None:
    done, tiles = map(int, re.search(r"stopped: .*? not finished\. (\d+) of (\d+) tiles done", text).groups())
    assert 10 <= done < tiles == 64
    assert "True" in text
    assert "63 of 64 tiles are as they were written. Damaged: 1" in text
    assert ls.predict.status(out / "continent" / "scores.zarr").to_do == 0


def check_event(out: Path, text: str) -> None:
    assert "No real data: the pair is made up." in text
    assert int(re.search(r"([\d,]+) candidates of", text)[1].replace(",", "")) > 50


def check_results(out: Path, text: str) -> None:
    assert 0 < float(re.search(r"(?m)^(0\.\d+)$", text)[1]) < 1
    needs_no_network(out / "results" / "map.html")


CHECKS = {"01": check_first_map, "02": check_mosaic, "04": check_training, "05": check_continent, "06": check_event,
          "07": check_results}  # fmt: skip


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(("name", "words"), [
    ("03_clusters_of_serra_do_mar", "real landslides: 276"),
    ("06_before_and_after_hokkaido", "Hokkaido, real"),
])  # fmt: skip
def test_real_data_is_shown_where_it_is(name: str, words: str, data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("LSDASK_DATA", str(data))
    assert words in said(executed(FOLDER / f"{name}.py", tmp_path))


# A browser without network


class Fetched(HTMLParser):
    """What a browser fetches to show a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get("href") if tag == "link" else given.get("src")
        self.found += [address] if address and not address.startswith("data:") else []


def needs_no_network(page: Path) -> None:
    """Check that a page fetches nothing; in a browser without network, if there is one, that the map is drawn."""
    assert Fetched(page.read_text()).found == []
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return
    offline = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    picture = page.with_suffix(".png")
    command = [browser, *offline, "--virtual-time-budget=8000", "--window-size=1280,800", f"--screenshot={picture}"]
    subprocess.run([*command, page.as_uri()], check=True, capture_output=True, timeout=120)
    from PIL import Image

    colours = Image.open(picture).convert("RGB").getcolors(1280 * 800)
    assert len(colours) > 5000  # a scene, where a page that could not draw has a few


# The stop button


WORK = """
import time
import numpy as np
import lsdask as ls
from dask.distributed import Client

def slow(blocks):
    time.sleep(0.1)
    return (blocks[:, :1] / 1000).astype("float32").clip(0, 1)

client = {client}

def go(target):
    return ls.predict.run("image.zarr", target, slow, tile=64, halo=0, client=client, progress={progress})
"""


class Kernel:
    """A kernel in which code is run, and interrupted."""

    def __init__(self, folder: Path) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(folder))

    def start(self, code: str) -> str:
        return self.client.execute(code)

    def ended(self, asked: str, seconds: float = 120) -> dict[str, Any]:
        """The answer to some code."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            reply = self.client.get_shell_msg(timeout=seconds)
            if reply["parent_header"].get("msg_id") == asked:
                return reply["content"]
        raise TimeoutError(asked)

    def run(self, code: str) -> None:
        content = self.ended(self.start(code))
        assert content["status"] == "ok", content

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    ls.store.write(ls.synthetic.scene((512, 512), seed=1), tmp_path / "image.zarr", chunk=64, shard=64)
    _ = ls.predict.status  # loads torch, before time counts
    made = Kernel(tmp_path)
    yield made
    made.close()


def wait_for_tiles(target: Path, count: int) -> int:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        done = ls.predict.status(target).done if target.exists() else 0
        if done >= count:
            return done
        time.sleep(0.1)
    raise TimeoutError(f"{target} did not get so far")


HERE = "Client(processes=False, dashboard_address=None)"
CLUSTER = "Client(n_workers=1, threads_per_worker=2, dashboard_address=None)"


@pytest.mark.parametrize(
    ("client", "progress"),
    [
        pytest.param("None", True, id="threads", marks=pytest.mark.slow),
        pytest.param(HERE, False, id="here", marks=pytest.mark.slow),
        pytest.param(CLUSTER, False, id="cluster", marks=[pytest.mark.slow, pytest.mark.cluster]),
    ],
)
def test_a_run_stopped_in_a_kernel_goes_on_in_it(client: str, progress: bool, kernel: Kernel, tmp_path: Path) -> None:
    target = tmp_path / "scores.zarr"
    kernel.run(WORK.format(client=client, progress=progress))
    for share in (5, 20):  # stopped twice, the second time while going on
        asked = kernel.start("go('scores.zarr')")
        wait_for_tiles(target, share)
        kernel.manager.interrupt_kernel()
        content = kernel.ended(asked)
        assert (content["status"], content["ename"]) == ("error", "KeyboardInterrupt")
        stopped = ls.predict.status(target)
        assert share <= stopped.done < stopped.tiles - stopped.void
        assert not stopped.running  # no lock is left behind
        if client == CLUSTER:  # the stop button reaches its processes too, and they end
            kernel.run(f"client.close(); client = {client}")
    kernel.run(f"report = go('scores.zarr').check(); assert report.skipped >= {stopped.done}, report")
    kernel.run("go('whole.zarr').check()")
    np.testing.assert_array_equal(ls.store.open(target).values, ls.store.open(tmp_path / "whole.zarr").values)
    assert ls.predict.verify(target, progress=False).damaged == ()
    assert {path.name for path in tmp_path.iterdir()} == {"image.zarr", "scores.zarr", "whole.zarr"}


# A read-only home


LOOPS = """
import lsdask as ls

land = ls.synthetic.landscape((64, 64), seed=1)
centers = ls.kmeans.fit(land.scene, [2], n_samples=500)
print(int(land.scene.sum()), float(ls.terrain.slope(ls.synthetic.elevation((64, 64))).max()), float(centers.sum()))
"""


@pytest.mark.slow
def test_loops_are_compiled_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """As on a hub whose package belongs to root: beside the package, and in the home, no folder can be made."""
    package = tmp_path / "lsdask"
    shutil.copytree(Path(ls.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").touch()
    printed = []
    for environment in ({}, {"PYTHONPATH": str(tmp_path), "HOME": "/dev/null/home", "XDG_CACHE_HOME": ""}):
        command = [sys.executable, "-c", LOOPS]
        done = subprocess.run(
            command, env={**os.environ, **environment}, cwd=tmp_path.parent, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        printed.append(done.stdout)
    assert printed[0] == printed[1]


SMALL = """
import matplotlib
import lsdask as ls
from lsdask.recipes import demo

demo.run("demo", size=384, epochs=1, workers=1, say=print)
ls.report.figure_scores(ls.store.open("demo/scores.zarr")).savefig("scores.png")
"""


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("home", ["/proc", "/dev/null/home"])
def test_a_home_that_cannot_be_written_stops_nothing(home: str, tmp_path: Path) -> None:
    """In neither can a folder be made, by root too: the one is of the kernel's making, the other lies in a file."""
    with pytest.raises(OSError, match=r"."):
        (Path(home) / "folder").mkdir()
    hidden = ("XDG_", "MPL", "NUMBA", "DASK", "TORCH", "HF_", "JUPYTER", "IPYTHON")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    script = tmp_path / "small.py"
    script.write_text(f'if __name__ == "__main__":\n{"".join(f"    {line}\n" for line in SMALL.strip().splitlines())}')
    command = [sys.executable, str(script)]
    done = subprocess.run(
        command, env={**environment, "HOME": home}, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert sum(json.loads((tmp_path / "demo" / "metrics.json").read_text())["counts"].values()) > 0
    assert (tmp_path / "scores.png").stat().st_size > 10_000
