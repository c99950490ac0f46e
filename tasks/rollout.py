"""Lets the new image take over: ECS reports that it runs, then the gateway that it is ready."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict

from adapters.aws.rollout import Rollout, start_rollout
from adapters.gateway.client import await_ready
from lab import names
from lab.endpoint import Endpoint
from lab.errors import DeadlineError, LabError, PermanentError
from lab.image.plan import PushedImage
from lab.live import RunningTask
from tasks.draft import note_in_report
from tasks.provision import Provisioned
from tasks.records import note_image
from tasks.site import Site
from tasks.stage import run_log, stage


class RolledOut(BaseModel):
    """Where the gateway answers, how to recognise it, and the digest of the image that it runs."""

    model_config = ConfigDict(frozen=True)

    endpoint: Endpoint
    image_digest: str | None


@stage("rollout", run_name="rollout-{lab}")
def roll_out(
    lab: str, site: Site, made: Provisioned, image: PushedImage | None = None
) -> RolledOut:
    """On return the newest revision serves, runs ``image``, and its gateway says that it is ready.

    A task that has an older key than the present one is replaced, even if its revision is the same.
    If the new task fails, the old one serves on, at its address, and the error holds ECS's reason
    and the last lines of the container's log. The service is stopped if the task runs another image
    than ``image``, or the registry holds another one under the tag; without ``image`` neither is
    checked. On return the lab's record names the image.
    """
    log, key_secret = run_log(), names.key_secret(lab)
    rollout = start_rollout(
        site.service(lab),
        made.task_definition_arn,
        since=site.secrets.written_at(key_secret),
        image_digest=image.digest if image else None,
    )
    with _abandoned_on_failure(rollout, lab):
        task = rollout.wait(deadline=site.settings.rollout_deadline.total_seconds(), log=log)
    endpoint = Endpoint.of(lab, task.address, made.trust.ca)
    log(f"task {task.arn.rsplit('/', 1)[-1]} runs at {task.address}")
    if image:
        check_digests(site, rollout, task, image)
        log(f"it runs the image that was pushed, {image.digest}, as ECS and the registry say")
    with _abandoned_on_failure(rollout, lab):
        _await_gateway(site, rollout, task, endpoint)
    log(f"the gateway is ready at {endpoint.url}")
    if image:
        note_image(lab, site, image)
    note_in_report(endpoint=endpoint.url, ca=endpoint.ca)
    return RolledOut(endpoint=endpoint, image_digest=task.image_digest)


def check_digests(site: Site, rollout: Rollout, task: RunningTask, image: PushedImage) -> None:
    """Check that ECS runs, and the registry holds under the tag, what was pushed.

    Otherwise raises PermanentError with the digests. The service has no task then, because nothing
    is known about an image that this project did not push.
    """
    try:
        _check_digests(site, task, image)
    except PermanentError:
        try:
            rollout.service.stop()
        except LabError as second:
            run_log()(f"and its service could not be stopped: {second.message}")
        raise


def _check_digests(site: Site, task: RunningTask, image: PushedImage) -> None:
    held = site.registry.held_image(image.tag)
    found = {
        "the running task has": task.image_digest or "a digest that ECS does not name",
        "the registry holds": held.digest if held else "nothing",
    }
    if set(found.values()) == {image.digest}:
        return
    raise PermanentError(
        f"{image.reference} is not what was pushed: pushed was {image.digest}, "
        + ", ".join(f"{who} {what}" for who, what in found.items()),
        "It is being stopped. Find out who else pushes to the repository, remove the tag from it,"
        " and bring the lab up again.",
    )


@contextmanager
def _abandoned_on_failure(rollout: Rollout, lab: str) -> Iterator[None]:
    log = run_log()
    try:
        yield
    except PermanentError as error:
        try:
            rollout.abandon()
        except LabError as second:
            log(f"and the failed rollout could not be stopped: {second.message}")
        else:
            serves = (rollout.previous or "").rsplit("/", 1)[-1]
            log(f"the rollout of {lab} failed; {f'{serves} serves on' if serves else 'none runs'}")
        raise error


def _await_gateway(site: Site, rollout: Rollout, task: RunningTask, endpoint: Endpoint) -> None:
    try:
        await_ready(
            endpoint,
            site.secrets.require(names.key_secret(rollout.service.lab)),
            deadline=site.settings.readiness_deadline.total_seconds(),
            log=run_log(),
            alive=rollout.raise_if_failed,
        )
    except DeadlineError as error:
        raise DeadlineError(
            error.message + rollout.service.last_words(task.arn), error.hint
        ) from error
