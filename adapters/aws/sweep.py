"""Search every service that a lab touches, by name and by tag, and remove what is found.

Terraform destroys the resources in its state. This finds those that are in no state: after a lost
state, a crash between a resource and its record, or a change by hand. Each finding says how a
person removes it, and can remove itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from adapters.aws.errors import translate_aws_errors
from adapters.aws.service import LabService
from adapters.aws.session import Cloud
from adapters.aws.user_agent import propagate_stage
from lab import names
from lab.errors import LabError

#: The services' error codes for a resource that does not exist.
_GONE_CODES = {
    "ClusterNotFoundException",
    "NoSuchEntity",
    "ResourceNotFound",
    "ResourceNotFoundException",
}


@dataclass(frozen=True)
class Leftover:
    """A resource of ``lab`` that exists, how a person removes it, and how it removes itself."""

    lab: str
    kind: str
    name: str
    command: str
    remove: Callable[[], object] = field(repr=False, compare=False)


class Sweeper:
    """Finds and removes a lab's resources without Terraform's state."""

    def __init__(self, cloud: Cloud) -> None:
        """``cloud`` says where to look."""
        self._cloud = cloud

    def look(self, lab: str | None) -> tuple[list[str], list[Leftover]]:
        """What was searched, and what exists of ``lab`` (``None``: of any lab of the project).

        In the order in which resources can be removed. Without a lab, only resources with the
        project's tags count: a name alone may be somebody else's. A resource that disappears
        during the search does not count.
        """
        looks: dict[str, Callable[[str | None], Iterator[Leftover]]] = {
            "schedule groups and schedules": self._schedules,
            "state machines": self._state_machines,
            "ECS services and clusters": self._ecs,
            "task definitions": self._task_definitions,
            "secrets": self._secrets,
            "log groups": self._log_groups,
            "VPCs, subnets, gateways, route tables, security groups": self._network,
            "IAM roles": self._roles,
        }

        def found(what: str) -> list[Leftover]:
            with translate_aws_errors(f"looking for {what}"):
                return list(looks[what](lab))

        # The services are independent of each other, and nothing is changed here.
        with ThreadPoolExecutor(max_workers=len(looks)) as pool:
            everything = list(pool.map(propagate_stage(found), looks))
        return list(looks), [item for items in everything for item in items]

    def remove(self, found: list[Leftover], log: Callable[[str], None]) -> None:
        """Remove what was found, in order; what cannot be removed is logged and skipped."""
        for item in found:
            try:
                with translate_aws_errors(f"removing {item.kind} {item.name}"):
                    item.remove()
                log(f"removed {item.kind} {item.name}")
            except LabError as error:
                log(f"not removed: {error.message}")

    def _schedules(self, lab: str | None) -> Iterator[Leftover]:
        scheduler = self._cloud.client("scheduler")
        prefix = names.resource_name(lab) if lab else f"{names.PROJECT}-"
        for page in scheduler.get_paginator("list_schedule_groups").paginate(NamePrefix=prefix):
            for group in page["ScheduleGroups"]:
                name = group["Name"]
                if group["State"] == "DELETING":
                    continue
                owner = self._owner(
                    lab,
                    name,
                    partial(scheduler.list_tags_for_resource, ResourceArn=group["Arn"]),
                )
                if owner:
                    yield Leftover(
                        owner,
                        "schedule group",
                        name,
                        f"aws scheduler delete-schedule-group --name {name}",
                        partial(scheduler.delete_schedule_group, Name=name),
                    )

    def _state_machines(self, lab: str | None) -> Iterator[Leftover]:
        states = self._cloud.client("stepfunctions")
        for page in states.get_paginator("list_state_machines").paginate():
            for machine in page["stateMachines"]:
                arn = machine["stateMachineArn"]
                owner = self._owner(
                    lab,
                    machine["name"].removesuffix("-stop"),
                    partial(states.list_tags_for_resource, resourceArn=arn),
                )
                if owner:
                    yield Leftover(
                        owner,
                        "state machine",
                        machine["name"],
                        f"aws stepfunctions delete-state-machine --state-machine-arn {arn}",
                        partial(states.delete_state_machine, stateMachineArn=arn),
                    )

    def _ecs(self, lab: str | None) -> Iterator[Leftover]:
        ecs = self._cloud.client("ecs")
        arns = (
            [names.resource_name(lab)]
            if lab
            else [
                arn
                for page in ecs.get_paginator("list_clusters").paginate()
                for arn in page["clusterArns"]
                # The deployer has no rights on clusters with other names.
                if names.lab_of_resource(arn.rsplit("/", 1)[-1])
            ]
        )
        clusters = [
            cluster
            for start in range(0, len(arns), 100)
            for cluster in ecs.describe_clusters(
                clusters=arns[start : start + 100], include=["TAGS"]
            )["clusters"]
            if cluster["status"] == "ACTIVE"
        ]
        for cluster in clusters:
            name = cluster["clusterName"]
            owner = self._owner(lab, name, partial(dict, cluster))
            if not owner:
                continue
            pages = _unless_gone(
                partial(list, ecs.get_paginator("list_services").paginate(cluster=name))
            )
            if pages is None:
                continue
            for page in pages:
                for arn in page["serviceArns"]:
                    service = arn.rsplit("/", 1)[-1]
                    yield Leftover(
                        owner,
                        "service",
                        service,
                        f"aws ecs delete-service --force --cluster {name} --service {service}",
                        partial(ecs.delete_service, cluster=name, service=service, force=True),
                    )
            yield Leftover(
                owner,
                "cluster",
                name,
                f"aws ecs delete-cluster --cluster {name}",
                partial(self._delete_cluster, name),
            )

    def _delete_cluster(self, name: str) -> None:
        # A cluster can be deleted only without services and tasks, and tasks take time to stop.
        ecs = self._cloud.client("ecs")
        for page in ecs.get_paginator("list_tasks").paginate(cluster=name):
            for task in page["taskArns"]:
                ecs.stop_task(cluster=name, task=task, reason="the lab has ended")
        ecs.delete_cluster(cluster=name)

    def _task_definitions(self, lab: str | None) -> Iterator[Leftover]:
        ecs = self._cloud.client("ecs")
        prefix = names.resource_name(lab) if lab else f"{names.PROJECT}-"
        families = [
            family
            for page in ecs.get_paginator("list_task_definition_families").paginate(
                familyPrefix=prefix, status="ACTIVE"
            )
            for family in page["families"]
        ]
        for family in families:
            owner = self._owner(
                lab,
                family,
                partial(ecs.describe_task_definition, taskDefinition=family, include=["TAGS"]),
            )
            if owner:
                yield Leftover(
                    owner,
                    "task definition",
                    family,
                    f"aws ecs deregister-task-definition --task-definition {family}:REVISION "
                    "(each revision)",
                    LabService(
                        self._cloud, names.lab_of_resource(family) or owner
                    ).forget_task_definitions,
                )

    def _secrets(self, lab: str | None) -> Iterator[Leftover]:
        secrets = self._cloud.client("secretsmanager")
        prefix = f"{names.resource_name(lab)}/" if lab else f"{names.PROJECT}-"
        pages = secrets.get_paginator("list_secrets").paginate(
            Filters=[{"Key": "name", "Values": [prefix]}]
        )
        for page in pages:
            for secret in page["SecretList"]:
                name = secret["Name"]
                owner = self._owner(lab, name.split("/")[0], partial(dict, secret))
                if owner:
                    yield Leftover(
                        owner,
                        "secret",
                        name,
                        "aws secretsmanager delete-secret --force-delete-without-recovery "
                        f"--secret-id {name}",
                        partial(
                            secrets.delete_secret, SecretId=name, ForceDeleteWithoutRecovery=True
                        ),
                    )

    def _log_groups(self, lab: str | None) -> Iterator[Leftover]:
        logs = self._cloud.client("logs")
        prefix = names.log_group(lab) if lab else names.log_group("")
        for page in logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
            for group in page["logGroups"]:
                name = group["logGroupName"]
                owner = self._owner(
                    lab,
                    names.resource_name(name.rsplit("/", 1)[-1]),
                    partial(logs.list_tags_log_group, logGroupName=name),
                )
                if owner:
                    yield Leftover(
                        owner,
                        "log group",
                        name,
                        f"aws logs delete-log-group --log-group-name {name}",
                        partial(logs.delete_log_group, logGroupName=name),
                    )

    def _network(self, lab: str | None) -> Iterator[Leftover]:
        ec2 = self._cloud.client("ec2")
        wanted = {"Name": f"tag:{names.TAG_PROJECT}", "Values": [names.PROJECT]}
        if lab:
            wanted = {"Name": f"tag:{names.TAG_LAB}", "Values": [lab]}
        # In the order of removal; the default security group goes with its VPC.
        kinds: list[tuple[str, str, str, str]] = [
            ("security group", "security_groups", "SecurityGroups", "GroupId"),
            ("subnet", "subnets", "Subnets", "SubnetId"),
            ("internet gateway", "internet_gateways", "InternetGateways", "InternetGatewayId"),
            ("route table", "route_tables", "RouteTables", "RouteTableId"),
            ("vpc", "vpcs", "Vpcs", "VpcId"),
        ]
        for kind, operation, answer, key in kinds:
            pages = ec2.get_paginator(f"describe_{operation}").paginate(Filters=[wanted])
            for item in (i for page in pages for i in page[answer]):
                tags = {tag["Key"]: tag["Value"] for tag in item.get("Tags", [])}
                owner = lab or tags.get(names.TAG_LAB)
                if owner and item.get("GroupName") != "default":
                    yield self._network_item(owner, kind, item, key)

    def _network_item(self, owner: str, kind: str, item: dict[str, Any], key: str) -> Leftover:
        ec2 = self._cloud.client("ec2")
        identifier = item[key]
        action = kind.replace(" ", "_")

        def remove() -> None:
            if kind == "internet gateway":
                for attachment in item.get("Attachments", []):
                    ec2.detach_internet_gateway(
                        InternetGatewayId=identifier, VpcId=attachment["VpcId"]
                    )
            getattr(ec2, f"delete_{action}")(**{key: identifier})

        option = "group-id" if kind == "security group" else f"{kind.replace(' ', '-')}-id"
        command = f"aws ec2 delete-{kind.replace(' ', '-')} --{option} {identifier}"
        return Leftover(owner, kind, identifier, command, remove)

    def _roles(self, lab: str | None) -> Iterator[Leftover]:
        iam = self._cloud.client("iam")
        for page in iam.get_paginator("list_roles").paginate():
            for role in page["Roles"]:
                name = role["RoleName"]
                resource, _, suffix = name.rpartition("-")
                if suffix not in names.ROLES:
                    continue
                owner = self._owner(lab, resource, partial(iam.list_role_tags, RoleName=name))
                if owner and self._is_role_of_here(name):
                    yield Leftover(
                        owner,
                        "role",
                        name,
                        f"aws iam delete-role --role-name {name} (its inline policies first)",
                        partial(self._delete_role, name),
                    )

    def _is_role_of_here(self, role: str) -> bool:
        # Roles belong to no region: IAM also lists those of labs in other regions.
        iam = self._cloud.client("iam")
        answer = _unless_gone(partial(iam.list_role_tags, RoleName=role))
        if answer is None:
            return False
        return _tags(answer["Tags"]).get(names.TAG_REGION) in (None, self._cloud.region)

    def _delete_role(self, name: str) -> None:
        iam = self._cloud.client("iam")
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
        iam.delete_role(RoleName=name)

    def _owner(self, lab: str | None, name: str, ask: Callable[[], Any]) -> str | None:
        """The lab that the resource ``name`` belongs to, if the search is for that lab.

        ``ask`` returns an answer of AWS that holds the resource's tags.
        """
        if lab:
            return lab if name == names.resource_name(lab) else None
        if names.lab_of_resource(name) is None:
            return None
        answer = _unless_gone(ask)
        if answer is None:
            return None
        known = _tags(answer.get("tags") or answer.get("Tags") or [])
        return known.get(names.TAG_LAB) if known.get(names.TAG_PROJECT) == names.PROJECT else None


def _unless_gone(ask: Callable[[], Any]) -> Any:
    """AWS's answer about a resource that it has listed; ``None`` if that is gone by now."""
    try:
        return ask()
    except ClientError as error:
        answer = error.response["Error"]
        if answer["Code"] in _GONE_CODES or (
            # ECS has no code of its own for a family whose last revision was deregistered.
            answer["Code"] == "ClientException"
            and answer.get("Message", "").startswith("Unable to describe task definition")
        ):
            return None
        raise


def _tags(raw: Any) -> dict[str, str]:
    """Tags in any of AWS's spellings, as one mapping."""
    if isinstance(raw, dict):
        return dict(raw)
    return {tag.get("key") or tag["Key"]: tag.get("value") or tag.get("Value", "") for tag in raw}
