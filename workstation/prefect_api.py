"""What the workstation asks Prefect's server, through its REST API.

Importing Prefect takes seconds, so this module does not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx

from lab.errors import InvalidInputError, PermanentError, TransientError
from lab.waiting import wait_for

BUSY_SECONDS = 60.0


_BUSY = {429, 503}


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
    """The URL of Prefect's UI."""
    return f"http://127.0.0.1:{port()}"


def api_url() -> str:
    """The URL of Prefect's API."""
    return f"{ui_url()}/api"


def why(run: dict[str, Any]) -> str:
    """The message of the run's state, or the state's name if there is no message."""
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
        """The answer's JSON, ``None`` if nothing is there. Waits while the server is busy."""

        def answer() -> httpx.Response | None:
            try:
                found = self._client.request(method, path, json=body)
            except httpx.ReadTimeout:
                # Many runs that begin at once keep it busy. Any request here may be made twice.
                return None
            except httpx.HTTPError as error:
                raise TransientError(
                    f"the Prefect server does not answer: {error}", "See `make demo`."
                ) from error
            # With SQLite it answers that it is busy whenever another writer is faster.
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
        """Whether a worker of ``pool`` has reported just now."""
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

        On return the runs of the schedule are scheduled. The server's own scheduler looks for a
        changed schedule only once a minute, and by then its first time may have passed.
        """
        found = self.deployment(deployment)
        if found is None:
            raise PermanentError(f"there is no deployment {deployment}", "Run `make demo`.")
        self._ask("PATCH", f"/deployments/{found['id']}/schedules/{schedule}", change)
        # Schedules nothing if no schedule is active.
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
        """End a run that has no process any more: as cancelled if that was asked, else as crashed.

        This triggers what waits for a crash, such as the automation after a failed up.
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
        """Read the run again and again, up to and including its final state."""
        while True:
            run = self.run(run_id)
            yield run
            if run["state_type"] in _FINAL:
                return
            time.sleep(every)
