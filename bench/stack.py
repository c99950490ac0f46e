"""The local cloud and Prefect for the bench alone, with state of their own.

Exists so that a bench begins with nothing built or pushed, and leaves nothing behind. It never
touches a local cloud or a Prefect that somebody else has started.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from adapters.aws.session import Cloud
from bench.images import forget_builds
from lab.errors import LabError, PermanentError
from lab.report.critical_path import critical_path, tool_seconds
from lab.report.model import LabReport, read_report
from lab.settings import Settings, read_settings
from lab.waiting import wait_for
from workstation import localcloud, prefect, prefect_api
from workstation.deployer import ensure_deployer, root_session
from workstation.setup import set_up, take_down
from workstation.targets import LOCAL_CREDENTIALS, environment_of

Log = Callable[[str], None]

IDLE_SECONDS = 120.0


@dataclass(frozen=True)
class FlowRun:
    """A run of a flow that completed: its whole time, and its times by Prefect's clock."""

    seconds: float
    scheduled_at: datetime
    first_task_at: datetime
    ended_at: datetime
    report: LabReport | None

    @property
    def until_first_task(self) -> float:
        """Seconds from when the run was due to its first task."""
        return (self.first_task_at - self.scheduled_at).total_seconds()

    @property
    def overhead_percent(self) -> float:
        """The share of the time after the first task's beginning that no tool accounts for."""
        assert self.report is not None
        whole = (self.ended_at - self.first_task_at).total_seconds()
        return 100 * (whole - tool_seconds(critical_path(self.report.stages))) / whole


class Stack:
    """A local cloud and a Prefect that answer, used as a user would use them."""

    def __init__(self, home: Path, log: Log) -> None:
        self._home, self._log = home, log
        # The reference is not one of the project's labs: the deployer may not make it.
        self.cloud = Cloud(root_session())

    @property
    def settings(self) -> Settings:
        """The settings of a flow on the local cloud."""
        return read_settings()

    @property
    def home(self) -> Path:
        """Where the bench keeps everything except results."""
        return self._home

    def up(self, lab: str, **spec: Any) -> FlowRun:
        """Bring ``lab`` up through Prefect; on return every model has answered."""
        return self.up_at_once([lab], **spec)[1][0]

    def up_at_once(self, labs: list[str], **spec: Any) -> tuple[float, list[FlowRun]]:
        """Ask for all of ``labs`` at one moment; the seconds until the last is up, and the runs."""
        parameters = [{"lab": lab, "ttl": "2h", **spec} for lab in labs]
        return self._run("lab-up/local", parameters, labs)

    def rebuild(self, lab: str, **spec: Any) -> FlowRun:
        """Destroy the lab and bring it up again, through Prefect."""
        parameters = [{"lab": lab, "ttl": "2h", **spec}]
        return self._run("lab-rebuild/local", parameters, [lab])[1][0]

    def down(self, lab: str) -> FlowRun:
        """Destroy the lab, through Prefect."""
        return self.down_at_once([lab])[1][0]

    def down_at_once(self, labs: list[str]) -> tuple[float, list[FlowRun]]:
        """Destroy all of ``labs`` at once; the seconds until the last is gone, and the runs."""
        return self._run("lab-down/local", [{"lab": lab} for lab in labs], labs)

    def start_over(self) -> None:
        """On return the cloud is new and empty, and the engine has no image that was built here.

        Wheels and base image stay: a first up finds them on the machine, for both sides.
        """
        self.await_idle()
        localcloud.stop_local_cloud(self._home, self._log, forget=True)
        for name in ("terraform", "labs", "seed"):
            shutil.rmtree(self._home / name, ignore_errors=True)
        forget_builds(self._log)
        localcloud.start_local_cloud(self._home, self._log)
        ensure_deployer(self._log)

    def await_idle(self) -> None:
        """On return no run is under way."""
        with prefect_api.Api() as api:
            wait_for(
                "the end of the runs under way",
                lambda: None if api.running() else True,
                deadline=IDLE_SECONDS,
            )

    def _run(
        self, deployment: str, parameters: list[dict[str, Any]], labs: list[str]
    ) -> tuple[float, list[FlowRun]]:
        self.await_idle()
        with prefect_api.Api() as api:
            began = time.monotonic()
            ids = [
                api.start_run(deployment, values, [f"lab:{lab}"])
                for values, lab in zip(parameters, labs, strict=True)
            ]
            ended: dict[str, tuple[float, dict[str, Any]]] = {}

            def all_ended() -> bool | None:
                for run_id in ids:
                    if run_id not in ended and (run := _final(api, run_id)):
                        ended[run_id] = (time.monotonic() - began, run)
                return True if len(ended) == len(ids) else None

            wait_for(deployment, all_ended, deadline=1200.0, first_pause=0.2, longest_pause=0.2)
            runs = [
                _flow_run(api, *ended[run_id], self._home / "labs" / lab)
                for run_id, lab in zip(ids, labs, strict=True)
            ]
        return max(seconds for seconds, _ in ended.values()), runs


