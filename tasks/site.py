"""Where a run works: settings, cloud, place and state bucket, opened once and passed on as one.

The only place that opens a cloud.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import cast

from prefect_aws import AwsCredentials

from adapters.aws.bucket import StateBucket
from adapters.aws.end import LabEnd
from adapters.aws.errors import translate_aws_errors
from adapters.aws.registry import Registry
from adapters.aws.secrets import Secrets
from adapters.aws.service import LabService
from adapters.aws.session import Cloud
from adapters.process import interruptible
from lab import names
from lab.errors import PermanentError
from lab.place import Place
from lab.settings import Settings, read_settings
from tasks.stage import stage


class Site:
    """Everything that a run needs of the place where it works. May be shared between threads."""

    def __init__(self, settings: Settings, cloud: Cloud, place: Place) -> None:
        """``place`` is the place of ``cloud``, and ``settings`` allow it."""
        self.settings = settings
        self.cloud = cloud
        self.place = place
        self.bucket = StateBucket(cloud, place.bucket)
        self.registry = Registry(cloud, names.repository_name())
        self.secrets = Secrets(cloud)

    def service(self, lab: str) -> LabService:
        """The ECS service of ``lab``, whether or not it exists."""
        return LabService(self.cloud, lab)

    def end(self, lab: str) -> LabEnd:
        """What the cloud itself stores of the end of ``lab``."""
        return LabEnd(self.cloud, lab)


@contextmanager
def open_site() -> Iterator[Site]:
    """The site that the environment names; within this block a cancellation interrupts the run.

    Raises InvalidInputError for settings that are refused, and PermanentError for credentials that
    belong to no account, or to one that the settings do not allow.
    """
    with interruptible():
        yield find_site(read_settings())


@stage("find place", run_name="find-place")
def find_site(settings: Settings) -> Site:
    """The site of ``settings``; AWS names the account of their credentials."""
    cloud = _open(settings.credentials_block, settings.region)
    return Site(settings, cloud, find_place(cloud, settings))


def find_place(cloud: Cloud, settings: Settings) -> Place:
    """The account and region of ``cloud``; PermanentError if they may not be used."""
    cloud.check_region()
    account, partition = cloud.account()
    if settings.account and account != settings.account:
        raise PermanentError(
            f"the credentials belong to account {account}, allowed is {settings.account}",
            "Sign in to the right account, or change LAB_ACCOUNT.",
        )
    return Place(
        account=account,
        partition=partition,
        region=settings.region,
        registry_host=settings.registry_host,
    )


@lru_cache(maxsize=8)
def _open(block: str | None, region: str) -> Cloud:
    """The cloud of the AWS Credentials block ``block``; without one, boto3 finds credentials."""
    # boto3 and Terraform both read these; a profile's own region must not win over the lab's.
    os.environ["AWS_REGION"] = os.environ["AWS_DEFAULT_REGION"] = region
    if block is None:
        credentials = AwsCredentials(region_name=region)
    else:
        try:
            credentials = cast(AwsCredentials, AwsCredentials.load(block))
        except ValueError as error:
            raise PermanentError(
                f"the AWS Credentials block {block!r} cannot be loaded: {error}",
                "Make it in Prefect's UI under Blocks, or unset LAB_CREDENTIALS_BLOCK.",
            ) from error
        credentials = credentials.model_copy(update={"region_name": region})
    with translate_aws_errors("opening the AWS session"):
        return Cloud(credentials.get_boto3_session())
