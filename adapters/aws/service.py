"""The lab's ECS service: its cluster, its tasks, where they answer, and their last log lines.

A rollout of another revision is in :mod:`adapters.aws.rollout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from adapters.aws.errors import translate_aws_errors
from adapters.aws.session import Cloud
from lab import names
from lab.errors import LabError
from lab.live import RunningTask

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_ecs.type_defs import ServiceTypeDef, TaskTypeDef
    from mypy_boto3_logs import CloudWatchLogsClient

#: The capacity that a cluster's services may ask for.
CAPACITY = ("FARGATE", "FARGATE_SPOT")


class LabService:
    """The service of ``lab``; its cluster, service and task family have one name."""

    def __init__(self, cloud: Cloud, lab: str) -> None:
        """``cloud`` holds the lab, of which nothing need exist yet."""
        self.lab = lab
        self.name = names.resource_name(lab)
        self._cloud = cloud

    @property
    def _ecs(self) -> ECSClient:
        return cast("ECSClient", self._cloud.client("ecs"))

    @property
    def _ec2(self) -> EC2Client:
        return cast("EC2Client", self._cloud.client("ec2"))

    @property
    def _logs(self) -> CloudWatchLogsClient:
        return cast("CloudWatchLogsClient", self._cloud.client("logs"))

    def ensure_cluster(self, tags: Mapping[str, str]) -> bool:
        """On return the cluster exists, with Fargate's capacity; True if it was made now.

        An existing cluster keeps its tags and capacity. May be called again.
        """
        with translate_aws_errors(f"making the cluster {self.name}"):
            for found in self._ecs.describe_clusters(clusters=[self.name])["clusters"]:
                if found["status"] == "ACTIVE":
                    return False
            self._ecs.create_cluster(
                clusterName=self.name,
                capacityProviders=list(CAPACITY),
                settings=[{"name": "containerInsights", "value": "disabled"}],
                tags=[{"key": key, "value": value} for key, value in tags.items()],
            )
        return True

    def describe(self) -> ServiceTypeDef | None:
        """The ECS service, or ``None`` where it does not exist or is being deleted."""
        with translate_aws_errors(f"describing the service {self.name}"):
            try:
                found = self._ecs.describe_services(cluster=self.name, services=[self.name])
            except self._ecs.exceptions.ClusterNotFoundException:
                return None
        return next((s for s in found["services"] if s["status"] == "ACTIVE"), None)

    def serves_from_before(self, moment: datetime) -> bool:
        """Whether the newest running task of the service began before ``moment``.

        False where none runs.
        """
        began = [
            task["createdAt"]
            for task in self.tasks("RUNNING")
            if task.get("lastStatus") == "RUNNING"
        ]
        return bool(began) and max(began) < moment

    def deploy(self, task_definition: str, *, force: bool) -> None:
        """Ask for one task of ``task_definition``; with ``force`` even if it already serves."""
        with translate_aws_errors(f"rolling out {task_definition}"):
            self._ecs.update_service(
                cluster=self.name,
                service=self.name,
                taskDefinition=task_definition,
                desiredCount=1,
                forceNewDeployment=force,
            )

    def stop(self) -> None:
        """Set the service to zero tasks. Safe to call again."""
        with translate_aws_errors(f"stopping {self.name}"):
            self._ecs.update_service(cluster=self.name, service=self.name, desiredCount=0)

    def running_task(self, task_definition: str | None = None) -> RunningTask | None:
        """The newest running task of the service, of ``task_definition`` if given; else ``None``.

        On AWS the address is the public one of the task's network interface; where an attachment
        names no interface, it is the attachment's own address.
        """
        running = [
            task
            for task in self.tasks("RUNNING")
            if task.get("lastStatus") == "RUNNING"
            and task_definition in (None, task["taskDefinitionArn"])
        ]
        for task in sorted(running, key=lambda t: t["createdAt"], reverse=True):
            address = self._task_address(task)
            if address:
                digest = task["containers"][0].get("imageDigest")
                return RunningTask(task["taskArn"], address, digest)
        return None

    def tasks(self, status: Literal["RUNNING", "STOPPED"]) -> list[TaskTypeDef]:
        """The service's tasks that ECS wants to be ``status``."""
        with translate_aws_errors(f"listing the tasks of {self.name}"):
            arns = self._ecs.list_tasks(
                cluster=self.name, serviceName=self.name, desiredStatus=status
            )["taskArns"]
            if not arns:
                return []
            return self._ecs.describe_tasks(cluster=self.name, tasks=arns)["tasks"]

    def _task_address(self, task: TaskTypeDef) -> str | None:
        details = {
            detail["name"]: detail["value"]
            for attachment in task.get("attachments", [])
            for detail in attachment.get("details", [])
            if "name" in detail and "value" in detail
        }
        interface = details.get("networkInterfaceId")
        if interface is None:
            return details.get("privateIPv4Address")
        with translate_aws_errors(f"describing the network interface {interface}"):
            found = self._ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])
        return found["NetworkInterfaces"][0].get("Association", {}).get("PublicIp")

    def last_words(self, task_arn: str, lines: int = 15) -> str:
        """The end of the log of the task's container, as text for an error message."""
        task_id = task_arn.rsplit("/", 1)[-1]
        try:
            with translate_aws_errors("reading the container's log"):
                events = self._logs.get_log_events(
                    logGroupName=names.log_group(self.lab),
                    logStreamName=f"{names.CONTAINER}/{names.CONTAINER}/{task_id}",
                    limit=lines,
                    startFromHead=False,
                )["events"]
        except LabError as error:
            if isinstance(error.__cause__, self._logs.exceptions.ResourceNotFoundException):
                return "\n  (the container wrote no log)"
            return f"\n  (the container's log cannot be read: {error.message})"
        said = "\n".join(f"  | {event['message'].rstrip()}" for event in events[-lines:])
        return f"\nIts last words:\n{said}"

    def allowed_cidrs(self) -> list[str]:
        """The hosts that the lab's firewall allows now."""
        with translate_aws_errors(f"reading the firewall of {self.lab}"):
            groups = self._ec2.describe_security_groups(
                Filters=[
                    {"Name": f"tag:{names.TAG_LAB}", "Values": [self.lab]},
                    {"Name": "group-name", "Values": [self.name]},
                ]
            )["SecurityGroups"]
        return sorted(
            entry["CidrIp"]
            for group in groups
            for rule in group["IpPermissions"]
            for entry in rule["IpRanges"]
        )

    def forget_task_definitions(self) -> int:
        """Deregister and delete every revision of the service; return how many there were."""
        with translate_aws_errors(f"removing the task definitions of {self.name}"):
            arns = [
                arn
                for status in ("ACTIVE", "INACTIVE")
                for page in self._ecs.get_paginator("list_task_definitions").paginate(
                    familyPrefix=self.name, status=cast(Any, status)
                )
                for arn in page["taskDefinitionArns"]
                if arn.rsplit("/", 1)[-1].rsplit(":", 1)[0] == self.name
            ]
            for arn in arns:
                self._ecs.deregister_task_definition(taskDefinition=arn)
            for start in range(0, len(arns), 10):
                self._ecs.delete_task_definitions(taskDefinitions=arns[start : start + 10])
        return len(arns)
