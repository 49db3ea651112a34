"""Changes of training batches, on the device they are on.

Geometry is shared by the image and its mask, so pixels keep their labels; what comes in from outside a tile is void,
and its mask 255 where any band of a pixel is. Radiometry is drawn for each group of bands alone (before and after an
event, say) and leaves the mask, void, and bands of no group (a DEM) as they are. Every draw comes from one
torch.Generator. Terrain is derived after all this, in the model: see ``terrain=`` of ``models.build``.
"""

from lsdask.augment.copies import Copies
from lsdask.augment.drawing import Augment
from lsdask.augment.fixed import SOARES, Change, fixed_block, garcia
from lsdask.augment.geometry import SYMMETRIES, affine_block, symmetry_block
from lsdask.augment.radiometry import gamma_block, radiometry_block, sharpness_block

__all__ = [
    "SOARES",
    "SYMMETRIES",
    "Augment",
    "Change",
    "Copies",
    "affine_block",
    "fixed_block",
    "gamma_block",
    "garcia",
    "radiometry_block",
    "sharpness_block",
    "symmetry_block",
]
