"""Prefect on this machine: starts, finds and stops its processes, and registers the deployments.

Talks to the server through its REST API, since importing Prefect takes seconds. Nothing is shared
with a Prefect that the user may have: profile, database and port are the project's own.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from lab.errors import DeadlineError, PermanentError
from lab.settings import ROOT
from lab.waiting import wait_for
from workstation.daemons import Daemon
from workstation.prefect_api import BUSY_SECONDS, Api, api_url, port, ui_url
from workstation.targets import state_home, template_values

Log = Callable[[str], None]

WORK_POOL = "gateway-lab"
SERVER_SECONDS = 180.0
WORKER_SECONDS = 120.0
_PREFECT = (sys.executable, "-m", "prefect")
_SERVER = (sys.executable, "-m", "runner.server")
_FORKSERVER = (sys.executable, "-m", "runner.forkserver")
# The server answers all runs and all people, so it has priority over worker and runs.
_BEHIND = ("nice", "-n", "5")
_OF_PROCESSES = ("--type", "process")


def prefect_environment() -> dict[str, str]:
    """The environment of this process, with what makes Prefect the project's own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return {
        **kept,
        **template_values(),
        "PREFECT_HOME": str(state_home() / "prefect"),
        "PREFECT_API_URL": api_url(),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        # In memory, the slots of runs would stay taken forever after the server's end.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
        # The project's server speaks HTTP on this machine. Without this each client of Prefect, a
        # dozen in a run, would read all public authorities, for 30 to 60 ms of processor time.
        "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "true",
        # People wait for a lab: the default of ten seconds would be its longest stage.
        "PREFECT_WORKER_QUERY_SECONDS": "0.5",
        "PYTHONPATH": str(ROOT),
    }


def start_server(log: Log) -> None:
    """On return the project's server answers. If it answers already, it is left alone."""
    server = _server()
    if server.pid() is None:
        _check_port_free()
        log(f"Starting the Prefect server at {ui_url()}")
        server.start(
            [*_SERVER, "--host", "127.0.0.1", "--port", str(port())],
            prefect_environment(),
        )

    def answers() -> bool | None:
        server.check_alive()
        return True if _healthy() else None

    wait_for("the Prefect server", answers, deadline=SERVER_SECONDS, log=log)


