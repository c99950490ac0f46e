"""What preflight refuses about the place, before anything is touched there."""

from __future__ import annotations

import boto3
import pytest
from botocore.stub import Stubber

from lab.adapters import docker
from lab.adapters.aws import Cloud
from lab.errors import InvalidInputError, PermanentError
from lab.settings import Settings
from lab.spec import LabSpec
from tasks import preflight

ACCOUNT = "111122223333"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A cloud whose credentials belong to ACCOUNT; it can be asked who we are, and nothing else."""
    cloud = Cloud(boto3.Session("id", "key", region_name="us-east-1"))
    sts = cloud.client("sts")
    stub = Stubber(sts)
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/lab/me"
    stub.add_response("get_caller_identity", {"Account": ACCOUNT, "Arn": arn, "UserId": "me"})
    stub.activate()
    monkeypatch.setattr(cloud, "client", lambda _: sts)
    monkeypatch.setattr(preflight, "open_cloud", lambda _: cloud)
    return cloud


def test_takes_the_account_that_is_allowed(cloud: Cloud) -> None:
    """should settle account, partition and region"""
    place = preflight.find_place(Settings(account=ACCOUNT))
    assert (place.account, place.partition, place.region) == (ACCOUNT, "aws", "us-east-1")
    assert place.repository == f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/gateway-lab"


def test_refuses_another_account(cloud: Cloud) -> None:
    """should name both accounts"""
    with pytest.raises(PermanentError, match=f"belong to account {ACCOUNT}, allowed is 9999"):
        preflight.find_place(Settings(account="999999999999"))


def test_refuses_a_region_that_aws_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """should ask nobody to know that it is none"""
    nowhere = Cloud(boto3.Session("id", "key", region_name="us-east-9"))
    monkeypatch.setattr(preflight, "open_cloud", lambda _: nowhere)
    with pytest.raises(InvalidInputError, match="region 'us-east-9' is not one"):
        preflight.find_place(Settings(region="us-east-9"))


def test_refuses_where_no_engine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """should say what to start"""
    # A port of this machine where nothing listens.
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(PermanentError, match="no Docker engine answers") as refused:
        docker.connect()
    assert "DOCKER_HOST" in refused.value.hint


@pytest.mark.parametrize(
    ("given", "cidrs", "deployer"),
    [
        (None, ["9.9.9.9/32"], "9.9.9.9/32"),
        (["8.8.4.4", "1.1.1.1"], ["1.1.1.1/32", "8.8.4.4/32"], None),
        (["9.9.9.9"], ["9.9.9.9/32"], None),
    ],
)
def test_only_an_address_that_nobody_gave_is_the_deployers(
    given: list[str] | None, cidrs: list[str], deployer: str | None
) -> None:
    """should not take for movable what somebody asked for, though the deployer has it"""
    spec = LabSpec(lab="demo", allowed_addresses=given)
    settings = Settings(deployer_address="9.9.9.9")
    assert preflight._allowed(spec, settings) == (cidrs, deployer)
