# %% [markdown]
# # Reading the results
#
# A run has left scores. What do they say, how far can they be trusted, and how are they shown to somebody else?
# Maps with matplotlib, polygons for a GIS, and an interactive map in one file that opens without a network.

# %%
# %matplotlib inline
import shutil
import time
from pathlib import Path

import costs
import numpy as np
import xarray as xr
from bokeh.io import output_notebook, save, show
from bokeh.models import ColumnDataSource, HoverTool, NumeralTickFormatter
from bokeh.plotting import figure
from bokeh.resources import INLINE
from dask.distributed import Client
from scipy.ndimage import uniform_filter
from sklearn.ensemble import HistGradientBoostingClassifier

import lsdask as ls

begun = time.perf_counter()
out = Path("out/results")  # all that is written, made anew at each run
shutil.rmtree(out, ignore_errors=True)
client = Client(processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0")
client.dashboard_link

# %% [markdown]
# ## Scores
#
# So that this notebook needs no network, scikit-learn's boosted trees learn in the west of the scene, from each pixel
# and the means around it. On made-up ground they do as well as a small network: try the simple thing first.

# %%
land = ls.synthetic.landscape((768, 768), seed=4)
slope = ls.terrain.slope(ls.synthetic.elevation((768, 768), seed=4), edge="extrapolate")
stack = ls.mosaic.stack([land.scene, slope], names=[*ls.synthetic.BANDS, "slope"]).rename("mosaic")
ls.mosaic.write(stack, out / "mosaic.zarr", chunk=128, shard=256, client=client).check()
image = ls.store.open(out / "mosaic.zarr")


# %%
def features(blocks: np.ndarray) -> np.ndarray:
    """Give each pixel of (block, band, y, x) its bands and their means over 5 and 31 pixels a side, last."""
    means = [uniform_filter(blocks, (1, 1, side, side)) for side in (5, 31)]
    return np.moveaxis(np.concatenate([blocks, *means], axis=1), 1, -1)


WEST, MIDDLE = 400, 560  # columns: learn to the first, choose a threshold to the second, test beyond
columns = xr.ones_like(land.mask, dtype=int).cumsum("x") - 1
learn = (ls.schema.valid(image) & (land.mask <= 1) & (columns < WEST)).values
seen = features(image.fillna(0).values[None])[0]
trees = HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(seen[learn], land.mask.values[learn])


# %% [markdown]
# **What a task is.** `score` sees one tile at a time, as (block, band, y, x), and gives each pixel a score from 0 to 1.
# The halo of 15 pixels is what the means look at beyond the tile, so there are no seams.


# %%
def score(blocks: np.ndarray) -> np.ndarray:
    pixels = features(blocks)
    return trees.predict_proba(pixels.reshape(-1, pixels.shape[-1]))[:, 1].reshape(pixels.shape[:-1])[:, None]


ls.predict.run(
    out / "mosaic.zarr", out / "scores.zarr", score, classes=["landslide"], tile=256, halo=15, client=client
).check()

# %% [markdown]
# ## What is in the file
#
# **What is lazy.** The scores open at once, whatever their size. They are stored in a byte a pixel: 250 times the
# score, and 255 for *unknown*. Plain `xarray.open_zarr` reads them as numbers from 0 to 1, with gaps where unknown.

# %%
scores = ls.store.open(out / "scores.zarr")
scores

# %% [markdown]
# ## Maps
#
# `ls.report` draws whatever flows through lsdask, at true proportions, with scale and north. A figure is
# matplotlib's: change it, or save it with `savefig`.

# %%
drawn = ls.report.figure_scores(scores)
drawn.axes[0].set_title("Scores of the trees", fontsize=10)
drawn.savefig(out / "scores.png", dpi=200)
drawn

# %% [markdown]
# ## A threshold
#
# Scores become landslides at a threshold. It is chosen in the middle of the scene, where nothing was learnt; the east
# is kept for the test.

# %%
middle, east = (columns >= WEST) & (columns < MIDDLE), columns >= MIDDLE
threshold = ls.evaluate.best(ls.evaluate.sweep(scores, land.mask, valid=middle), by="f1")
threshold

# %%
ls.report.figure_curves(ls.evaluate.sweep(scores, land.mask, valid=east), threshold=threshold)

# %% [markdown]
# The curves, of the east, show every threshold at once: few false alarms on the one end, few missed landslides on the
# other. Which error costs more is not for a program to say.
#
# ## Where it is right
#
# Blue was found, amber is a false alarm, crimson was missed. The west is left out: it was learnt by heart.

# %%
ls.report.figure_agreement(scores, land.mask, threshold=threshold, valid=east, scene=image)

# %% [markdown]
# ## How far to trust the number
#
# A landslide is many pixels that are right or wrong together, so the interval comes from drawing *blocks* of ground
# again and again.

# %%
blocks = ls.evaluate.blocks(scores, land.mask, threshold=threshold, valid=east, size=64)
ls.evaluate.bootstrap(blocks, n=300).round(2)

# %% [markdown]
# ## Landslides
#
# Pixels become polygons, traced tile by tile and joined across tile edges, each with its area and its mean score.

# %%
found = ls.inventory.vectorize(scores, threshold=threshold, min_area_m2=1000)
ls.inventory.write(found, out / "landslides.gpkg")
found.drop(columns="geometry").sort_values("area_m2", ascending=False).head()

# %% [markdown]
# How many of the known landslides are among them, by size? Here of the whole scene, the west included.

# %%
ls.report.figure_sizes(ls.evaluate.by_size(ls.evaluate.landslides(scores, land.polygons, threshold=threshold)))

# %% [markdown]
# ## An interactive map
#
# Zoom with the wheel, drag, and point at an outline to read its numbers; a click on the legend hides a layer. It is
# drawn by bokeh, with `INLINE`: all that a browser needs is in the file, so it can be sent by mail and opened on a
# ship.
#
# A picture has a pixel for each cell of an overview, at most 1,200 a side, so that this works for any scene.

# %%
output_notebook(resources=INLINE, hide_banner=True)


def picture(colours: np.ndarray) -> np.ndarray:
    """Turn (y, x, 4) colours from 0 to 1 into what bokeh shows: one number a pixel, from the south up."""
    return (colours[::-1] * 255).astype("uint8").view("uint32")[..., 0]


def rings(polygons) -> ColumnDataSource:
    """Turn polygons into bokeh's lists: of polygons, their parts, and the rings of each part."""
    parts = [getattr(shape, "geoms", [shape]) for shape in polygons.geometry]
    edges = [[[np.array(ring.coords).T for ring in (one.exterior, *one.interiors)] for one in some] for some in parts]
    lists = {axis: [[[ring[i] for ring in part] for part in some] for some in edges] for i, axis in enumerate("xy")}
    return ColumnDataSource({**lists, **polygons.drop(columns="geometry").to_dict("list")})


grid = ls.schema.geobox(scores)
box = grid.boundingbox
place = {"x": box.left, "y": box.bottom, "dw": box.span_x, "dh": box.span_y}
chart = figure(
    width=860, height=620, match_aspect=True, active_scroll="wheel_zoom", tools="pan,wheel_zoom,reset,save",
    title="Landslides: known and found", x_axis_label="east, m", y_axis_label="north, m",
)  # fmt: skip
chart.image_rgba([picture(ls.report.maps.picture(image, ls.report.maps.whole(image)))], **place)
style = {"fill_alpha": 0.15, "line_width": 1.5}
chart.multi_polygons("x", "y", source=rings(land.polygons), color="#ffd400", legend_label="known", **style)
outlines = chart.multi_polygons("x", "y", source=rings(found), color="#ff5c8a", legend_label="found", **style)
told = [("area", "@area_m2{0,0} m²"), ("mean score", "@mean_score{0.00}"), ("highest", "@max_score{0.00}")]
chart.add_tools(HoverTool(renderers=[outlines], tooltips=told))
chart.xaxis.formatter = chart.yaxis.formatter = NumeralTickFormatter(format="0")
chart.legend.click_policy = "hide"
show(chart)
save(chart, out / "map.html", resources=INLINE, title="Landslides")

# %% [markdown]
# ## What it cost

# %%
client.close()
costs.table(out, begun)

# %% [markdown]
# **Back to the start:** [a first map](01_first_map.ipynb).
