"""Gives a live lab another key: AWS makes it, it is rolled out, and tried. No key is ever shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adapters.gateway.client import list_models, open_client, refuses_key
from lab import names
from lab.endpoint import Endpoint
from lab.errors import LabError, PermanentError
from lab.record import LabRecord
from tasks.provision import Provisioned, apply_key
from tasks.records import change_record, require_record
from tasks.site import Site
from tasks.stage import run_log, stage


@stage("new key", run_name="new-key-{lab}")
def make_new_key(lab: str, site: Site) -> Provisioned:
    """On return the lab's secret holds a key that the serving task does not have yet.

    If an earlier run made a key and did not roll it out, that key is used: no second one is made.
    Returns the revision that serves now. Raises PermanentError, before anything is touched, for a
    lab without a record, a task or a secret.
    """
    record = require_record(lab, site)
    if record.trust is None:
        raise PermanentError(
            f"lab {lab} has no certificate on record", "Bring it up again with lab-up."
        )
    service, secret = site.service(lab), names.key_secret(lab)
    serving = service.describe()
    if serving is None or service.running_task() is None:
        raise PermanentError(
            f"no task of lab {lab} runs that could take another key", "Bring it up with lab-up."
        )
    # Terraform would make a deleted secret again, with another ARN than the serving revision reads:
    # only a whole apply corrects that.
    site.secrets.require(secret)
    written = site.secrets.written_at(secret)
    if written and service.serves_from_before(written):
        run_log()(f"lab {lab} has a new key already, which no task has: rolling that one out")
    else:
        record = change_record(lab, site, LabRecord.with_new_key)
        run_log()(f"lab {lab} gets key number {record.key_version}")
    apply_key(record, site)
    return Provisioned(task_definition_arn=serving["taskDefinition"], trust=record.trust)


@stage("check keys", run_name="check-keys-{lab}")
def check_keys(lab: str, site: Site, endpoint: Endpoint) -> None:
    """Check that the gateway at ``endpoint`` accepts the new key and answers the old one with 401.

    Raises PermanentError otherwise.
    """
    secret, log = names.key_secret(lab), run_log()
    with open_client(endpoint, site.secrets.require(secret)) as client:
        models = list_models(client)
    log(f"the new key opens the gateway of {lab}: {', '.join(models)}")
    before = site.secrets.read(secret, "AWSPREVIOUS")
    if before is None:
        log("the key before it is gone from the secret, and cannot be tried")
        return
    with open_client(endpoint, before) as client:
        if not refuses_key(client):
            raise PermanentError(
                f"the gateway of {lab} still takes the key from before",
                "Look at what serves there; run lab-rotate-key again.",
            )
    log("the key before it is refused")


@contextmanager
def explain_partial_rotation(lab: str) -> Iterator[None]:
    """Within this block the new key is rolled out; an error also says in which state the lab is.

    The new key stays: AWS has made it and nobody else knows it, and a task that ECS starts by
    itself reads it from now on.
    """
    try:
        yield
    except LabError as error:
        raise PermanentError(
            f"{error.message}\nThe secret of lab {lab} has the new key already. As long as the "
            "task from before serves, it takes only the old one; each task that starts from now "
            "on takes only the new one",
            "Run lab-rotate-key again, or lab-up: either rolls out the same new key. " + error.hint,
        ) from error
