"""Every flow under the deployer's policy; what they call is what ``config/`` has recorded.

With RECORD set everything is allowed, and the recording is written instead of compared. The tests
go in order, want a local cloud with no lab in it, and take some ten minutes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest

from adapters.aws.end import LabEnd
from adapters.aws.sweep import Sweeper
from lab import names
from tests.stack import Stack
from tests.trail import of_deployer, recorded, write_calls
from workstation.policy import CALLS, read_calls, read_rights

LAB = "whole"


RECORD = bool(os.environ.get("RECORD"))


@pytest.fixture(scope="module")
def alone(stack: Stack) -> Iterator[Stack]:
    """The stack with nothing in it: no lab, no images, no state bucket."""
    if stack.bucket.list_labs():
        pytest.fail("there are labs: run `make down`, then this again")
    with stack.everything_allowed() if RECORD else nullcontext():
        assert stack.run("lab-down/local", lab=LAB, purge=True).code == 0
        yield stack


def test_the_first_up_makes_everything(alone: Stack) -> None:
    """should make bucket, repository, image and lab."""
    ended = alone.up(LAB, models=["bedrock-titan"])
    assert ended.code == 0, ended.said


def test_an_application_gets_its_key(alone: Stack) -> None:
    """should read the key as ``make env`` does."""
    ended = alone.command([sys.executable, "-m", "workstation", "env", "--lab", LAB])
    assert ended.code == 0, ended.said


def test_another_up_changes_all_that_can_be_changed(alone: Stack) -> None:
    """should change owner, size, capacity, models and addresses of a live lab."""
    ended = alone.up(
        LAB,
        ttl="45m",
        owner="somebody-else",
        models=["bedrock-titan", "bedrock-llama"],
        cpu=2048,
        memory=4096,
        capacity="FARGATE",
        allowed_addresses=["203.0.113.10", "8.8.4.4"],
    )
    assert ended.code == 0, ended.said


def test_a_live_lab_is_looked_after(alone: Stack) -> None:
    """should extend, let somebody in, rotate the key, look at its posture, watch and list."""
    assert alone.run("lab-extend/local", lab=LAB, ends_in="2h").code == 0
    assert alone.run("lab-allow/local", lab=LAB, add=["8.8.8.8"]).code == 0
    assert alone.run("lab-rotate-key/local", lab=LAB).code == 0
    assert alone.run("lab-verify/local", lab=LAB).code == 0
    alone.guard("lab-watch/local")
    assert alone.run("lab-list/local").code == 0


def test_an_up_takes_a_deleted_secret_back(alone: Stack) -> None:
    """should restore the key that somebody deleted in the console."""
    secrets, secret = alone.session().client("secretsmanager"), names.key_secret(LAB)
    secrets.delete_secret(SecretId=secret)
    ended = alone.up(LAB, models=["bedrock-titan"])
    assert ended.code == 0, ended.said
    assert alone.secrets.require(secret)


def test_a_failed_up_reads_the_containers_words(alone: Stack) -> None:
    """should read the log of a task that died."""
    tag = alone.push_broken_image(["bedrock-cohere"])
    try:
        assert alone.up(LAB, models=["bedrock-cohere"]).code != 0
    finally:
        alone.session().client("ecr").batch_delete_image(
            repositoryName=names.repository_name(), imageIds=[{"imageTag": tag}]
        )
    assert "no gateway in this image" in (alone.report(LAB).error or "")


def test_a_lab_is_rebuilt(alone: Stack) -> None:
    """should destroy the lab and bring it up again."""
    spec = {"lab": LAB, "ttl": "30m", "models": ["bedrock-titan"]}
    ended = alone.run("lab-rebuild/local", **spec)
    assert ended.code == 0, ended.said


def test_the_reaper_takes_a_lab_that_nothing_remembers(alone: Stack) -> None:
    """should remove all kinds of things without state or record."""
    alone.bucket.delete_prefix(names.lab_prefix(LAB))
    # Its cluster's tag would count: a lab that was made by hand has no other end.
    LabEnd(alone.cloud(), LAB).write_tag(datetime.now(UTC) - timedelta(minutes=1))
    ecs, name = alone.session().client("ecs"), names.resource_name(LAB)
    # No service stops what somebody has started by hand.
    [service] = ecs.describe_services(cluster=name, services=[name])["services"]
    ecs.run_task(
        cluster=name,
        taskDefinition=service["taskDefinition"],
        launchType="FARGATE",
        networkConfiguration=service["networkConfiguration"],
    )
    # Somebody else's, which the deployer may not even look at.
    ecs.create_cluster(clusterName="production")
    alone.guard("lab-reap/local")
    ecs.delete_cluster(cluster="production")
    assert Sweeper(alone.cloud()).look(LAB)[1] == []


def test_a_purge_leaves_nothing(alone: Stack) -> None:
    """should bring a lab up once more, and then remove all that labs share."""
    assert alone.up(LAB, models=["bedrock-titan"]).code == 0
    assert alone.run("lab-down/local", lab=LAB, purge=True).code == 0
    assert not alone.bucket.exists()


def test_nothing_else_was_called(alone: Stack) -> None:
    """should have called what is recorded: no action more, and none less."""
    calls = recorded(of_deployer(alone.trail()))
    beyond = set(read_rights()["unevaluated"])
    if RECORD:
        write_calls([c for c in calls if c.action not in beyond], CALLS)
        return
    assert {c.action for c in calls} - beyond == {c.action for c in read_calls()}
