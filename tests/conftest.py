"""What every test may ask for."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask
import pytest
import servers
from hypothesis import settings

settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real scenes, or a skip that says why."""
    folder = Path(os.environ.get("LSDASK_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real scenes: LSDASK_DATA names no folder ({folder})")
    return folder


@pytest.fixture(autouse=True)
def _no_scheduler_is_left() -> Iterator[None]:
    """Blame the test that leaves Dask with the scheduler of a client that is gone, not the next that computes."""
    yield
    left = dask.config.config.pop("scheduler", None)
    assert left is None, f"Dask would compute by {left!r} from now on"


@pytest.fixture
def pixels() -> Iterator[Callable[[Path], "servers.Pixels"]]:
    """A function that serves a folder over HTTP with range requests until the test ends; see ``servers.Pixels``."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(servers.pixels(folder))


@pytest.fixture
def stac_api() -> Iterator[Callable[[Sequence[Any]], str]]:
    """A function that serves items by a STAC API until the test ends, and gives its address."""
    with ExitStack() as stack:
        yield lambda items: stack.enter_context(servers.stac_api(items))
