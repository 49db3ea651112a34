"""What a machine can do, and how much of it lsdask uses: each step of the work against its limit and against the usual.

``run`` measures here and now, in a minute or a few; every figure is a ratio of one run. The scripts in
``benchmarks/`` of the repository measure one thing each, with memory and more rivals.
"""

from lsdask.bench.machine import ceilings, describe
from lsdask.bench.roofline import figure_roofline
from lsdask.bench.running import Benchmark, history, read, run
from lsdask.bench.works import WORKS

__all__ = ["WORKS", "Benchmark", "ceilings", "describe", "figure_roofline", "history", "read", "run"]
