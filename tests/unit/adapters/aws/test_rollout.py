"""A rollout starts nothing twice, and its wait ends at once when the new task cannot come."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from botocore.stub import ANY

from adapters.aws.rollout import Rollout, start_rollout
from lab import waiting
from lab.errors import PermanentError
from lab.live import RunningTask
from tests.unit.adapters.aws.stubs import (
    AT,
    NAME,
    NEW,
    OLD,
    TASK,
    Stubs,
    deployment,
    running,
    stopped,
)

MINUTE = timedelta(minutes=1)


# --- start -----------------------------------------------------------------------------------


def test_start_updates_the_service_and_finds_the_old_revision(stubs: Stubs) -> None:
    """should start the new revision with one task and remember the old revision"""
    stubs.says_service(deployment(OLD))
    stubs.says_tasks("STOPPED", stopped())
    stubs.expects_deployment(force=False)
    service = stubs.service
    assert start_rollout(service, NEW) == Rollout(service, NEW, OLD, frozenset({TASK}))


def test_start_again_starts_nothing(stubs: Stubs) -> None:
    """should not change a running rollout, and still know the earlier revision"""
    stubs.says_service(deployment(NEW, "IN_PROGRESS", 0), deployment(OLD), serves=NEW)
    stubs.says_tasks("STOPPED")
    assert start_rollout(stubs.service, NEW).previous == OLD


@pytest.mark.parametrize(("runs", "again"), [("sha256:01", False), ("sha256:02", True)])
def test_a_revision_with_another_image_is_started_again(
    stubs: Stubs, runs: str, again: bool
) -> None:
    """should replace a task whose tag was pushed again since, and no other task"""
    stubs.says_service(deployment(NEW), serves=NEW)
    stubs.says_tasks("STOPPED")
    stubs.says_tasks("RUNNING", running(containers=[{"name": "gateway", "imageDigest": runs}]))
    stubs.says_interface(PublicIp="8.8.4.4")
    if again:
        stubs.expects_deployment(force=True)
    start_rollout(stubs.service, NEW, image_digest="sha256:01")


@pytest.mark.parametrize("before", [deployment(OLD, running=0), deployment(OLD, "FAILED")])
def test_a_revision_that_never_served_is_not_remembered(
    stubs: Stubs, before: dict[str, Any]
) -> None:
    """should not name a revision that had no task or had failed"""
    stubs.says_service(before, desired=0)
    stubs.says_tasks("STOPPED")
    stubs.expects_deployment(force=True)
    assert start_rollout(stubs.service, NEW).previous is None


@pytest.mark.parametrize("status", [None, "INACTIVE", "DRAINING"])
def test_start_needs_a_service(stubs: Stubs, status: str | None) -> None:
    """should say that the service is gone"""
    stubs.says("ecs", "describe_services", {"services": [{"status": status}] if status else []})
    with pytest.raises(PermanentError, match="is gone"):
        start_rollout(stubs.service, NEW)


@pytest.mark.parametrize("desired", [1, 0])
def test_a_revision_that_serves_already_is_remembered(stubs: Stubs, desired: int) -> None:
    """should remember it, so that a later failure does not scale it to zero"""
    stubs.says_service(deployment(NEW), desired=desired, serves=NEW)
    stubs.says_tasks("STOPPED")
    if desired == 0:
        # Scaling alone would make no deployment to wait for.
        stubs.expects_deployment(force=True)
    begun = start_rollout(stubs.service, NEW)
    assert begun.previous == NEW
    begun.abandon()


# --- a task that began too early is replaced by the same revision ----------------------------


def test_an_older_task_is_replaced_by_the_same_revision(stubs: Stubs) -> None:
    """should force a deployment, which starts another task, and remember the serving revision"""
    stubs.says_service(deployment(NEW, createdAt=AT), serves=NEW)
    stubs.says_tasks("STOPPED")
    stubs.says_tasks("RUNNING", running(createdAt=AT - MINUTE))
    stubs.expects_deployment(force=True)
    begun = start_rollout(stubs.service, NEW, since=AT)
    assert (begun.previous, begun.since) == (NEW, AT)


@pytest.mark.parametrize("serving", [AT, AT + MINUTE])
def test_a_newer_task_is_left_alone(stubs: Stubs, serving: datetime) -> None:
    """should start nothing: the second of two rollouts would replace the first one's task"""
    stubs.says_service(deployment(NEW, createdAt=AT), serves=NEW)
    stubs.says_tasks("STOPPED")
    stubs.says_tasks("RUNNING", running(createdAt=serving))
    start_rollout(stubs.service, NEW, since=AT)


@pytest.mark.parametrize(("began", "again"), [(AT + MINUTE, False), (AT - MINUTE, True)])
def test_it_waits_for_a_running_replacement(stubs: Stubs, began: datetime, again: bool) -> None:
    """should start a second deployment only if the running one is also too old"""
    stubs.says_service(deployment(NEW, "IN_PROGRESS", 0, createdAt=began), serves=NEW)
    stubs.says_tasks("STOPPED")
    if again:
        stubs.says_tasks("RUNNING", running(createdAt=AT - 2 * MINUTE))
        stubs.says("ecs", "update_service", {})
    start_rollout(stubs.service, NEW, since=AT)


# --- abandon ---------------------------------------------------------------------------------


