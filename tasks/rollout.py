"""The new image takes over: ECS's own word that it did, then the gateway's that it is ready."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict

from adapters.aws.session import Cloud, Rollout, RunningTask
from adapters.gateway.client import await_ready
from lab import names
from lab.endpoint import Endpoint
from lab.errors import DeadlineError, LabError, PermanentError
from lab.plan import ImagePlan
from lab.settings import Settings
from tasks.provision import Provisioned
from tasks.site import open_cloud
from tasks.stage import run_log, stage


class RolledOut(BaseModel):
    """Where the gateway answers, how to know it, and the digest of the image that it runs."""

    model_config = ConfigDict(frozen=True)

    endpoint: Endpoint
    image_digest: str | None


@stage("rollout", run_name="rollout-{lab}")
def roll_out(
    lab: str,
    settings: Settings,
    made: Provisioned,
    image: ImagePlan | None = None,
    digest: str | None = None,
) -> RolledOut:
    """On return the newest revision serves, runs ``digest``, and its gateway says that it is ready.

    A task that has a key from before the present one is replaced, also by the same revision. If the
    new task fails, what served before serves on, at its address, and the error holds ECS's reason
    and the container's last words. A task that runs another image than ``digest``, or a registry
    that holds another one under the tag, ends the service; without ``image`` neither is looked at.
    """
    log = run_log()
    cloud = open_cloud(settings)
    rollout = cloud.start_rollout(
        made.cluster_name,
        made.service_name,
        made.task_definition_arn,
        since=cloud.key_written(made.secret_name),
        image_digest=digest,
    )
    with _abandoned_on_failure(cloud, rollout, lab):
        task = cloud.await_rollout(
            rollout,
            log_group=made.log_group_name,
            deadline=settings.rollout_deadline.total_seconds(),
            log=log,
        )
    endpoint = Endpoint.of(lab, task.address, made.trust.ca)
    log(f"task {task.arn.rsplit('/', 1)[-1]} runs at {task.address}")
    if image and digest:
        check_digests(cloud, rollout, task, image, digest)
        log(f"it runs the image that was pushed, {digest}, as ECS and the registry say")
    with _abandoned_on_failure(cloud, rollout, lab):
        _await_gateway(cloud, rollout, task, endpoint, settings, made)
    log(f"the gateway is ready at {endpoint.url}")
    return RolledOut(endpoint=endpoint, image_digest=task.image_digest)


def check_digests(
    cloud: Cloud, rollout: Rollout, task: RunningTask, image: ImagePlan, digest: str
) -> None:
    """Hold that ECS runs, and the registry holds under the tag, what was pushed.

    Raises PermanentError with the digests otherwise. The service has no task then: nobody knows
    what an image is that we did not push.
    """
    try:
        _check_digests(cloud, task, image, digest)
    except PermanentError:
        try:
            cloud.stop_service(rollout.cluster, rollout.service)
        except LabError as second:
            run_log()(f"and its service could not be stopped: {second.message}")
        raise


def _check_digests(cloud: Cloud, task: RunningTask, image: ImagePlan, digest: str) -> None:
    held = cloud.held_image(names.repository_name(), image.tag)
    told = {
        "the running task has": task.image_digest or "a digest that ECS does not tell",
        "the registry holds": held.digest if held else "nothing",
    }
    if set(told.values()) == {digest}:
        return
    raise PermanentError(
        f"{image.reference} is not what was pushed: pushed was {digest}, "
        + ", ".join(f"{who} {what}" for who, what in told.items()),
        "It is being stopped. Find out who else pushes to the repository, remove the tag from it,"
        " and bring the lab up again.",
    )


@contextmanager
def _abandoned_on_failure(cloud: Cloud, rollout: Rollout, lab: str) -> Iterator[None]:
    log = run_log()
    try:
        yield
    except PermanentError as error:
        try:
            cloud.abandon_rollout(rollout)
        except LabError as second:
            log(f"and the failed rollout could not be stopped: {second.message}")
        else:
            serves = (rollout.previous or "").rsplit("/", 1)[-1]
            log(f"the rollout of {lab} failed; {f'{serves} serves on' if serves else 'none runs'}")
        raise error


def _await_gateway(
    cloud: Cloud,
    rollout: Rollout,
    task: RunningTask,
    endpoint: Endpoint,
    settings: Settings,
    made: Provisioned,
) -> None:
    try:
        await_ready(
            endpoint,
            cloud.gateway_key(made.secret_name),
            deadline=settings.readiness_deadline.total_seconds(),
            log=run_log(),
            alive=lambda: cloud.raise_if_failed(rollout, made.log_group_name),
        )
    except DeadlineError as error:
        words = cloud.last_words(made.log_group_name, task.arn)
        raise DeadlineError(error.message + words, error.hint) from error
