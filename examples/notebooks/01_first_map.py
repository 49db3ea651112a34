# %% [markdown]
# # A first map in ten minutes
#
# From a satellite scene to a map of landslides, with its outlines and an honest score. The scene is made up: a
# piece of coast like the Serra do Mar, Brazil, in which every landslide is known. Nothing is downloaded. Each step
# names the line that takes your own data instead.
#
# You need no more than this folder and `pip install lsdask[notebooks]`. It runs in about a minute on one core.

# %%
# %matplotlib inline
import shutil
import time
from pathlib import Path

import costs
from dask.distributed import Client

import lsdask as ls

begun = time.perf_counter()
out = Path("out/first-map")  # all that is written, made anew at each run
shutil.rmtree(out, ignore_errors=True)
out.mkdir(parents=True)

# %% [markdown]
# Heavy steps run on a Dask cluster. This one is just the threads of this notebook; one of many machines is used in
# the same way. Open the link in another tab: its *Task Stream* shows every tile as it is computed.

# %%
client = Client(processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0")
client.dashboard_link

# %% [markdown]
# ## 1. A scene
#
# Yours: `scene = ls.scenes.open("scenes/*.tif")`, and `ls.inventory.rasterize("landslides.gpkg", scene)` for the
# mask.

# %%
land = ls.synthetic.landscape((768, 768), seed=4)
land.scene

# %% [markdown]
# **What is lazy.** Look at the table above: `dask.array`. No pixel has been computed yet. An image of lsdask is an
# `xarray.DataArray` that knows its grid and how to get its pixels, part by part, when somebody asks. So this line
# would be as quick for a continent.
#
# We write it once into a store (Zarr: a folder of compressed pieces), as everything below reads it several times.

# %%
report = ls.mosaic.write(land.scene, out / "mosaic.zarr", chunk=384, shard=384, client=client).check()
report

# %% [markdown]
# **What a task is.** The writing was cut into the tiles counted above. A task is one tile: it reads its piece,
# computes it, writes it, and is ticked off in the store's own ledger. Stop a run and call it again, and only tiles
# without a tick are done.

# %%
image = ls.store.open(out / "mosaic.zarr")
ls.report.figure_scene(image, polygons=land.polygons)

# %% [markdown]
# Bands here are blue, green, red and near infrared. The yellow outlines are the landslides that we know of. The
# empty corner is the sea: it has no data, and is never taken for "no landslide".
#
# ## 2. Tiles to learn from
#
# The east is held out. The network never sees it, and only there do we ask how good the map is.

# %%
tiles = ls.sampling.grid(image, 64, overlap=0.5)
tiles = ls.sampling.describe(tiles, mask=land.mask, valid=ls.schema.valid(image))
tiles = ls.sampling.split(ls.sampling.select(tiles, min_valid=0.5), test="east")
ls.report.figure_splits(tiles, image)

# %% [markdown]
# ## 3. A network
#
# A small U-Net, with random weights to begin with. It keeps the mean and the deviation of each band in itself, so
# that training and prediction cannot differ in them.

# %%
stats = ls.statistics.bands(image)
train, valid = (
    ls.streaming.TileStream(image, tiles[tiles.split == part], mask=land.mask, batch_size=16, shuffle=part == "train")
    for part in ("train", "valid")
)
model = ls.models.build("unet", bands=ls.schema.bands(image), mean=stats["mean"].values, std=stats["std"].values)
trained = ls.training.fit(
    model, train, valid, epochs=4, lr=2e-3, monitor="f1", folder=out / "model", device="cpu", progress=False
)
trained.model

# %% [markdown]
# ## 4. The map
#
# Ask first what it will take, then do it. Each tile is read with a *halo*, as much of its surroundings as the
# network looks at; that is why there are no seams.

# %%
ls.predict.plan(out / "mosaic.zarr", out / "scores.zarr", out / "model", tile=384, client=client)

# %%
ls.predict.run(out / "mosaic.zarr", out / "scores.zarr", out / "model", tile=384, client=client).check()

# %%
scores = ls.store.open(out / "scores.zarr")
ls.report.figure_scores(scores)

# %% [markdown]
# ## 5. How good is it?
#
# On the held-out east alone. **Precision**: of the pixels called landslide, how many are. **Recall**: of the
# landslides' pixels, how many were found. **F1** is one number for both, **IoU** the overlap. A few seconds of
# training on less than 40 km² give a rough map; `lsdask demo` takes four minutes for a better one.

# %%
held_out = ls.evaluate.within(tiles[tiles.split == "test"], scores)
measures = ls.evaluate.score(ls.evaluate.count(scores, land.mask, valid=held_out))
{name: round(measures[name], 2) for name in ("precision", "recall", "f1", "iou")}

# %%
ls.report.figure_agreement(scores, land.mask, valid=held_out, scene=image)

# %% [markdown]
# ## 6. Outlines, for QGIS

# %%
landslides = ls.inventory.vectorize(scores, threshold=0.5, min_area_m2=400)
ls.inventory.write(landslides, out / "landslides.gpkg")
landslides.head()

# %% [markdown]
# ## What it cost

# %%
client.close()
costs.table(out, begun)

# %% [markdown]
# **Next:** [scenes from a catalogue](02_catalogue_to_mosaic.ipynb), or [training with more
# care](04_tiles_and_training.ipynb).
