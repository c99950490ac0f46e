"""The new image takes over: ECS's own word that it did, then the gateway's that it is ready."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from lab import names
from lab.adapters.aws import Cloud, Rollout, RunningTask
from lab.adapters.gateway import await_ready
from lab.errors import DeadlineError, LabError, PermanentError
from lab.settings import Settings
from tasks.cloud import open_cloud
from tasks.provision import Provisioned
from tasks.stages import run_log, stage


class RolledOut(BaseModel):
    """Where the gateway answers, and the digest that ECS says it runs."""

    model_config = ConfigDict(frozen=True)

    endpoint: str
    image_digest: str | None


@stage("rollout", run_name="rollout-{lab}")
def roll_out(lab: str, settings: Settings, made: Provisioned) -> RolledOut:
    """On return the newest revision serves, and its gateway says that it is ready.

    If the new task fails, what served before serves on, at its address, and the error holds ECS's
    reason and the container's last words.
    """
    log = run_log()
    cloud = open_cloud(settings)
    rollout = cloud.start_rollout(made.cluster_name, made.service_name, made.task_definition_arn)
    try:
        task = cloud.await_rollout(
            rollout,
            log_group=made.log_group_name,
            deadline=settings.rollout_deadline.total_seconds(),
            log=log,
        )
        endpoint = names.endpoint_of(task.address)
        log(f"task {task.arn.rsplit('/', 1)[-1]} runs at {task.address}")
        _await_gateway(cloud, rollout, task, endpoint, settings, made.log_group_name)
    except PermanentError as error:
        try:
            cloud.abandon_rollout(rollout)
        except LabError as second:
            log(f"and the failed rollout could not be stopped: {second.message}")
        else:
            serves = (rollout.previous or "").rsplit("/", 1)[-1]
            log(f"the rollout of {lab} failed; {f'{serves} serves on' if serves else 'none runs'}")
        raise error
    log(f"the gateway is ready at {endpoint}")
    return RolledOut(endpoint=endpoint, image_digest=task.image_digest)


def _await_gateway(
    cloud: Cloud,
    rollout: Rollout,
    task: RunningTask,
    endpoint: str,
    settings: Settings,
    log_group: str,
) -> None:
    try:
        await_ready(
            endpoint,
            deadline=settings.readiness_deadline.total_seconds(),
            log=run_log(),
            alive=lambda: cloud.raise_if_failed(rollout, log_group),
        )
    except DeadlineError as error:
        words = cloud.last_words(log_group, task.arn)
        raise DeadlineError(error.message + words, error.hint) from error
