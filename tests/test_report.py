"""Overviews against numpy, figures that show what they should, and a page that needs nothing else."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from odc.geo.geobox import GeoBox
from PIL import Image
from scipy import ndimage

from lsdask import evaluate, report, schema, store
from lsdask.errors import BadInput, NotFound, Unreadable
from lsdask.report import charts, figures, files, maps, overviews, page

SHAPE = (150, 230)
HELD_OUT = slice(160, 224)


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


def grid(shape, crs="EPSG:32723", pixel=8.0):
    return GeoBox(shape, Affine(pixel, 0, 450000, 0, -pixel, 7390000), crs)


def image(data, dims=schema.MASK, **kw):
    return schema.wrap(data, grid(data.shape[-2:]), dims, name="image", **kw)


# --- overviews --------------------------------------------------------------------------------------------------------


def squares(data, step):
    """Every square of step x step pixels, cut short at the lower and right edge: the obvious way."""
    rows, columns = (range(0, n, step) for n in data.shape[-2:])
    return [[data[..., y : y + step, x : x + step] for x in columns] for y in rows]


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
seeds = st.integers(0, 2**32 - 1)


def lazily(rng, data):
    sizes = tuple(int(rng.integers(1, n + 1)) for n in data.shape[-2:])
    return da.from_array(data, chunks=(*data.shape[:-2], *sizes))


@given(shapes, seeds, st.integers(3, 40))
def test_max_overview_keeps_every_landslide(shape, seed, side):
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random(shape) < 0.3, 255, rng.integers(0, 251, shape)).astype("uint8")
    step = overviews.step_of(shape, side)
    small = report.overview(image(lazily(rng, scores)), "max", side=side)
    expected = [
        [max((p for p in cell.ravel() if p != 255), default=255) for cell in row] for row in squares(scores, step)
    ]
    assert small.dtype == np.uint8
    assert np.array_equal(small, expected)


@given(shapes, seeds, st.integers(3, 40), st.sampled_from(["uint16", "float32"]))
def test_mean_overview_is_of_the_known_pixels(shape, seed, side, dtype):
    rng = np.random.default_rng(seed)
    void = 0 if dtype == "uint16" else np.nan
    data = np.where(rng.random((2, *shape)) < 0.3, void, rng.integers(1, 900, (2, *shape))).astype(dtype)
    step = overviews.step_of(shape, side)
    small = report.overview(image(lazily(rng, data), schema.MOSAIC, nodata=0), "mean", side=side)
    stride = max(step // 4, 1)
    cells = squares(data[..., ::stride, ::stride], step // stride)
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            for band in range(2):
                known = cell[band][cell[band] != 0] if dtype == "uint16" else cell[band][~np.isnan(cell[band])]
                expected = known.mean(dtype="float64") if known.size else np.nan
                assert small[band, y, x] == pytest.approx(expected, rel=1e-5, nan_ok=True)


@given(shapes, seeds, st.integers(3, 40))
def test_sum_and_first_overviews(shape, seed, side):
    rng = np.random.default_rng(seed)
    data = rng.random(shape) < 0.4
    step = overviews.step_of(shape, side)
    cells = squares(data, step)
    lazy = image(lazily(rng, data))
    assert np.array_equal(report.overview(lazy, "sum", side=side), [[cell.sum() for cell in row] for row in cells])
    assert np.array_equal(report.overview(lazy, "first", side=side), [[cell[0, 0] for cell in row] for row in cells])


@given(shape=shapes, seed=seeds, columns=st.integers(1, 12))
def test_coverage_of_windows_larger_than_cells_is_the_whole_share(shape, seed, columns):
    data = np.random.default_rng(seed).integers(0, 3, (2, *shape)).astype("uint16")
    share = report.coverage(image(data, schema.MOSAIC, nodata=0), columns=columns, window=100)
    expected = [[part.mean() for part in row] for row in squares((data != 0).all(axis=0), -(-shape[1] // columns))]
    np.testing.assert_allclose(share, expected, rtol=1e-6)


@pytest.mark.parametrize(("columns", "reads", "side"), [(4, 16, 8), (32, 16, 456)])
def test_coverage_reads_windows_or_each_chunk_once(columns, reads, side, tmp_path):
    data = np.zeros((1, 2048, 2048), "uint16")
    data[:, 512:1536, :1024] = 7
    store.write(image(data, schema.MOSAIC, nodata=0), tmp_path / "a.zarr", chunk=512, shard=1024)
    opened = store.open(tmp_path / "a.zarr")
    asked = []
    read = store.Reader.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.Reader, "read", lambda self, y, x: asked.append((y, x)) or read(self, y, x))
        share = report.coverage(opened, columns=columns, window=8)
    expected = np.kron([[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], np.ones((columns // 4, columns // 4)))
    assert (share == expected).all()
    assert len(asked) == reads
    assert all(part.stop - part.start == side for place in asked for part in place)


@pytest.mark.parametrize(
    ("dims", "dtype", "drawn"),
    [
        (("class", "y", "x"), "uint8", "figure_scores"),
        (("k", "y", "x"), "uint8", "figure_clusters"),
        (("y", "x"), "uint8", "figure_clusters"),
        (("band", "y", "x"), "uint16", "figure_scene"),
        (("y", "x"), "float32", "figure_scene"),
    ],
)
def test_any_image_is_drawn_as_what_it_is(dims, dtype, drawn, monkeypatch):
    called = []
    for name in ("figure_scores", "figure_clusters", "figure_scene"):
        real = getattr(figures, name)
        monkeypatch.setattr(figures, name, lambda shown, real=real, name=name: called.append(name) or real(shown))
    data = np.arange(60).reshape(6, 10).astype(dtype)
    figure = report.figure(image(data if len(dims) == 2 else data[None], dims))
    assert called == [drawn]
    assert figure.axes


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 2000))
def test_an_overview_fits_its_side(height, width, side):
    step = overviews.step_of((height, width), side)
    assert -(-max(height, width) // step) <= side
    assert step <= 4 or step % 4 == 0


def test_an_overview_of_a_continent_holds_chunks_only():
    """An image of 4 terabytes is described, not made: its tasks are counted, its graph is not run."""
    seen = []

    def block(data):
        seen.append(data.nbytes)
        return data

    data = da.zeros((1, 9000, 7000), dtype="uint8", chunks=(1, 2048, 2048))
    lazy = image(da.map_blocks(block, data, meta=np.empty((0, 0, 0), "uint8"))[0])
    assert report.overview(lazy, "max").shape == (1125, 875)
    assert max(seen) <= 2048**2
    assert len(seen) == 20


# --- maps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "bar"), [(1.0, 1), (799, 500), (200, 200), (0.13, 0.1), (49999, 20000), (3e-3, 2e-3)]
)
def test_a_scale_bar_is_a_round_length(length, bar):
    assert maps.nice(length) == pytest.approx(bar)


def test_pixels_are_measured_on_the_ground():
    assert maps.pixel_m(grid((9, 9))) == (8, 8)
    feet = GeoBox((9, 9), Affine(10, 0, 0, 0, -10, 0), "EPSG:2263")
    assert maps.pixel_m(feet) == pytest.approx((3.048006, 3.048006))
    degrees = GeoBox((2, 2), Affine(0.001, 0, 10, 0, -0.001, 60.001), "EPSG:4326")
    assert maps.pixel_m(degrees) == pytest.approx((111.41, 55.80), rel=1e-3)
    with pytest.raises(BadInput, match="grid must have a CRS"):
        maps.pixel_m(GeoBox((2, 2), Affine.identity(), None))


def test_a_composite_is_red_green_blue_by_name():
    assert maps.composite_bands(("blue", "green", "red", "nir")) == [2, 1, 0]
    assert maps.composite_bands(("B02", "B03", "B04")) == [2, 1, 0]
    assert maps.composite_bands(("green", "red", "nir")) == [2, 1, 0]
    assert maps.composite_bands(("pre_red", "pre_nir", "post_red", "post_green", "post_blue", "post_nir")) == [2, 3, 4]
    assert maps.composite_bands(("x", "y", "z")) == [0, 1, 2]
    assert maps.composite_bands(("pan",)) == [0, 0, 0]


def test_void_is_transparent_and_a_flat_band_does_not_divide_by_zero():
    bands = np.full((3, 4, 4), 7.0)
    bands[1, 0, 0] = np.nan
    shown = maps.stretch(bands)
    assert np.isfinite(shown).all()
    assert (shown[..., 3] == 0).sum() == 1
    assert maps.stretch(np.full((3, 4, 4), np.nan))[..., 3].sum() == 0


def picture_of(figure):
    """The values laid on the first axes of a figure."""
    return np.asarray(figure.axes[0].images[0].get_array())


def test_errors_are_painted_in_their_colours_even_if_small():
    truth = np.zeros((3000, 2400), dtype="uint8")
    truth[100, 200] = truth[2000, 7] = 1
    truth[1500:1600] = 255
    scores = np.zeros((1, 3000, 2400), dtype="uint8")
    scores[0, 100, 200] = scores[0, 50, 2000] = 250
    figure = figures.figure_agreement(image(scores, schema.SCORES), image(truth))
    shown = picture_of(figure)
    step = overviews.step_of(truth.shape)
    for y, x, code in ((100, 200, evaluate.TP), (2000, 7, evaluate.FN), (50, 2000, evaluate.FP)):
        assert shown[y // step, x // step, :3] == pytest.approx(to_rgb(figures.AGREEMENT[code]))
    assert shown[1550 // step, :, 3].max() == 0
    assert (np.ptp(shown[..., :3], axis=-1) > 0.1).sum() == 3


def test_maps_lie_on_pixels_and_outlines_on_maps():
    square = shapely.box(450000 + 80, 7390000 - 160, 450000 + 160, 7390000 - 80)
    polygons = gpd.GeoDataFrame(geometry=[square], crs="EPSG:32723").to_crs(4326)
    scene = image(np.full((3, *SHAPE), 9, "uint16"), schema.MOSAIC, nodata=0)
    axes = figures.figure_scene(scene, polygons=polygons).axes[0]
    assert axes.get_xlim() == (0, SHAPE[1])
    assert axes.get_ylim() == (SHAPE[0], 0)
    assert axes.images[0].get_extent() == [0, SHAPE[1], SHAPE[0], 0]
    assert axes.images[0].origin == "upper"
    corners = axes.collections[0].get_segments()[0]
    assert corners.min(axis=0) == pytest.approx((10, 10), abs=1e-3)
    assert corners.max(axis=0) == pytest.approx((20, 20), abs=1e-3)


def test_places_run_from_found_to_missed():
    counts = np.zeros((4, 60, 60), dtype="int64")
    counts[evaluate.TP, 5:9, 5:9] = 4
    counts[evaluate.FN, 30:34, 40:44] = 4
    counts[evaluate.FN, 50:54, 10:12] = counts[evaluate.TP, 50:54, 12:14] = 4
    counts[evaluate.FN, 20, 20] = 1
    found = page.places(counts, report.Window(100, 200, 160, 260), (1000, 1000), number=3)
    assert [place.found for place in found] == [1.0, 0.5, 0.0]
    assert [place.area for place in found] == [64, 64, 64]
    y0, x0, y1, x1 = found[0].window
    assert y0 <= 105 < 109 <= y1
    assert x0 <= 205 < 209 <= x1
    assert page.places(np.zeros((4, 9, 9)), report.Window(0, 0, 9, 9), (9, 9)) == []


def test_a_place_stays_inside_a_small_image():
    counts = np.zeros((4, 20, 30), dtype="int64")
    counts[evaluate.TP, 0:3, 27:30] = 1
    (place,) = page.places(counts, report.Window(0, 0, 20, 30), (20, 30))
    assert place.window == (0, 0, 20, 30)


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a run leaves behind, small."""
    out = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    mask = np.zeros(SHAPE, dtype="uint8")
    for y, x in rng.integers(5, (140, 215), (30, 2)):
        mask[y : y + 9, x : x + 5] = 1
    scene = (rng.integers(100, 300, (4, *SHAPE)) + 200 * mask).astype("uint16")
    scene[:, 120:, :40], mask[120:, :40] = 0, 255
    scores = np.where(mask == 255, 255, np.clip(200.0 * (mask == 1) + rng.normal(30, 30, SHAPE), 0, 250)).astype(
        "uint8"
    )
    labels = np.where(mask == 255, 255, rng.integers(0, 5, (2, *SHAPE))).astype("uint8")
    bands = {"band": ["blue", "green", "red", "nir"]}
    write = {
        "mosaic": image(scene, schema.MOSAIC, coords=bands, nodata=0),
        "clusters": image(labels, ("k", "y", "x"), coords={"k": [2, 5]}, nodata=255),
        "mask": image(mask, nodata=255),
        "scores": image(scores[None], schema.SCORES, attrs=schema.score_attrs("uint8")),
    }
    for name, data in write.items():
        store.write(data.rename(name), out / f"{name}.zarr", chunk=32, shard=64)
    tiles = pd.DataFrame([(y, x, 32) for y in range(0, 128, 32) for x in range(0, 224, 32)], columns=["y", "x", "size"])
    tiles["split"] = np.where(tiles["x"] >= HELD_OUT.start, "test", np.where(tiles["y"] == 64, "valid", "train"))
    tiles.loc[tiles["split"].eq("test") & tiles["y"].eq(32), "split"] = "none"
    tiles.assign(valid=1.0, positive=0.1).to_parquet(out / "tiles.parquet")
    square = shapely.box(450080, 7389840, 450160, 7389920)
    gpd.GeoDataFrame({"area_m2": [6400.0]}, geometry=[square], crs=32723).to_parquet(out / "landslides.parquet")
    held_out = evaluate.within(tiles[tiles["split"] == "test"], write["mask"])
    counts = evaluate.count(write["scores"], write["mask"], valid=held_out)
    history = [{"epoch": i, "train_loss": 1 / (i + 1), "valid_loss": 1 / (i + 1) + 0.1 * (i == 4)} for i in range(5)]
    metrics = {
        **evaluate.score(counts),
        "threshold": 0.5,
        "scene": "Serra <do> Mar & sea",
        "split": "the east",
        "seconds": {"mosaic": 1.5, "training": 93.0},
        "counts": vars(counts),
    }
    (out / "metrics.json").write_text(json.dumps(metrics))
    model = {"name": "unet", "encoder": "resnet18", "bands": bands["band"], "mean": [1.0, 2, 3, 4], "std": [5.0] * 4}
    (out / "model").mkdir()
    record = {"seed": 7, "best_epoch": 3, "seconds": 206.51455, "history": history}
    (out / "model" / "model.json").write_text(json.dumps({**model, "tile": 32, "halo": 8, "record": record}))
    return out


