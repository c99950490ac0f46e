"""Prefect on this machine: server, worker and deployments, started, found again and stopped.

Talks to the server through its REST API, since importing Prefect costs seconds. Nothing is shared
with a Prefect that the user may have: profile, database and port are the project's own.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from lab.certificate import make_certificate
from lab.durations import now
from lab.errors import DeadlineError, InvalidInputError, PermanentError, TransientError
from lab.report.model import write_whole
from lab.settings import ROOT
from lab.waiting import wait_for
from workstation.daemons import Daemon
from workstation.targets import lab_home, template_values

Log = Callable[[str], None]

WORK_POOL = "gateway-lab"
SERVER_SECONDS = 180.0
WORKER_SECONDS = 120.0
BUSY_SECONDS = 60.0
_BUSY = {429, 503}
_PREFECT = (sys.executable, "-m", "prefect")
_SERVER = (sys.executable, "-m", "runner.server")
_FORKSERVER = (sys.executable, "-m", "runner.forkserver")
# The server, which all runs and everybody else ask, comes before what it serves.
_BEHIND = ("nice", "-n", "5")
_OF_PROCESSES = ("--type", "process")
_FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def port() -> int:
    """The server's port: LAB_PREFECT_PORT or 4200."""
    text = os.environ.get("LAB_PREFECT_PORT", "4200")
    if not text.isdigit() or not 1024 <= int(text) <= 65535:
        raise InvalidInputError(
            f"LAB_PREFECT_PORT {text!r} is not a port; allowed are 1024 to 65535",
            "Give a free port, or unset LAB_PREFECT_PORT.",
        )
    return int(text)


def ui_url() -> str:
    """Where a person looks."""
    return f"http://127.0.0.1:{port()}"


def api_url() -> str:
    """Where programs ask."""
    return f"{ui_url()}/api"


def prefect_environment() -> dict[str, str]:
    """Ours, with what makes Prefect the project's own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return {
        **kept,
        **template_values(),
        "PREFECT_HOME": str(lab_home() / "prefect"),
        "PREFECT_API_URL": api_url(),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        # In memory, a server's end would leave the slots of its runs taken for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
        "PREFECT_API_SSL_CERT_FILE": str(_authority_of_nothing()),
        # A lab is waited for: the default of ten seconds would be its longest stage.
        "PREFECT_WORKER_QUERY_SECONDS": "0.5",
        "PYTHONPATH": str(ROOT),
    }


def _authority_of_nothing() -> Path:
    """A file with an authority that has signed nothing and whose key nobody has.

    The project's server speaks HTTP on this machine. All the same each of Prefect's clients, a
    dozen in a run, reads whom it would trust: 30 milliseconds for the public authorities.
    """
    path = lab_home() / "prefect" / "trusts-nobody.pem"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        at = now()
        write_whole(path, make_certificate("nobody.internal", at, at).trust.ca)
    return path


def start_server(log: Log) -> None:
    """On return the project's server answers. One that answers already is left alone."""
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
    stamp = lab_home() / "prefect" / "registered"
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
    (lab_home() / "prefect" / "register.log").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        raise PermanentError(
            f"the deployments could not be registered:\n{(done.stdout + done.stderr)[-3000:]}",
            "Correct prefect.yaml and run the command again.",
        )
    stamp.write_text(identity)


def start_worker(log: Log, target: str = "local") -> None:
    """On return a worker of the project, started in this environment, polls the work pool.

    Flows act in their worker's environment. One that was started with other LAB_ values is
    replaced, and for any target but the local cloud, whose credentials stand in a block, also one
    with other credentials. Raises PermanentError if it has a run under way that does not end soon.
    """
    worker = _worker()
    stamp = lab_home() / "prefect" / "worker.environment"
    identity = _worker_identity()
    _end_dead_runs(log)
    known = stamp.read_text().split() if stamp.exists() else []
    same = known == identity if target != "local" else known[:1] == identity[:1]
    if worker.pid() is not None and not same:
        log("The environment has changed since the worker was started: starting it anew")
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
    """Give to the next worker what the last one had taken, and ended before it began."""
    with Api() as api:
        for run in api.runs(states=["PENDING"]):
            log(f"Scheduling the run {run['name']} again: its worker ended before it began")
            api.schedule_again(run["id"])


def _end_dead_runs(log: Log) -> None:
    """Tell the server of runs whose processes have gone, with their worker or their machine.

    It would take them for running for ever. A run that no deployment made is somebody else's.
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
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            # Gone meanwhile, or another user's, who cannot be this worker's.
            continue
        if wanted in told:
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


def why(run: dict[str, Any]) -> str:
    """What the run's state says of itself; its name where it says nothing."""
    return str((run.get("state") or {}).get("message") or run["state_name"])


