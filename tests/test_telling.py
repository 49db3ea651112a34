"""What a notebook shows of plans, reports and models: short tables, in which nothing is taken for HTML."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsdask import models, telling
from lsdask.predict import Plan
from lsdask.recipes import grid
from lsdask.tasks import Failure, Report

EVIL = "<b>a&b</b>\"'"

PLAN = Plan(
    source=f"{EVIL}.zarr", target="scores.zarr", shape=(4, 300, 200), tile=64, halo=8, tiles=20, void=3, done=5,
    tasks=12, read_bytes=123_000, amplification=1.25, write_bytes=64_000, memory=2_000_000, model_memory=0,
    workers=1, threads=2,
)  # fmt: skip
REPORT = Report(
    "scores.zarr", 20, 12, 4, (Failure((0, 1), EVIL), *(Failure((1, i), "no disk") for i in range(6))), 90.0,
    {"pixels": 180e6, "stored_bytes": 64_000.0, "read_s": 30.0, "compute_s": 90.0}, 3,
)  # fmt: skip
RECORD = {"best_epoch": 1, "loss": "dice", "seconds": 75.0, "history": [{"epoch": i, "f1": i / 4} for i in range(3)]}
SPEC = models.Spec("unet", "resnet18", ("red", EVIL), mean=(400.0, 1.5), std=(150.0, 2.0), tile=64, record=RECORD)
STEPS = grid.Report(Path("runs"), 9, 5, 2, {"runs/a": EVIL}, ("runs/b",), 3.2)


class Read(HTMLParser):
    """The elements of a table, its heading, and the texts of its rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.head, self.rows = "", []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self._open = tag
        if tag == "tr" and "tbody" in self.tags:
            self.rows.append(["", ""])

    def handle_data(self, data: str) -> None:
        if not self.rows:
            self.head += data
        else:
            self.rows[-1][self._open == "td"] += data


def shown(value: Any) -> Read:
    return Read(value._repr_html_())


@pytest.mark.parametrize("value", [PLAN, REPORT, SPEC, STEPS], ids=lambda value: type(value).__module__)
def test_names_are_never_taken_for_html(value: Any) -> None:
    read = shown(value)
    assert read.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert EVIL in read.head + str([text for _, text in read.rows]).replace("\\'", "'")


@given(st.text(), st.lists(st.tuples(st.text(), st.text()), min_size=1))
def test_a_table_says_what_it_is_given(title: str, rows: list[tuple[str, str]]) -> None:
    def seen(text: str) -> str:
        return text.replace("\0", "\ufffd").replace("\r\n", "\n").replace("\r", "\n")

    read = Read(telling.table(seen(title), [(seen(name), seen(text)) for name, text in rows]))
    assert read.head == seen(title)
    assert read.rows == [[seen(name), seen(text)] for name, text in rows]


@pytest.mark.parametrize("notebook", [True, False])
@pytest.mark.parametrize("installed", [True, False])
def test_a_bar_asks_for_widgets_only_where_they_are(installed: bool, notebook: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(telling, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: notebook)
    console = telling.console(stderr=True)
    assert console.stderr
    assert console.is_jupyter == (notebook and installed)
    assert not (notebook and console.is_terminal)


def test_a_table_has_no_colours_of_its_own() -> None:
    text = telling.table("title", [("name", "text")])
    assert "color:" not in text
    assert "background" not in text


def test_what_a_plan_shows_is_what_it_explains() -> None:
    read = shown(PLAN)
    assert PLAN.explain().splitlines()[0] == read.head
    assert [line.split(maxsplit=1) for line in PLAN.explain().splitlines()[1:]] == read.rows
    assert str(PLAN) == PLAN.explain()
    assert repr(PLAN).startswith("Plan(source=")


def test_what_a_report_shows() -> None:
    rows = [tuple(row) for row in shown(REPORT).rows]
    assert rows[0] == ("tiles", "20: 12 done now, 4 done before, 3 void, 7 not done")
    assert rows[1] == ("time", "1.5 min; 2 Mpx/s; read 25%, compute 75%")
    assert rows[2] == ("stored", "64 kB")
    assert [name for name, _ in rows[3:]] == ["tile (0, 1)", *(f"tile (1, {i})" for i in range(4)), "to do"]
    whole = shown(replace(REPORT, failed=(), skipped=0, metrics={}))
    assert whole.rows == [["tiles", "20: 12 done now, 3 void"], ["time", "1.5 min"]]
    assert str(REPORT).startswith(
        "scores.zarr: 12 of 20 tiles in 90.0 s, 4 done before, 3 void. 7 not done (tile (0, 1)"
    )
    assert str(REPORT).endswith("Of the time of the tiles: read 25%, compute 75%; the bottleneck was compute.")


def test_what_an_experiment_shows() -> None:
    assert shown(STEPS).rows[:3] == [
        ["steps", "9: 5 done now, 2 done before, 1 failed, 1 waiting for them"], ["time", "3.2 s"], ["runs/a", EVIL],
    ]  # fmt: skip
    assert "1 failed, 1 wait for them" in str(STEPS)


def test_what_a_model_folder_shows(tmp_path: Path) -> None:
    assert dict(shown(SPEC).rows) == {
        "bands": f"red (400 ± 150), {EVIL} (1.5 ± 2)", "classes": "landslide", "tile": "64 px", "threshold": "0.5",
        "trained": "3 epochs, loss dice, best epoch 2 with F1 0.250, 1.2 min",
    }  # fmt: skip
    network = models.build("soares_unet", bands=["red"], mean=[1.0], std=[2.0], filters=4)
    models.save(network, tmp_path / "model", tile=64, halo=32)
    read = shown(models.read_spec(tmp_path / "model"))
    assert read.head.startswith("model: soares_unet")
    assert dict(read.rows)["halo"] == "32 px"
    assert "trained" not in dict(read.rows)
    assert "Conv2d" in repr(network)
    assert network._repr_html_() == network.spec._repr_html_()
