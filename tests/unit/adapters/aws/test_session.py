"""A session knows its region and its account, and reports at once a missing one."""

from __future__ import annotations

import boto3
import pytest

from adapters.aws.session import Cloud
from lab.errors import InvalidInputError, PermanentError
from tests.unit.adapters.aws.stubs import Stubs


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "us-gov-west-1", "cn-north-1"])
def test_knows_awss_regions_without_a_call(region: str) -> None:
    """should know the regions of every partition"""
    Stubs(region).cloud.check_region()


def test_refuses_an_unknown_region_without_a_call() -> None:
    """should name the region and the known ones"""
    with pytest.raises(InvalidInputError) as caught:
        Stubs("xx-nowhere-1").cloud.check_region()
    assert "'xx-nowhere-1'" in caught.value.message
    assert "eu-central-1" in caught.value.hint


def test_names_the_account_of_the_credentials(stubs: Stubs) -> None:
    """should return account and partition"""
    arn = "arn:aws-us-gov:iam::123456789012:user/x"
    stubs.says("sts", "get_caller_identity", {"Account": "123456789012", "Arn": arn})
    assert stubs.cloud.account() == ("123456789012", "aws-us-gov")


def test_missing_credentials_are_reported() -> None:
    """should say how to give credentials, before a child process needs them"""
    with pytest.raises(PermanentError, match="no AWS credentials"):
        Cloud(boto3.Session(region_name="us-east-1")).environment()
