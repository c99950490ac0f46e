"""What an application needs to call a lab, as shell assignments: only this module shows the key."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import boto3

from adapters.aws.bucket import StateBucket
from adapters.aws.secrets import Secrets
from adapters.aws.service import LabService
from adapters.aws.session import Cloud
from lab import names
from lab.certificate import Trust
from lab.endpoint import Endpoint
from lab.errors import PermanentError
from lab.files import write_atomic
from lab.record import LabRecord
from lab.settings import read_settings
from workstation.targets import LOCAL_CREDENTIALS, environment_of


def print_environment(lab: str, target: str) -> int:
    """Write ``export`` lines for ``eval`` to stdout; PermanentError if the lab is not up.

    The address is the one of the task that serves now: Spot may have replaced an earlier one. The
    authority to trust is that of the lab's record, written to ``labs/NAME/ca.pem``.
    """
    names.check_lab_name(lab)
    with environment_of(target, LOCAL_CREDENTIALS if target == "local" else {}):
        settings = read_settings()
        cloud = Cloud(boto3.Session(region_name=settings.region))
        service = LabService(cloud, lab)
        task = service.running_task() if service.describe() else None
        if task is None:
            raise PermanentError(
                f"lab {lab} is not up on {target}",
                f"Bring it up: ./demo.sh --lab {lab} --target {target}",
            )
        trust = _trust(cloud, lab)
        key = Secrets(cloud).require(names.key_secret(lab))
        ca_file = _write_ca(settings.lab_home(lab), trust.ca)
    values = Endpoint.of(lab, task.address, trust.ca).variables(str(ca_file))
    for variable, value in {**values, "OPENAI_API_KEY": key}.items():
        sys.stdout.write(f"export {variable}={shlex.quote(value)}\n")
    return 0


def _trust(cloud: Cloud, lab: str) -> Trust:
    account, _ = cloud.account()
    bucket = names.state_bucket(account, cloud.region)
    found = StateBucket(cloud, bucket).read_json(names.lab_record_key(lab))
    trust = LabRecord.model_validate(found).trust if found else None
    if trust is None:
        raise PermanentError(f"lab {lab} has no certificate on record", "Bring it up again.")
    return trust


def _write_ca(folder: Path, ca: str) -> Path:
    path = folder / "ca.pem"
    write_atomic(path, ca)
    return path.resolve()
