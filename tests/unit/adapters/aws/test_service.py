"""The lab's service: its cluster, the serving task and its address, and its firewall."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from lab.live import RunningTask
from tests.unit.adapters.aws.stubs import ARN, AT, NAME, NEW, OLD, TASK, Stubs, running

MINUTE = timedelta(minutes=1)


def test_the_address_is_the_public_one_of_the_interface(stubs: Stubs) -> None:
    """should ask EC2 for the public address if the task has an interface"""
    stubs.says_tasks("RUNNING", running())
    stubs.says_interface(PublicIp="8.8.4.4")
    assert stubs.service.running_task(NEW) == RunningTask(TASK, "8.8.4.4", "sha256:01")


def test_without_an_interface_the_address_is_the_attachments(stubs: Stubs) -> None:
    """should use the attachment's own address"""
    details = [{"name": "privateIPv4Address", "value": "172.18.0.5"}]
    stubs.says_tasks("RUNNING", running(attachments=[{"details": details}]))
    found = stubs.service.running_task()
    assert found is not None
    assert found.address == "172.18.0.5"


def test_a_task_without_an_address_does_not_serve_yet(stubs: Stubs) -> None:
    """should not return the private address in place of a public one"""
    stubs.says_tasks("RUNNING", running())
    stubs.says_interface()
    assert stubs.service.running_task(NEW) is None


@pytest.mark.parametrize("other", [{"taskDefinitionArn": OLD}, {"lastStatus": "PENDING"}])
def test_another_revisions_task_does_not_serve(stubs: Stubs, other: dict[str, Any]) -> None:
    """should find a task only if it runs and has the wanted revision"""
    stubs.says_tasks("RUNNING", running(**other))
    assert stubs.service.running_task(NEW) is None


@pytest.mark.parametrize(
    ("began", "before"),
    [
        ([], False),
        ([AT - MINUTE], True),
        ([AT], False),
        ([AT - MINUTE, AT + MINUTE], False),
        ([AT - MINUTE, AT - 2 * MINUTE], True),
    ],
)
def test_a_service_is_as_old_as_its_newest_task(
    stubs: Stubs, began: list[datetime], before: bool
) -> None:
    """should not count as older if one task began after the given time"""
    stubs.says_tasks("RUNNING", *(running(createdAt=moment) for moment in began))
    assert stubs.service.serves_from_before(AT) is before


def test_a_task_that_does_not_run_yet_does_not_serve(stubs: Stubs) -> None:
    """should read the task that answers now"""
    pending = running(createdAt=AT + MINUTE, lastStatus="PENDING")
    stubs.says_tasks("RUNNING", running(createdAt=AT - MINUTE), pending)
    assert stubs.service.serves_from_before(AT) is True


def test_a_cluster_is_made_once_with_its_capacity(stubs: Stubs) -> None:
    """should make it in one call, where Terraform waits twice, and not change an existing one"""
    gone = {"clusterArn": f"{ARN}cluster/{NAME}", "status": "INACTIVE"}
    stubs.says("ecs", "describe_clusters", {"clusters": [gone]}, clusters=[NAME])
    stubs.says(
        "ecs",
        "create_cluster",
        {},
        clusterName=NAME,
        capacityProviders=["FARGATE", "FARGATE_SPOT"],
        settings=[{"name": "containerInsights", "value": "disabled"}],
        tags=[{"key": "lab:id", "value": "demo"}],
    )
    assert stubs.service.ensure_cluster({"lab:id": "demo"}) is True
    live = {**gone, "status": "ACTIVE"}
    stubs.says("ecs", "describe_clusters", {"clusters": [live]}, clusters=[NAME])
    assert stubs.service.ensure_cluster({"lab:id": "demo"}) is False


def test_allowed_hosts_are_those_of_the_labs_firewall(stubs: Stubs) -> None:
    """should ask by tag and name, and collect the hosts of every rule"""
    rules = [
        {"IpRanges": [{"CidrIp": "8.8.8.8/32"}, {"CidrIp": "1.1.1.1/32"}]},
        {"IpRanges": [{"CidrIp": "4.4.4.4/32"}]},
    ]
    stubs.says(
        "ec2",
        "describe_security_groups",
        {"SecurityGroups": [{"IpPermissions": rules}]},
        Filters=[
            {"Name": "tag:lab:id", "Values": ["demo"]},
            {"Name": "group-name", "Values": [NAME]},
        ],
    )
    assert stubs.service.allowed_cidrs() == ["1.1.1.1/32", "4.4.4.4/32", "8.8.8.8/32"]
