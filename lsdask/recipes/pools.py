"""Where the steps of an experiment run, and the bar that shows them: this process, or the workers of a cluster."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lsdask import tasks, telling
from lsdask.recipes.steps import Step, blame, perform

if TYPE_CHECKING:
    from distributed import Client


class Pool(Protocol):
    """Somewhere steps run."""

    def submit(self, step: Step) -> None:
        """Begin a step."""

    def room(self, running: int) -> bool:
        """Say whether another may begin beside those that run."""

    def next(self) -> tuple[str, str | None]:
        """Wait for a step to end; give its name, and why it failed."""


class Here:
    """Steps one after the other, in this process."""

    def __init__(self, out: Path, prints: Mapping[str, str], shown: "Shown") -> None:
        self._out, self._prints, self._shown = out, prints, shown
        self._begun: list[Step] = []

    def submit(self, step: Step) -> None:
        self._begun.append(step)

    def room(self, running: int) -> bool:
        return not running

    def next(self) -> tuple[str, str | None]:
        step = self._begun.pop()
        self._shown.begin(step.name)
        return step.name, perform(step, self._out, self._prints[step.name])


class There:
    """Steps on the workers of a cluster."""

    def __init__(
        self,
        client: "Client",
        resources: Mapping[str, float] | None,
        out: Path,
        prints: Mapping[str, str],
        shown: "Shown",
    ) -> None:
        from distributed import as_completed

        tasks.check_workers(client)
        self._client, self._resources = client, dict(resources or {})
        self._out, self._prints = out.absolute(), prints
        self._ended: Any = as_completed([])
        self._steps: dict[Any, Step] = {}
        self._topic = f"lsdask-{uuid.uuid4().hex}"
        client.subscribe_topic(self._topic, lambda event: shown.begin(event[1]))

    def submit(self, step: Step) -> None:
        key, work = f"{step.name}-{uuid.uuid4().hex}", (self._topic, step, self._out, self._prints[step.name])
        run = (tasks.do, tasks.versions(), _tell_and_perform, *work)
        future = self._client.submit(*run, key=key, pure=False, resources=self._resources)
        self._steps[future] = step
        self._ended.add(future)

    def room(self, running: int) -> bool:
        return True

    def next(self) -> tuple[str, str | None]:
        future = next(self._ended)
        step = self._steps.pop(future)
        try:
            return step.name, future.result()
        except tasks.Stranger:
            raise
        except Exception as error:  # the workers that tried it have died
            return step.name, blame(step, self._out, error)


def _tell_and_perform(topic: str, step: Step, out: Path, fingerprint: str) -> str | None:
    """Do one step on a worker, after telling whoever shows it that it begins."""
    import dask
    from distributed import get_worker

    get_worker().log_event(topic, step.name)
    with dask.config.set(scheduler="threads"):  # on the cluster, a step that waits would let another begin beside it
        return perform(step, out, fingerprint)


class Shown:
    """A bar of all steps, and below it a line for each that runs, with the time since it began."""

    def __init__(self, total: int, done: int, *, shown: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=telling.console(), disable=not shown)
        self._all = self._progress.add_task("steps", total=total, completed=done, note="")
        self._lines: dict[str, Any] = {}

    def begin(self, name: str) -> None:
        self._forget(name)  # another worker tries it again
        self._lines[name] = self._progress.add_task(f"  {name}", total=None, note="")

    def end(self, name: str, failed: int) -> None:
        self._forget(name)
        self._progress.update(self._all, advance=1, note=f"[red]{failed} failed[/red]" if failed else "")

    def _forget(self, name: str) -> None:
        if name in self._lines:
            self._progress.remove_task(self._lines.pop(name))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
