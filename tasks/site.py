"""The cloud that a run works on, opened through prefect-aws."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import cast

from prefect_aws import AwsCredentials

from adapters.aws.session import Cloud, told
from lab.errors import PermanentError
from lab.settings import Settings


def open_cloud(settings: Settings) -> Cloud:
    """The cloud of ``settings``: its AWS Credentials block, or boto3's own search without one.

    The same object for the same settings, so that all tasks of a run share its connections.
    Raises PermanentError where the block does not exist.
    """
    return _open(settings.credentials_block, settings.region)


@lru_cache(maxsize=8)
def _open(block: str | None, region: str) -> Cloud:
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
    with told("opening the AWS session"):
        return Cloud(credentials.get_boto3_session())
