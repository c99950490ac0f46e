"""What an application needs to call a lab, as shell assignments: the one place to show the key."""

from __future__ import annotations

import shlex
import sys

import boto3

from lab.adapters.aws import Cloud
from lab.errors import PermanentError
from lab.names import check_lab_name, endpoint_of, key_secret, resource_name
from lab.settings import read_settings
from workstation.targets import LOCAL_CREDENTIALS, environment_of


def print_environment(lab: str, target: str) -> int:
    """Write ``export`` lines for ``eval`` to stdout; PermanentError if the lab is not up.

    The address is the one of the task that serves now: Spot may have replaced an earlier one.
    """
    check_lab_name(lab)
    with environment_of(target, LOCAL_CREDENTIALS if target == "local" else {}):
        settings = read_settings()
        cloud = Cloud(boto3.Session(region_name=settings.region))
        name = resource_name(lab)
        task = cloud.running_task(name, name) if cloud.service(name, name) else None
        if task is None:
            raise PermanentError(
                f"lab {lab} is not up on {target}",
                f"Bring it up: ./demo.sh --lab {lab} --target {target}",
            )
        key = cloud.gateway_key(key_secret(lab))
    values = {"OPENAI_BASE_URL": f"{endpoint_of(task.address)}/v1", "OPENAI_API_KEY": key}
    for variable, value in values.items():
        sys.stdout.write(f"export {variable}={shlex.quote(value)}\n")
    return 0
