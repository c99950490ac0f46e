"""What AWS says about a live lab, as plain facts for :mod:`lab.posture` to judge. Changes nothing.

The facts are those of the task that serves, not of the one that should: its own network
interface's security groups, and its own revision of the task definition.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from adapters.aws.errors import translate_aws_errors
from adapters.aws.service import LabService
from adapters.aws.session import Cloud
from adapters.aws.user_agent import propagate_stage
from lab import names
from lab.errors import PermanentError
from lab.posture import INVOKE, PROFILE_KEY, Container, Ingress, Question, RoleFacts, TaskFacts

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_ecs.type_defs import ContainerDefinitionOutputTypeDef, TaskTypeDef
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

_UP_AGAIN = "Bring the lab up again."


def read_task(cloud: Cloud, lab: str, task_arn: str) -> TaskFacts:
    """The task and its revision; PermanentError if the task is gone."""
    ecs, name = cast("ECSClient", cloud.client("ecs")), names.resource_name(lab)
    with translate_aws_errors(f"describing the task of {lab}"):
        tasks = ecs.describe_tasks(cluster=name, tasks=[task_arn])["tasks"]
        if not tasks:
            raise PermanentError(f"the task of lab {lab} is gone", _UP_AGAIN)
        (task,) = tasks
        definition = ecs.describe_task_definition(taskDefinition=task["taskDefinitionArn"])
    overrides = {
        variable["name"]: variable["value"]
        for container in task.get("overrides", {}).get("containerOverrides", [])
        for variable in container.get("environment", [])
        if "name" in variable and "value" in variable
    }
    return TaskFacts(
        arn=task_arn,
        revision=task["taskDefinitionArn"].rsplit("/", 1)[-1],
        containers=tuple(
            _container(one) for one in definition["taskDefinition"]["containerDefinitions"]
        ),
        overrides=overrides,
        capacity=task.get("capacityProviderName"),
        image_digest=next(
            (
                one.get("imageDigest")
                for one in task["containers"]
                if one.get("name") == names.CONTAINER
            ),
            None,
        ),
        can_exec=task.get("enableExecuteCommand", False),
        groups=tuple(_groups(cloud, lab, task)),
    )


def _container(definition: ContainerDefinitionOutputTypeDef) -> Container:
    capabilities = definition.get("linuxParameters", {}).get("capabilities", {})
    return Container(
        name=definition["name"],
        text=json.dumps(definition, default=str),
        environment={one["name"]: one["value"] for one in definition.get("environment", [])},
        secrets={one["name"]: one["valueFrom"] for one in definition.get("secrets", [])},
        user=definition.get("user", ""),
        read_only=definition.get("readonlyRootFilesystem", False),
        dropped=tuple(capabilities.get("drop", [])),
        added=tuple(capabilities.get("add", [])),
        privileged=definition.get("privileged", False),
    )


def _groups(cloud: Cloud, lab: str, task: TaskTypeDef) -> list[str]:
    """The groups of the task's interface; those of its service where it names no interface."""
    details = [d for a in task.get("attachments", []) for d in a.get("details", [])]
    interfaces = [d["value"] for d in details if d.get("name") == "networkInterfaceId"]
    if interfaces:
        ec2 = cast("EC2Client", cloud.client("ec2"))
        with translate_aws_errors(f"describing the network interface of {lab}"):
            found = ec2.describe_network_interfaces(NetworkInterfaceIds=interfaces)
        return sorted(
            group["GroupId"] for one in found["NetworkInterfaces"] for group in one["Groups"]
        )
    service = LabService(cloud, lab).describe()
    network = service.get("networkConfiguration", {}) if service else {}
    return sorted(network.get("awsvpcConfiguration", {}).get("securityGroups", []))


def read_ingress(cloud: Cloud, groups: Iterable[str]) -> list[Ingress]:
    """Every ingress rule of ``groups``, one for each source."""
    ec2 = cast("EC2Client", cloud.client("ec2"))
    wanted = list(groups)
    if not wanted:
        return []
    with translate_aws_errors(f"reading the firewall {', '.join(wanted)}"):
        found = ec2.describe_security_groups(GroupIds=wanted)["SecurityGroups"]
    return [
        Ingress(source, rule["IpProtocol"], rule.get("FromPort"), rule.get("ToPort"))
        for group in found
        for rule in cast("list[dict[str, Any]]", group["IpPermissions"])
        for source in _sources(rule)
    ]


def _sources(rule: Mapping[str, Any]) -> Iterator[str]:
    yield from (one["CidrIp"] for one in rule.get("IpRanges", []))
    yield from (one["CidrIpv6"] for one in rule.get("Ipv6Ranges", []))
    yield from (f"prefix list {one['PrefixListId']}" for one in rule.get("PrefixListIds", []))
    yield from (f"group {one['GroupId']}" for one in rule.get("UserIdGroupPairs", []))


