"""A policy that is too small: the stage that needs the action fails at once, and names it.

The tests go in order, through the life of one lab.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from lab import names
from tests.stack import Stack
from workstation import prefect_api

LAB = "denied"
#: No test before these brings them up together: their image has still to be pushed.
MODELS = ["bedrock-titan", "bedrock-cohere"]
PLACE = "us-east-1:000000000000"
TRUST = {
    "Effect": "Allow",
    "Action": "sts:AssumeRole",
    "Principal": {"Service": "ecs-tasks.amazonaws.com"},
}


def test_the_deployer_may_touch_nothing_else(stack: Stack) -> None:
    """should be refused what bears another name, has no tag of ours, or would give it rights."""
    deployer = boto3.Session(region_name="us-east-1")
    ecs, ec2, iam = (deployer.client(name) for name in ("ecs", "ec2", "iam"))
    s3, secrets = deployer.client("s3"), deployer.client("secretsmanager")
    foreign = stack.session().client("ec2").create_vpc(CidrBlock="10.7.0.0/24")["Vpc"]["VpcId"]
    role = f"gateway-lab-{LAB}-task"
    trust = json.dumps({"Version": "2012-10-17", "Statement": [TRUST]})
    family = {
        "family": f"gateway-lab-{LAB}",
        "containerDefinitions": [{"name": "c", "image": "i", "memory": 64}],
        "taskRoleArn": "arn:aws:iam::000000000000:role/administrator",
    }
    ours = [{"Key": names.TAG_PROJECT, "Value": names.PROJECT}]
    refused: dict[str, Callable[[], object]] = {
        "ecs:CreateCluster": lambda: ecs.create_cluster(clusterName="production"),
        "ec2:CreateVpc": lambda: ec2.create_vpc(CidrBlock="10.7.0.0/24"),
        "ec2:DeleteVpc": lambda: ec2.delete_vpc(VpcId=foreign),
        "ec2:CreateTags": lambda: ec2.create_tags(Resources=[foreign], Tags=ours),
        "iam:CreateRole": lambda: iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust),
        "iam:PassRole": lambda: ecs.register_task_definition(**family),
        "iam:CreateUser": lambda: iam.create_user(UserName="gateway-lab-more"),
        "iam:CreatePolicyVersion": lambda: iam.create_policy_version(
            PolicyArn="arn:aws:iam::000000000000:policy/gateway-lab-boundary",
            PolicyDocument=trust,
        ),
        "s3:CreateBucket": lambda: s3.create_bucket(Bucket="gateway-lab-somebody-elses"),
        "secretsmanager:GetSecretValue": lambda: secrets.get_secret_value(
            SecretId="production"  # pragma: allowlist secret: a name
        ),
    }
    try:
        granted = [action for action, call in refused.items() if not stack.refuses(action, call)]
    finally:
        stack.session().client("ec2").delete_vpc(VpcId=foreign)
    assert granted == []


@pytest.mark.parametrize(
    ("action", "stage", "on"),
    [
        ("ecr:GetAuthorizationToken", "push image", ""),
        # That up has left a lab: whose own stop is moved first, and which Terraform reads then.
        ("iam:PassRole", "schedule end", f":role/gateway-lab-{LAB}-scheduler"),
        (
            "states:DescribeStateMachine",
            "provision",
            f"arn:aws:states:{PLACE}:stateMachine:gateway-lab-{LAB}-stop",
        ),
        (
            "ecs:UpdateService",
            "rollout",
            f"arn:aws:ecs:{PLACE}:service/gateway-lab-{LAB}/gateway-lab-{LAB}",
        ),
    ],
)
def test_an_up_without_the_right_names_it(stack: Stack, action: str, stage: str, on: str) -> None:
    """should fail at the stage, at the first try, and say what is missing and where it stands."""
    with stack.without(action):
        ended = stack.up(LAB, models=MODELS)
    assert ended.code != 0
    error = stack.report(LAB).error or ""
    assert error.startswith(f"at {stage}:"), error
    denied = error.partition(" is not allowed")[0]
    assert action in denied
    assert on in denied
    assert f"Allow {action} to the identity that runs the lab: docs/deployer-policy.json" in error
    assert _tries("lab-up", stage) == 1


def test_a_down_without_the_right_names_it(stack: Stack) -> None:
    """should fail at the destruction, and keep the lab known until it is gone."""
    with stack.without("ecs:DeleteCluster"):
        assert stack.down(LAB).code != 0
    assert "ecs:DeleteCluster on arn:aws:ecs" in _newest("lab-down")["state"]["message"]
    assert _tries("lab-down", "destroy") == 1
    assert LAB in stack.bucket.list_labs()


def test_with_the_rights_back_the_down_ends(stack: Stack) -> None:
    """should leave nothing: a refusal breaks nothing that a later run could not mend."""
    ended = stack.down(LAB)
    assert ended.code == 0, ended.said
    assert LAB not in stack.bucket.list_labs()


def _newest(flow: str) -> dict[str, Any]:
    with prefect_api.Api() as api:
        deployment = api.deployment(f"{flow}/local")
        assert deployment is not None
        runs = [r for r in api.runs() if r["deployment_id"] == deployment["id"]]
        ended = [r for r in runs if r["state_type"] in {"COMPLETED", "FAILED"}]
        return max(ended, key=lambda r: r["start_time"])


def _tries(flow: str, stage: str) -> int:
    with prefect_api.Api() as api:
        (task,) = [
            t
            for t in api.task_runs(_newest(flow)["id"])
            if t["name"].startswith(stage.replace(" ", "-"))
        ]
        return int(task["run_count"])
