"""Registers the project at Prefect's server: work pool, blocks, then ``prefect deploy --all``.

Run as ``python -m deployments.register`` with PREFECT_API_URL and the variables that
``prefect.yaml`` is filled from. May be run again: it updates what is there to what the files say.
"""

from __future__ import annotations

import os
import subprocess
import sys
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker
from prefect_aws import AwsCredentials
from pydantic import SecretStr

#: The variables that fill ``prefect.yaml``. Prefect itself would not replace a missing one.
TEMPLATE = ("LAB_ROOT", "LAB_HOME", "LAB_PYTHON", "LAB_LOCAL_ARCHITECTURE")
WORK_POOL = "gateway-lab"
LOCAL_BLOCK = "gateway-lab-local"


def ensure_work_pool() -> None:
    """On return there is a process work pool for every deployment of the project."""
    template = ProcessWorker.get_default_base_job_template()
    description = "Runs the lab's flows as processes on the machine of the worker."
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(WORK_POOL)
        except ObjectNotFound:
            client.create_work_pool(
                WorkPoolCreate(
                    name=WORK_POOL,
                    type="process",
                    base_job_template=template,
                    description=description,
                )
            )
        else:
            client.update_work_pool(
                WORK_POOL, WorkPoolUpdate(base_job_template=template, description=description)
            )


def ensure_blocks() -> None:
    """Save the credentials of the local cloud's deployer: dummies that open nothing else."""
    AwsCredentials(
        aws_access_key_id="local",
        aws_secret_access_key=SecretStr("local"),
        region_name="us-east-1",
    ).save(LOCAL_BLOCK, overwrite=True)


def active_schedules(client: SyncPrefectClient) -> set[tuple[UUID, str | None]]:
    """The schedules that are switched on, by deployment and slug."""
    return {
        (deployment.id, schedule.slug)
        for deployment in client.read_deployments()
        for schedule in deployment.schedules
        if schedule.active
    }


def restore_schedules(before: set[tuple[UUID, str | None]]) -> None:
    """Switch on again what ``prefect deploy`` has switched off: people decide that, not it."""
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            for schedule in deployment.schedules:
                if not schedule.active and (deployment.id, schedule.slug) in before:
                    client.update_deployment_schedule(deployment.id, schedule.id, active=True)


def remove_former_automations(client: SyncPrefectClient) -> None:
    """Remove what 0.1.0 made instead of the triggers: Prefect replaces only what it owns itself.

    ``prefect deploy`` makes the triggers of the same names afterwards.
    """
    for target in ("local", "aws"):
        name = f"lab-up/{target} failed: lab-down/{target} looks"
        for automation in client.read_automations_by_name(name):
            client.delete_automation(automation.id)


def main() -> int:
    """Register everything; return the exit code of ``prefect deploy``."""
    missing = [name for name in TEMPLATE if not os.environ.get(name)]
    if missing:
        sys.stderr.write(f"{' and '.join(missing)} must be set; `make demo` does it\n")
        return 2
    ensure_work_pool()
    ensure_blocks()
    with get_client(sync_client=True) as client:
        before = active_schedules(client)
        remove_former_automations(client)
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], check=False
    )
    if done.returncode == 0:
        restore_schedules(before)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