@pytest.fixture(scope="module")
def html(folder):
    with dask.config.set(scheduler="synchronous"):
        path = report.write(folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects what a page shows, and checks that every element it opens is closed."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.text, self.links = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_and_needs_nothing_else(html):
    read = Reader(html)
    assert read.open == []
    assert len(read.images) >= 10
    assert all(link.startswith("data:image/svg+xml,") for link in read.links)
    assert "<script" not in html
    assert "@import" not in html
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", unquote(html)))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert all(len(each["alt"]) > 20 for each in read.images)


def test_the_figures_are_svg_whose_ink_follows_the_page(html):
    for each in Reader(html).images:
        assert not set(each["src"]) & set('#<>"')
        svg = unquote(each["src"].removeprefix("data:image/svg+xml,"))
        ElementTree.fromstring(svg)
        assert "prefers-color-scheme:dark" in svg
        assert f": {maps.INK}" not in svg
        for packed in re.findall(r"data:image/(\w+);base64,([A-Za-z0-9+/=\s]+)", svg):
            assert packed[0] == "webp"
            Image.open(io.BytesIO(base64.b64decode(packed[1]))).verify()


def test_the_page_says_what_was_measured(html, folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    text = " ".join(Reader(html).text)
    for name in ("f1", "precision", "recall", "iou", "mcc", "accuracy"):
        assert f"{metrics[name]:.3f}" in text
        assert f"{metrics[name]:.4f}" in text
    assert f"finds {page.share_text(metrics['recall'])} of the landslide area in ground the model never saw" in text
    assert f"{metrics['counts']['tp']:,}" in text
    for said in (
        "Serra <do> Mar & sea",
        "the east",
        "1 min 33 s",
        "1 min 34 s",
        "unet · resnet18",
        "8 px",
        "206.5",
        "Best epoch",
        "EPSG:32723",
        "nir",
    ):
        assert said in text
    assert "1 landslides" not in text


def test_scores_by_threshold_are_of_the_held_out_tiles(folder):
    run = report.load(folder)
    assert run.window == (0, HELD_OUT.start, 128, HELD_OUT.stop)
    counts = run.errors.sum(axis=(1, 2))
    assert evaluate.Counts(*counts[[1, 2, 3, 0]].tolist()) == evaluate.Counts(**run.metrics["counts"])


def test_the_best_threshold_told_is_that_of_the_held_out_tiles(folder):
    run = report.load(folder)
    table = evaluate.sweep(run.scores, run.mask, valid=run.held_out, thresholds=251)
    assert f"F1 is greatest, {table['f1'].max():.3f}, at {evaluate.best(table):.3g}." in page._training_cards(run)


def test_intervals_need_enough_blocks(folder):
    run = report.load(folder)
    assert run.intervals is None
    assert "Fewer than 8 blocks were held out" in page._tables(run)
    small = page.Run(**{**vars(report.load(folder)), "tiles": run.tiles.assign(size=8, split="test")})
    assert len(evaluate.blocks(small.scores, small.mask, size=16, valid=small.held_out)) >= 8
    found = small.intervals
    assert page.interval_text(found, "f1") == f"{found.loc['f1', 'low']:.3f} to {found.loc['f1', 'high']:.3f}"
    assert page.interval_text(found, "f1") in page._score_tiles(small)


def test_held_out_landslides_are_told_by_size(folder):
    run = report.load(folder)
    inside = run.held_out.values & (run.mask.values == 1)
    n = ndimage.label(inside)[1]
    assert run.sizes["landslides"].sum() == n
    shares = run.sizes.dropna()
    assert (shares["recall"] * 1.0).between(0, 1).all()
    found = (run.scores.values[0][inside] / 250 >= run.threshold).mean()
    assert np.average(shares["recall"]) == pytest.approx(found, abs=0.2)


def test_curves_mark_the_threshold_in_use():
    table = pd.DataFrame({"threshold": [0.0, 0.5, 1.0], "tp": [4, 3, 0], "fp": [6, 1, 0]})
    table["fn"], table["tn"] = 4 - table["tp"], 6 - table["fp"]
    table["precision"], table["recall"] = [0.4, 0.75, 0.0], [1.0, 0.75, 0.0]
    left, right = charts.figure_curves(table, threshold=0.49).axes
    assert left.lines[1].get_xydata().tolist() == [[0.75, 0.75]]
    assert right.lines[1].get_xydata().tolist() == [[pytest.approx(1 / 6), 0.75]]
    assert left.get_title() == f"AP {evaluate.average_precision(table):.3f}"


def test_a_run_without_held_out_tiles_is_shown_whole(folder):
    run = report.load(folder)
    whole = page.Run(**{**vars(run), "tiles": run.tiles.assign(split="train")})
    assert whole.held_out is None
    assert whole.window == (0, 0, *SHAPE)
    assert "in the whole scene" in page.lead(whole)
    cards = page._training_cards(whole)
    assert "On the whole scene. F1 is greatest" in cards
    assert "held-out" not in cards


def test_an_empty_map_claims_nothing(folder):
    run = report.load(folder)
    empty = page.Run(**{**vars(run), "polygons": run.polygons.iloc[:0]})
    assert page.lead(empty).startswith("The map marks no landslide at a threshold of 0.5, over ")


def test_a_model_without_a_history_shows_no_losses(folder):
    run = report.load(folder)
    cards = page._training_cards(page.Run(**{**vars(run), "model": {}}))
    assert "Scores by threshold" in cards
    assert "Training" not in cards


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {"history": [{"epoch": 3, "train_loss": 1.0, "val_loss": 2.0}]},
            {"epoch": [3], "train": [1.0], "valid": [2.0]},
        ),
        ({"history": {"train": [1, 2], "valid": [3, 4]}}, {"epoch": [0, 1], "train": [1, 2], "valid": [3, 4]}),
        ({"history": [{"train_loss": 1.0}]}, {"epoch": [0], "train": [1.0]}),
        ({"history": []}, None),
        ({}, None),
    ],
)
def test_histories_of_several_shapes(record, expected):
    found = page.history(record)
    assert (None if found is None else found.to_dict("list")) == expected


