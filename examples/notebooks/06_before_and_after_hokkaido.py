# %% [markdown]
# # Before and after an event: Hokkaido, 6 September 2018
#
# An earthquake of magnitude 6.6 shook slopes of loose ash that a typhoon had soaked the day before. Thousands of
# landslides went down in one night. Two Sentinel-2 images, one of the spring before and one of the autumn after,
# and a model of the heights, are enough for a first map of candidates.
#
# The images are real if `LSDASK_DATA` names the folder of real data. If not, a pair is made up, and the next cell
# says so.

# %%
# %matplotlib inline
import os
import shutil
import time
from pathlib import Path

import costs
import event
import numpy as np
from dask.distributed import Client

import lsdask as ls

begun = time.perf_counter()
out = Path("out/event")  # all that is written, made anew at each run
shutil.rmtree(out, ignore_errors=True)
data = Path(os.environ.get("LSDASK_DATA", "no-real-data"))
print("Hokkaido, real" if (data / "hokkaido-2018").is_dir() else "No real data: the pair is made up.")
client = Client(processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0")
client.dashboard_link

# %% [markdown]
# ## Two dates as one cube
#
# **What is lazy.** Six files become one array with a time axis. Its header has been read, and not one pixel.

# %%
cube, heights = event.load(data)
cube

# %% [markdown]
# ## A pair
#
# `pair` makes one composite of the dates before the event, and one of those after. With more dates each side would
# be a median without clouds. The day itself belongs to neither.

# %%
pair = ls.mosaic.pair(cube, event.EVENT)
sides = {
    name: pair.sel(band=[f"{name}_{band}" for band in event.BANDS]).assign_coords(band=list(event.BANDS))
    for name in ("pre", "post")
}
ls.report.figure_scene(sides["pre"])

# %%
ls.report.figure_scene(sides["post"])

# %% [markdown]
# White is *no data*: the real image of before ends in the middle of the scene, at the edge of the swath, and has
# snow in its valleys. Both matter below.
#
# ## Do they lie on each other?
#
# A shift of one pixel makes every ridge look like a change. `shift` matches blocks of the two images and says how
# far apart they are. It reports, and never moves anything on its own.

# %%
shifts = ls.mosaic.shift(*(side.sel(band=["green"]) for side in sides.values()), block=256)
shifts.loc[shifts.sure, ["row", "column", "dy", "dx"]].round(2)

# %% [markdown]
# Blocks that match are listed, in pixels. Snow, leaves and the light of another season let few of them match in a
# real pair.
#
# ## Slope
#
# Landslides need a slope; fields, roads and gravel banks change too, and lie flat.

# %%
slope = ls.terrain.slope(heights, edge="extrapolate")
stack = ls.mosaic.stack([pair, slope], names=[*ls.schema.bands(pair), "slope"]).rename("mosaic")
ls.mosaic.write(stack, out / "mosaic.zarr", chunk=256, shard=512, client=client).check()


# %% [markdown]
# ## A rule: dark before, bright after, steep
#
# Without labels there is no training, but a rule can be written down, and disagreed with. Fresh soil is bright in
# red. What was bright before, such as snow, a field or a road, is left out.
#
# **What a task is.** `fresh` sees one tile's blocks. Where any band is void, the score is *unknown*, and so is all
# ground that the image of before does not show.


# %%
def fresh(blocks: np.ndarray) -> np.ndarray:
    before, after, slope = (blocks[:, [band]] for band in (2, 5, 6))
    bright = np.clip((after - 1000) / 400, 0, 1)
    dark = np.clip((1500 - before) / 300, 0, 1)
    return bright * dark * np.clip((slope - 6) / 8, 0, 1)


report = ls.predict.run(
    out / "mosaic.zarr", out / "scores.zarr", fresh, classes=["fresh"], tile=512, halo=0, client=client
).check()
report

# %%
scores = ls.store.open(out / "scores.zarr")
ls.report.figure_scores(scores)

# %% [markdown]
# ## Candidates

# %%
found = ls.inventory.vectorize(scores, threshold=0.5, min_area_m2=1500)
ls.inventory.write(found, out / "candidates.gpkg")
drawn = ls.report.figure_scene(sides["post"], polygons=found)
drawn.legends[0].texts[0].set_text(f"{len(found):,} candidates")
drawn

# %%
known = float(ls.schema.valid(scores).mean())
print(f"{len(found):,} candidates of {found.area_m2.sum() / 1e6:.2f} km² in all, seen on {known:.0%} of the scene")
found.drop(columns="geometry").sort_values("area_m2", ascending=False).head()

# %% [markdown]
# These are candidates and no inventory: there is no truth here to count errors with, so this notebook gives no
# score. Fields on gentle slopes and bare river banks are among them; landslides under shadow, and old ones, are
# not. Somebody who knows the ground must look. That is also how labels begin: correct these outlines, rasterise
# them with `ls.inventory.rasterize`, and train.
#
# ## What it cost

# %%
client.close()
costs.table(out, begun)

# %% [markdown]
# **Next:** [reading the results](07_reading_the_results.ipynb).