class Api:
    """The few questions that the workstation asks the server. Close it, or use it in a `with`."""

    def __init__(self) -> None:
        self._client = httpx.Client(base_url=api_url(), timeout=30.0)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON, ``None`` for what is not there. Waits while the server is busy."""

        def answer() -> httpx.Response | None:
            try:
                found = self._client.request(method, path, json=body)
            except httpx.ReadTimeout:
                # Many runs that begin at once keep it busy. Nothing here does harm if asked twice.
                return None
            except httpx.HTTPError as error:
                raise TransientError(
                    f"the Prefect server does not answer: {error}", "See `make demo`."
                ) from error
            # With SQLite it says so whenever another writer is faster.
            return None if found.status_code in _BUSY else found

        response = wait_for("the Prefect server's answer", answer, deadline=BUSY_SECONDS)
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        if response.status_code in {409, 422}:
            raise InvalidInputError(f"Prefect refuses: {response.text[:1000]}")
        if response.is_error:
            raise TransientError(f"the Prefect server answered {response.status_code} to {path}")
        return response.json() if response.content else None

    def deployment(self, name: str) -> dict[str, Any] | None:
        """The deployment ``flow/name``, or ``None``."""
        found: dict[str, Any] | None = self._ask("GET", f"/deployments/name/{name}")
        return found

    def workers_online(self, pool: str) -> bool:
        """Whether a worker of ``pool`` has just been heard."""
        found = self._ask("POST", f"/work_pools/{pool}/workers/filter", {"limit": 50}) or []
        return any(worker.get("status") == "ONLINE" for worker in found)

    def running(self) -> list[str]:
        """The names of the runs under way."""
        return [r["name"] for r in self.runs(states=["RUNNING", "PENDING", "CANCELLING"])]

    def start_run(self, deployment: str, parameters: dict[str, Any], tags: list[str]) -> str:
        """Create a run of ``deployment`` to start now; return its ID."""
        found = self.deployment(deployment)
        if found is None:
            raise PermanentError(f"there is no deployment {deployment}", "Run `make demo`.")
        body = {
            "parameters": parameters,
            "tags": tags,
            "state": {"type": "SCHEDULED"},
            # A call that is repeated because the server was busy makes no second run.
            "idempotency_key": str(uuid4()),
        }
        return str(self._ask("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """The flow run; PermanentError if it is gone."""
        found: dict[str, Any] | None = self._ask("GET", f"/flow_runs/{run_id}")
        if found is None:
            raise PermanentError(f"the run {run_id} is gone", "It was deleted in Prefect.")
        return found

    def task_runs(self, run_id: str) -> list[dict[str, Any]]:
        """The run's task runs, oldest first."""
        body = {"flow_runs": {"id": {"any_": [run_id]}}, "limit": 200}
        found: list[dict[str, Any]] = self._ask("POST", "/task_runs/filter", body) or []
        return sorted(found, key=lambda t: t.get("start_time") or t["created"])

    def logs(self, run_id: str, offset: int) -> list[dict[str, Any]]:
        """The run's log lines from ``offset`` on, oldest first."""
        body = {
            "logs": {"flow_run_id": {"any_": [run_id]}},
            "sort": "TIMESTAMP_ASC",
            "offset": offset,
            "limit": 200,
        }
        found: list[dict[str, Any]] = self._ask("POST", "/logs/filter", body) or []
        return found

    def schedules(self, deployment: str) -> list[dict[str, Any]]:
        """The schedules of ``deployment``."""
        found = self.deployment(deployment)
        return list(found["schedules"]) if found else []

    def set_schedule(self, deployment: str, schedule: str, change: dict[str, Any]) -> None:
        """Change one schedule of ``deployment``: ``active``, or ``schedule`` itself.

        On return the runs that follow from it are scheduled. The server's own scheduler looks for
        a changed schedule once a minute only, and by then its first time may have passed.
        """
        found = self.deployment(deployment)
        if found is None:
            raise PermanentError(f"there is no deployment {deployment}", "Run `make demo`.")
        self._ask("PATCH", f"/deployments/{found['id']}/schedules/{schedule}", change)
        # Says nothing where no schedule is active.
        self._ask("POST", f"/deployments/{found['id']}/schedule", {})

    def runs(self, *, tags: list[str] | None = None, states: list[str] | None = None) -> Any:
        """Flow runs that carry all ``tags`` and are in one of ``states``, newest first."""
        wanted: dict[str, Any] = {}
        if tags:
            wanted["tags"] = {"all_": tags}
        if states:
            wanted["state"] = {"type": {"any_": states}}
        body = {"flow_runs": wanted, "sort": "EXPECTED_START_TIME_DESC", "limit": 200}
        return self._ask("POST", "/flow_runs/filter", body) or []

    def artifact(self, key: str) -> dict[str, Any] | None:
        """The newest artifact under ``key``."""
        found: dict[str, Any] | None = self._ask("GET", f"/artifacts/{key}/latest")
        return found

    def cancel(self, run_id: str) -> None:
        """Ask for the run's cancellation; the worker ends it."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self._ask("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": False})

    def end(self, run: dict[str, Any]) -> None:
        """Give a run that nobody runs any more its end: cancelled if that was asked, else crashed.

        What waits for a crash, such as the automation after a failed up, hears of it.
        """
        asked = run["state_type"] == "CANCELLING"
        state = {
            "type": "CANCELLED" if asked else "CRASHED",
            "message": "Its process has gone.",
        }
        self._ask("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})

    def schedule_again(self, run_id: str) -> None:
        """Let the next worker take the run, now."""
        state = {
            "type": "SCHEDULED",
            "message": "Its worker ended before it began.",
            "state_details": {"scheduled_time": datetime.now(UTC).isoformat()},
        }
        self._ask("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})

    def final_states(self, run_id: str, every: float = 0.5) -> Iterator[dict[str, Any]]:
        """The run, again and again, until (and with) its final state."""
        while True:
            run = self.run(run_id)
            yield run
            if run["state_type"] in _FINAL:
                return
            time.sleep(every)


def _server() -> Daemon:
    return Daemon("prefect-server", lab_home() / "prefect")


def _worker() -> Daemon:
    return Daemon("prefect-worker", lab_home() / "prefect")


def _forkserver() -> Daemon:
    return Daemon("prefect-forkserver", lab_home() / "prefect")


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
    """Hashes, since credentials may be among them, of the variables that a flow acts by."""
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
