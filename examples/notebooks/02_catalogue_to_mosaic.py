# %% [markdown]
# # From a catalogue to a mosaic
#
# Satellite archives are listed in STAC catalogues: one *item* a scene, saying when, where, how cloudy, and where
# its pixels lie. This notebook searches one, opens what it finds as one cube, hides clouds, and writes a mosaic
# without them.
#
# So that it runs anywhere, also without a network, the catalogue is a small one on this machine: six cloudy dates
# of a made-up coast, served by a real STAC API. Set `STAC_API` to use another; the lines stay the same.

# %%
# %matplotlib inline
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import catalogue
import costs
from dask.distributed import Client

import lsdask as ls

begun = time.perf_counter()
out = Path("out/mosaic")  # all that is written, made anew at each run
shutil.rmtree(out, ignore_errors=True)
client = Client(processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0")
client.dashboard_link

# %%
stack = ExitStack()  # holds the small catalogue open until the last cell
api = os.environ.get("STAC_API") or stack.enter_context(catalogue.served(catalogue.write(out / "scenes")))
api

# %% [markdown]
# ## Search
#
# A place, a time, a collection. The items are kept in a file, so that the work can be done again when the catalogue
# has changed or is out of reach: `ls.scenes.read` gives them back.

# %%
place = (-46.360, -23.545, -46.325, -23.510)  # west, south, east, north, in degrees; or a GeoPackage
items = ls.scenes.search(api, "sentinel-2-l2a", aoi=place, datetime="2020-05/2020-07")
ls.scenes.save(items, out / "items.geojson")
{item.id: f"{item.properties['eo:cloud_cover']} % cloud" for item in items}

# %% [markdown]
# ## Open them as one cube
#
# **What is lazy.** `load` reads the items, not the pixels. The cube below has a time axis and knows where each of
# its pieces comes from; a piece is fetched when something needs it.

# %%
bands = ["blue", "green", "red", "nir"]
cube = ls.scenes.load(items, bands=bands, sensor="sentinel-2-l2a", groupby="solar_day", chunks=256)
quality = ls.scenes.load(items, bands=["scl"], groupby="solar_day", grid=cube, chunks=256)
cube

# %%
ls.report.figure_scene(cube.isel(time=0))

# %% [markdown]
# ## Hide the clouds
#
# A mask says where a pixel is *valid*: `True` means that the ground is seen. Sentinel-2 comes with a class for
# every pixel; clouds and their shadows are hidden, and three pixels around them too, as their edges are often
# missed.

# %%
clear = ls.mosaic.grow(ls.mosaic.mask(quality, "scl"), 3)
clear.mean(("y", "x")).compute().round(2).to_series()

# %% [markdown]
# ## Composite
#
# The median of the clear dates of each pixel. Where no date is clear, the mosaic says "no data"; the gap is not
# filled with something that looks like ground.

# %%
parts = ls.mosaic.composite_parts(cube, method="median", mask=clear)
mosaic = parts.image.rename("mosaic")
report = ls.mosaic.write(mosaic, out / "mosaic.zarr", chunk=256, shard=256, client=client).check()
report

# %% [markdown]
# **What a task is.** Each tile of the report above was one task: it fetched its part of all dates, hid the clouds,
# took the median, and wrote one file of the store. That is why memory does not grow with the mosaic.

# %%
image = ls.store.open(out / "mosaic.zarr")
ls.report.figure_scene(image)

# %% [markdown]
# How many dates each pixel had to choose from. Few looks are a reason for care, however good the picture.

# %%
looks = parts.looks.compute()
figure, axes = ls.report.maps.new_map(looks)
shown = ls.report.maps.show(axes, looks.values, ls.report.maps.whole(looks), 1, cmap="viridis", vmin=0)
figure.colorbar(shown, ax=axes, location="bottom", shrink=0.6, label="clear dates")
figure

# %% [markdown]
# ## Take it elsewhere
#
# The store opens in plain xarray. For QGIS, write a cloud-optimised GeoTIFF.

# %%
ls.mosaic.to_cog(image, out / "mosaic.tif")

# %% [markdown]
# ## What it cost

# %%
stack.close()
client.close()
costs.table(out, begun)

# %% [markdown]
# **Next:** [clusters](03_clusters_of_serra_do_mar.ipynb), which need no labels, or [tiles and
# training](04_tiles_and_training.ipynb), which do.
