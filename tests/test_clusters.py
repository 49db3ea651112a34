"""lsdask where other programs hand out the machines: the same bits, and strange workers refused."""

import copy
import hashlib
import inspect
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import dask_jobqueue  # noqa: F401 - its configuration is there before any is set
import jsonschema
import pytest
import schedulers
import servers
import slowly
import yaml
from distributed import LocalCluster
from images import random_mosaic
from slowly import TILES

import lsdask as ls
from lsdask.cli import running
from lsdask.cli.running import client_of
from lsdask.errors import BadInput
from lsdask.tasks import workers

EXAMPLES = Path(__file__).parents[1] / "examples" / "clusters"


@contextmanager
def nothing() -> Iterator[schedulers.Environment]:
    yield {}


WHERE = {"local": nothing, "ssh": schedulers.sshd, "slurm": schedulers.slurm, "gateway": schedulers.gateway}


def command(*arguments: object, folder: Path, environment: schedulers.Environment) -> str:
    """Run a command as its user would; give what it printed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [str(argument) for argument in arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def digests(printed: str) -> dict[str, str]:
    lines = [line.split() for line in printed.splitlines() if line.endswith(".zarr")]
    return {store: digest for digest, store in lines}


ALONE = f"""
import sys; sys.path.insert(0, {str(EXAMPLES)!r})
from pathlib import Path
from work import work
for store, digest in work(None, Path(sys.argv[1])).items():
    print(digest, store)
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The same work without a cluster: its folder, and the checksums of its stores."""
    out = tmp_path_factory.mktemp("alone")
    return out, digests(command(sys.executable, "-c", ALONE, out, folder=out, environment={}))


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("name", WHERE)
def test_an_example_gives_the_bits_of_one_process(
    name: str, alone: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    with WHERE[name]() as environment:
        script = EXAMPLES / f"{name}.py"
        printed = command(sys.executable, script, "--out", tmp_path / "out", folder=tmp_path, environment=environment)
    assert set(alone[1]) == {"mosaic.zarr", "clusters.zarr", "scores.zarr"}
    assert digests(printed) == alone[1]


CONFIGURED = """
jobqueue:
  slurm:
    cores: 1
    processes: 1
    memory: 2GB
    log-directory: {folder}
lsdask:
  ssh:
    hosts: [localhost]
    worker_options:
      nthreads: 1
