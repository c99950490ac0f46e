"""A new revision replaces the one that serves: started, awaited, or given up.

ECS's own state of the deployment decides; nothing here asks the gateway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from adapters.aws.service import LabService
from lab.errors import PermanentError
from lab.live import RunningTask
from lab.waiting import wait_for

if TYPE_CHECKING:
    from mypy_boto3_ecs.type_defs import DeploymentTypeDef, ServiceTypeDef, TaskTypeDef

Log = Callable[[str], None]

_UP_AGAIN = "Bring the lab up again."
_LOOK_AT_EVENTS = "Look at the service's events in the ECS console."


@dataclass(frozen=True)
class Rollout:
    """The rollout of a revision, the one that served before, and the tasks stopped before it."""

    service: LabService
    task_definition: str
    previous: str | None
    stopped_before: frozenset[str]
    #: Tasks that began before this must be replaced, also by the same revision.
    since: datetime | None = None

    def wait(self, *, deadline: float, log: Log) -> RunningTask:
        """Wait until the deployment is complete; return the task that serves.

        Raises PermanentError as soon as a task of it failed, with ECS's reason, the exit code and
        the container's last log lines, and DeadlineError after ``deadline`` seconds.
        """
        logged: set[str] = set()

        def check() -> RunningTask | None:
            current = self.service.describe()
            if current is None:
                raise PermanentError(f"the service {self.service.name} is gone", _UP_AGAIN)
            for event in reversed(current.get("events", [])[:5]):
                if event["id"] not in logged:
                    logged.add(event["id"])
                    log(f"ecs: {event['message']}")
            return self._serving(current)

        return wait_for(
            f"the rollout of {self.service.name}",
            check,
            deadline=deadline,
            log=log,
            longest_pause=2.0,
        )

    def _serving(self, current: ServiceTypeDef) -> RunningTask | None:
        """The task that serves once the deployment is complete, ``None`` until then."""
        deployment = _deployment_of(current, self.task_definition)
        self._raise_if_failed(deployment)
        if deployment is None:
            raise PermanentError(
                f"ECS no longer deploys {self.task_definition.rsplit('/', 1)[-1]}",
                "Another run may have changed the service; run the command again.",
            )
        if deployment.get("rolloutState") != "COMPLETED":
            return None
        if self.since and self.service.serves_from_before(self.since):
            # A rollback to the same revision looks like a rollout of it.
            raise PermanentError(
                f"ECS gave up the rollout of {self.service.name} and kept the task from before",
                _LOOK_AT_EVENTS,
            )
        return self.service.running_task(self.task_definition)

    def raise_if_failed(self) -> None:
        """Raise PermanentError if a task of the rollout failed since it began."""
        current = self.service.describe()
        self._raise_if_failed(_deployment_of(current, self.task_definition) if current else None)

    def _raise_if_failed(self, deployment: DeploymentTypeDef | None) -> None:
        failed = [
            task
            for task in self.service.tasks("STOPPED")
            if task["taskDefinitionArn"] == self.task_definition
            and task["taskArn"] not in self.stopped_before
            and _failed_by_itself(task)
        ]
        if failed:
            task = max(failed, key=lambda t: t["createdAt"])
            raise PermanentError(
                f"the new task failed: {_why_stopped(task)}"
                + self.service.last_words(task["taskArn"]),
                "The container's last words above say why it did not start.",
            )
        if deployment and deployment.get("rolloutState") == "FAILED":
            reason = deployment.get("rolloutStateReason", "without a reason")
            raise PermanentError(f"ECS gave up the rollout: {reason}", _LOOK_AT_EVENTS)

    def abandon(self) -> None:
        """End the crash loop of a failed rollout, if no task served before it.

        If a task did, nothing is done: ECS's circuit breaker goes back to its revision and keeps
        the task, and with it the address that callers have; another update would replace it.
        """
        if self.previous is None:
            self.service.stop()


def start_rollout(
    service: LabService,
    task_definition: str,
    *,
    since: datetime | None = None,
    image_digest: str | None = None,
) -> Rollout:
    """Point ``service`` at ``task_definition`` with one task, begun after ``since`` if given.

    A second call for a deployed revision starts nothing, unless its task runs another
    image than ``image_digest``: the tag was pushed again since. Raises PermanentError where there
    is no service.
    """
    before = service.describe()
    if before is None:
        raise PermanentError(f"the service {service.name} is gone", _UP_AGAIN)
    stopped = frozenset(t["taskArn"] for t in service.tasks("STOPPED"))
    running = service.running_task(task_definition) if image_digest else None
    other_image = running is not None and running.image_digest != image_digest
    another = (
        before["taskDefinition"] != task_definition or before["desiredCount"] != 1 or other_image
    )
    too_old = not another and _is_too_old(service, before, since)
    if another or too_old:
        # Neither scaling nor the same revision makes a deployment by itself. Without one there is
        # no state to wait for and no circuit breaker.
        force = before["desiredCount"] == 0 or too_old or other_image
        service.deploy(task_definition, force=force)
    served = [
        d["taskDefinition"]
        for d in before["deployments"]
        if d.get("rolloutState") == "COMPLETED" and d.get("runningCount", 0) > 0
    ]
    return Rollout(service, task_definition, served[0] if served else None, stopped, since)


def _is_too_old(service: LabService, now: ServiceTypeDef, since: datetime | None) -> bool:
    """Whether the serving task began before ``since`` and no replacement is on its way."""
    if since is None:
        return False
    on_its_way = any(
        d["status"] == "PRIMARY"
        and d.get("rolloutState") == "IN_PROGRESS"
        and d["createdAt"] >= since
        for d in now["deployments"]
    )
    return not on_its_way and service.serves_from_before(since)


def _deployment_of(service: ServiceTypeDef, task_definition: str) -> DeploymentTypeDef | None:
    """The newest deployment of ``task_definition``: the primary one where there are several."""
    found = [d for d in service["deployments"] if d["taskDefinition"] == task_definition]
    return min(found, key=lambda d: d["status"] != "PRIMARY", default=None)


def _failed_by_itself(task: TaskTypeDef) -> bool:
    """Whether a stopped task would fail again: it was neither replaced nor reclaimed."""
    return task.get("stopCode") in {"EssentialContainerExited", "TaskFailedToStart"}


def _why_stopped(task: TaskTypeDef) -> str:
    reasons = [task.get("stoppedReason", "ECS gave no reason")]
    for container in task["containers"]:
        if "exitCode" in container:
            reasons.append(f"container {container['name']} exited with {container['exitCode']}")
        if container.get("reason"):
            reasons.append(container["reason"])
    return "; ".join(reasons)
