"""The command ``lsdask``: the steps from scenes to an inventory, one command each."""

import errno
import os
import sys
import warnings

from lsdask.cli import (
    about,
    bench,
    clusters,
    demo,
    mosaic,
    predict,
    report,
    reproduce,
    results,
    status,
    tiles,
    training,
)
from lsdask.cli.app import app, tell
from lsdask.errors import LsdaskError

__all__ = [
    "about",
    "app",
    "bench",
    "clusters",
    "demo",
    "main",
    "mosaic",
    "predict",
    "report",
    "reproduce",
    "results",
    "status",
    "tiles",
    "training",
]

REFUSALS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
)  # fmt: skip
"""What a disk says no to: that is for the user to mend, and no fault of the code."""


STOPPED = 130
"""The exit code of a command that Ctrl-C ended."""

GOES_ON = {
    **dict.fromkeys(("mosaic", "cluster", "predict", "reproduce"), "The same command goes on where it was."),
    "train": "The same command with --resume goes on where it was.",
}
"""What to do after that, by command."""


def main() -> None:
    """Run the command; what lsdask raises on purpose, and what a disk refuses, becomes one line and exit code 2."""
    with warnings.catch_warnings():
        warnings.showwarning = _warn  # type: ignore[assignment]
        try:
            app()
        except LsdaskError as error:
            _end(str(error))
        except SystemExit as left:
            if left.code == STOPPED:
                tell(f"stopped. {GOES_ON.get(''.join(sys.argv[1:2]), '')}".rstrip(), "yellow")
            raise
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            where = f"{os.fspath(error.filename)}: " if error.filename is not None else ""
            _end(f"{where}{error.strerror}.")


def _end(text: str) -> None:
    tell(text, "red")
    sys.exit(2)


def _warn(message: Warning | str, *_: object) -> None:
    """Say a warning as a line, without the place in the code that the user of a command did not write."""
    tell(f"note: {' '.join(str(message).split())}", "yellow")
