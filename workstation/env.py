"""What an application needs to call a lab, as shell assignments: the one place to show the key."""

from __future__ import annotations

import shlex
import sys

import boto3

from lab.adapters.aws import Cloud
from lab.errors import PermanentError
from lab.names import check_lab_name, key_secret
from lab.report import read_report
from lab.settings import read_settings
from workstation.targets import LOCAL_CREDENTIALS, environment_of, lab_home


def print_environment(lab: str, target: str) -> int:
    """Write ``export`` lines for ``eval`` to stdout; PermanentError if the lab is not up."""
    check_lab_name(lab)
    report = read_report(lab_home() / "labs" / lab)
    if report is None or report.endpoint is None or report.target != target:
        raise PermanentError(
            f"lab {lab} is not up on {target}",
            f"Bring it up: ./demo.sh --lab {lab} --target {target}",
        )
    with environment_of(target, LOCAL_CREDENTIALS if target == "local" else {}):
        settings = read_settings()
        cloud = Cloud(boto3.Session(region_name=settings.region))
        key = cloud.gateway_key(key_secret(lab))
    values = {"OPENAI_BASE_URL": f"{report.endpoint}/v1", "OPENAI_API_KEY": key}
    for name, value in values.items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
    return 0
