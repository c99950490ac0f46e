"""The session with AWS: clients, identity and region. The other modules here use it for calls.

Nothing here knows which cloud answers: region, endpoint and credentials come with the session and
the environment. Waits go through :mod:`lab.waiting`, so that tests control the clock.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import boto3
from botocore.config import Config
from botocore.exceptions import NoCredentialsError
from botocore.loaders import create_loader

from adapters.aws.errors import translate_aws_errors
from adapters.aws.user_agent import name_stage
from lab import names
from lab.errors import InvalidInputError

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient

#: botocore's loaded descriptions of AWS's services. Reading them takes half a second of every run
#: that is not forked from a process that has read them.
_DESCRIPTIONS = create_loader()
SERVICES = (
    "bedrock",
    "ec2",
    "ecr",
    "ecs",
    "iam",
    "logs",
    "s3",
    "scheduler",
    "secretsmanager",
    "stepfunctions",
    "sts",
)


def read_descriptions() -> None:
    """On return the descriptions of all services are in memory. Makes no call."""
    nobody = Cloud(boto3.Session("none", "none", region_name="us-east-1"))
    nobody.check_region()
    for service in SERVICES:
        nobody.client(service)


class Cloud:
    """A session with AWS and its clients. May be shared between threads."""

    def __init__(self, session: boto3.Session, *, attempts: int = 5, timeout: float = 60) -> None:
        """``attempts`` and ``timeout`` (seconds) bound each call."""
        self._session = session
        # boto3 offers no way to give an existing session another loader.
        session._session.register_component("data_loader", _DESCRIPTIONS)
        self._making = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._config = Config(
            retries={"mode": "standard", "max_attempts": attempts},
            connect_timeout=min(10, timeout),
            read_timeout=timeout,
            user_agent_extra=names.PROJECT,
        )

    def with_short_timeouts(self) -> Cloud:
        """The same cloud, for calls whose answer is useless after ten seconds."""
        return Cloud(self._session, attempts=2, timeout=5)

    def client(self, service: str) -> Any:
        """The boto3 client of ``service``, the same one each time."""
        # A session makes clients one at a time; the clients themselves may be shared.
        with self._making, translate_aws_errors(f"opening {service}"):
            if service not in self._clients:
                client: Any = self._session.client(cast(Any, service), config=self._config)
                client.meta.events.register("request-created", name_stage)
                self._clients[service] = client
            return self._clients[service]

    @property
    def region(self) -> str:
        """The session's region."""
        return self._session.region_name

    def check_region(self) -> None:
        """Raise InvalidInputError unless AWS has the region; reads botocore's data only."""
        known = {
            region
            for partition in self._session.get_available_partitions()
            for region in self._session.get_available_regions("ecs", partition)
        }
        if self.region not in known:
            raise InvalidInputError(
                f"region {self.region!r} is not one that AWS offers ECS in",
                f"Set LAB_REGION to one of: {', '.join(sorted(known))}.",
            )

    def account(self) -> tuple[str, str]:
        """The account and partition of the credentials; PermanentError if they have none."""
        with translate_aws_errors("asking AWS who we are"):
            sts = cast("STSClient", self.client("sts"))
            caller = sts.get_caller_identity()
        return caller["Account"], caller["Arn"].split(":")[1]

    def environment(self) -> dict[str, str]:
        """The environment for a child to act as this session. Holds credentials: never log it."""
        with translate_aws_errors("reading the AWS credentials"):
            credentials = self._session.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            frozen = credentials.get_frozen_credentials()
        found = {
            "AWS_ACCESS_KEY_ID": frozen.access_key,
            "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
            "AWS_SESSION_TOKEN": frozen.token,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }
        return {name: value for name, value in found.items() if value}
