"""Make Prefect's server know the project: work pool, blocks, then ``prefect deploy --all``.

Run as ``python -m deployments.register`` with PREFECT_API_URL, LAB_ROOT and LAB_HOME set. May be
run again: it brings what is there to what the files say.
"""

from __future__ import annotations

import subprocess
import sys

from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker
from prefect_aws import AwsCredentials
from pydantic import SecretStr

WORK_POOL = "gateway-lab"
LOCAL_BLOCK = "gateway-lab-local"


def ensure_work_pool() -> None:
    """A process work pool for every deployment of the project."""
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
    """The local cloud's credentials: dummies that it accepts and that open nothing else."""
    AwsCredentials(
        aws_access_key_id="local",
        aws_secret_access_key=SecretStr("local"),
        region_name="us-east-1",
    ).save(LOCAL_BLOCK, overwrite=True)


def main() -> int:
    """Register everything; the exit code of ``prefect deploy``."""
    ensure_work_pool()
    ensure_blocks()
    return subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
