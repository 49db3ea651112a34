"""Experiments: each step once, what others need first, faults that lose nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import steps as work

from lsdask.errors import BadInput, NotFound, OtherPlan, Unfinished
from lsdask.recipes import grid, pools
from lsdask.recipes.steps import Step, fingerprints, in_order, record


def experiment(log, *, number=2):
    """Two preparations and three runs, given in the wrong order."""
    return [
        Step("runs/a", work.add, {"plus": 1, "log": str(log)}, {"one": "shared/one"}),
        Step("runs/b", work.add, {"plus": 1, "log": str(log)}, {"one": "shared/one", "two": "shared/two"}),
        Step("shared/one", work.count, {"number": number, "log": str(log)}),
        Step("shared/two", work.count, {"number": 30, "log": str(log)}),
        Step("runs/c", work.add, {"plus": 5, "log": str(log)}),
    ]


def logged(log):
    return sorted(log.read_text().split())


def test_each_step_is_done_once_and_runs_become_a_table(tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    report = grid.run(experiment(log), out, progress=False).check()
    assert (report.steps, report.done, report.skipped) == (5, 5, 0)
    assert logged(log) == ["a.partial", "b.partial", "c.partial", "one.partial", "two.partial"]
    table = grid.results(experiment(log), out)
    assert table[["name", "plus", "total"]].values.tolist() == [["runs/a", 1, 3], ["runs/b", 1, 33], ["runs/c", 5, 5]]
    assert not list(out.rglob("*.partial"))
    again = grid.run(experiment(log), out, progress=False)
    assert (again.done, again.skipped) == (0, 5)
    assert len(logged(log)) == 5


def test_only_does_what_fits_and_what_that_needs(tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    grid.run(experiment(log), out, only="runs/a", progress=False).check()
    assert logged(log) == ["a.partial", "one.partial"]
    states = grid.status(experiment(log), out).set_index("name")["state"]
    assert states.to_dict() == {
        "runs/a": "done",
        "runs/b": "waiting",
        "shared/one": "done",
        "shared/two": "waiting",
        "runs/c": "waiting",
    }
    with pytest.raises(BadInput, match="only must fit the name of a step"):
        grid.run(experiment(log), out, only=["nothing*"], progress=False)


def test_another_spec_is_refused_before_anything_is_done(tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    grid.run(experiment(log), out, only="shared/*", progress=False)
    with pytest.raises(OtherPlan, match=r"shared/one holds another step \(number: 2 -> 3\)"):
        grid.run(experiment(log, number=3), out, progress=False)
    assert logged(log) == ["one.partial", "two.partial"]


def test_a_changed_preparation_makes_other_runs_of_what_needs_it(tmp_path):
    first, second = (fingerprints(experiment(tmp_path, number=n)) for n in (2, 3))
    differs = {name for name in first if first[name] != second[name]}
    assert differs == {"shared/one", "runs/a", "runs/b"}


def test_a_failed_step_stops_only_what_needs_it_and_is_done_on_demand(tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    steps = [
        *experiment(log),
        Step("shared/bad", work.fail_once, {"flag": str(tmp_path / "flag")}),
        Step("runs/d", work.add, {"plus": 0, "log": str(log)}, {"bad": "shared/bad"}),
    ]
    report = grid.run(steps, out, progress=False)
    assert report.failed == {"shared/bad": "ValueError: the first time"}
    assert report.waiting == ("runs/d",)
    assert report.done == 5
    with pytest.raises(Unfinished, match=r"1 failed, 1 wait for them \(shared/bad: ValueError: the first time\)"):
        report.check()
    told = json.loads((out / "failed" / "shared--bad.json").read_text())
    assert "in fail_once" in told["traceback"]
    row = grid.status(steps, out).set_index("name").loc["shared/bad"]
    assert (row["state"], row["why"]) == ("failed", "ValueError: the first time")
    assert grid.run(steps, out, progress=False).failed == report.failed  # not tried again
    (tmp_path / "flag").with_name("number.txt").write_text("")
    retried = grid.run(steps, out, retry=True, only="shared/bad", progress=False)
    assert (retried.done, retried.failed) == (1, {})
    assert not (out / "failed" / "shared--bad.json").exists()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Step("a", work.count), Step("a", work.count)], "steps must each have a name of its own. Got two of a."),
        ([Step("a", work.count, {}, {"x": "b"})], "need other steps of the list, never in a circle. Got no step b."),
        (
            [Step("a", work.count, {}, {"x": "b"}), Step("b", work.count, {}, {"x": "a"})],
            "never in a circle. Got a circle in a.",
        ),
    ],
)
def test_steps_that_cannot_be_put_in_order(steps, message):
    with pytest.raises(BadInput, match=message):
        in_order(steps)


def test_a_spec_that_is_not_json():
    with pytest.raises(BadInput, match="spec of a must be JSON"):
        fingerprints([Step("a", work.count, {"x": {1, 2}})])


def test_what_is_not_finished_has_no_record(tmp_path):
    with pytest.raises(NotFound, match="name must name a finished step"):
        record(tmp_path, "runs/a")


RUN = """
import sys
sys.path.insert(0, {tests!r})
import steps as work
from lsdask.recipes import grid
from lsdask.recipes.steps import Step
steps = [Step("first", work.count, {{"log": {log!r}}}), Step("second", work.wait, {{"quick": {quick!r}}})]
grid.run(steps, {out!r}, progress=False).check()
"""


def test_kill_9_costs_what_was_in_flight_and_no_two_run_at_once(tmp_path):
    log, quick, out = tmp_path / "log", tmp_path / "quick", tmp_path / "out"
    tests = str(Path(__file__).parent)
    code = RUN.format(tests=tests, log=str(log), quick=str(quick), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code])
    steps = [Step("first", work.count, {"log": str(log)}), Step("second", work.wait, {"quick": str(quick)})]
    try:
        for _ in range(600):
            if (out / "second.partial" / "begun").exists():
                break
            time.sleep(0.1)
        with pytest.raises(OtherPlan, match="is being run by another process"):
            grid.run(steps, out, progress=False)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert grid.status(steps, out)["state"].tolist() == ["done", "begun"]
    quick.touch()
    report = grid.run(steps, out, progress=False).check()
    assert (report.done, report.skipped) == (1, 1)
    assert logged(log) == ["first.partial"]


@pytest.mark.cluster
def test_workers_do_the_steps_and_one_that_kills_its_workers_is_named(tmp_path):
    import dask
    from distributed import Client, LocalCluster

    log, out = tmp_path / "log", tmp_path / "out"
    steps = [*experiment(log), Step("runs/deadly", work.die)]
    tests = str(Path(__file__).parent)
    settings = {"distributed.scheduler.allowed-failures": 0, "distributed.worker.preload": []}
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.run(lambda: sys.path.insert(0, tests))
        report = grid.run(steps[:-1], out, client=client, progress=False).check()
        assert report.done == 5
        report = grid.run(steps, out, client=client, progress=False)
    assert list(report.failed) == ["runs/deadly"]
    assert "KilledWorker" in report.failed["runs/deadly"]
    assert grid.status(steps, out).set_index("name").loc["runs/deadly", "state"] == "failed"
    assert grid.results(steps, out)["total"].tolist() == [3, 33, 5]


def eight(log, seconds):
    """Two preparations, and eight runs that need them."""
    spec = {"log": str(log), "seconds": seconds}
    shared = [Step(f"shared/{name}", work.sleep, spec) for name in "ab"]
    return [*shared, *(Step(f"runs/{n}", work.sleep, spec, {"x": f"shared/{'ab'[n % 2]}"}) for n in range(8))]


ON_A_CLUSTER = """
import sys
sys.path.insert(0, {tests!r})
import test_recipes_grid as here
from distributed import Client, LocalCluster
from lsdask.recipes import grid
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.run(sys.path.insert, 0, {tests!r})
        grid.run(here.eight({log!r}, 0.4), {out!r}, client=client, progress=False).check()
