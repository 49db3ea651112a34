"""The one engine for everything long: a kernel run over the tiles of a target that its ledger does not hold yet.

A task is a tile's place, two integers. The kernel reaches each worker once; it reads its block from the source
itself, computes, and writes one whole shard of the target, so tasks share nothing and may be repeated. Tasks are
submitted in a bounded window. A tile that fails never stops the others: the run ends and names it.
"""

from lsdask.tasks.checking import Checked, Status, status, verify
from lsdask.tasks.driving import FLUSH_SECONDS
from lsdask.tasks.journal import metrics
from lsdask.tasks.pools import Kernel, attempt
from lsdask.tasks.reports import Failure, Place, Report
from lsdask.tasks.running import run
from lsdask.tasks.workers import ALIKE, Cargo, Stranger, carried, check_workers, do, held, versions

__all__ = [
    "ALIKE",
    "FLUSH_SECONDS",
    "Cargo",
    "Checked",
    "Failure",
    "Kernel",
    "Place",
    "Report",
    "Status",
    "Stranger",
    "attempt",
    "carried",
    "check_workers",
    "do",
    "held",
    "metrics",
    "run",
    "status",
    "verify",
    "versions",
]
