# %% [markdown]
# # Clusters of the Serra do Mar
#
# Before anybody has drawn a landslide, k-means can sort the pixels of a mosaic into a few classes of colour:
# forest, pasture, town, scar. It needs no labels. Here it is done for several numbers of clusters at once, with the
# tables and pictures that help to choose one.
#
# The scene is made up. If `LSDASK_DATA` names the folder of real data, it shows the relict landslides that Garcia
# et al. mapped, each where it lies; if not, landslides are made up too.

# %%
# %matplotlib inline
import os
import shutil
import time
from pathlib import Path

import costs
import geopandas as gpd
from dask.distributed import Client

import lsdask as ls

begun = time.perf_counter()
out = Path("out/clusters")  # all that is written, made anew at each run
shutil.rmtree(out, ignore_errors=True)
client = Client(processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0")
client.dashboard_link

# %%
drawn = Path(os.environ.get("LSDASK_DATA", "")) / "serra-do-mar" / "relict_landslides_epsg32723.geojson"
if drawn.is_file():
    inventory = gpd.read_file(drawn)
    left, bottom, right, top = inventory.total_bounds
    ground = {"resolution": 20.0, "origin": (left - 400, top + 400), "scars": inventory}
    shape = int((top - bottom + 800) / 20), int((right - left + 800) / 20)
else:
    ground, shape = {"resolution": 20.0}, (1024, 1024)
land = ls.synthetic.landscape(shape, seed=2, **ground)
print("real" if drawn.is_file() else "made-up", "landslides:", len(land.polygons))
land.scene

# %% [markdown]
# **What is lazy.** The scene above is a recipe for pixels, cut into chunks. `ls.mosaic.write` makes them, a tile at
# a time, and keeps them in a store; what follows reads the store, never all of it at once.

# %%
ls.mosaic.write(land.scene, out / "mosaic.zarr", chunk=256, shard=512, client=client).check()

# %%
image = ls.store.open(out / "mosaic.zarr")
ls.report.figure_scene(image, polygons=land.polygons)

# %% [markdown]
# ## Centres for several k at once
#
# The centres come from one sample of pixels, drawn evenly from the whole mosaic. Feeding k-means one piece of an
# image after the other, as is easily done, gives centres that follow the last piece.

# %%
centers = ls.kmeans.fit(image, [2, 4, 6, 8], n_samples=100_000, seed=0)
ls.kmeans.save(centers, out / "centers.json")
measures = ls.kmeans.describe(image, centers, n_samples=10_000)
measures.round(3)

# %%
ls.report.figure_k(measures)

# %% [markdown]
# No number knows what you look for. A silhouette favours few, well parted clusters, such as green against not
# green. Landslides cover a hundredth of the ground and differ from pasture by little, so look at the maps too.
#
# ## Labels
#
# All four maps are written in one reading of the mosaic. **What a task is:** one tile, read once, labelled four
# times, written as one file.

# %%
ls.kmeans.write(image, centers, out / "clusters.zarr", shard=512, tile=32, client=client).check()

# %%
labels = ls.store.open(out / "clusters.zarr")
ls.report.figure_clusters(labels.sel(k=4))

# %%
ls.report.figure_clusters(labels.sel(k=8))

# %% [markdown]
# The numbers of clusters mean nothing; their colours in the bands do. Healthy forest is dark in red and bright in
# near infrared, bare ground and fern brighter in red.

# %%
ls.report.figure_spectra(centers, k=8)

# %% [markdown]
# ## Do clusters find landslides?
#
# How much of each cluster is landslide, against how much of the whole is. A cluster with twice the average is worth
# a look; none is a map of landslides, as pasture and natural fern have nearly the colour of an old scar.

# %%
flat, truth = labels.sel(k=8).values.ravel(), land.mask.values.ravel()
share = {f"cluster {one}": (truth[flat == one] == 1).mean() for one in range(8)}
share["everywhere"] = (truth[flat != 255] == 1).mean()
{name: f"{value:.1%}" for name, value in share.items()}

# %% [markdown]
# ## What it cost

# %%
client.close()
costs.table(out, begun)

# %% [markdown]
# **Next:** [tiles and training](04_tiles_and_training.ipynb). Clusters can help there too: `lsdask pretrain`
# teaches a network to tell them apart before it sees a single landslide.
