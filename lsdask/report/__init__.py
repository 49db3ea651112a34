"""What a person looks at: figures a paper could use, and one self-contained page made of them.

``write`` makes the page of a finished run, which ``collect`` puts together or ``load`` opens; the ``figure_*``
functions give its figures one by one.
"""

from lsdask.report.charts import (
    figure_curves,
    figure_history,
    figure_k,
    figure_learning,
    figure_reliability,
    figure_sizes,
    figure_spectra,
    figure_thresholds,
)
from lsdask.report.figures import (
    figure,
    figure_agreement,
    figure_clusters,
    figure_detail,
    figure_scene,
    figure_scores,
    figure_splits,
)
from lsdask.report.maps import Window
from lsdask.report.overviews import coverage, overview
from lsdask.report.page import colours_text, write
from lsdask.report.runs import Run, collect, load

__all__ = [
    "Run",
    "Window",
    "collect",
    "colours_text",
    "coverage",
    "figure",
    "figure_agreement",
    "figure_clusters",
    "figure_curves",
    "figure_detail",
    "figure_history",
    "figure_k",
    "figure_learning",
    "figure_reliability",
    "figure_scene",
    "figure_scores",
    "figure_sizes",
    "figure_spectra",
    "figure_splits",
    "figure_thresholds",
    "load",
    "overview",
    "write",
]