"""


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("name", WHERE)
def test_the_command_runs_there_too(name: str, alone: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, expected = alone
    out = tmp_path / "scores.zarr"
    (tmp_path / "dask.yaml").write_text(CONFIGURED.format(folder=tmp_path))
    given = [folder / "mosaic.zarr", folder / "model", out, "--tile", 256, "--precision", "float32"]
    with WHERE[name]() as environment:
        environment = {**environment, "DASK_CONFIG": str(tmp_path)}
        lsdask = [Path(sys.executable).with_name("lsdask"), "predict", *given, "--cluster", name, "--workers", 1]
        assert "4 of 4 tiles" in command(*lsdask, folder=tmp_path, environment=environment)
    pixels = ls.store.open(out).values.tobytes()
    assert hashlib.sha256(pixels).hexdigest() == expected["scores.zarr"]
    workers = {line["worker"] for line in ls.tasks.metrics(out)}
    assert len(workers) == 1
    assert not any(worker.startswith("lsdask_") for worker in workers)  # a thread of this process


@pytest.mark.cluster
@pytest.mark.slow
def test_a_job_that_ends_costs_what_was_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parents[1] / "tests"))  # of workers, for ``slowly``
    place = slowly.Place(tmp_path)
    place.prepare()

    def end() -> None:
        place.wait(10)
        subprocess.run(["scancel", "--name", "dask-worker"], check=True)

    job = {"cores": 1, "processes": 1, "memory": "2GB", "log-directory": str(tmp_path)}
    configured = {f"jobqueue.slurm.{name}": value for name, value in job.items()}
    with schedulers.slurm() as environment, dask.config.set(configured):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with dask.config.set({"jobqueue.slurm.queue": "nowhere"}):
            assert "Got sbatch: error: invalid partition specified: nowhere" in said(1, "slurm", None)
        with client_of(1, "slurm", None) as client:
            threading.Thread(target=end).start()
            report = place.run(client=client)
    assert report.failed == ()
    place.check()
    assert TILES <= place.begun() <= TILES + 2  # one was being computed, one was waiting
    assert len(list(tmp_path.glob("dask-worker-*.err"))) == 2  # a job's log; workers of both may have one name


def said(workers: int, cluster: Any, scheduler: str | None) -> str:
    """What is said where a command cannot run."""
    with pytest.raises(BadInput) as error, client_of(workers, cluster, scheduler):
        pytest.fail("it began")
    return str(error.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0, "slurm", "tcp://10.0.0.1:8786"), "scheduler must be the only place to run on. Got --scheduler and --cl"),
        ((2, None, "tcp://10.0.0.1:8786"), "scheduler must be the only place to run on. Got --scheduler and --workers"),
        ((0, "gateway", None), "workers must be at least 1 on a cluster. Got --cluster gateway without --workers."),
    ],
)  # fmt: skip
def test_where_a_command_runs_is_said_once(given: tuple[int, Any, str | None], expected: str) -> None:
    assert said(*given).startswith(expected)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "127.0.0.1:{port}", "nowhere", "http://127.0.0.1:80"])
def test_no_scheduler_at_the_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SECONDS", 1)
    address = address.format(port=servers.free_port())
    assert said(0, None, address) == (
        f"scheduler must be the address of a running Dask scheduler. Got {address}. "
        "It is what `dask scheduler` prints, such as tcp://10.0.0.1:8786."
    )


@pytest.mark.parametrize(
    ("cluster", "package"), [("ssh", "asyncssh"), ("slurm", "dask_jobqueue.slurm"), ("gateway", "dask_gateway")]
)
def test_a_package_that_is_not_there(cluster: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    expected = f"cluster must have its package here. Got {cluster} without {package}. Install it: pip install"
    assert said(1, cluster, None) == f"{expected} 'lsdask[clusters]'."


def test_no_slurm_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert said(1, "slurm", None) == (
        "cluster must be able to submit jobs. Got no sbatch here. "
        "Run it where sbatch is; Dask's configuration says what a job is, under jobqueue.slurm."
    )
    (tmp_path / "sbatch").touch(0o755)
    assert said(1, "slurm", None).startswith(
        "cluster must be able to submit jobs. Got You must specify how much cores and memory per job you want to use"
    )


def test_no_host_to_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    do = "Dask's configuration names them, under lsdask.ssh.hosts; users and keys are those of ~/.ssh/config."
    assert said(1, "ssh", None) == f"cluster must reach its hosts. Got no hosts. {do}"
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(f"Host localhost\n  HostName 127.0.0.1\n  Port {servers.free_port()}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with dask.config.set({"lsdask.ssh.hosts": ["localhost"]}):
        told = said(1, "ssh", None)
    assert told.startswith("cluster must reach its hosts. Got ")
    assert "Connect call failed" in told


def test_no_gateway_to_reach() -> None:
    do = "Dask's configuration says where it is, under gateway.address."
    told = said(1, "gateway", None)
    assert told.startswith("cluster must reach a Dask Gateway. Got No dask-gateway address provided")
    with dask.config.set({"gateway.address": f"http://127.0.0.1:{servers.free_port()}"}):
        told = said(1, "gateway", None)
    assert told.startswith("cluster must reach a Dask Gateway. Got Cannot connect to host 127.0.0.1")
    assert told.endswith(do)


# Templates: what cannot run here


MANIFEST = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text())


def containers() -> dict[str, dict[str, Any]]:
    return {part: MANIFEST["spec"][part]["spec"]["containers"][0] for part in ("worker", "scheduler")}


def test_the_manifest_starts_what_dask_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed.cli import dask_scheduler, dask_worker

    for part, command in (("worker", dask_worker.main), ("scheduler", dask_scheduler.main)):
        program, subcommand, *arguments = containers()[part]["args"]
        assert (program, subcommand) == ("dask", part)
        command.make_context(part, arguments)  # fails on an option that is not there
    assert {one["image"] for one in containers().values()} == {f"registry.example.org/lsdask:{ls.__version__}"}
    ports = {port["name"]: port["containerPort"] for port in containers()["scheduler"]["ports"]}
    service = MANIFEST["spec"]["scheduler"]["service"]
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports
    assert service["selector"]["dask.org/cluster-name"] == MANIFEST["metadata"]["name"]


def test_the_operator_takes_the_manifest() -> None:
    """As strictly as Kubernetes: the operator's own definition, in which nothing unknown is let through."""
    package = pytest.importorskip("dask_kubernetes", reason="no dask-kubernetes, which is no extra of lsdask")
    place = Path(package.__file__).parent / "operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"
    (version,) = yaml.safe_load(place.read_text())["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"] = closed(schema["properties"]["spec"])
    validator = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(MANIFEST)] == []
    wrong = copy.deepcopy(MANIFEST)
    wrong["spec"]["worker"]["spec"]["containers"][0]["imagine"] = "x"
    assert "'imagine' was unexpected" in next(validator.iter_errors(wrong)).message
    from dask_kubernetes.operator import KubeCluster, make_cluster_spec

    assert "custom_cluster_spec" in inspect.signature(KubeCluster.__init__).parameters
    made = make_cluster_spec(MANIFEST["metadata"]["name"])["spec"]["scheduler"]
    assert made["service"] == MANIFEST["spec"]["scheduler"]["service"]


