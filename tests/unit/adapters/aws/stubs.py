"""AWS in a unit test: real botocore clients, whose answers come from the test."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.stub import Stubber

from adapters.aws.service import LabService
from adapters.aws.session import Cloud
from lab import names

AT = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
LAB = "demo"
NAME = names.resource_name(LAB)
ARN = "arn:aws:ecs:us-east-1:123456789012:"
OLD, NEW = f"{ARN}task-definition/{NAME}:1", f"{ARN}task-definition/{NAME}:2"
TASK = f"{ARN}task/{NAME}/0123"


@functools.cache
def session_of(region: str) -> boto3.Session:
    """One session a region: most of these tests' time goes into reading botocore's descriptions."""
    return boto3.Session("AKIDEXAMPLE", "secret", region_name=region)


class Stubs:
    """A Cloud whose clients answer only what a test gave them, in that order."""

    def __init__(self, region: str) -> None:
        self.cloud = Cloud(session_of(region))
        self._stubbers: dict[str, Stubber] = {}
        make = self.cloud.client
        # One client a service: all code that asks for a client gets the stubbed one.
        self.cloud.client = functools.cache(make)  # type: ignore[method-assign]

    @property
    def service(self) -> LabService:
        """The service of the lab ``demo`` on this cloud."""
        return LabService(self.cloud, LAB)

    def of(self, service: str) -> Stubber:
        if service not in self._stubbers:
            self._stubbers[service] = Stubber(self.cloud.client(service))
            self._stubbers[service].activate()
        return self._stubbers[service]

    def says(self, service: str, method: str, answer: dict[str, Any], /, **expected: Any) -> None:
        self.of(service).add_response(method, answer, expected or None)

    def fails(
        self,
        service: str,
        method: str,
        code: str,
        status: int = 400,
        message: str = "it is so",
    ) -> None:
        self.of(service).add_client_error(method, code, message, status)

    def all_asked(self) -> None:
        for stubber in self._stubbers.values():
            stubber.assert_no_pending_responses()

    # --- the answers of ECS and EC2 about the lab's service -----------------------------------

    def says_service(
        self, *deployments: dict[str, Any], desired: int = 1, serves: str = OLD
    ) -> None:
        """Prepare the answer: the service points at ``serves`` and has these deployments."""
        described = {
            "status": "ACTIVE",
            "taskDefinition": serves,
            "desiredCount": desired,
            "deployments": list(deployments),
            "events": [{"id": "e", "message": "has started 1 task", "createdAt": AT}],
        }
        self.says("ecs", "describe_services", {"services": [described]})

    def says_tasks(self, status: str, *found: dict[str, Any]) -> None:
        """Prepare the answer: the service's tasks of desired ``status`` are ``found``."""
        self.says(
            "ecs",
            "list_tasks",
            {"taskArns": [task["taskArn"] for task in found]},
            cluster=NAME,
            serviceName=NAME,
            desiredStatus=status,
        )
        if found:
            self.says("ecs", "describe_tasks", {"tasks": list(found)})

    def says_interface(self, **association: str) -> None:
        """Prepare the answer: the network interface of :func:`running` has this association."""
        found = {"NetworkInterfaces": [{"Association": association} if association else {}]}
        self.says("ec2", "describe_network_interfaces", found, NetworkInterfaceIds=["eni-1"])

    def expects_deployment(self, *, force: bool) -> None:
        """Expect a call that points the service at ``NEW`` with one task."""
        self.says(
            "ecs",
            "update_service",
            {},
            cluster=NAME,
            service=NAME,
            taskDefinition=NEW,
            desiredCount=1,
            forceNewDeployment=force,
        )


def deployment(
    definition: str, state: str = "COMPLETED", running: int = 1, **more: Any
) -> dict[str, Any]:
    """A deployment as ECS describes it."""
    head = {"id": f"ecs-svc/{definition[-1]}", "taskDefinition": definition, "status": "PRIMARY"}
    return {**head, "rolloutState": state, "runningCount": running, **more}


def running(**changes: Any) -> dict[str, Any]:
    """A running task of ``NEW`` as ECS describes it."""
    details = [{"name": "networkInterfaceId", "value": "eni-1"}]
    return {
        "taskArn": TASK,
        "taskDefinitionArn": NEW,
        "lastStatus": "RUNNING",
        "createdAt": AT,
        "startedBy": "ecs-svc/2",
        "containers": [{"name": "gateway", "imageDigest": "sha256:01"}],
        "attachments": [{"details": details}],
        **changes,
    }


def stopped(**changes: Any) -> dict[str, Any]:
    """A task of ``NEW`` whose container ended by itself."""
    ended = {
        "lastStatus": "STOPPED",
        "stopCode": "EssentialContainerExited",
        "stoppedReason": "Essential container in task exited",
        "containers": [{"name": "gateway", "exitCode": 3, "reason": "no key"}],
    }
    return running(**(ended | changes))
