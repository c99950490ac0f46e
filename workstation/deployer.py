"""Gives the local cloud's deployer its rights, as an administrator gives them on AWS.

The local cloud always enforces policies. The deployer has those of ``docs/deployer-policy.json``
and no others; only this module acts as root.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import boto3

from adapters.aws.errors import translate_aws_errors
from workstation import localcloud
from workstation.policy import BOUNDARY, Policies, fill, read_policies

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

ACCOUNT = "000000000000"
USER = "gateway-lab-deployer"
#: The local cloud's root: dummies that open nothing else.
ROOT_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
VERSIONS = 5

Log = Callable[[str], None]


def root_session() -> boto3.Session:
    """A session that may do everything on the local cloud, for set-up and tests."""
    return boto3.Session(
        aws_access_key_id=ROOT_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ROOT_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=localcloud.REGION,
    )


def local_policies() -> Policies:
    """The policies as they are on the local cloud."""
    return fill(read_policies(), ACCOUNT, localcloud.REGION)


def ensure_deployer(log: Log, policies: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """On return the deployer has exactly ``policies``, by default those of the project.

    May be called any number of times; only differences are written.
    """
    iam = root_session().client("iam", endpoint_url=localcloud.ENDPOINT_URL)
    wanted = {_arn(name): dict(d) for name, d in (policies or local_policies()).items()}
    with translate_aws_errors("giving the local deployer its rights"):
        _ensure_user(iam)
        for arn, document in wanted.items():
            if _ensure_policy(iam, arn, document):
                log(f"{arn.rsplit('/', 1)[-1]}: the local deployer's rights are set")
        attached = {
            policy["PolicyArn"]
            for policy in iam.list_attached_user_policies(UserName=USER)["AttachedPolicies"]
        }
        own = wanted.keys() - {_arn(BOUNDARY)}
        for arn in own - attached:
            iam.attach_user_policy(UserName=USER, PolicyArn=arn)
        for arn in attached - own:
            iam.detach_user_policy(UserName=USER, PolicyArn=arn)


def _ensure_user(iam: IAMClient) -> None:
    try:
        iam.get_user(UserName=USER)
    except iam.exceptions.NoSuchEntityException:
        iam.create_user(UserName=USER)


def _ensure_policy(iam: IAMClient, arn: str, document: Mapping[str, Any]) -> bool:
    """Write the policy if it differs; return whether it did."""
    text = json.dumps(document)
    try:
        known = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    except iam.exceptions.NoSuchEntityException:
        iam.create_policy(PolicyName=arn.rsplit("/", 1)[-1], PolicyDocument=text)
        return True
    version = iam.get_policy_version(PolicyArn=arn, VersionId=known)["PolicyVersion"]
    if version["Document"] == document:
        return False
    kept = [
        one["VersionId"]
        for one in iam.list_policy_versions(PolicyArn=arn)["Versions"]
        if not one["IsDefaultVersion"]
    ]
    # AWS keeps this many versions, including the new one.
    for one in sorted(kept, key=lambda v: int(v[1:]), reverse=True)[VERSIONS - 2 :]:
        iam.delete_policy_version(PolicyArn=arn, VersionId=one)
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=text, SetAsDefault=True)
    return True


def _arn(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:policy/{name}"
