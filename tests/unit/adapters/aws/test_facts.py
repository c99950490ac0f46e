"""AWS's answers about a live lab become plain facts, whatever form they have."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.aws.facts import (
    ask_iam,
    read_ingress,
    read_retention,
    read_role,
    read_tags,
    read_task,
)
from lab.errors import PermanentError
from lab.posture import INVOKE, Ingress, Question
from tests.unit.adapters.aws.stubs import Stubs
from tests.unit.lab.good_lab import FOUNDATION, PROFILE, TASK

NAME = "gateway-lab-demo"
REVISION = f"arn:aws:ecs:us-east-1:111122223333:task-definition/{NAME}:3"
ARN = f"arn:aws:ecs:us-east-1:111122223333:task/{NAME}/1"


def task(*details: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {
        "taskArn": ARN,
        "taskDefinitionArn": REVISION,
        "capacityProviderName": "FARGATE_SPOT",
        "containers": [{"name": "gateway", "imageDigest": "sha256:abcd"}],
        "attachments": [{"details": [{"name": n, "value": v} for n, v in details]}],
        **more,
    }


def says_task(stubs: Stubs, described: dict[str, Any]) -> None:
    container = {
        "name": "gateway",
        "user": "65532:65532",
        "readonlyRootFilesystem": True,
        "linuxParameters": {"capabilities": {"drop": ["ALL"]}},
        "environment": [{"name": "PORT", "value": "4000"}],
        "secrets": [{"name": "LITELLM_MASTER_KEY", "valueFrom": "arn:secret"}],
    }
    stubs.says("ecs", "describe_tasks", {"tasks": [described]}, cluster=NAME, tasks=[ARN])
    stubs.says(
        "ecs",
        "describe_task_definition",
        {"taskDefinition": {"containerDefinitions": [container]}},
        taskDefinition=REVISION,
    )


def test_the_task_and_its_revision_are_read(stubs: Stubs) -> None:
    """should have the groups of its own network interface, not those in the service's settings"""
    says_task(
        stubs,
        task(
            ("networkInterfaceId", "eni-1"),
            enableExecuteCommand=True,
            overrides={
                "containerOverrides": [{"name": "g", "environment": [{"name": "A", "value": "b"}]}]
            },
        ),
    )
    stubs.says(
        "ec2",
        "describe_network_interfaces",
        {"NetworkInterfaces": [{"Groups": [{"GroupId": "sg-2"}, {"GroupId": "sg-1"}]}]},
        NetworkInterfaceIds=["eni-1"],
    )
    found = read_task(stubs.cloud, "demo", ARN)
    (container,) = found.containers
    assert found.revision == f"{NAME}:3"
    assert found.groups == ("sg-1", "sg-2")
    assert found.capacity == "FARGATE_SPOT"
    assert found.image_digest == "sha256:abcd"
    assert found.can_exec
    assert found.overrides == {"A": "b"}
    assert container.environment == {"PORT": "4000"}
    assert container.secrets == {"LITELLM_MASTER_KEY": "arn:secret"}
    assert container.dropped == ("ALL",)
    assert container.read_only
    assert "65532:65532" in container.text


def test_a_task_without_an_interface_has_its_services_groups(stubs: Stubs) -> None:
    """should ask the service if the attachment names no interface"""
    says_task(stubs, task(("privateIPv4Address", "10.0.0.1")))
    network = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}}
    stubs.says(
        "ecs",
        "describe_services",
        {"services": [{"status": "ACTIVE", "networkConfiguration": network}]},
        cluster=NAME,
        services=[NAME],
    )
    assert read_task(stubs.cloud, "demo", ARN).groups == ("sg-1",)


def test_a_task_that_is_gone_is_an_error(stubs: Stubs) -> None:
    """should not be taken for a task without anything in it"""
    stubs.says("ecs", "describe_tasks", {"tasks": []})
    with pytest.raises(PermanentError, match="is gone"):
        read_task(stubs.cloud, "demo", ARN)


def test_every_source_of_a_rule_is_read(stubs: Stubs) -> None:
    """should have IPv4 and IPv6 addresses, prefix lists and groups, one each"""
    rules = [
        {
            "IpProtocol": "tcp",
            "FromPort": 4000,
            "ToPort": 4000,
            "IpRanges": [{"CidrIp": "203.0.113.10/32"}, {"CidrIp": "0.0.0.0/0"}],
        },
        {
            "IpProtocol": "-1",
            "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
            "PrefixListIds": [{"PrefixListId": "pl-1"}],
            "UserIdGroupPairs": [{"GroupId": "sg-9"}],
        },
    ]
    stubs.says(
        "ec2",
        "describe_security_groups",
        {"SecurityGroups": [{"GroupId": "sg-1", "IpPermissions": rules}]},
        GroupIds=["sg-1"],
    )
    assert read_ingress(stubs.cloud, ["sg-1"]) == [
        Ingress("203.0.113.10/32", "tcp", 4000, 4000),
        Ingress("0.0.0.0/0", "tcp", 4000, 4000),
        Ingress("::/0", "-1", None, None),
        Ingress("prefix list pl-1", "-1", None, None),
        Ingress("group sg-9", "-1", None, None),
    ]


def test_no_group_is_not_every_group(stubs: Stubs) -> None:
    """should not ask: without a group, AWS would list every group"""
    assert read_ingress(stubs.cloud, []) == []