def closed(schema: Any) -> Any:
    """A schema whose objects have the properties that it names and no other."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: closed(part) for name, part in schema.items()}
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "properties" not in schema
    return parts if free else {"additionalProperties": False, **parts}


@pytest.mark.cluster
def test_only_workers_with_a_gpu_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of dask-cuda as it stands, but for GPUs: a worker that says it has one, and one that does not."""
    asked: dict[str, Any] = {}

    def pretended(**options: Any) -> LocalCluster:
        asked.update(options)
        return LocalCluster(**options, processes=False, dashboard_address=":0", host="tcp://127.0.0.1")

    monkeypatch.setitem(sys.modules, "dask_cuda", SimpleNamespace(LocalCUDACluster=pretended))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    cluster = runpy.run_path(str(EXAMPLES / "gpus.py"))["cluster"]
    image = random_mosaic((2, 128, 128), chunks=32)
    with cluster(1) as client:
        other = [sys.executable, "-m", "distributed.cli.dask_worker", client.scheduler.address, "--no-dashboard"]
        with schedulers.running([*other, "--name", "without", "--no-nanny"], tmp_path / "log"):
            client.wait_for_workers(2, timeout=60)
            ls.mosaic.write(image, tmp_path / "mosaic.zarr", chunk=32, shard=32, client=client).check()
            assert {line["worker"] for line in ls.tasks.metrics(tmp_path / "mosaic.zarr")} == {"0"}
            with dask.annotate(resources={}):  # wherever there is room
                ls.mosaic.write(image, tmp_path / "any.zarr", chunk=32, shard=32, client=client).check()
    assert {line["worker"] for line in ls.tasks.metrics(tmp_path / "any.zarr")} == {"0", "without"}
    assert asked == {"n_workers": 1, "threads_per_worker": 4, "resources": {"GPU": 1}}


def test_every_example_is_run_or_a_template_and_on_the_page() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"work", "dask_gateway_config"}
    assert scripts == {*WHERE, "gpus", "on_kubernetes"}
    page = " ".join((EXAMPLES.parents[1] / "docs" / "clusters.md").read_text().split())
    assert [path.name for path in EXAMPLES.iterdir() if path.is_file() and f"clusters/{path.name}" not in page] == []
    with pytest.raises(BadInput) as error:
        workers.refuse({"worker tcp://10.0.0.7:40511": {"lsdask": "0.2.0"}})
    assert str(error.value) in page