"""


def finished(steps, out):
    states = grid.status(steps, out).set_index("name")["state"]
    return set(states.index[states == "done"])


@pytest.mark.cluster
def test_kill_9_of_a_whole_cluster_costs_the_steps_in_flight(tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    script = tmp_path / "script.py"
    script.write_text(ON_A_CLUSTER.format(tests=str(Path(__file__).parent), log=str(log), out=str(out)))
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    steps = eight(log, 0.4)
    try:
        for _ in range(900):
            if len(finished(steps, out)) >= 4:
                break
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # scheduler, nannies and workers at once
        process.wait()
    before = finished(steps, out)
    assert 4 <= len(before) < 10
    tries = logged(log)
    assert len(tries) - len(before) <= 2  # what was in flight on two workers
    report = grid.run(steps, out, progress=False).check()
    assert (report.skipped, report.done) == (len(before), 10 - len(before))
    again = logged(log)
    assert len(again) - len(tries) == 10 - len(before)
    assert all(again.count(f"{Path(name).name}.partial") == 1 for name in before)
    assert not list(out.rglob("*.partial"))


class Lines:
    """What is shown of a run: how many lines there were at most, and what ended. The third end costs a life."""

    victim = None

    def __init__(self, total, done, *, shown):
        self.now, self.most, self.ended = set(), 0, []
        Lines.last = self

    def begin(self, name):
        self.now.add(name)
        self.most = max(self.most, len(self.now))

    def end(self, name, failed):
        self.now.discard(name)
        self.ended.append(name)
        if len(self.ended) == 3:
            os.kill(Lines.victim, signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.mark.cluster
def test_kill_9_of_a_worker_costs_the_step_in_flight_and_only_what_runs_is_shown(tmp_path, monkeypatch):
    from distributed import Client, LocalCluster

    monkeypatch.setattr(grid, "Shown", Lines)
    log, out = tmp_path / "log", tmp_path / "out"
    steps = eight(log, 0.4)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.run(sys.path.insert, 0, str(Path(__file__).parent))
        Lines.victim = min(client.run(os.getpid).values())
        report = grid.run(steps, out, client=client, progress=False).check()
        assert Lines.victim not in client.run(os.getpid).values()
    assert report.done == 10
    assert len(logged(log)) <= 10 + 1
    by = [record(out, step.name)["result"]["pid"] for step in steps]
    assert by.count(Lines.victim) <= 3
    assert sorted(Lines.last.ended) == sorted(step.name for step in steps)
    assert 1 <= Lines.last.most < 8  # of eight that wait: those of two workers, and those whose end is not told yet


def test_a_line_for_each_step_that_runs():
    shown = pools.Shown(3, 1, shown=False)
    with shown:
        for name in ("runs/a", "runs/b", "runs/a"):  # another worker tries a again
            shown.begin(name)
        assert [task.description.strip() for task in shown._progress.tasks] == ["steps", "runs/b", "runs/a"]
        shown.end("runs/b", 0)
        shown.end("runs/a", 1)
        (bar,) = shown._progress.tasks
        assert (bar.completed, bar.total, bar.fields["note"]) == (3, 3, "[red]1 failed[/red]")


@pytest.mark.cluster
def test_a_worker_does_one_step_at_a_time_also_if_it_computes_with_dask(tmp_path):
    from distributed import Client, LocalCluster

    steps = [Step(f"runs/{number}", work.compute, {"number": number}) for number in range(5)]
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.run(sys.path.insert, 0, str(Path(__file__).parent))
        grid.run(steps, tmp_path / "out", client=client, progress=False).check()
    assert grid.results(steps, tmp_path / "out")["together"].tolist() == [1] * 5
