"""Loops that numba compiles, also where nothing can be kept: a read-only home, and a package that belongs to root."""

from collections.abc import Callable
from typing import Any

import numba


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function as ``numba.njit`` does; with ``cache=True`` keep its machine code where there is a place.

    numba keeps it beside the package or in the home directory, and refuses to compile where it can write in neither,
    as in many a notebook of a cloud. Then it is compiled again in each process, which takes some seconds; the
    environment variable NUMBA_CACHE_DIR names another place.

    Parameters
    ----------
    **options
        As for ``numba.njit``.

    Returns
    -------
    decorator
    """

    def compile_(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(**options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            return numba.njit(**{**options, "cache": False})(function)

    return compile_