def test_a_training_marks_its_best_epoch():
    losses = pd.DataFrame({"epoch": [1, 2, 3], "train": [3.0, 2.0, 1.0], "valid": [3.0, 1.0, 2.0]})
    labels = charts.figure_history(losses).axes[0].get_legend_handles_labels()[1]
    assert labels == ["train", "valid", "best, epoch 2"]
    assert "best, epoch 3" in charts.figure_history(losses.drop(columns="valid")).axes[0].get_legend_handles_labels()[1]


def test_a_page_of_parts_is_that_of_the_folder(folder, html, tmp_path):
    whole = report.load(folder)
    run = report.collect(
        whole.scene,
        whole.scores,
        whole.mask,
        tiles=whole.tiles,
        model=folder / "model",
        polygons=whole.polygons,
        clusters=whole.clusters,
        name="Serra <do> Mar & sea",
    )
    kept = {key: value for key, value in whole.metrics.items() if key not in ("seconds", "split")}
    assert run.metrics == kept
    said = Reader(report.write(run, path=tmp_path / "page.html").read_text(encoding="utf-8"))
    asked = Reader(html)
    assert [image["alt"].partition(".")[0] for image in said.images] == [
        image["alt"].partition(".")[0] for image in asked.images
    ]
    assert page.lead(run) in " ".join(said.text)
    with pytest.raises(BadInput, match="path must be given with a Run"):
        report.write(run)


