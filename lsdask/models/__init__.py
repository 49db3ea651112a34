"""Networks that turn blocks of an image into landslide scores: built, saved, loaded and run."""

from lsdask.models.architectures import NAMES
from lsdask.models.building import build
from lsdask.models.folder import digest, load, reach, read_spec, save
from lsdask.models.keras import load_prakash
from lsdask.models.running import CHECKED, Runner, runner
from lsdask.models.segmenter import Segmenter
from lsdask.models.spec import Spec, check_bands, check_pixel
from lsdask.models.wrapping import is_module, wrap

__all__ = [
    "CHECKED",
    "NAMES",
    "Runner",
    "Segmenter",
    "Spec",
    "build",
    "check_bands",
    "check_pixel",
    "digest",
    "is_module",
    "load",
    "load_prakash",
    "reach",
    "read_spec",
    "runner",
    "save",
    "wrap",
]