def _final(api: prefect_api.Api, run_id: str) -> dict[str, Any] | None:
    run = api.run(run_id)
    if run["state_type"] not in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}:
        return None
    if run["state_type"] != "COMPLETED":
        raise PermanentError(f"{run['name']} ended as {run['state_name']}: {run['state']}")
    return run


def _flow_run(api: prefect_api.Api, seconds: float, run: dict[str, Any], folder: Path) -> FlowRun:
    tasks = [task for task in api.task_runs(run["id"]) if task.get("start_time")]
    return FlowRun(
        seconds=seconds,
        scheduled_at=datetime.fromisoformat(run["expected_start_time"]),
        first_task_at=datetime.fromisoformat(tasks[0]["start_time"]),
        ended_at=datetime.fromisoformat(run["end_time"]),
        report=read_report(folder),
    )


@contextmanager
def own_stack(home: Path, log: Log) -> Iterator[Stack]:
    """A stack in ``home`` within the block, and nothing of it afterwards.

    The guards are switched off: a reaper that starts would be measured too, by chance. Raises
    PermanentError if a local cloud or a Prefect of somebody else's runs.
    """
    with _home_is(home):
        _end_leftovers(home, log)
        check_alone()
        try:
            set_up("local", log)
            with prefect_api.Api() as api:
                for guard in ("lab-reap/local", "lab-watch/local"):
                    for schedule in api.schedules(guard):
                        api.set_schedule(guard, schedule["id"], {"active": False})
            with environment_of("local", LOCAL_CREDENTIALS):
                yield Stack(home, log)
        finally:
            _cancel_runs(log)
            take_down(log)


def _cancel_runs(log: Log) -> None:
    """Let runs that are under way end in good order; a bench that ends by itself has none."""
    try:
        with prefect_api.Api() as api:
            for run in api.runs(states=["RUNNING", "PENDING"]):
                log(f"Cancelling {run['name']}")
                api.cancel(run["id"])
            wait_for(
                "the end of the runs under way",
                lambda: None if api.running() else True,
                deadline=IDLE_SECONDS,
            )
    except LabError as error:
        log(f"Runs under way are left to end by themselves: {error.message}")


def check_alone() -> None:
    """Raise PermanentError if a local cloud or a Prefect answers: the bench needs both alone."""
    found = []
    if localcloud.is_answering():
        found.append(f"a local cloud at {localcloud.ENDPOINT_URL}")
    if _prefect_answers():
        found.append(f"a Prefect server at {prefect_api.ui_url()}")
    if found:
        raise PermanentError(
            f"{' and '.join(found)} already runs; the bench needs these ports for its own, and "
            "touches nobody's labs",
            "When its labs are no longer needed: make down. Then make bench again.",
        )


def _prefect_answers() -> bool:
    try:
        return httpx.get(f"{prefect_api.api_url()}/health", timeout=5.0).is_success
    except httpx.HTTPError:
        return False


def _end_leftovers(home: Path, log: Log) -> None:
    """End what a bench that was killed has left in ``home``, and nothing else."""
    prefect.stop(log)
    client = localcloud.connect()
    try:
        for container in client.containers.list(filters={"name": localcloud.CONTAINER}):
            settings = json.loads(container.labels.get(localcloud.SETTINGS_LABEL, "{}"))
            if settings.get("state") == str((home / "localcloud").resolve()):
                localcloud.stop_local_cloud(home, log, forget=True)
    finally:
        client.close()


@contextmanager
def _home_is(home: Path) -> Iterator[None]:
    before = os.environ.get("LAB_HOME")
    os.environ["LAB_HOME"] = str(home)
    try:
        yield
    finally:
        if before is None:
            del os.environ["LAB_HOME"]
        else:
            os.environ["LAB_HOME"] = before