def test_a_failed_first_rollout_is_stopped(stubs: Stubs) -> None:
    """should end the crash loop: run no task if no revision served before"""
    stubs.says("ecs", "update_service", {}, cluster=NAME, service=NAME, desiredCount=0)
    Rollout(stubs.service, NEW, None, frozenset()).abandon()


def test_the_old_revision_is_left_alone_after_a_failed_rollout(stubs: Stubs) -> None:
    """should call nothing: an update would replace the serving task, and its address"""
    Rollout(stubs.service, NEW, OLD, frozenset()).abandon()


# --- wait ------------------------------------------------------------------------------------


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses of a wait, which are counted and not slept."""
    paused: list[float] = []
    options = waiting.wait_for.__kwdefaults__
    monkeypatch.setitem(options, "sleep", paused.append)
    return paused


def await_rollout(stubs: Stubs, log: list[str] | None = None) -> RunningTask:
    said: list[str] = [] if log is None else log
    begun = Rollout(stubs.service, NEW, None, frozenset({f"{TASK}-before"}))
    return begun.wait(deadline=60, log=said.append)


def test_rollout_completes(stubs: Stubs, unhurried: list[float]) -> None:
    """should wait while ECS deploys, and log each of its events once"""
    said: list[str] = []
    stubs.says_service(deployment(NEW, "IN_PROGRESS", 0))
    stubs.says_tasks("STOPPED")
    stubs.says_service(deployment(NEW))
    stubs.says_tasks("STOPPED")
    stubs.says_tasks("RUNNING", running())
    stubs.says_interface(PublicIp="8.8.4.4")
    assert await_rollout(stubs, said).address == "8.8.4.4"
    assert len(unhurried) == 1
    assert said == ["ecs: has started 1 task"]


def test_a_failed_task_ends_the_wait_with_its_reason(stubs: Stubs, unhurried: list[float]) -> None:
    """should give ECS's reason, the exit code and the last lines of the log, at once"""
    stubs.says_service(deployment(NEW, "IN_PROGRESS", 0))
    stubs.says_tasks("STOPPED", stopped())
    stubs.says(
        "logs",
        "get_log_events",
        {"events": [{"message": "starting\n"}, {"message": "no master key\n"}]},
        logGroupName="/gateway-lab/demo",
        logStreamName="gateway/gateway/0123",
        limit=ANY,
        startFromHead=False,
    )
    with pytest.raises(PermanentError) as caught:
        await_rollout(stubs)
    said = caught.value.message
    assert "Essential container in task exited" in said
    assert "container gateway exited with 3" in said
    assert said.endswith("  | starting\n  | no master key")
    assert unhurried == []


def test_a_missing_log_does_not_hide_the_failure(stubs: Stubs) -> None:
    """should give the reason even if the container wrote nothing"""
    stubs.says_service(deployment(NEW, "IN_PROGRESS", 0))
    never_began = stopped(stopCode="TaskFailedToStart", stoppedReason="CannotPull")
    stubs.says_tasks("STOPPED", never_began)
    stubs.fails("logs", "get_log_events", "ResourceNotFoundException")
    with pytest.raises(PermanentError, match="CannotPull"):
        await_rollout(stubs)


@pytest.mark.parametrize(
    "harmless",
    [
        {"stopCode": "SpotInterruption"},
        {"stopCode": "ServiceSchedulerInitiated"},
        {"taskArn": f"{TASK}-before"},
        {"taskDefinitionArn": OLD},
    ],
)
def test_a_task_that_ecs_replaces_is_no_failure(
    stubs: Stubs, unhurried: list[float], harmless: dict[str, Any]
) -> None:
    """should go on if ECS itself starts another task, or the task is of another rollout"""
    stubs.says_service(deployment(NEW))
    stubs.says_tasks("STOPPED", stopped(**harmless))
    stubs.says_tasks("RUNNING", running())
    stubs.says_interface(PublicIp="8.8.4.4")
    assert await_rollout(stubs).address == "8.8.4.4"


def test_a_rollout_that_ecs_gave_up_fails(stubs: Stubs) -> None:
    """should contain ECS's reason"""
    stubs.says_service(deployment(NEW, "FAILED", rolloutStateReason="circuit breaker"))
    stubs.says_tasks("STOPPED")
    with pytest.raises(PermanentError, match="circuit breaker"):
        await_rollout(stubs)


def test_a_vanished_deployment_fails(stubs: Stubs) -> None:
    """should say that another run may have changed the service"""
    stubs.says_service(deployment(OLD))
    stubs.says_tasks("STOPPED")
    with pytest.raises(PermanentError) as caught:
        await_rollout(stubs)
    assert "no longer deploys gateway-lab-demo:2" in caught.value.message
    assert "Another run" in caught.value.hint


def test_a_rollback_by_ecs_is_no_rollout(stubs: Stubs) -> None:
    """should not take ECS's return to the same revision for the new task"""
    stubs.says_service(deployment(NEW))
    stubs.says_tasks("STOPPED")
    stubs.says_tasks("RUNNING", running(createdAt=AT - MINUTE))
    begun = Rollout(stubs.service, NEW, NEW, frozenset(), AT)
    with pytest.raises(PermanentError, match="kept the task from before"):
        begun.wait(deadline=60, log=lambda _: None)