def test_a_role_is_read_with_all_its_policies(stubs: Stubs) -> None:
    """should have the boundary, the attached policies, and its own current documents"""
    boundary = {
        "PermissionsBoundaryType": "Policy",
        "PermissionsBoundaryArn": "arn:aws:iam::111122223333:policy/gateway-lab-boundary",
    }
    role = {
        "Path": "/",
        "RoleName": f"{NAME}-task",
        "RoleId": "AROA0123456789ABCDEF",
        "Arn": f"arn:aws:iam::111122223333:role/{NAME}-task",
        "CreateDate": "2030-01-31T12:00:00Z",
        "PermissionsBoundary": boundary,
    }
    stubs.says("iam", "get_role", {"Role": role}, RoleName=f"{NAME}-task")
    attached = {"PolicyName": "X", "PolicyArn": "arn:aws:iam::aws:policy/ReadOnlyAccess"}
    stubs.says("iam", "list_attached_role_policies", {"AttachedPolicies": [attached]})
    stubs.says("iam", "list_role_policies", {"PolicyNames": ["invoke-models"]})
    stubs.says(
        "iam",
        "get_role_policy",
        {
            "RoleName": f"{NAME}-task",
            "PolicyName": "invoke-models",
            "PolicyDocument": '{"Statement": []}',
        },
        RoleName=f"{NAME}-task",
        PolicyName="invoke-models",
    )
    found = read_role(stubs.cloud, f"{NAME}-task")
    assert found.boundary == boundary["PermissionsBoundaryArn"]
    assert found.attached == ("arn:aws:iam::aws:policy/ReadOnlyAccess",)
    assert list(found.policies) == ["invoke-models"]


def test_iam_is_asked_with_the_profile_as_context(stubs: Stubs) -> None:
    """should ask one resource a call, both actions, and return IAM's own words"""
    role = f"arn:aws:iam::111122223333:role/{NAME}-task"
    direct = Question(f"{FOUNDATION}vendor.one", allowed=True)
    behind = Question(f"{FOUNDATION}vendor.two", allowed=True, profile=PROFILE)
    for question, said in ((direct, "allowed"), (behind, "implicitDeny")):
        context = [
            {
                "ContextKeyName": "bedrock:InferenceProfileArn",
                "ContextKeyValues": [PROFILE],
                "ContextKeyType": "string",
            }
        ]
        results = [{"EvalActionName": a, "EvalDecision": said} for a in sorted(INVOKE)]
        stubs.says(
            "iam",
            "simulate_principal_policy",
            {"EvaluationResults": results, "IsTruncated": False},
            PolicySourceArn=role,
            ActionNames=sorted(INVOKE),
            ResourceArns=[question.resource],
            **({"ContextEntries": context} if question.profile else {}),
        )
        assert ask_iam(stubs.cloud, role, [question]) == {
            question: dict.fromkeys(sorted(INVOKE), said)
        }


@pytest.mark.parametrize(("described", "days"), [({"retentionInDays": 7}, 7), ({}, None)])
def test_retention_is_that_of_the_labs_own_log(
    stubs: Stubs, described: dict[str, int], days: int | None
) -> None:
    """should not take the one of a lab whose name begins the same"""
    groups = [
        {"logGroupName": "/gateway-lab/demo-2", "retentionInDays": 1},
        {"logGroupName": "/gateway-lab/demo", **described},
    ]
    stubs.says(
        "logs",
        "describe_log_groups",
        {"logGroups": groups},
        logGroupNamePrefix="/gateway-lab/demo",
    )
    assert read_retention(stubs.cloud, "demo") == days


def test_a_log_group_that_is_gone_is_an_error(stubs: Stubs) -> None:
    """should not be taken for a log group that is kept forever"""
    stubs.says("logs", "describe_log_groups", {"logGroups": []})
    with pytest.raises(PermanentError, match="no log group /gateway-lab/demo"):
        read_retention(stubs.cloud, "demo")


def test_tags_of_every_resource_are_read(stubs: Stubs) -> None:
    """should have one spelling, whatever the service's own spelling is"""
    small, large = [{"key": "lab:id", "value": "demo"}], [{"Key": "lab:id", "Value": "demo"}]
    group = "arn:aws:logs:us-east-1:111122223333:log-group:/gateway-lab/demo"
    stubs.says("ecs", "describe_clusters", {"clusters": [{"tags": small}]})
    stubs.says("ecs", "describe_services", {"services": [{"tags": small}]})
    stubs.says("ecs", "describe_tasks", {"tasks": [{"tags": small}]})
    stubs.says(
        "logs",
        "describe_log_groups",
        {"logGroups": [{"logGroupName": "/gateway-lab/demo", "arn": f"{group}:*"}]},
    )
    stubs.says(
        "ec2",
        "describe_security_groups",
        {"SecurityGroups": [{"GroupId": "sg-1", "VpcId": "vpc-1", "Tags": large}]},
        GroupIds=["sg-1"],
    )
    stubs.says(
        "ec2", "describe_vpcs", {"Vpcs": [{"VpcId": "vpc-1", "Tags": large}]}, VpcIds=["vpc-1"]
    )
    for secret in ("gateway-key", "gateway-tls"):
        stubs.says(
            "secretsmanager", "describe_secret", {"Tags": large}, SecretId=f"{NAME}/{secret}"
        )
    stubs.says("logs", "list_tags_for_resource", {"tags": {"lab:id": "demo"}}, resourceArn=group)
    found = read_tags(stubs.cloud, "demo", TASK)
    assert list(found) == [
        *("cluster", "service", "task", "key", "certificate", "log group"),
        *("security group sg-1", "VPC vpc-1"),
    ]
    assert set(map(str, found.values())) == {"{'lab:id': 'demo'}"}
