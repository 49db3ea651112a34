"""What hands out machines, really started on loopback, for tests: SLURM of one node, sshd, Dask Gateway.

Each has its own configuration, keys, ports and state in a folder, is waited for until it answers, and ends with its
block. What the system lacks is a skip that says so; ``make cluster-tools`` installs it on Debian.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import servers

ROOT = Path(__file__).parents[1]
SECONDS = 60.0
"""How long a daemon may take to answer."""

Environment = dict[str, str]
"""What a process has to be told to use a scheduler."""


def found(package: str, *commands: str) -> list[str]:
    """Give the paths of commands, or skip; daemons lie where PATH of a user may not look."""
    paths = [shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for command in commands]
    if None in paths:
        pytest.skip(f"no {', '.join(commands)}: install Debian's {package}, as `make cluster-tools` does")
    return [str(path) for path in paths]


@contextmanager
def running(command: list[str], log: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stays in the foreground, and all that it starts."""
    with open(log, "wb") as told:
        process = subprocess.Popen(command, stdout=told, stderr=told, start_new_session=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait(answers: Callable[[], bool], *logs: Path) -> None:
    """Wait until something answers, or fail with what was logged."""
    until = time.monotonic() + SECONDS
    while not answers():
        assert time.monotonic() < until, "\n".join(log.read_text()[-3000:] for log in logs)
        time.sleep(0.1)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with a short path, as that of a socket may have 108 characters, which other users may enter."""
    made = Path(tempfile.mkdtemp(prefix="lsdask-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


# SLURM

SLURM = """
ClusterName=lsdask
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# A container has no cgroups to hold jobs in
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=1
# What jobs ask for, whatever this machine has
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm() -> Iterator[Environment]:
    """A SLURM of one node, this machine, of four processors."""
    daemons = found("slurm-wlm and munge", "munged", "slurmctld", "slurmd", "sinfo", "sbatch")
    munged, slurmctld, slurmd, sinfo, _ = daemons
    with folder() as place, ExitStack() as stack:
        key, config = place / "munge.key", place / "slurm.conf"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        for name in ("state", "spool"):
            (place / name).mkdir()
        ports = [servers.free_port(), servers.free_port()]
        user, host = os.environ.get("USER") or Path.home().owner(), socket.gethostname().partition(".")[0]
        config.write_text(SLURM.format(host=host, ports=ports, user=user, folder=place))
        environment = {**os.environ, "SLURM_CONF": str(config)}

        files = {name: f"{place}/munge{end}" for name, end in MUNGE.items()}
        munge = [munged, "--foreground", "--force", *(f"--{name}={file}" for name, file in files.items())]
        stack.enter_context(running(munge, place / "munge.out"))
        wait(lambda: (place / "munge.socket").exists(), place / "munge.out")
        for daemon in (slurmctld, slurmd):
            log = place / f"{Path(daemon).name}.out"
            stack.enter_context(running([daemon, "-D"], log, env=environment))
        state = [sinfo, "--noheader", "--format=%T"]

        def idle() -> bool:
            return subprocess.run(state, env=environment, capture_output=True, text=True).stdout.strip() == "idle"

        wait(idle, place / "slurmctld.out", place / "slurmd.out")
        yield {"SLURM_CONF": str(config)}


MUNGE = {"key-file": ".key", "socket": ".socket", "pid-file": ".pid", "log-file": ".log", "seed-file": ".seed"}


# SSH

SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile {folder}/sshd.pid
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
StrictModes no
"""

SSH = """
Host localhost
    HostName 127.0.0.1
    Port {port}
    IdentityFile {folder}/user
    UserKnownHostsFile {folder}/known_hosts
"""


@contextmanager
def sshd() -> Iterator[Environment]:
    """A server that lets this user in by a key thrown away after; its HOME has the ~/.ssh/config that leads there."""
    daemon, keygen = found("openssh-server", "sshd", "ssh-keygen")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it gives up its rights; made by the service that is not run here
    with folder() as place:
        port = servers.free_port()
        for name in ("host", "user"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
        host = (place / "host.pub").read_text().rsplit(maxsplit=1)[0]
        (place / "known_hosts").write_text(f"[127.0.0.1]:{port} {host}\n[localhost]:{port} {host}\n")
        (place / ".ssh").mkdir(0o700)
        (place / ".ssh" / "config").write_text(SSH.format(port=port, folder=place))
        (place / "sshd_config").write_text(SSHD.format(port=port, folder=place))
        with running([daemon, "-D", "-e", "-f", str(place / "sshd_config")], place / "sshd.out"):
            wait(lambda: answers(port), place / "sshd.out")
            yield {"HOME": str(place)}


def answers(port: int) -> bool:
    """Say whether something listens on a port of this machine."""
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


# Dask Gateway


@contextmanager
def gateway() -> Iterator[Environment]:
    """A gateway with its local backend, as the example configures it."""
    config = ROOT / "examples" / "clusters" / "dask_gateway_config.py"
    with folder() as place:
        port = servers.free_port()
        command = [sys.executable, "-m", "dask_gateway_server", "--config", str(config)]
        with running([*command, f"--Proxy.address=127.0.0.1:{port}"], place / "out", cwd=place):
            servers.wait_for(f"http://127.0.0.1:{port}/api/health", seconds=SECONDS)
            yield {"DASK_GATEWAY__ADDRESS": f"http://127.0.0.1:{port}"}