def read_role(cloud: Cloud, role: str) -> RoleFacts:
    """The role's boundary and policies, as IAM has them now."""
    iam = cast("IAMClient", cloud.client("iam"))
    with translate_aws_errors(f"reading the role {role}"):
        boundary = iam.get_role(RoleName=role)["Role"].get("PermissionsBoundary", {})
        attached = [
            policy["PolicyArn"]
            for page in iam.get_paginator("list_attached_role_policies").paginate(RoleName=role)
            for policy in page["AttachedPolicies"]
        ]
        own = [
            name
            for page in iam.get_paginator("list_role_policies").paginate(RoleName=role)
            for name in page["PolicyNames"]
        ]
        policies = {
            # botocore parses the document, which AWS sends as text.
            name: cast(
                "dict[str, Any]",
                iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"],
            )
            for name in own
        }
    return RoleFacts(boundary.get("PermissionsBoundaryArn"), tuple(attached), policies)


def ask_iam(
    cloud: Cloud, role_arn: str, questions: Iterable[Question]
) -> dict[Question, dict[str, str]]:
    """What IAM decides about each of ``questions``, by action.

    It evaluates the role's policies, its boundary, and an organisation's limits on both.
    """
    iam = cast("IAMClient", cloud.client("iam"))

    def ask(question: Question) -> dict[str, str]:
        entry = {"ContextKeyName": PROFILE_KEY, "ContextKeyType": "string"}
        context: Any = (
            {"ContextEntries": [{**entry, "ContextKeyValues": [question.profile]}]}
            if question.profile
            else {}
        )
        # One resource per call: for several, IAM gives one answer where it is the same for all.
        with translate_aws_errors(f"asking IAM whether the gateway may call {question}"):
            answer = iam.simulate_principal_policy(
                PolicySourceArn=role_arn,
                ActionNames=sorted(INVOKE),
                ResourceArns=[question.resource],
                **context,
            )
        return {one["EvalActionName"]: one["EvalDecision"] for one in answer["EvaluationResults"]}

    asked = list(questions)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(asked, pool.map(propagate_stage(ask), asked), strict=True))


def read_retention(cloud: Cloud, lab: str) -> int | None:
    """For how many days the lab's log is kept; ``None``: forever. PermanentError without a log."""
    return _log_group(cloud, lab).get("retentionInDays")


def _log_group(cloud: Cloud, lab: str) -> Mapping[str, Any]:
    logs, name = cast("CloudWatchLogsClient", cloud.client("logs")), names.log_group(lab)
    with translate_aws_errors(f"looking for the log group {name}"):
        for page in logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=name):
            for group in page["logGroups"]:
                if group.get("logGroupName") == name:
                    return cast("dict[str, Any]", group)
    raise PermanentError(f"there is no log group {name}", _UP_AGAIN)


def read_tags(cloud: Cloud, lab: str, task: TaskFacts) -> dict[str, dict[str, str]]:
    """The tags of each of the lab's resources, by kind."""
    ecs, name = cast("ECSClient", cloud.client("ecs")), names.resource_name(lab)
    secrets = cast("SecretsManagerClient", cloud.client("secretsmanager"))
    logs = cast("CloudWatchLogsClient", cloud.client("logs"))
    ec2 = cast("EC2Client", cloud.client("ec2"))
    with translate_aws_errors(f"reading the tags of {lab}"):
        clusters = ecs.describe_clusters(clusters=[name], include=["TAGS"])["clusters"]
        services = ecs.describe_services(cluster=name, services=[name], include=["TAGS"])
        tasks = ecs.describe_tasks(cluster=name, tasks=[task.arn], include=["TAGS"])["tasks"]
        group = str(_log_group(cloud, lab)["arn"]).removesuffix(":*")
        groups = ec2.describe_security_groups(GroupIds=list(task.groups))["SecurityGroups"]
        vpcs = ec2.describe_vpcs(VpcIds=sorted({one["VpcId"] for one in groups}))["Vpcs"]
        return {
            "cluster": _pairs(clusters[0].get("tags") if clusters else []),
            "service": _pairs(services["services"][0].get("tags")),
            "task": _pairs(tasks[0].get("tags") if tasks else []),
            "key": _pairs(secrets.describe_secret(SecretId=names.key_secret(lab)).get("Tags")),
            "certificate": _pairs(
                secrets.describe_secret(SecretId=names.tls_secret(lab)).get("Tags")
            ),
            "log group": dict(logs.list_tags_for_resource(resourceArn=group)["tags"]),
            **{f"security group {one['GroupId']}": _pairs(one.get("Tags")) for one in groups},
            **{f"VPC {one['VpcId']}": _pairs(one.get("Tags")) for one in vpcs},
        }


def _pairs(tags: Iterable[Any] | None) -> dict[str, str]:
    """Tags by name; services spell the two words differently."""
    return {
        one.get("Key", one.get("key", "")): one.get("Value", one.get("value", ""))
        for one in tags or []
    }
