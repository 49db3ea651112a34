"""Texts as files that are there whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(path: str | Path) -> Iterator[Path]:
    """Give a place beside a path to write to, which gets the path's name at the end of the block.

    Parameters
    ----------
    path : str or Path
        What is there already stays as it is until then, and for good if the block raises.

    Yields
    ------
    Path
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.partial")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text, in UTF-8, whole or not at all."""
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")