def register(log: Log) -> None:
    """On return the server has the deployments as the files say; unchanged files cost nothing."""
    stamp = state_home() / "prefect" / "registered"
    identity = _identity()
    with Api() as api:
        if stamp.exists() and stamp.read_text() == identity and api.deployment("lab-up/local"):
            return
    log("Registering the deployments")
    done = subprocess.run(
        [sys.executable, "-m", "deployments.register"],
        cwd=ROOT,
        env=prefect_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    (state_home() / "prefect" / "register.log").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        raise PermanentError(
            f"the deployments could not be registered:\n{(done.stdout + done.stderr)[-3000:]}",
            "Correct prefect.yaml and run the command again.",
        )
    stamp.write_text(identity)


def start_worker(log: Log, target: str = "local") -> None:
    """On return a worker of the project, started in this environment, polls the work pool.

    Flows act in their worker's environment. A worker that was started with other LAB_ values is
    replaced; so is one with other credentials, except for the local cloud, whose credentials are in
    a block. Raises PermanentError if the worker has a run under way that does not end soon.
    """
    worker = _worker()
    stamp = state_home() / "prefect" / "worker.environment"
    identity = _worker_identity()
    _end_dead_runs(log)
    known = stamp.read_text().split() if stamp.exists() else []
    same = known == identity if target != "local" else known[:1] == identity[:1]
    if worker.pid() is not None and not same:
        log("The environment has changed since the worker was started: starting it again")
        _wait_idle(log)
        worker.stop(log)
    _forkserver().start([*_BEHIND, *_FORKSERVER], prefect_environment())
    if worker.pid() is None:
        log("Starting the worker")
        _schedule_unbegun_again(log)
        worker.start(
            [*_BEHIND, *_PREFECT, "worker", "start", "--pool", WORK_POOL, *_OF_PROCESSES],
            prefect_environment(),
        )
        stamp.write_text(" ".join(identity))

    def polls() -> bool | None:
        worker.check_alive()
        with Api() as api:
            return True if api.workers_online(WORK_POOL) else None

    wait_for("the worker", polls, deadline=WORKER_SECONDS, log=log)


def _schedule_unbegun_again(log: Log) -> None:
    """Give the next worker the runs that the last one had taken but not begun when it ended."""
    with Api() as api:
        for run in api.runs(states=["PENDING"]):
            log(f"Scheduling the run {run['name']} again: its worker ended before it began")
            api.schedule_again(run["id"])


def _end_dead_runs(log: Log) -> None:
    """Report to the server the runs whose processes have gone, with their worker or their machine.

    Otherwise it would show them as running forever. A run without a deployment is somebody else's.
    """
    with Api() as api:
        for run in api.runs(states=["RUNNING", "CANCELLING"]):
            if run.get("deployment_id") and not _has_process(run["id"]):
                log(f"The run {run['name']} has no process any more")
                api.end(run)


def _has_process(run_id: str) -> bool:
    """Whether a process of this machine runs the flow run."""
    wanted = run_id.encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            # It has ended meanwhile, or is another user's and so not this worker's.
            continue
        if wanted in known:
            return True
    return False


def _wait_idle(log: Log) -> None:
    with Api() as api:
        try:
            wait_for(
                "the end of the runs under way",
                lambda: None if api.running() else True,
                deadline=BUSY_SECONDS,
                log=log,
            )
        except DeadlineError as error:
            raise PermanentError(
                f"the worker was started in another environment and still runs "
                f"{', '.join(api.running())}",
                "Wait for these runs to end, or cancel them, and run the command again.",
            ) from error


def stop(log: Log) -> None:
    """On return neither worker nor server of the project runs. Safe when none does."""
    stop_worker(log)
    stop_server(log)


def stop_worker(log: Log) -> None:
    """On return the project's worker is gone; runs are picked up when one is started again."""
    _worker().stop(log)
    _forkserver().stop(log)


def stop_server(log: Log) -> None:
    """On return the project's server is gone; its database stays."""
    _server().stop(log)


def is_running() -> bool:
    """Whether the project's server runs and answers."""
    return _server().pid() is not None and _healthy()


def _server() -> Daemon:
    return Daemon("prefect-server", state_home() / "prefect")


def _worker() -> Daemon:
    return Daemon("prefect-worker", state_home() / "prefect")


def _forkserver() -> Daemon:
    return Daemon("prefect-forkserver", state_home() / "prefect")


def _healthy() -> bool:
    try:
        return httpx.get(f"{api_url()}/health", timeout=5.0).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _check_port_free() -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port()))
        except OSError as error:
            raise PermanentError(
                f"port {port()} of 127.0.0.1 is in use by another program",
                "End that program, or choose a port: LAB_PREFECT_PORT=4201 make demo",
            ) from error


def _worker_identity() -> list[str]:
    """Hashes of the variables that a flow acts by, since credentials may be among them."""
    return [
        hashlib.sha256(
            repr(sorted((k, v) for k, v in os.environ.items() if k.startswith(prefix))).encode()
        ).hexdigest()
        for prefix in ("LAB_", "AWS_")
    ]


def _identity() -> str:
    """A hash of everything that a registration reads: the file and every flow's signature."""
    whole = hashlib.sha256(repr(sorted(template_values().items())).encode())
    files = [ROOT / "prefect.yaml", *sorted(Path(ROOT).glob("flows/*.py"))]
    files += [*sorted(Path(ROOT).glob("deployments/*.py")), ROOT / "lab" / "spec.py"]
    for path in files:
        whole.update(path.read_bytes())
    return whole.hexdigest()