def test_parts_that_are_not_given_are_left_out_or_traced(folder):
    whole = report.load(folder)
    given = {"tiles": whole.tiles, "model": folder / "model", "threshold": 0.4}
    run = report.collect(whole.scene, whole.scores[0], whole.mask, **given)
    assert "Clusters" not in page._scene_cards(run)
    mapped = (whole.scores.values[0] / 250 >= 0.4) & (whole.scores.values[0] != 255)
    assert run.mapped_m2 == pytest.approx(mapped.sum() * 64)
    assert len(run.polygons) == ndimage.label(mapped)[1]
    with pytest.raises(BadInput, match="scene must lie on the grid of scores"):
        report.collect(whole.scene[:, 1:], whole.scores, whole.mask, **given)
    with pytest.raises(BadInput, match="mask must lie on the grid of scores"):
        report.collect(whole.scene, whole.scores, whole.mask[:, 1:], **given)
    with pytest.raises(BadInput, match="polygons must have the column area_m2"):
        report.collect(whole.scene, whole.scores, whole.mask, polygons=whole.polygons[["geometry"]], **given)
    with pytest.raises(NotFound, match=r"model\.json"):
        report.collect(whole.scene, whole.scores, whole.mask, tiles=whole.tiles, model=folder)


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    files.write_text(tmp_path / "a.html", "one")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(tmp_path / "a.html", "two" * 9999 + "\ud800")
    assert (tmp_path / "a.html").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_what_is_missing_or_broken_is_named(folder, tmp_path):
    with pytest.raises(NotFound, match=r"mosaic\.zarr"):
        report.write(tmp_path)
    for name in ("mosaic", "clusters", "mask", "scores"):
        (tmp_path / f"{name}.zarr").symlink_to(folder / f"{name}.zarr")
    with pytest.raises(NotFound, match=r"folder must hold tiles.parquet. Got no .* Let the run end first"):
        report.write(tmp_path)
    for name in ("tiles.parquet", "landslides.parquet", "model"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(Unreadable, match=r"metrics.json cannot be read"):
        report.write(tmp_path)
    (tmp_path / "metrics.json").write_text('{"f1": 0.5}')
    with pytest.raises(BadInput, match=r"metrics.json must hold a number for f1, .*precision"):
        report.write(tmp_path)


def test_numbers_are_said_as_a_person_would():
    assert page.area_text(5286) == "5,286 m²"
    assert page.area_text(3.21e7) == "32.1 km²"
    assert page.area_text(2.3e8) == "230 km²"
    assert [page.seconds_text(s) for s in (3.21, 59.97, 75, 7300)] == ["3.2 s", "1 min 0 s", "1 min 15 s", "2 h 1 min"]
    assert [page.share_text(s) for s in (0.8449, 0.9972, 0.99999, 1.0)] == ["84%", "99.7%", "> 99.9%", "100%"]
    assert [page.share_text(s) for s in (0.0, 1e-5, 0.002, 0.01)] == ["0%", "< 0.1%", "0.2%", "1%"]


# --- choosing k -------------------------------------------------------------------------------------------------------


def test_figure_k_marks_the_best_by_each_measure():
    table = pd.DataFrame(
        {"distance2": [9.0, 5, 3], "silhouette": [np.nan, 0.6, 0.5], "davies_bouldin": [np.nan, 0.9, 0.7]},
        index=pd.Index([1, 2, 3], name="k"),
    )
    bend, silhouette, davies = charts.figure_k(table).axes
    assert bend.get_lines()[0].get_xydata().tolist() == [[1, 9], [2, 5], [3, 3]]
    assert silhouette.get_title() == "silhouette, best: 2"
    assert davies.get_title() == "Davies-Bouldin, best: 3"
    assert davies.get_lines()[1].get_xydata().tolist() == [[3, 0.7]]


def test_figure_spectra_draws_the_clusters_of_one_k():
    coords = {"k": [2, 3], "band": ["red", "nir"], "size": (("k", "cluster"), [[3, 1, 0], [1, 1, 2]])}
    values = [[[1, 2], [3, 4], [np.nan, np.nan]], [[5, 6], [7, 8], [9, 10]]]
    centers = xr.DataArray(values, dims=("k", "cluster", "band"), coords=coords)
    lines = charts.figure_spectra(centers, k=2, wavelengths=[660, 830]).axes[0].get_lines()
    assert [line.get_xydata().tolist() for line in lines] == [[[660, 1], [830, 2]], [[660, 3], [830, 4]]]
    assert [line.get_label() for line in lines] == ["0  (75%)", "1  (25%)"]
    assert len(charts.figure_spectra(centers).axes[0].get_lines()) == 3


def test_a_reliability_diagram_has_a_point_for_each_score_that_is_there():
    scores = image(np.repeat(np.array([[25, 175]], "uint8"), 50, axis=0))
    mask = image(np.stack([np.arange(50) < 5, np.arange(50) < 35], axis=1).astype("uint8"))
    above, below = charts.figure_reliability(evaluate.sweep(scores, mask, thresholds=251)).axes
    np.testing.assert_allclose(above.lines[1].get_xydata(), [[0.1, 0.1], [0.7, 0.7]])
    assert [bar.get_height() for bar in below.patches] == [0, 50, 0, 0, 0, 0, 0, 50, 0, 0]


def test_sizes_are_bars_that_say_how_many_landslides_there_are():
    sizes = pd.DataFrame([(0, 1e3, 0, np.nan, np.nan), (1e3, np.inf, 4, 0.75, 0.6)],
                         columns=["from_m2", "to_m2", "landslides", "detected", "recall"])  # fmt: skip
    (axes,) = charts.figure_sizes(sizes).axes
    assert [bar.get_height() for bar in axes.patches] == [0, 0.75, 0, 0.6]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["< 1,000\nn = 0", "≥ 1,000\nn = 4"]
